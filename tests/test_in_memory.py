"""A fit of an array in memory without a run store: what it touches and copies, and which engine runs."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref

import numpy as np
import pytest
from conftest import sha
from zarr.storage import MemoryStore

import daskumap
from daskumap import session
from daskumap.engine import clusters
from daskumap.engine.clusters import SMALL_ROWS, make_engine
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import StoreError
from daskumap.sources.memory import MemorySource
from daskumap.store import schema
from daskumap.store.places import Held

QUICK = {"n_epochs": 5, "random_state": 1, "progress": False}

# Reports what binds a socket, and what a second fit, when libraries and kernels are loaded, changes on disk.
AUDITED = """if True:
    import json, os, sys

    CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    changed, bound, warm = [], [], False

    def hook(event, args):
        if event == "socket.bind":
            bound.append(str(args[1]))
        if not warm:
            return
        # Where it stands in /proc, a peak of memory is forgotten.
        if event == "open" and args[2] & WRITING and not str(args[0]).startswith("/proc/"):
            changed.append([event, str(args[0])])
        elif event in CHANGES or event == "subprocess.Popen" or event.startswith("tempfile."):
            changed.append([event, str(args[0])])

    sys.addaudithook(hook)
    import daskumap
    from daskumap.testing.datasets import uneven_clusters

    X = uneven_clusters(600, 8, 4, seed=1).rows()
    options = dict(n_epochs=5, progress=False, random_state=1)
    clients, urls = (None, "threads"), []
    for client in clients:
        daskumap.fit(X, client=client, **options)
    warm = True
    for client in clients:
        run = daskumap.fit(X, client=client, **options)
        str(run), run.embedding[:], run.knn()
        urls.append(run.path)
    loaded = [name for name in ("dask", "distributed", "tornado", "matplotlib") if name in sys.modules]
    print(json.dumps({"changed": changed, "bound": bound, "loaded": loaded, "urls": urls}))
"""


def test_no_file_no_server_no_dask(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", AUDITED],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [url.startswith("memory://") for url in found.pop("urls")] == [True, True]
    assert found == {"changed": [], "bound": [], "loaded": []}
    assert not list(tmp_path.iterdir())


class Watched(MemorySource):
    """An array in memory that remembers which of the blocks that were read are copies."""

    def __init__(self, array):
        super().__init__(array)
        self.blocks, self.copied = 0, 0

    def read(self, *args):
        block = super().read(*args)
        self.blocks += 1
        self.copied += not np.shares_memory(block, self._array)
        return block


@pytest.mark.parametrize("client", ["sequential", "threads"])
@pytest.mark.parametrize(
    ("metric", "dtype", "copies"),
    [("euclidean", "f4", False), ("bit_hamming", "u1", False), ("cosine", "f8", True)],
)
def test_the_input_is_not_copied(clustered, client, metric, dtype, copies):
    """Blocks are views of the caller's memory where its type is the one that kernels work on."""
    source = Watched(np.abs(clustered[:600]).astype(dtype))
    run = daskumap.fit(source, metric=metric, client=client, keep="all", report=False, **QUICK)
    assert source.blocks > 0
    assert bool(source.copied) == copies
    assert isinstance(run.store.place, Held)
    assert not run.store.has(schema.SOURCE.name)


def test_blocks_are_views_however_many_are_read(fit, clustered, block_sizes):
    block_sizes(row_block=250)
    source = Watched(clustered[:1100])
    run = fit(source, report=True, **QUICK)
    assert source.blocks >= 5
    assert source.copied == 0
    assert sha(run.embedding) == sha(fit(clustered[:1100], **QUICK).embedding)


def test_the_input_goes_with_its_owner(small):
    data = small.copy()
    alive = weakref.ref(data)
    run = daskumap.fit(data, client="sequential", report=False, keep="embedding", **QUICK)
    del data
    gc.collect()
    assert alive() is None
    assert np.isfinite(run.embedding[:]).all()


def test_a_model_keeps_the_input_while_it_lives(small):
    data = small.copy()
    alive = weakref.ref(data)
    run = daskumap.fit(data, client="sequential", report=False, **QUICK)
    del data
    gc.collect()
    assert alive() is not None
    del run
    gc.collect()
    assert alive() is None


def test_an_array_in_memory_needs_no_temporary_folder(small, tmp_path, monkeypatch, write):
    """What does is refused before anything is read, with what to do."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    options = {"client": "sequential", "report": False, **QUICK}
    assert daskumap.fit(small, **options).finished
    path = write(small)
    with pytest.raises(StoreError, match=r"There is no temporary folder .*gone.* with run=, or set TMPDIR"):
        daskumap.fit(path, **options)
    assert daskumap.fit(path, tmp_path / "run.zarr", **options).finished


def test_a_run_that_memory_does_not_hold_goes_to_a_folder(small, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    options = {"client": "sequential", "report": False, **QUICK}
    here = daskumap.fit(small, **options)
    monkeypatch.setattr(session, "MEMORY_SHARE", 0.0)
    there = daskumap.fit(small, **options)
    assert here.path.startswith("memory://")
    assert there.path.startswith(str(tmp_path))
    assert sha(there.embedding) == sha(here.embedding)


# Which engine runs it.


@pytest.mark.parametrize(
    ("rows", "threads", "engine"),
    [
        (400, None, SequentialEngine),
        (SMALL_ROWS, None, SequentialEngine),
        (SMALL_ROWS + 1, None, ThreadsEngine),
        (10**9, None, ThreadsEngine),
        (400, 2, ThreadsEngine),
        (None, None, ThreadsEngine),
    ],
)
def test_few_rows_run_one_task_at_a_time(rows, threads, engine):
    assert type(make_engine(None, threads=threads, rows=rows)) is engine
    assert type(make_engine("threads", threads=threads, rows=rows)) is ThreadsEngine


class Listener:
    """Notes which threads of an engine there are while a run is under way."""

    def __init__(self):
        self.threads = set()

    def start(self, stage, tasks, done):
        """Do nothing."""

    def advance(self, done):
        """Look at the threads."""
        self.threads |= {t.name.partition("_")[0] for t in threading.enumerate() if "task" in t.name}

    def finish(self):
        """Do nothing."""


def test_the_engine_suits_the_number_of_rows(small, monkeypatch):
    bits = []
    for limit, threads in ((len(small), set()), (len(small) - 1, {"daskumap-task"})):
        monkeypatch.setattr(clusters, "SMALL_ROWS", limit)
        listener = Listener()
        run = daskumap.fit(small, report=False, **QUICK | {"progress": listener})
        assert listener.threads == threads
        bits.append(sha(run.embedding))
    assert bits[0] == bits[1]


def test_a_finished_run_in_a_given_store(fit, small):
    """It is found whole beside its picture, and is looked at without a copy of its input."""
    store = MemoryStore()
    run = fit(small, store, report=True)
    assert sha(fit(small, store, report=True).embedding) == sha(run.embedding)
    assert daskumap.verify(store) == {}
