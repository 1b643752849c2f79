"""One seed gives one embedding: any engine, partitions, chunks, blocks, memory, store and task order."""

import os
import random
import subprocess
import sys

import dask.array
import numpy as np
import pytest
from conftest import sha
from zarr.storage import MemoryStore

import daskumap
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.kernels.jit import is_compiled
from daskumap.planning import sizes
from daskumap.testing.faults import FailingEngine, Fault, ShufflingEngine

# 19 cells; vertices of three chunks and three tasks.
ROWS = 2400
COMMON = {"n_epochs": 10, "checkpoint_every": 6, "max_cell_rows": 512, "negative_sample_rate": 3}

SOURCES = {
    "numpy": lambda X, write: X,
    "fortran": lambda X, write: np.asfortranarray(X),
    "dask": lambda X, write: dask.array.from_array(X, chunks=(311, 5)),
    "v2": lambda X, write: write(X, "v2.zarr", chunks=(400, 16), zarr_format=2),
    "v3": lambda X, write: write(X, "v3.zarr", chunks=(133, 7)),
    "v3 of one chunk": lambda X, write: write(X, "one.zarr", chunks=X.shape),
    "sharded": lambda X, write: write(X, "shards.zarr", chunks=(100, 16), shards=(600, 16)),
}
# Blocks, windows, groups, vertex ranges, and edges held in memory: what the budget and the workers decide.
SIZES = {
    "as planned": {},
    "small": {
        "row_block": 481,
        "window_rows": 120,
        "group_rows": 360,
        "group_cells": 2,
        "chunks": 1,
        "edge_bytes": 0,
    },
    "uneven": {"row_block": ROWS - 1, "window_rows": 1, "group_rows": 2000, "chunks": 2},
    "whole": {"row_block": ROWS, "window_rows": 10**6, "group_rows": 10**6, "chunks": 3},
}
MEMORY = 4 * 10**9
ENGINES = {
    "sequential": lambda: SequentialEngine(MEMORY),
    "shuffled": lambda: ShufflingEngine(SequentialEngine(MEMORY), 0),
    "threads 1": lambda: ThreadsEngine(MEMORY, 1),
    "threads 2": lambda: ThreadsEngine(MEMORY, 2),
    "threads 3": lambda: ThreadsEngine(MEMORY, 3),
    "threads shuffled": lambda: ShufflingEngine(ThreadsEngine(MEMORY, 2), 1),
}
CLUSTERS = ("1x1", "1x2", "processes")
FACTORS = {
    "client": [*ENGINES, *CLUSTERS],
    "partitions": [1, 3, 16],
    "source": list(SOURCES),
    "sizes": list(SIZES),
    "keep": ["all", "graph", "model", "embedding"],
    "report": [False, True],
    "store": ["memory", "disk"],
}
REFERENCE = {name: levels[0] for name, levels in FACTORS.items()}


def cases():
    """Each level of each factor against the reference, then random combinations of levels."""
    chosen = [({**REFERENCE, name: level}, "adam") for name in FACTORS for level in FACTORS[name][1:]]
    rng = random.Random(0)
    others = {name: levels[1:] if len(levels) > 2 else levels for name, levels in FACTORS.items()}
    chosen += [
        ({name: rng.choice(levels) for name, levels in others.items()}, how) for how in ("adam", "sgd") * 4
    ]
    return [pytest.param(*case, id=_words(case), marks=_marks(case[0])) for case in chosen]


def _words(case):
    return "-".join([*map(str, case[0].values()), case[1]])


def _marks(case):
    """Leave worker processes to the run of processes, but for the case that differs in nothing else."""
    alone = case == {**REFERENCE, "client": "processes"}
    return [pytest.mark.processes] if case["client"] == "processes" and not alone else []


@pytest.fixture(scope="module")
def rows(clustered):
    return clustered[:ROWS]


@pytest.fixture
def bits(request, rows, fit_bits, block_sizes, write, tmp_path):
    def bits_(case, data=rows, **options):
        case = {**REFERENCE, **case}
        block_sizes(**SIZES[case["sizes"]])
        source = SOURCES[case["source"]](data, write)
        on_cluster = case["client"] in CLUSTERS
        if on_cluster:
            client = request.getfixturevalue(f"client_{case['client']}")
        else:
            client = ENGINES[case["client"]]()
        # Workers of a cluster reach no memory of this process.
        on_disk = on_cluster or case["store"] == "disk"
        run = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr" if on_disk else MemoryStore()
        kept = {name: case[name] for name in ("partitions", "keep", "report")}
        return fit_bits(source, run, client=client, **{**COMMON, **kept, **options})

    return bits_


