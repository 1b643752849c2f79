"""The command as a process: streams that are missing, closed or full, and what is logged."""

import io
import logging
import os
import subprocess
import sys

import pytest
from conftest import unstamped

from daskumap.cli.output import showing_messages

# The command line with a fit that only tells how far it is; what it opens takes the lowest free number.
STAND_IN = """if True:
    import logging, os, sys
    import daskumap
    from daskumap.errors import ParameterError
    from daskumap.report.progress import choose_progress

    class Run:
        report, params = {"measures": {}}, {"transform_mode": "embedding"}

        def __str__(self):
            return "the report"

    def fit(source, run, *, client, progress, **params):
        shown = choose_progress(progress)
        log = logging.getLogger("daskumap.api")
        log.info("Nothing was left to do.")
        log.warning("Something is odd.")
        if source == "wrong":
            raise ParameterError("This is wrong.")
        if source == "noisy":
            with open(run, "w"):
                os.write(2, b"from a library")
        for step in ("scan", "partition.cells", "partition.assign"):
            shown.start(step, 2, 0)
            shown.advance(1.5)
            shown.finish()
        shown.close()
        return Run()

    daskumap.fit = fit
    from daskumap.cli.main import main
    sys.exit(main(sys.argv[1:]))
"""


def command(*arguments, redirect="", **streams):
    """Run the command with the shell's redirections."""
    shell = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", STAND_IN, *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(shell, text=True, timeout=120, check=False, **streams)


@pytest.fixture
def gone():
    """The writing end of a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def test_results_and_messages_are_apart():
    done = command("fit", "x", "run.zarr")
    assert done.returncode == 0
    assert done.stdout == "the report\n\nembedding            run.zarr/embedding\n"
    first, second, *stages = unstamped(done.stderr).splitlines()
    assert (first, second) == ("daskumap  Nothing was left to do.", "daskumap  Something is odd.")
    assert [line.split(",")[0] for line in stages] == [
        "daskumap  scan: 2 tasks",
        "daskumap  partition: 4 tasks",
    ]


def test_quiet_leaves_warnings():
    done = command("fit", "x", "run.zarr", "--quiet")
    assert (done.returncode, done.stdout) == (0, "")
    assert unstamped(done.stderr) == "daskumap  Something is odd.\n"


def test_without_standard_error():
    done = command("fit", "x", "run.zarr", redirect="2>&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the report")


def test_without_standard_error_the_code_of_an_error_stays():
    assert command("fit", "wrong", "run.zarr", redirect="2>&-").returncode == 2


def test_without_any_stream():
    done = command("fit", "x", "run.zarr", redirect="<&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_libraries_say_does_not_go_into_files_of_the_run(tmp_path):
    assert command("fit", "noisy", str(tmp_path / "chunk"), redirect="2>&-").returncode == 0
    assert (tmp_path / "chunk").read_bytes() == b""


def test_a_reader_of_messages_that_left(gone):
    done = command("fit", "x", "run.zarr", stderr=gone)
    assert done.returncode == 0
    assert done.stdout.startswith("the report")


def test_a_reader_of_results_that_left(gone):
    done = command("fit", "x", "run.zarr", stdout=gone)
    assert done.returncode == 0
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_results_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        done = command("fit", "x", "run.zarr", stdout=full)
    assert done.returncode == 1
    *_, last = unstamped(done.stderr).splitlines()
    assert last.startswith("daskumap: The result cannot be written to standard output: [Errno 28]")
    assert "Traceback" not in done.stderr


def test_messages_follow_standard_error(monkeypatch):
    """A live display takes the place of standard error while it draws, and writes above itself."""
    log = logging.getLogger("daskumap.test")
    with showing_messages(quiet=False):
        monkeypatch.setattr(sys, "stderr", later := io.StringIO())
        log.info("seen")
        log.debug("not seen")
    log.info("not seen either")
    assert unstamped(later.getvalue()) == "daskumap  seen\n"
    assert logging.getLogger("daskumap").handlers == []
