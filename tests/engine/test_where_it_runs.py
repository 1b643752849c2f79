"""Whole fits where a fit once waited for ever, died, or ran somewhere else than its user meant."""

import json
import logging
import threading
import time

import numpy as np
import pytest
from conftest import sha, unstamped
from dask.distributed import Client, LocalCluster

import daskumap
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import ParameterError
from daskumap.testing.faults import Fault

OPTIONS = {"n_epochs": 5, "progress": False, "random_state": 1, "report": False}


@pytest.fixture(scope="module")
def expected(small):
    return sha(daskumap.fit(small, client="sequential", **OPTIONS).embedding)


@pytest.fixture(scope="module")
def cluster():
    """One worker with one thread, reachable by its address."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        memory_limit="4GB",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster


def tasks_run(cluster):
    return sum(prefix.state_counts["memory"] for prefix in cluster.scheduler.task_prefixes.values())


def test_the_active_client(small, expected, cluster):
    before = tasks_run(cluster)
    with Client(cluster):
        assert sha(daskumap.fit(small, **OPTIONS).embedding) == expected
    assert tasks_run(cluster) > before
    seen = tasks_run(cluster)
    assert sha(daskumap.fit(small, **OPTIONS).embedding) == expected
    assert tasks_run(cluster) == seen


def test_all_that_runs_takes_the_active_client_and_names_it(small, write, cluster, tmp_path, caplog):
    path, place, quiet = write(small), tmp_path / "run.zarr", {"progress": False}
    run = daskumap.fit(path, place, client="sequential", **OPTIONS)
    out = tmp_path / "stopped.zarr"
    with pytest.raises(Fault):
        run.transform(path, out, client=Stops(4 * 10**9), **quiet)
    with Client(cluster), caplog.at_level(logging.INFO, "daskumap"):
        for make in (
            lambda: daskumap.fit(run, tmp_path / "again.zarr", min_dist=0.3, progress=False, report=False),
            lambda: daskumap.transform(run, path, tmp_path / "placed.zarr", **quiet),
            lambda: daskumap.inverse_transform(run, run.embedding, tmp_path / "rows.zarr", **quiet),
            lambda: daskumap.resume(out, **quiet),
            lambda: daskumap.UMAP(n_epochs=5, random_state=1).fit(path),
        ):
            before = tasks_run(cluster)
            caplog.clear()
            make()
            assert tasks_run(cluster) > before
            assert caplog.text.count("The active Dask client is used, of tcp://") == 1
        with pytest.raises(ParameterError, match="threads is 2, and the workers of a cluster have their own"):
            daskumap.transform(run, path, threads=2, **quiet)
        with pytest.raises(ParameterError, match="threads is 2, and the workers of a cluster have their own"):
            daskumap.resume(place, threads=2, **quiet)


class Stops(SequentialEngine):
    """The driver dies when it comes to the rows' places."""

    def run(self, stage, todo, listener):
        if stage.name == "transform.place":
            raise Fault
        return super().run(stage, todo, listener)


def test_a_cluster(small, expected, cluster):
    assert sha(daskumap.fit(small, client=cluster, **OPTIONS).embedding) == expected


def test_threads_beside_a_client(small, cluster):
    with pytest.raises(ParameterError, match="threads is 2, and the workers of a cluster have their own"):
        daskumap.fit(small, client=cluster.scheduler_address, threads=2, **OPTIONS)


def test_a_closed_client(small, cluster):
    client = Client(cluster, set_as_default=False)
    client.close()
    with pytest.raises(ParameterError, match="The client is closed"):
        daskumap.fit(small, client=client, **OPTIONS)


def test_workers_that_come_later(small, expected):
    with LocalCluster(n_workers=0, threads_per_worker=1, processes=False, memory_limit="4GB") as cluster:
        timer = threading.Timer(1, cluster.scale, [1])
        timer.start()
        with Client(cluster, set_as_default=False) as client:
            assert sha(daskumap.fit(small, client=client, **OPTIONS).embedding) == expected


def fit_in_task(data, client=None):
    """Fit where this is called, and return a digest of the map."""
    return sha(daskumap.fit(data, client=client, **OPTIONS).embedding)


@pytest.mark.parametrize("given", ["nothing", "address"])
def test_a_fit_in_a_task(small, expected, cluster, given):
    """The worker has one thread, which the task has."""
    where = cluster.scheduler_address if given == "address" else None
    with Client(cluster, set_as_default=False) as client:
        assert client.submit(fit_in_task, small, where, pure=False).result(60) == expected


def test_two_fits_at_once(small, expected):
    """In threads of one process, three times."""
    for _ in range(3):
        found = []
        fits = [threading.Thread(target=lambda to: to.append(fit_in_task(small)), args=[found]) for _ in "ab"]
        for fit in fits:
            fit.start()
        for fit in fits:
            fit.join(120)
        assert found == [expected] * 2


FORK = """
import faulthandler, os, sys
import numpy as np
import daskumap
from conftest import sha, unstamped

data = np.load(sys.argv[1])
options = {"n_epochs": 5, "progress": False, "random_state": 1, "report": False}
fit = lambda: print(sha(daskumap.fit(data, **options).embedding), flush=True)
fit()
if (child := os.fork()) == 0:
    faulthandler.dump_traceback_later(60, exit=True)
    fit()
    os._exit(0)
os._exit(os.waitpid(child, 0)[1] >> 8)
"""


def test_a_fit_in_a_forked_child(small, expected, tmp_path, execute):
    np.save(tmp_path / "data.npy", small)
    code, out, err = execute(FORK, tmp_path / "data.npy")
    assert code == 0, err
    assert out.split() == [expected] * 2


def _serve(pipe):
    """Be a scheduler with a worker."""
    cluster = LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        memory_limit="4GB",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    )
    pipe.send(cluster.scheduler_address)
    time.sleep(600)


def test_a_scheduler_that_is_lost(small, write, tmp_path, forks, command):
    """The command line says so in one line, with an exit code of its own."""
    file, data, run = tmp_path / "scheduler.json", write(small), tmp_path / "run.zarr"
    here, there = forks.Pipe()
    scheduler = forks.Process(target=_serve, args=(there,), daemon=True)
    scheduler.start()
    file.write_text(json.dumps({"address": here.recv()}))
    # More epochs than there is time for until the scheduler is gone.
    driver, stderr = command("fit", "--scheduler", file, data, run, "--n-epochs", 1_000_000)
    while not stderr.exists() or "initialize" not in stderr.read_text():
        assert driver.is_alive()
        time.sleep(0.01)
    time.sleep(0.3)
    scheduler.kill()
    scheduler.join()
    driver.join(60)
    said = stderr.read_text()
    assert "Traceback" not in said
    assert "distributed" not in said
    assert (
        unstamped(said)
        .splitlines()[-1]
        .startswith("daskumap: The connection to the scheduler at tcp://127.0.0.1:")
    )
    assert driver.exitcode == 8