@pytest.fixture(scope="session")
def known():
    """Reference digests, each computed once."""
    return {}


def reference(bits, known, optimizer):
    if optimizer not in known:
        known[optimizer] = bits({}, optimizer=optimizer)
    return known[optimizer]


@pytest.mark.parametrize(("case", "optimizer"), cases())
def test_same_bits(bits, known, case, optimizer):
    assert bits(case, optimizer=optimizer) == reference(bits, known, optimizer)


# What makes a start or a metric special must not depend on the cut of the work either.
CUT = {"client": "1x2", "partitions": 3, "source": "v3", "sizes": "small", "keep": "model", "store": "disk"}


@pytest.mark.parametrize(
    ("init", "metric"), [("spectral", "euclidean"), ("random", "cosine"), ("array", "correlation")]
)
def test_same_bits_for_each_start(bits, clustered, few_micro_cells, init, metric):
    data = clustered[:1100]
    start = np.random.default_rng(0).random((len(data), 2)) if init == "array" else init
    options = {"metric": metric, "init": start, "data": data}
    assert bits(CUT, **options) == bits({}, **options)


@pytest.mark.parametrize("init", ["pca", "spectral"])
def test_same_bits_by_brute_force(bits, clustered, init):
    """Manhattan has no matrix product: cells of at most 512 rows are searched pair by pair."""
    options = {"metric": "manhattan", "init": init, "data": clustered[:1100]}
    assert bits(CUT, **options) == bits({}, **options)


def test_other_seeds_and_parameters_give_other_bits(bits):
    """Or else the digests above would compare nothing."""
    digests = {
        bits({}, **one) for one in ({}, {"init": "random"}, {"optimizer": "sgd"}, {"metric": "cosine"})
    }
    assert len(digests) == 4


@pytest.mark.processes
@pytest.mark.parametrize(("optimizer", "partitions"), [("adam", 1), ("adam", 3), ("sgd", 16)])
def test_same_bits_on_other_machines(bits, known, optimizer, partitions):
    """Segments of three epochs, each of which may begin on another worker."""
    case = {"client": "processes", "partitions": partitions}
    assert bits(case, optimizer=optimizer, checkpoint_every=3) == reference(bits, known, optimizer)


def test_same_bits_from_checkpoints_in_many_chunks(bits, known, fit, rows, monkeypatch, tmp_path):
    expected = reference(bits, known, "adam")
    monkeypatch.setattr(sizes, "STATE_ROWS", 350)
    for partitions, chunk in ((1, 343), (3, 267)):
        run = fit(rows, tmp_path / str(partitions), partitions=partitions, **COMMON)
        assert run.store.array("layout/00000001/positions").chunks[0] == chunk
        assert len(run.store.ledger.records("layout")) == 2
        assert sha(run.embedding) == expected


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_same_bits_whether_rows_are_held_or_moved(fit, rows, block_sizes, metric):
    options = {**COMMON, "metric": metric}
    held = fit(rows, **options)
    block_sizes(cache_bytes=0)
    moved = fit(rows, **options)
    for run, column in ((held, "ids"), (moved, "rows")):
        columns = set(run.store.documents.members("shuffle/00000000")) - {"zarr.json"}
        assert columns == {column, "vertices", "offsets"}
    assert sha(moved.embedding) == sha(held.embedding)


def test_memory_changes_sizes_not_bits(fit, clustered):
    """100 neighbours, so that four thousand rows do feel the budget."""
    options = {"n_neighbors": 100, "n_epochs": 5, "max_cell_rows": 1024}
    least = sizes.Resources(0, compiled=is_compiled()).reserved + 60_000_000
    runs = [fit(clustered[:4100], memory=memory, **options) for memory in (least, "8GB")]
    low, high = (run.report["sizes"] for run in runs)
    assert low["partition_rows"] < high["partition_rows"]
    assert low["window_rows"] < high["window_rows"]
    assert low["edge_bytes"] < high["edge_bytes"]
    assert sha(runs[0].embedding) == sha(runs[1].embedding)


