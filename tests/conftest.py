"""What several test files share: data sets, clusters, and a fit in one line."""

import dataclasses
import hashlib
import logging
import multiprocessing
import os
import re
import shutil
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import dask
import distributed.utils
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from scipy.sparse import csr_matrix
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore

import daskumap
import daskumap.cli.main
from daskumap.engine.clusters import make_engine
from daskumap.engine.machine import parse_memory
from daskumap.engine.sequential import SequentialEngine
from daskumap.jobs import dated
from daskumap.pipeline import FIT
from daskumap.report.progress import choose_progress
from daskumap.request import make_request
from daskumap.run import Run
from daskumap.session import fit_request
from daskumap.stages.map import initialize
from daskumap.stages.shared import micro, start
from daskumap.store import lock
from daskumap.store.lock import alone
from daskumap.store.places import Held, find_place
from daskumap.store.run import RunStore
from daskumap.testing.datasets import digits, uneven_clusters

QUIET = {"client": "sequential", "progress": False, "random_state": 1}
# Behaviour does not depend on how long the layout runs; None is the number that users get.
FEW_EPOCHS = 20
SNAPSHOTS = Path(__file__).parent / "snapshots"

# Dozens of processes import the package: none compiles its source again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Hundreds of fits write hundreds of small files each: in memory they take two thirds of the CPU.
SHARED_MEMORY, ROOM = Path("/dev/shm"), 4 << 30


def pytest_configure(config):
    """Put temporary folders of tests into memory where there is room, as a container may have none."""
    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(SHARED_MEMORY))


def unstamped(said):
    """Return lines of a log without when, where and of which run."""
    return re.sub(r"^\S+ [A-Z]+ \S+ .*?(?=daskumap(?:: |  ))", "", said, flags=re.MULTILINE)


def forget(place, *stages):
    """Let a finished run be one that stopped without these steps; return its run store."""
    store = RunStore.open(find_place(place))
    steps = {step.name for step, _ in FIT} - set(stages)
    kept = {step: store.ledger.tasks(step) for step in steps}
    with alone(store) as turn:
        store.ledger.begin(turn.generation, kept, store.ledger.freed())
    return RunStore.open(find_place(place))


def in_memory(place):
    """Return a store in memory with what a folder holds: what is done there takes a third of the time."""
    files = [path for path in Path(place).rglob("*") if path.is_file()]
    return MemoryStore(
        {path.relative_to(place).as_posix(): cpu.Buffer.from_bytes(path.read_bytes()) for path in files}
    )


def copied(store):
    """Return a store in memory with what another one holds."""
    return MemoryStore(dict(store._store_dict))


