"""The services of CI: each has a script and tests, and `.ci/services` leaves out what cannot be had."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = {path.name: path for path in (ROOT / ".ci" / "services.d").iterdir()}
TESTS = sorted((ROOT / "tests" / "services").glob("test_*.py"))


def test_each_script_has_tests_and_each_file_of_tests_a_script():
    assert {path.name.split("_")[1] for path in TESTS} == set(SCRIPTS)
    assert all(os.access(path, os.X_OK) for path in SCRIPTS.values())


def test_the_list_of_the_first_run_names_what_there_is():
    named = re.search(r"^services=\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)[1].split()
    assert "slurm_clusters" in named
    for name in named:
        assert any(path.stem == f"test_{name}" or path.stem.startswith(f"test_{name}_") for path in TESTS), (
            name
        )


@pytest.fixture
def elsewhere(tmp_path):
    """Make a place with services and tests of its own; return what runs its services there."""
    for folder in (".ci/services.d", "tests/services", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".ci" / "services").write_bytes((ROOT / ".ci" / "services").read_bytes())

    def write(name, text):
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)

    write("bin/pytest", 'file=${@: -1}; echo "ran ${file##*/}"; [[ $file != *wrong* ]]')
    for name in ("here", "wrong", "broken", "never"):
        (tmp_path / "tests" / "services" / f"test_{name}_one.py").touch()
    (tmp_path / "tests" / "services" / "test_here_two.py").touch()
    started = 'echo it begins; sleep 300 & echo "kill $!; echo stopped >>here.log" >"$FOLDER/here.stop"'
    write(".ci/services.d/here", started)
    write(".ci/services.d/wrong", "exit 0")
    write(".ci/services.d/broken", "exit 1")
    write(".ci/services.d/never", "exit 3")

    def run(*names, **variables):
        command = ["bash", tmp_path / ".ci" / "services", tmp_path / "bin", *names]
        environment = {**os.environ, **variables}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    return run


@pytest.mark.skipif(sys.platform != "linux", reason="services are those of a Linux machine")
@pytest.mark.parametrize(
    ("names", "code", "said"),
    [
        (["here", "never"], 0, ["ran test_here_one.py", "ran test_here_two.py", "never: cannot be had here"]),
        (["here_two"], 0, ["ran test_here_two.py"]),
        (["wrong", "here"], 1, ["FAILED with code 1: tests/services/test_wrong_one.py", "ran test_here_one"]),
        (["broken"], 1, ["broken: FAILED to start, with code 1"]),
    ],
)
def test_services_are_started_tested_and_stopped(elsewhere, tmp_path, names, code, said):
    done = elsewhere(*names)
    assert done.returncode == code, done.stdout + done.stderr
    assert all(text in done.stdout for text in said), done.stdout
    assert done.stdout.count("it begins") == ("here" in " ".join(names))
    assert (tmp_path / "here.log").exists() == ("here" in " ".join(names))
    assert ("test_here_one" in done.stdout) == ("here" in names)


def test_when_the_time_is_over_nothing_more_is_begun(elsewhere):
    done = elsewhere("here", SERVICES_SECONDS="0")
    assert done.returncode == 0
    assert "it begins" not in done.stdout
    assert "no time: tests/services/test_here_one.py is left out" in done.stdout
