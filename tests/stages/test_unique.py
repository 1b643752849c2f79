"""The parameter `unique`: exact duplicates lie where the first of them does, and cost no neighbours."""

import doctest
import tracemalloc

import numpy as np
import pytest
import zarr
from conftest import damage_in, forget, in_memory, sha
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from zarr.storage import MemoryStore

import daskumap
from daskumap.cli.main import main
from daskumap.engine.base import measured
from daskumap.errors import ParameterError, SourceError
from daskumap.kernels.neighbors.equal import first_of_equal, hash_rows
from daskumap.params import make_params
from daskumap.pipeline import FIT, steps_of
from daskumap.planning import sizes as sizing
from daskumap.testing import reference_unique, skewed
from daskumap.testing.datasets import uneven_clusters
from daskumap.testing.faults import FailingEngine, Fault, ShufflingEngine
from daskumap.testing.reference_unique import first_rows

QUICK = {"unique": True, "n_epochs": 10}
UNIQUE_STEPS = ("unique.twins", "unique.rows")
K = 14


def one_row_often(rows):
    """Three rows of ten are one and the same."""
    X = uneven_clusters(rows, 8, 6, seed=2).rows()
    X[np.random.default_rng(0).random(rows) < 0.3] = X[rows // 2]
    return X


def every_fourth(rows):
    """Every fourth row comes up to four times, far apart."""
    X = uneven_clusters(rows, 8, 6, seed=3).rows()
    ids = np.arange(rows)
    places = np.random.default_rng(1).permutation(rows)
    return X[np.where(ids % 2 == 0, ids - ids % 8, ids)][places]


def tail_of_copies(rows):
    """The second half repeats the first backwards, so that whole row blocks are twins."""
    X = uneven_clusters(rows // 2, 8, 6, seed=4).rows()
    return np.concatenate([X, X[::-1]])


DATA = {
    "one row often": one_row_often,
    "every fourth": every_fourth,
    "tail of copies": tail_of_copies,
    "skewed": lambda rows: skewed.duplicates(rows).rows(),
}
every = pytest.mark.parametrize("name", DATA)


# Which rows are equal.


@given(st.integers(0, 2**16), st.integers(1, 60), st.integers(1, 4), st.sampled_from(["float32", "uint8"]))
@settings(max_examples=60, deadline=None)
def test_equal_rows_are_found(seed, rows, columns, dtype):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 3, (rows, columns)).astype(dtype)
    if dtype == "float32":
        X[X == 0] *= rng.choice([1.0, -1.0], int((X == 0).sum())).astype("f4")
    got = first_of_equal(*hash_rows(X), np.arange(rows))
    np.testing.assert_array_equal(got, first_rows(X))


def test_hashes_differ_where_one_bit_does():
    X = np.zeros((32 * 40 + 1, 40), np.uint32)
    for bit in range(32 * 40):
        X[bit, bit // 32] = 1 << (bit % 32)
    X = X.view(np.float32)
    rows = np.flatnonzero(~(np.signbit(X).any(axis=1)))  # a sign bit alone is -0.0, which is 0.0
    for hashes in hash_rows(X[rows]):
        assert len(np.unique(hashes)) == len(rows)
        assert len(np.unique(hashes >> np.uint64(40))) > 0.99 * len(rows)
    high, low = hash_rows(X[rows])
    bits = np.unpackbits((high ^ low).view(np.uint8)).mean()
    assert bits == pytest.approx(0.5, abs=0.01)


def test_doctests():
    assert doctest.testmod(reference_unique) == (0, 1)


@every
@pytest.mark.parametrize("bucket", [1 << 20, 67])
def test_first_rows_whatever_the_blocks_and_buckets(fit, block_sizes, monkeypatch, name, bucket):
    monkeypatch.setattr(sizing, "BUCKET_ROWS", bucket)
    block_sizes(row_block=99)
    X = DATA[name](400)
    run = fit(X, unique=True, n_epochs=1)
    np.testing.assert_array_equal(run.store.read("rows/first"), first_rows(X))
    assert len(run.store.ledger.records("unique.twins")) == -(-400 // bucket)


# The map is that of the distinct rows.


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in DATA]
    + [("skewed", {"init": "spectral"}), ("one row often", {"metric": "cosine"})],
    ids=str,
)
def test_the_map_is_that_of_the_distinct_rows(fit, name, options):
    """Where all rows are in the sample and in one cell, to the bit."""
    X = DATA[name](1100)
    first = first_rows(X)
    rows = np.unique(first)
    common = {"n_epochs": 30, "report": True, **options}
    alone = fit(X[rows], **common)
    run = fit(X, unique=True, **common)
    np.testing.assert_array_equal(run.embedding[:][rows], alone.embedding[:])
    np.testing.assert_array_equal(run.embedding[:], run.embedding[:][first])
    ours, theirs = run.report["measures"], alone.report["measures"]
    assert ours.pop("duplicate_rows") == len(X) - len(rows)
    assert ours | {"rows": len(rows), "sample_rows": theirs["sample_rows"]} == theirs
    assert (theirs["isolated_rows"], theirs["sliced_cells"]) == (0, 0)
    assert f"duplicates        {len(X) - len(rows):,}\n" in str(run)
    assert "duplicates" not in str(alone)


def test_a_start_of_ones_own(fit):
    X = every_fourth(600)
    rows = np.unique(first_rows(X))
    start = np.random.default_rng(0).random((600, 2))
    start[np.setdiff1d(np.arange(600), rows)] = 1e6  # where a twin starts is of no matter
    run, alone = fit(X, init=start, **QUICK), fit(X[rows], init=start[rows], n_epochs=10)
    np.testing.assert_array_equal(run.embedding[:][rows], alone.embedding[:])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_distinct_rows(fit, metric):
    X = one_row_often(900)
    first = first_rows(X)
    rows = np.unique(first)
    ids, distances = fit(X, metric=metric, **QUICK).knn()
    search = NearestNeighbors(n_neighbors=K + 1, algorithm="brute", metric=metric).fit(X[rows])
    far, near = search.kneighbors(X[rows])
    np.testing.assert_allclose(distances[rows], far[:, 1:], atol=2e-5, rtol=1e-4)
    assert np.mean(ids[rows] == rows[near[:, 1:]]) > 0.995  # but for ties in float32
    np.testing.assert_array_equal(ids, ids[first])
    np.testing.assert_array_equal(distances, distances[first])
    assert np.isin(ids, rows).all()


@pytest.mark.parametrize("metric", ["hamming", "bit_hamming"])
def test_metrics_of_letters_and_bits(fit, metric):
    rng = np.random.default_rng(0)
    high = 256 if metric == "bit_hamming" else 4
    X = rng.integers(0, high, (300, 12)).astype("u1")
    X[150:] = X[rng.integers(0, 40, 150)]
    run = fit(X, metric=metric, report=True, **QUICK)
    first = first_rows(X)
    assert run.report["measures"]["duplicate_rows"] == np.count_nonzero(first != np.arange(300))
    np.testing.assert_array_equal(run.embedding[:], run.embedding[:][first])
    assert (run.knn()[1] > 0).all()


def test_many_cells_of_copies(fit, fit_apart):
    """Where the sample is not all rows; without `unique` the copies of a row are a cell to be cut."""
    X = one_row_often(6000)
    options = {"max_cell_rows": 300, "n_epochs": 30, "report": True}
    plain, run = fit(X, **options), fit_apart(X, unique=True, **options)
    measures = run.report["measures"]
    assert plain.report["measures"]["largest_cell"] > 0.3 * len(X) > 3 * measures["largest_cell"]
    assert measures["recall"] > 0.93
    assert measures["trustworthiness"] > 0.9
    assert measures["components"] <= plain.report["measures"]["components"]
    rows = np.unique(first_rows(X))
    near = NearestNeighbors(n_neighbors=K + 1, algorithm="brute").fit(X[rows]).kneighbors(X[rows[::20]])[1]
    ids = run.knn()[0][rows[::20]]
    truth = np.mean([len(set(a) & set(rows[b[1:]])) / K for a, b in zip(ids, near, strict=True)])
    assert measures["recall"] == pytest.approx(truth, abs=0.03)
    steps = run.report["steps"]
    assert all(0 < step["peak_bytes"] <= step["projected_bytes"] for step in steps.values())


# What does not matter.


@pytest.mark.parametrize(
    "options", [{}, {"init": "spectral"}, {"metric": "cosine", "optimizer": "sgd"}], ids=str
)
def test_without_duplicates_unique_changes_no_bit(fit, clustered, few_micro_cells, options):
    """Several cells."""
    X = clustered[:1500]
    assert len(np.unique(first_rows(X))) == len(X)
    common = {"n_epochs": 10, "max_cell_rows": 512, "report": True, **options}
    plain, run = fit(X, **common), fit(X, unique=True, **common)
    assert sha(run.embedding) == sha(plain.embedding)
    assert run.report["measures"] == plain.report["measures"] | {"duplicate_rows": 0}


SIZES = (
    {"row_block": 301, "window_rows": 150, "group_rows": 450, "chunks": 1, "edge_bytes": 0},
    {"row_block": 1299, "chunks": 2},
)


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.mark.parametrize(
    ("client", "sizes"),
    [("1x2", SIZES[0]), ("shuffled", SIZES[0]), ("sequential", SIZES[1])],
    ids=["threads", "order", "large blocks"],
)
def test_same_bits(fit, fit_bits, block_sizes, write, monkeypatch, sequential, known, client, sizes):
    X = np.concatenate([one_row_often(650), tail_of_copies(650)])
    common = {"max_cell_rows": 256, "checkpoint_every": 6, **QUICK}
    if not known:
        known["bits"] = fit_bits(X, **common)
    block_sizes(**sizes)
    monkeypatch.setattr(sizing, "BUCKET_ROWS", 167)
    engine = ShufflingEngine(sequential, 0) if client == "shuffled" else client
    source = write(X, chunks=(109, 5))
    assert fit_bits(source, client=engine, partitions=3, **common) == known["bits"]


# What is refused.


def test_too_few_distinct_rows(fit, tmp_path):
    place = tmp_path / "run.zarr"
    with pytest.raises(SourceError, match=r"1 of the 100 rows are distinct; unique=True needs at least 3"):
        fit(np.ones((100, 3)), place, unique=True)
    X = np.random.default_rng(0).normal(size=(15, 3)).astype("f4").repeat(7, axis=0)
    message = r"n_neighbors is 15 and 15 of the 105 rows are distinct; .* Lower n_neighbors to at most 14\."
    with pytest.raises(SourceError, match=message):
        fit(X, place, unique=True)
    assert not place.exists()
    run = fit(X, place, n_neighbors=14, **QUICK)
    np.testing.assert_array_equal(run.embedding[:], run.embedding[:][first_rows(X)])


def test_nan_is_refused_as_ever(fit, small):
    X = np.array(small)
    X[[7, 9]] = np.nan
    with pytest.raises(SourceError, match=r"2 of 400 rows hold NaN .* rows 7, 9\."):
        fit(X, unique=True)


def test_unique_is_true_or_false(fit, small):
    with pytest.raises(ParameterError, match="unique is 1; it must be True or False"):
        fit(small, unique=1)


def test_the_command_line(tmp_path, write, fit):
    X, place = one_row_often(300), str(tmp_path / "run.zarr")
    options = ["--scheduler", "sequential", "--n-epochs", "10", "--seed", "1", "--quiet"]
    assert main(["fit", str(write(X)), place, "--unique", *options]) == 0
    assert sha(daskumap.open(place).embedding) == sha(fit(X, **QUICK).embedding)


# What dies.


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "x.zarr"
    zarr.create_array(str(path), data=every_fourth(400), chunks=(64, 8))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, source):
    path = tmp_path_factory.mktemp("finished") / "run.zarr"
    run = daskumap.fit(
        source, path, client="sequential", progress=False, random_state=1, **QUICK, report=False, keep="all"
    )
    return path, sha(run.embedding), run.status()


