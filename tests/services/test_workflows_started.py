"""Snakemake, Prefect and Airflow start a job file: the real ones, with a stand-in for the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Their imports and the database of Prefect take minutes on a machine that does other things.
SECONDS = 900
pytestmark = [pytest.mark.services, pytest.mark.timeout(2 * SECONDS)]
WORKFLOWS = Path(__file__).parents[2] / "workflows"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a program of an environment, with a `daskumap` that ends as the name of its job file says."""
    home = tmp_path_factory.mktemp("home")
    command, seen = home / "bin" / "daskumap", home / "seen"
    command.parent.mkdir()
    summary = json.dumps({"job": "a", "state": "unchanged", "run": "a.zarr"})
    ends = "case $2 in *ends-*) end=${2##*ends-}; exit ${end%.yaml};; esac"
    command.write_text(f"#!/bin/sh\necho \"$@\" >> '{seen}'\necho '{summary}'\n{ends}\n")
    command.chmod(0o755)

    def call(folder, package, *words):
        place = Path(sys.prefix) / package / "bin"
        own = {
            "PATH": f"{command.parent}:{place}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home / "airflow"),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(SECONDS),
            "DO_NOT_TRACK": "1",
        }
        seen.write_text("")
        done = subprocess.run(
            words, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, timeout=SECONDS
        )
        return done, seen.read_text().splitlines()

    return call


def test_snakemake_runs_a_job_for_each_file(start, tmp_path):
    (tmp_path / "jobs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "jobs" / f"{name}.yaml").write_text("source: x.zarr\nrun: y.zarr\n")
    file = str(WORKFLOWS / "snakemake" / "Snakefile")
    done, seen = start(tmp_path, "snakemake", "snakemake", "-s", file, "--cores", "1")
    assert done.returncode == 0, done.stderr
    assert sorted(seen) == ["run jobs/a.yaml --json", "run jobs/b.yaml --json"]
    assert json.loads((tmp_path / "done" / "a.json").read_text())["state"] == "unchanged"


@pytest.fixture(scope="module")
def prefect(start, tmp_path_factory):
    """Run one job after another in a process, since the server that Prefect starts in it takes a minute."""
    code = """if True:
        import runpy, sys
        file, *jobs = sys.argv[1:]
        for job in jobs:
            sys.argv[1:], end = [job], 0
            try:
                runpy.run_path(file, run_name="__main__")
            except BaseException:
                end = 1
            print("ended", job, end)"""
    file = str(WORKFLOWS / "prefect" / "daskumap_nightly.py")
    jobs = [f"ends-{code}.yaml" for code in PREFECT_ENDS]
    return start(tmp_path_factory.mktemp("prefect"), "prefect", "python", "-c", code, file, *jobs)


PREFECT_ENDS = {0: 0, 9: 0, 3: 1}


@pytest.mark.parametrize("code", PREFECT_ENDS)
def test_prefect_runs_the_job_once_where_another_attempt_does_not_help(prefect, code):
    done, seen = prefect
    assert seen.count(f"run ends-{code}.yaml --json --quiet") == 1, done.stderr
    assert f"ended ends-{code}.yaml {PREFECT_ENDS[code]}" in done.stdout.splitlines(), done.stderr


def test_airflow_reads_the_dag(start, tmp_path):
    look = (
        "import runpy; dag = runpy.run_path('FILE')['dag']; job = dag.get_task('job');"
        "print(dag.schedule, dag.max_active_runs, job.retries, job.skip_on_exit_code, job.bash_command)"
    ).replace("FILE", str(WORKFLOWS / "airflow" / "daskumap_nightly.py"))
    done, _ = start(tmp_path, "apache-airflow", "python", "-c", look)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert said == "0 2 * * * 1 3 [9] exec daskumap run /srv/maps/nightly.yaml --log-json"
