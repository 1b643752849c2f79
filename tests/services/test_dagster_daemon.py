"""Dagster's own daemon fires the schedule, its run is killed, and the map has the bits of a local fit."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

import daskumap

# A machine that does other things takes minutes for what takes seconds on one that is idle.
pytestmark = [pytest.mark.services, pytest.mark.timeout(2000)]
WAIT = 600
dagster = pytest.importorskip("dagster")

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# Segments of the layout that a kill may fall between.
PARAMETERS = {
    "n_neighbors": 5,
    "n_epochs": 3000,
    "checkpoint_every": 500,
    "random_state": 7,
    "report": False,
}
DEFINITIONS = """
import time
from pathlib import Path
from daskumap.dagster import definitions
from daskumap.dagster.logs import Stages

HOLD = Path(__file__).with_name("hold")


class Waits(Stages):
    def advance(self, done):
        while self.step == "layout" and done >= 2 and HOLD.exists():
            time.sleep(0.1)  # until it is killed


import daskumap.dagster.assets

daskumap.dagster.assets.Stages = Waits

defs = definitions(Path(__file__).with_name("job.yaml"), schedule="* * * * *", sensor=False)
"""


@contextlib.contextmanager
def daemon(command, folder):
    """Start the daemon, and stop it in the end as Ctrl+C does; yield a file with its output."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    output = folder / "daemon.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {command}"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield output
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(what, seconds, output):
    """Wait until something is true, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what.__doc__} did not come within {seconds} s:\n{output.read_text()[-4000:]}")


def test_the_schedule_fires_and_a_killed_run_is_gone_on_with(tmp_path):
    from daskumap.dagster.runs import PROCESS

    rows = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    zarr.save_array(str(tmp_path / "X.zarr"), rows)
    job = {"source": "X.zarr", "run": "map.zarr", "parameters": PARAMETERS}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    (tmp_path / "dagster_job.py").write_text(DEFINITIONS)
    (tmp_path / "hold").touch()
    shutil.copytree(ROOT / "workflows/dagster", tmp_path / "dagster")
    expected = daskumap.fit(rows, client="sequential", progress=False, **PARAMETERS).embedding[:]
    instance = dagster.DagsterInstance.from_config(str(tmp_path / "dagster"))

    def at_the_layout():
        """A checkpoint of the layout"""
        with contextlib.suppress(daskumap.DaskumapError):
            return daskumap.open(tmp_path / "map.zarr").status()["layout"]

    def retried():
        """A second attempt that succeeds"""
        runs = instance.get_runs(dagster.RunsFilter(statuses=[dagster.DagsterRunStatus.SUCCESS]))
        return next((run for run in runs if run.parent_run_id == killed.run_id), None)

    with daemon('DAGSTER_HOME="$PWD/dagster" dagster-daemon run -f dagster_job.py', tmp_path) as output:
        before = wait_for(at_the_layout, WAIT, output)
        (killed,) = instance.get_runs(dagster.RunsFilter(statuses=[dagster.DagsterRunStatus.STARTED]))
        os.kill(json.loads(killed.tags[PROCESS])["pid"], signal.SIGKILL)
        (tmp_path / "hold").unlink()
        second = wait_for(retried, WAIT, output)
    assert killed.tags["dagster/schedule_name"] == "job_schedule"
    assert instance.get_run_by_id(killed.run_id).status == dagster.DagsterRunStatus.FAILURE
    # On a slow machine the run of the next minute goes on with it, before the other attempt does.
    others = [run.run_id for run in instance.get_runs() if run.run_id != killed.run_id]
    assert second.run_id in others
    told = [record.user_message for run_id in others for record in instance.all_logs(run_id)]
    (line,) = [text for text in told if text.startswith("layout: ") and "earlier attempt" in text]
    assert int(line.split("tasks, ")[1].split()[0]) >= before
    assert "neighbors: 1 task" not in told
    assert np.array_equal(daskumap.open(tmp_path / "map.zarr").embedding[:], expected)


def blocks(language):
    """Return the blocks of the page in a language, by the name that stands beside it."""
    found, name, lines = [], None, []
    for line in (ROOT / "docs/dagster.md").read_text().splitlines():
        if line.startswith("```"):
            if name is not None and name[0] == language:
                found.append(("".join(name[1:]), "\n".join(lines) + "\n"))
            name, lines = (line[3:].split() or None) if name is None else None, []
        else:
            lines.append(line)
    return found


def test_the_page_works_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    python, yaml = dict(blocks("python")), dict(blocks("yaml"))
    install, validate, start, once = [text.strip() for _, text in blocks("console")]
    assert install == "pip install 'daskumap[dagster]'"
    assert python["dagster_job.py"] == (ROOT / "workflows/dagster_job.py").read_text()
    assert yaml["dagster/dagster.yaml"] == (ROOT / "workflows/dagster/dagster.yaml").read_text()
    exec(python[""], {})
    (tmp_path / "job.yaml").write_text(yaml[""])
    (tmp_path / "dagster_job.py").write_text(python["dagster_job.py"])
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster/dagster.yaml").write_text(yaml["dagster/dagster.yaml"])
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for command in (validate, once):
        done = subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=WAIT
        )
        assert done.returncode == 0, done.stderr[-3000:]
    (made,) = (tmp_path / "maps").glob("*.zarr")
    digits = daskumap.fit(
        zarr.open_array("digits.zarr")[:], client="sequential", progress=False, report=False, random_state=42
    )
    assert np.array_equal(daskumap.open(made).embedding[:], digits.embedding[:])
    instance = dagster.DagsterInstance.from_config(str(tmp_path / "dagster"))
    assert not instance.get_settings("telemetry")["enabled"]
    first = {run.run_id for run in instance.get_runs()}

    def by_the_sensor():
        """A run of the sensor"""
        runs = instance.get_runs(dagster.RunsFilter(statuses=[dagster.DagsterRunStatus.SUCCESS]))
        return next((run for run in runs if run.run_id not in first), None)

    with daemon(start, tmp_path) as output:
        assert wait_for(by_the_sensor, WAIT, output).tags["dagster/sensor_name"] == "job_sensor"
    assert len(list((tmp_path / "maps").glob("*.zarr"))) == 1
