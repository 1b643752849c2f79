"""A job that is killed with signal 9 at any stage: the next call gives the same bytes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import zarr

import daskumap

JOB = """source: data.zarr
run: maps/{date}.zarr
parameters: {n_neighbors: 5, n_epochs: 20, random_state: 1, report: false}
threads: 2
retention: 1
results: [{path: 'map.csv'}, {path: 'map.npy'}]
"""


def started(folder):
    command = [sys.executable, "-m", "daskumap", "run", str(folder / "job.yaml"), "--json", "--log-json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_at(folder, is_it):
    """Start a job and kill it at an event; all lines before are of JSON."""
    process = started(folder)
    for line in process.stderr:
        if is_it(json.loads(line)):
            process.kill()
            break
    process.communicate()
    return process.returncode


@pytest.mark.processes
def test_a_job_that_was_killed_goes_on_to_the_same_bytes(tmp_path, job_rows):
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.yaml").write_text(JOB)
        zarr.create_array(tmp_path / name / "data.zarr", data=job_rows, chunks=(100, 6))
    daskumap.run_job(tmp_path / "calm" / "job.yaml", progress=False)
    killed = tmp_path / "killed"
    for stage in ("neighbors", "layout"):
        assert (
            killed_at(killed, lambda at, stage=stage: at["event"] == "stage" and at["stage"] == stage) == -9
        )
    assert len(list((killed / "maps").glob("*.zarr"))) == 1
    last = started(killed)
    said, log = last.communicate()
    assert last.returncode == 0, log
    events = [json.loads(line) for line in log.splitlines()]
    assert {"job", "stage", "run"} <= {at["event"] for at in events}
    assert all({"time", "level", "host", "run", "event", "text"} <= at.keys() for at in events)
    assert json.loads(said)["state"] == "finished"
    for name in ("map.csv", "map.npy"):
        assert (killed / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    assert np.load(killed / "map.npy").shape == (300, 2)
    assert sorted(path.name for path in killed.iterdir()) == sorted(
        ["data.zarr", "job.yaml", "map.csv", "map.npy", "maps"]
    )