def test_source_chunks_change_blocks_not_bits(fit, rows, write):
    sources = [write(rows, f"{chunk}.zarr", chunks=(chunk, 16)) for chunk in (250, 700, ROWS)]
    runs = [fit(source, **COMMON) for source in sources]
    assert len({run.report["sizes"]["row_block"] for run in runs}) == 3
    assert len({sha(run.embedding) for run in runs}) == 1


FIRST = """if True:
    import pathlib, sys
    import daskumap
    from daskumap.engine.sequential import SequentialEngine
    from daskumap.testing.datasets import uneven_clusters
    from daskumap.testing.faults import FailingEngine, Fault
    X = uneven_clusters(6000, 16, 12, seed=3).rows()
    for name in "ab":
        folder = pathlib.Path(sys.argv[1], name)
        engine = FailingEngine(SequentialEngine(4 * 10**9), folder / "w", stop_at="partition.assign")
        try:
            daskumap.fit(
                X, folder / "run.zarr", client=engine, progress=False, random_state=1, max_cell_rows=512
            )
        except Fault:
            print(daskumap.open(folder / "run.zarr").store.read("cells/centroids").tobytes().hex())
"""


@pytest.mark.processes
@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two cores, for two threads to differ")
def test_the_first_fit_of_a_process_is_like_the_next(tmp_path):
    """Libraries whose threads decide bits are loaded before threads are limited, not by the task."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", FIRST, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    first, second = done.stdout.split()
    assert first == second


def test_a_last_block_of_one_row(fit_bits, write):
    """BLAS multiplies a single row by other code than many."""
    for rows in (21, 23, 31):
        X = np.random.default_rng(rows).normal(size=(rows, 3)).astype("f4")
        source = write(X, f"{rows}.zarr", chunks=(2, 2))
        assert fit_bits(source, n_epochs=2) == fit_bits(X, n_epochs=2)


@pytest.mark.parametrize("unique", [False, True])
def test_same_bits_however_blocks_are_bundled(fit, clustered, block_sizes, monkeypatch, unique):
    """15 blocks counted in 4 bundles, or in one; twins have no cell, and come last."""
    rows = np.concatenate([clustered[:1600], clustered[:800]])
    block_sizes(row_block=160)
    options = {**COMMON, "unique": unique}
    one = fit(rows, **options)
    monkeypatch.setattr(sizes, "LEAST_BLOCKS", 1)
    four = fit(rows, **options)
    assert [run.store.array("counts/members").shape[0] for run in (one, four)] == [1, 4]
    assert sha(four.embedding) == sha(one.embedding)


@pytest.fixture(scope="module")
def lonely(clustered):
    """Twins, and rows that are too far from all others for an edge: the map has NaN for these."""
    rows = np.concatenate([clustered[:1000], clustered[:500]])
    rows[::100] += np.arange(1, 16, dtype=np.float32)[:, None] * 1e3
    return rows, {"unique": True, "n_epochs": 6, "max_cell_rows": 512, "disconnection_distance": 100.0}


@pytest.mark.parametrize("report", [False, True])
@pytest.mark.parametrize("keep", ["model", "embedding"])
def test_same_bits_of_rows_off_the_map_whatever_is_freed(fit, lonely, known, keep, report):
    rows, options = lonely
    run = fit(rows, keep=keep, report=report, **options)
    assert sha(run.embedding) == reference_of_lonely(fit, lonely, known)


def reference_of_lonely(fit, lonely, known):
    if "lonely" not in known:
        embedding = fit(lonely[0], **lonely[1]).embedding[:]
        assert np.isnan(embedding).any(axis=1).sum() >= 15
        known["lonely"] = sha(embedding)
    return known["lonely"]


@pytest.mark.parametrize("keep", ["model", "embedding"])
def test_same_bits_of_a_run_that_stopped_after_it_freed(fit, lonely, known, tmp_path, sequential, keep):
    """Before four of its stages in turn."""
    rows, options = lonely
    for stage in ("partition.assign", "neighbors.merge", "initialize", "publish"):
        engine = FailingEngine(sequential, tmp_path / "witnesses", stop_at=stage)
        with pytest.raises(Fault, match=stage):
            fit(rows, tmp_path / "run.zarr", client=engine, keep=keep, **options)
        assert daskumap.open(tmp_path / "run.zarr").store.ledger.freed()
    run = fit(rows, tmp_path / "run.zarr", keep=keep, **options)
    assert sha(run.embedding) == reference_of_lonely(fit, lonely, known)