def names_of(**params):
    return [step.name for step in steps_of(FIT, make_params(params))]


def test_stages_are_those_of_the_ledger(source, finished):
    planned = daskumap.plan(source, unique=True, report=False, calibrate=False)
    assert (
        [stage.name for stage in planned.stages] == names_of(unique=True, report=False) == list(finished[2])
    )
    assert set(names_of(unique=True)) - set(names_of()) == set(UNIQUE_STEPS)
    plain = daskumap.plan(source, calibrate=False)
    assert [stage.name for stage in plain.stages] == names_of()


@pytest.mark.parametrize("stage", ["unique.twins", "unique.rows", "partition.cells", "publish"])
def test_a_run_that_stopped_goes_on(fit, source, finished, sequential, tmp_path, stage):
    store, first = MemoryStore(), FailingEngine(sequential, tmp_path / "first", stop_at=stage)
    with pytest.raises(Fault):
        fit(source, store, client=first, **QUICK)
    rest = FailingEngine(sequential, tmp_path / "rest")
    run = fit(source, store, client=rest, **QUICK)
    assert sha(run.embedding) == finished[1]
    again = rest.counts()
    assert again.pop("scan.reread") == finished[2]["scan"]  # the input, compared before the run goes on
    assert first.counts() | again == finished[2]
    assert not set(first.counts()) & set(rest.counts())