def damaged(content, kind):
    """Return what is left of a file whose bit is flipped, or that was cut short; None if it was deleted."""
    flipped = content[:9] + bytes([content[9] ^ 16]) + content[10:]
    return {"flipped": flipped, "truncated": content[: len(content) // 2], "deleted": None}[kind]


def damage(path, kind="flipped"):
    """Damage a file."""
    left = damaged(path.read_bytes(), kind)
    path.unlink() if left is None else path.write_bytes(left)


def damage_in(store, key, kind="flipped"):
    """Damage an object of a store in memory."""
    left = damaged(store._store_dict.pop(key).to_bytes(), kind)
    if left is not None:
        store._store_dict[key] = cpu.Buffer.from_bytes(left)


def is_held(place):
    """Return whether a driver has a run store, or died without giving it back."""
    return bool(RunStore.open(find_place(place), mode="r").documents.members("lock"))


def newest_record(store, stage, task):
    """Return the key of a task's newest record in a store in memory."""
    return max(key for key in store._store_dict if re.fullmatch(f"ledger/.*/{stage}/{task:08d}.json", key))


def sha(array):
    """Return a digest of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array[...]).tobytes()).hexdigest()[:16]


@pytest.fixture(scope="session")
def clustered():
    """6,000 x 16: several cells, and with the default memory several partitions for two threads."""
    return uneven_clusters(6000, 16, 12, seed=3).rows()


@pytest.fixture(scope="session")
def pictures():
    """The 1,797 digits."""
    return digits().rows()


@pytest.fixture(scope="session")
def small():
    """400 x 8: the smallest that is worth a map, for behaviour."""
    return uneven_clusters(400, 8, 4, seed=1).rows()


@pytest.fixture(scope="session")
def umap_learn_graphs():
    """What tests/stored/umap_learn_graphs.py made: the graph of 120 rows of `small`, and of 40 new ones."""
    with np.load(Path(__file__).parent / "stored/umap_learn_graphs.npz") as found:
        made = {"rhos": found["rhos"]}
        for name, rows in (("graph", 120), ("new", 40)):
            parts = tuple(found[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
            made[name] = csr_matrix(parts, shape=(rows, 120))
        return made


@pytest.fixture(scope="session")
def client_1x1():
    yield from _client(1)


@pytest.fixture(scope="session")
def client_1x2():
    yield from _client(2)


def _client(threads):
    # Without a time to live: a machine that pauses must not lose its worker.
    with dask.config.set({"distributed.scheduler.worker-ttl": None}):
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            memory_limit="4GB",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="session")
def forks():
    """A context whose processes begin with everything imported, which takes each of them two seconds.

    scikit-learn too, which the first task of a process would load.
    """
    context = multiprocessing.get_context("forkserver")
    distributed.utils.get_mp_context()
    context.set_forkserver_preload(["conftest", "sklearn.cluster", "warm"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server knows no other
        patch.setattr(distributed.utils, "_forkserver_preload_set", True)
        with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
            yield context


@pytest.fixture
def command(forks, tmp_path):
    """Start the command line in a process; return it, and the file of what it says on standard error."""

    def start(*arguments):
        folder = tmp_path / f"said-{arguments[0]}"
        process = forks.Process(target=_be_the_command, args=([str(word) for word in arguments], folder))
        process.start()
        return process, folder / "stderr"

    return start


@pytest.fixture
def execute(forks, tmp_path):
    """Run Python code in a process; return its exit code, and what it says on standard output and error."""

    def run(code, *arguments):
        process = forks.Process(target=_execute, args=(code, arguments, tmp_path / "said"))
        process.start()
        process.join(120)
        return process.exitcode, *((tmp_path / "said" / name).read_text() for name in ("stdout", "stderr"))

    return run


def _be_the_command(arguments, folder):
    say_into(folder)
    sys.exit(daskumap.cli.main.main(arguments))


def _execute(code, arguments, folder):
    say_into(folder)
    sys.argv[1:] = map(str, arguments)
    exec(code, {"__name__": "__main__"})


def say_into(folder):
    """Let this process say into files."""
    folder.mkdir(exist_ok=True)
    for name in ("stdout", "stderr"):
        with open(folder / name, "w") as file:
            os.dup2(file.fileno(), getattr(sys, name).fileno())


@pytest.fixture(scope="session")
def client_processes(forks):
    """Two worker processes: rounds that the engine runs, ranges written at the same time."""
    # Without a time to live: a machine that pauses must not lose its workers.
    with dask.config.set({"distributed.scheduler.worker-ttl": None}):
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def fit(request, block_sizes):
    """`daskumap.fit`, quiet, sequential, seeded, of few epochs, without a report and with all scratch, unless
    told otherwise.

    `client` may also be "1x1" or "1x2" for the session's clusters, or an engine.
    """

    def fit_(data, run=None, restart=False, trust_input=False, **options):
        options = {**QUIET, "n_epochs": FEW_EPOCHS, "keep": "all", "report": False, **options}
        if options["client"] in ("1x1", "1x2"):
            options["client"] = request.getfixturevalue(f"client_{options['client']}")
        if not block_sizes.changes:
            return daskumap.fit(data, run, restart=restart, trust_input=trust_input, **options)
        memory = parse_memory(options.pop("memory", None))
        engine = make_engine(options.pop("client"), memory, options.pop("threads", None))
        shown = choose_progress(options.pop("progress"))
        asked = make_request(data, options, options.pop("partitions", None))
        asked = dataclasses.replace(asked, adjust=block_sizes.adjust)
        try:
            return Run(fit_request(asked, run, engine, shown, restart, trust_input=trust_input))
        finally:
            engine.close()

    return fit_


@pytest.fixture(scope="session")
def fit_apart(tmp_path_factory, forks):
    """As `fit`, in a process without what other tests left in memory: what it takes is what a fit takes."""
    with ProcessPoolExecutor(1, forks) as process:

        def fit_(data, **options):
            place = tmp_path_factory.mktemp("apart") / "run.zarr"
            process.submit(_fit_quietly, data, place, options).result()
            return daskumap.open(place)

        yield fit_


def _fit_quietly(data, place, options):
    daskumap.fit(data, place, **{**QUIET, **options})


@pytest.fixture
def fit_bits(fit):
    """Fit, and return a digest of the embedding."""
    return lambda *args, **options: sha(fit(*args, **options).embedding)


@pytest.fixture
def sequential():
    return SequentialEngine(4 * 10**9)


class BlockSizes:
    """Overrides sizes that may not matter, as in `block_sizes(row_block=700)`.

    `chunks` is what one task owns of the vertices, in chunks: two tasks may not share one.
    """

    def __init__(self):
        self.chunks, self.changes = None, {}

    def __call__(self, chunks=None, **sizes):
        self.chunks, self.changes = chunks, {**sizes, **({"partition_rows": 0} if chunks else {})}

    def adjust(self, made):
        """Return the sizes with what was overridden."""
        rows = {"partition_rows": self.chunks * made.vertex_chunk} if self.chunks else {}
        return dataclasses.replace(made, **{**self.changes, **rows})


@pytest.fixture
def block_sizes():
    return BlockSizes()


@pytest.fixture
def held(monkeypatch):
    """A run store in memory, treated as one that other processes reach."""
    monkeypatch.setattr(Held, "shared", True)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    return MemoryStore()


@pytest.fixture
def few_micro_cells(monkeypatch):
    """The spectral start goes by 300 micro-cells, from 1,000 rows on: by 2,000 it takes two seconds."""
    for module in (start, initialize):
        monkeypatch.setattr(module, "MICRO_CELLS", 300)
    for module in (micro, initialize):
        monkeypatch.setattr(module, "EXACT_ROWS", 1000)


@pytest.fixture
def write(tmp_path):
    """Write an array to a Zarr array of its own; returns the path."""

    def write_(data, name="x.zarr", **options):
        options = {"chunks": (min(500, len(data)), data.shape[1]), **options}
        array = zarr.create_array(str(tmp_path / name), shape=data.shape, dtype=data.dtype, **options)
        array[...] = data
        return tmp_path / name

    return write_


def snapshot(name, text, update=False):
    """Compare with tests/snapshots/<name>; delete the file to take a new one."""
    path = SNAPSHOTS / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"took a new snapshot {path}: read it, and commit it")
    assert text == path.read_text()


def pytest_ignore_collect(collection_path, config):
    """Leave the tests of the extra `torch` alone but with `pytest -m torch`, which fails without torch.

    It stands here, since of two modules named conftest tests in other processes find but one.
    """
    return True if collection_path.name == "torch_modules" and config.option.markexpr != "torch" else None


@pytest.fixture(scope="session")
def images(pictures):
    """300 digits of 8 x 8 pixels, flat, in [0, 1]."""
    return (pictures[:300] / 16).astype(np.float32)


@pytest.fixture
def convolutional():
    """Return what makes a small convolutional module of 8 x 8 pixels, always with the same weights."""
    import torch
    from torch import nn

    def make(components=2, dropout=0.2, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Unflatten(1, (1, 8, 8)),
                nn.Conv2d(1, 4, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Dropout(dropout),
                nn.Linear(64, 16),
                nn.ReLU(),
                nn.Linear(16, components),
            )

    return make


@pytest.fixture
def job_rows():
    """Return what a job of tests embeds."""
    return np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


@pytest.fixture
def job(tmp_path, job_rows, monkeypatch):
    """Write a job of a small array, its lines after the first two given; return its file."""
    zarr.create_array(tmp_path / "data.zarr", data=job_rows, overwrite=True)
    monkeypatch.setattr(dated, "today", lambda: "2026-01-31")
    fast = "parameters: {n_neighbors: 5, n_epochs: 5, random_state: 1, report: false}\ncluster: sequential\n"

    def write(run="maps/{date}.zarr", more=""):
        path = tmp_path / "nightly.yaml"
        path.write_text(f"source: data.zarr\nrun: {run}\n{fast}{more}")
        return path

    return write


@pytest.fixture
def maps_bucket(monkeypatch):
    """Return the bucket `maps` of a server on the loopback, with credentials in the environment."""
    s3fs = pytest.importorskip("s3fs")
    moto_server = pytest.importorskip("moto.server")
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    httpd = make_server("127.0.0.1", 0, moto_server.create_backend_app("s3"), threaded=True)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{httpd.port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        found = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        found.makedirs("maps", exist_ok=True)
        yield found
    finally:
        httpd.shutdown()
        s3fs.S3FileSystem.clear_instance_cache()
