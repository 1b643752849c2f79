"""The Slurm script on a Slurm of two nodes: whatever happens to a job, its map is that of a local fit."""

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import sha
from slurm_jobs import Job, command

import daskumap

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).parents[2] / "workflows" / "slurm_fit.sbatch"
# So many epochs take some seconds, in which something can happen.
EPOCHS = 3000
OPTIONS = ("--n-epochs", EPOCHS, "--seed", 1, "--no-report")
ONE_NODE = ("--cpus-per-task=2", "--mem-per-cpu=900", "--time=10")
TWO_NODES = ("--nodes=2", "--cpus-per-task=2", "--mem=1800", "--time=10")


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(3).normal(size=(700, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def source(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "x.zarr"
    zarr.create_array(str(path), shape=rows.shape, chunks=(200, 8), dtype=rows.dtype)[...] = rows
    return path


@pytest.fixture(scope="module")
def undisturbed(rows):
    run = daskumap.fit(
        rows, client="sequential", n_epochs=EPOCHS, random_state=1, report=False, progress=False
    )
    return sha(run.embedding)


@pytest.fixture
def submit(tmp_path, source):
    jobs = []

    def submit_(*options, place="run.zarr"):
        jobs.append(Job(tmp_path, *options, SCRIPT, source, tmp_path / place, *OPTIONS))
        return jobs[-1]

    yield submit_
    for job in jobs:
        command("scancel", job.number, check=False)
        job.wait_for_state("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


def bits(folder, place="run.zarr"):
    return sha(daskumap.open(folder / place).embedding)


def starts(job):
    """Return how often the job read its input: what goes on does not do so again."""
    return len(re.findall(r"daskumap  partition: \d+ tasks", job.log))


def test_one_node_with_memory_by_cpu(submit, tmp_path, undisturbed):
    job = submit(*ONE_NODE)
    assert job.end() == ("COMPLETED", "0:0"), job.log
    assert bits(tmp_path) == undisturbed


def test_two_nodes_with_memory_by_node_and_a_killed_worker(submit, tmp_path, undisturbed):
    job = submit(*TWO_NODES)
    job.wait_for("daskumap  initialize: 1 task")
    (key,) = tmp_path.glob(".daskumap-*/key.pem")
    assert key.parent.stat().st_mode & 0o077 == 0
    workers = job.processes("spawn_main")
    assert len(workers) >= 2
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert job.end() == ("COMPLETED", "0:0"), job.log
    assert bits(tmp_path) == undisturbed
    assert not list(tmp_path.glob(".daskumap-*"))
    until = time.monotonic() + 30
    while job.processes("dask"):  # each of them ends by itself
        assert time.monotonic() < until
        time.sleep(0.5)


@pytest.mark.parametrize("nodes", [ONE_NODE, TWO_NODES], ids=["one node", "two nodes"])
def test_a_job_whose_time_ends_stops_in_order_and_goes_on(submit, tmp_path, undisturbed, nodes):
    job = submit(*nodes)
    job.wait_for("daskumap  initialize: 1 task")
    # What Slurm does `--signal` before the end.
    command("scancel", "--batch", "--signal=USR1", job.number)
    job.wait_for("is queued again, and goes on then")
    assert "daskumap: stopped." in job.log
    assert job.end() == ("COMPLETED", "0:0"), job.log
    assert job.about("Restarts") == "1"
    assert starts(job) == 1
    assert bits(tmp_path) == undisturbed


def test_the_time_limit(submit, tmp_path, undisturbed):
    """Slurm itself tells the script that its time ends."""
    job = submit("--cpus-per-task=2", "--mem=1800", "--time=1", "--signal=B:USR1@50")
    job.wait_for("is queued again, and goes on then")
    # A slow machine would get no further in such a time, however often.
    command("scontrol", "update", f"JobId={job.number}", "TimeLimit=10")
    assert job.end() == ("COMPLETED", "0:0"), job.log
    assert int(job.about("Restarts")) >= 1
    assert bits(tmp_path) == undisturbed


def test_a_job_that_is_queued_again_by_its_user(submit, tmp_path, undisturbed):
    job = submit(*ONE_NODE)
    job.wait_for("daskumap  initialize: 1 task")
    command("scontrol", "requeue", job.number)
    job.wait_for_state("PENDING", "RUNNING", "COMPLETED")
    assert job.end() == ("COMPLETED", "0:0"), job.log
    assert job.about("Restarts") == "1"
    assert starts(job) == 1
    assert bits(tmp_path) == undisturbed


def test_a_cancelled_job_stays_so_until_it_is_submitted_again(submit, tmp_path, undisturbed):
    job = submit(*TWO_NODES)
    job.wait_for("daskumap  initialize: 1 task")
    command("scancel", job.number)
    assert job.end()[0] == "CANCELLED"
    assert "queued again" not in job.log
    assert not list(tmp_path.glob(".daskumap-*"))
    again = submit(*ONE_NODE)
    assert again.end() == ("COMPLETED", "0:0"), again.log
    assert starts(again) == 0
    assert bits(tmp_path) == undisturbed


def test_the_exit_code_is_that_of_the_fit(tmp_path):
    job = Job(tmp_path, *ONE_NODE, SCRIPT, tmp_path / "missing.zarr", tmp_path / "run.zarr")
    assert job.end() == ("FAILED", "3:0"), job.log
    job = Job(
        tmp_path,
        "--mem=600",
        "--time=10",
        "--cpus-per-task=1",
        SCRIPT,
        tmp_path / "x.zarr",
        tmp_path / "r",
        "--n-epochs=x",
    )
    assert job.end() == ("FAILED", "2:0"), job.log


def test_an_array_of_data_sets(tmp_path, source, rows):
    lines = [f"{source} {tmp_path / f'run-{number}.zarr'}" for number in (1, 2)]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    words = (SCRIPT, "list.txt", "--n-epochs", 5, "--seed", 1, "--no-report")
    Job(tmp_path, "--wait", "--array=1-2", "--time=10", "--cpus-per-task=1", "--mem-per-cpu=900", *words)
    run = daskumap.fit(rows, client="sequential", n_epochs=5, random_state=1, report=False, progress=False)
    assert {bits(tmp_path, f"run-{number}.zarr") for number in (1, 2)} == {sha(run.embedding)}


def test_an_array_that_is_longer_than_its_list(tmp_path, source):
    (tmp_path / "list.txt").write_text(f"{source} {tmp_path / 'run.zarr'}\n")
    job = Job(tmp_path, "--array=2", "--time=10", "--cpus-per-task=1", "--mem=500", SCRIPT, "list.txt")
    assert job.end() == ("FAILED", "2:0")
    (log,) = tmp_path.glob("job-*.log")
    assert "list.txt has no line 2" in log.read_text()