@pytest.mark.parametrize("stage", ["scan", *UNIQUE_STEPS, "partition.assign", "publish"])
def test_resume_makes_a_stage_again(finished, stage):
    place = in_memory(finished[0])
    forget(place, stage)
    assert sha(daskumap.resume(place, client="sequential", progress=False).embedding) == finished[1]


@pytest.mark.parametrize(
    ("stage", "chunk"),
    [
        ("scan", "unique/block_first/c/0"),
        ("scan", "scan/hashes/00000000/low/c/0"),
        ("unique.twins", "unique/twins/00000000/firsts/c/0"),
        ("unique.rows", "rows/first/c/0"),
    ],
)
def test_damage_is_named_and_mended(finished, stage, chunk):
    place = in_memory(finished[0])
    damage_in(place, chunk)
    assert list(daskumap.verify(place)) == [stage]
    assert list(daskumap.verify(place, repair=True)) == [stage]
    assert sha(daskumap.resume(place, client="sequential", progress=False).embedding) == finished[1]
    assert daskumap.verify(place) == {}


# What it takes.


class TracingEngine:
    """Runs tasks one after the other and keeps what each allocated at most, beside its plan."""

    local = True

    def __init__(self, engine):
        self.resources, self.found, self.context = engine.resources, {}, None

    def ask(self, question):
        return [question()]

    def begin(self, context):
        self.context = context

    def run(self, stage, todo, listener):
        for number in todo:
            tracemalloc.start()
            receipt = measured(stage, self.context, number)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.found.setdefault(stage.name, []).append((peak, stage.task_bytes + stage.shared))
            yield number, receipt

    def end(self):
        self.context = None

    def close(self):
        pass


def test_tasks_allocate_no_more_than_planned(fit, block_sizes, write, sequential, tmp_path, monkeypatch):
    """Without the allowance of a process, which would hide it."""
    monkeypatch.setattr(sizing, "BUCKET_ROWS", 1 << 17)
    rows = 300_000
    X = np.random.default_rng(0).integers(0, 120, (rows, 3)).astype("f4")
    X[::3] = X[5]
    block_sizes(row_block=100_000, cache_bytes=0)
    engine = TracingEngine(sequential)
    stop = FailingEngine(engine, tmp_path / "w", stop_at="partition.cells")
    with pytest.raises(Fault):
        fit(write(X, chunks=(50_000, 3)), tmp_path / "run.zarr", client=stop, **QUICK)
    np.testing.assert_array_equal(
        daskumap.open(tmp_path / "run.zarr").store.read("rows/first"), first_rows(X)
    )
    assert list(engine.found) == ["scan.look", "scan", *UNIQUE_STEPS]
    for stage, tasks in engine.found.items():
        assert all(peak <= planned for peak, planned in tasks), (stage, tasks)
        if not stage.startswith("scan"):  # which may read chunks that are far larger
            assert max(peak for peak, _ in tasks) > 0.2 * tasks[0][1], (stage, tasks)
