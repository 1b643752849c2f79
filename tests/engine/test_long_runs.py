"""Many fits in one process, and workers that come and go."""

import gc
import os
import random
import signal
import sys
import threading
import time

import dask
import psutil
import pytest
import zarr
from conftest import sha
from distributed import Client, LocalCluster
from shipped_config import LOCAL

import daskumap
from daskumap.testing.datasets import uneven_clusters

QUICK = {"n_epochs": 5, "progress": False, "random_state": 1}


def usage():
    """Return what this process holds: bytes, threads, open files and sockets."""
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss, process.num_threads(), process.num_fds()


def fits(data, folder, count, client):
    """Fit again and again, each time into another store; return the usage after each."""
    found = []
    gc.collect()
    gc.freeze()  # What is there before takes a second at each collection.
    for number in range(count):
        place = None if folder is None else folder / f"{client}-{number}.zarr"
        options = {"threads": 1 if client == "sequential" else 2, "report": place is not None, **QUICK}
        run = daskumap.fit(data, place, client=client, **options)
        assert run.finished
        del run
        found.append(usage())
    gc.unfreeze()
    return found


@pytest.mark.parametrize("client", ["sequential", None])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_many_fits_in_one_process(small, tmp_path, where, client):
    found = fits(small, tmp_path if where == "disk" else None, 8, client)
    _compare(found, warm=4, growth=30_000_000)


@pytest.mark.slow
@pytest.mark.parametrize("client", ["sequential", None])
def test_twenty_fits_in_one_process(tmp_path, client):
    data = uneven_clusters(20_000, 32, 12, seed=3).rows()
    _compare(fits(data, tmp_path, 20, client), warm=5, growth=60_000_000)


def _compare(found, warm, growth):
    """Nothing grows after the first few fits but by noise: less than one input's worth of memory a fit.

    Memory that the allocator takes for a moment comes and goes; what leaks is in each of the last three.
    """
    memory, threads, files = zip(*found[warm - 1 :], strict=True)
    assert min(memory[-3:]) - memory[0] < growth, memory
    assert max(threads) <= threads[0] + 2, threads
    assert max(files) <= files[0] + 3, files


class Killer(threading.Thread):
    """Kills a random worker process every so often; one that its nanny knows, or it would not be replaced."""

    def __init__(self, cluster, seconds, seed):
        super().__init__(daemon=True)
        self.cluster, self.seconds, self.random = cluster, seconds, random.Random(seed)
        self.stopped, self.killed = threading.Event(), 0

    def run(self):
        while not self.stopped.wait(self.random.uniform(0.5, 1.5) * self.seconds):
            nannies = [nanny for nanny in self.cluster.workers.values() if nanny.status.name == "running"]
            if nannies:
                os.kill(self.random.choice(nannies).pid, signal.SIGKILL)
                self.killed += 1

    def stop(self):
        self.stopped.set()
        self.join()


def soak(tmp_path, rows, columns, seconds, workers, **options):
    """Fit while workers are killed; return figures, having compared the bits."""
    data = uneven_clusters(rows, columns, 12, seed=3).rows()
    path = tmp_path / "data.zarr"
    zarr.create_array(str(path), data=data, chunks=(max(256, rows // 16), columns))
    options = {"progress": False, "random_state": 1, **options}
    whole = daskumap.fit(path, tmp_path / "whole.zarr", client="sequential", **options)
    with (
        dask.config.set(dask.config.merge({"distributed": dask.config.get("distributed")}, LOCAL)),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit="4GB",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        killer, started, attempts = Killer(cluster, seconds, 1), time.monotonic(), 0
        killer.start()
        try:
            while True:
                attempts += 1
                try:
                    run = daskumap.fit(path, tmp_path / "run.zarr", client=client, **options)
                    break
                except daskumap.DaskumapError as error:
                    if attempts == 20 or "workers died while they ran it" not in str(error):
                        raise
        finally:
            killer.stop()
        took = time.monotonic() - started
    assert sha(run.embedding) == sha(whole.embedding)
    assert run.finished
    assert daskumap.verify(tmp_path / "run.zarr") == {}
    assert killer.killed > 0
    figures = {"rows": rows, "seconds": round(took, 1), "killed": killer.killed, "attempts": attempts}
    figures["undisturbed"] = round(whole.report["seconds"], 1)
    return figures


@pytest.mark.slow
def test_a_fit_whose_workers_are_killed_at_random(tmp_path, capsys):
    figures = soak(tmp_path, 100_000, 64, 5.0, 2, n_epochs=1000, checkpoint_every=25)
    with capsys.disabled():
        sys.stdout.write(f"\nsoak: {figures}\n")
    assert figures["killed"] >= 5
