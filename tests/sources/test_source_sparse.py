"""Sparse matrices in memory: their rows are those of the dense array, to the bit, and never all are dense."""

import pickle

import numpy as np
import pytest
import scipy.sparse
from conftest import sha
from source_arrays import DTYPES, measure

import daskumap
from daskumap.errors import SourceError
from daskumap.planning.sizes import Resources
from daskumap.request import make_request
from daskumap.sources.find import find, is_plain

RNG = np.random.default_rng(0)
KINDS = [
    getattr(scipy.sparse, f"{form}_{kind}") for form in ("csr", "csc", "coo") for kind in ("matrix", "array")
]


def dense(rows=60, columns=9, dtype="f8"):
    values = 100 * RNG.normal(size=(rows, columns))
    return np.where(RNG.random((rows, columns)) < 0.3, values, 0.0).astype(dtype) + np.dtype(dtype).type(0)


def same(source, expected):
    """Every way to read gives the bits of the dense array."""
    for start, stop in ((0, len(expected)), (3, 4), (5, 5), (len(expected) - 2, len(expected))):
        block = source.read(start, stop)
        assert block.flags.carray
        assert block.tobytes() == expected[start:stop].astype("f4").tobytes()
        assert source.read_stored(start, stop).tobytes() == expected[start:stop].tobytes()
    some = np.array([7, 0, 7, len(expected) - 1])
    assert source.take(some, np.dtype("f4")).tobytes() == expected[some].astype("f4").tobytes()
    assert source.take(some[:0], source.dtype).shape == (0, expected.shape[1])
    assert source.digest() == find(expected).digest()
    assert source.identity()["rows"] == find(expected).identity()["rows"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_rows_are_those_of_the_dense_array(kind):
    expected = dense()
    expected[4] = 0  # an empty row
    source = find(kind(expected))
    assert (source.shape, source.dtype, source.spec()) == ((60, 9), np.dtype("f8"), None)
    same(source, expected)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "f2"])
def test_types(dtype):
    expected = dense(dtype=dtype) if dtype != "?" else dense() > 0
    same(find(scipy.sparse.csr_array(expected)), expected)
    repeated = scipy.sparse.coo_array(expected)
    entries = [np.concatenate([part, part[::-1]]) for part in (repeated.data, *repeated.coords)]
    repeated = scipy.sparse.coo_array((entries[0], tuple(entries[1:])), shape=expected.shape)
    same(find(repeated), repeated.toarray())  # small integers wrap round, and True and True is True


@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
def test_repeated_entries_are_added_in_their_order(form):
    """SciPy's own sums of duplicates have other bits than `toarray`."""
    rows, columns = RNG.integers(0, 12, 4000), RNG.integers(0, 5, 4000)
    matrix = scipy.sparse.coo_array((RNG.normal(size=4000) ** 9, (rows, columns)), shape=(12, 5))
    if form != "coo":
        lines, others = (rows, columns) if form == "csr" else (columns, rows)
        order = np.argsort(lines, kind="stable")
        starts = np.searchsorted(lines[order], np.arange((12 if form == "csr" else 5) + 1))
        make = scipy.sparse.csr_array if form == "csr" else scipy.sparse.csc_array
        matrix = make((matrix.data[order], others[order], starts), shape=(12, 5))
    before = matrix.copy()
    same(find(matrix), matrix.toarray())
    assert matrix.data.tobytes() == before.data.tobytes()  # the caller's matrix is as it was


def test_unsorted_columns_explicit_zeros_and_values_that_are_not_finite():
    values = np.array([3.0, -0.0, np.nan, np.inf, 2.0])
    matrix = scipy.sparse.csr_array((values, [4, 1, 0, 3, 2], [0, 3, 3, 5]), shape=(3, 5))
    expected = matrix.toarray()
    source = find(matrix)
    assert source.read(0, 3).tobytes() == expected.astype("f4").tobytes()
    assert source.digest() == find(expected).digest()


def test_long_indices():
    matrix = scipy.sparse.csr_array(dense())
    matrix.indices, matrix.indptr = matrix.indices.astype("i8"), matrix.indptr.astype("i8")
    same(find(matrix), matrix.toarray())


def test_a_usual_matrix_is_not_copied():
    matrix = scipy.sparse.csr_array(dense(2000, 50))
    source = find(matrix)
    assert np.shares_memory(source._values, matrix.data)
    assert np.shares_memory(source._columns, matrix.indices)


def test_a_matrix_is_data_that_an_estimator_takes():
    assert is_plain(scipy.sparse.csr_array(dense()))
    assert pickle.loads(pickle.dumps(find(scipy.sparse.csr_array(dense())))).shape == (60, 9)


def test_bits_that_uint8_would_change():
    matrix = scipy.sparse.csr_array(np.array([[0, 1.0], [2, 0], [0, 0.5]]))
    np.testing.assert_array_equal(find(matrix).read(0, 2, np.uint8), [[0, 1], [2, 0]])
    with pytest.raises(SourceError, match="Rows 0 to 3 of the csr_array in memory hold float64 values other"):
        find(matrix).read(0, 3, np.uint8)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (scipy.sparse.csr_array(dense() * 1j), r"The csr_array holds complex128; .*data\.real"),
        (scipy.sparse.csr_array((0, 4)), "is empty"),
        (scipy.sparse.coo_array(np.arange(3)), "has 1 dimensions"),
    ],
)
def test_what_is_no_matrix_of_numbers(matrix, message):
    with pytest.raises(SourceError, match=message):
        find(matrix)


READ = """
import scipy.sparse
rows, columns = 3000, 30_000
X = scipy.sparse.random_array((rows, columns), density=0.01, format="csr", rng=0)
source = find(X)
source.read(0, 2)
before = reset()
block = source.read(500, 1524)
peak = status("VmHWM")
print(peak - before, source.read_bytes(1024))
"""


def test_a_read_holds_what_it_says():
    measured, projected = measure(READ)
    assert 0.9 * 1024 * 30_000 * 4 < measured < projected < 1.2 * 1024 * 30_000 * 4


def test_a_block_of_many_columns_is_within_the_plan():
    """Of 30,000 columns a task reads the smallest block that there is, and no rows stay."""
    matrix = scipy.sparse.random_array((40_000, 30_000), density=1e-4, format="csr", rng=0, dtype="f4")
    asked, resources = make_request(matrix, {}, None), Resources(8 * 10**9, 1, 2)
    here, elsewhere = (asked.plan(resources, ingested) for ingested in (False, True))
    scan = next(stage for stage in here.stages if stage.name == "scan")
    assert scan.memory["input block"] < 1.1 * 1024 * 30_000 * 4
    assert here.job.sizes.cache_bytes == 0
    # What other processes read is a dense copy in the run store, and so are the rows on their way to cells.
    copy = 40_000 * 30_000 * 4
    assert here.disk_bytes < 0.25 * copy  # the sample is dense: 8,192 rows
    assert elsewhere.disk_bytes > copy


@pytest.mark.parametrize("metric", ["euclidean", "hellinger"])
def test_the_map_is_that_of_the_dense_array(fit, metric, block_sizes):
    X = np.abs(dense(700, 30)) + (np.arange(30) == 0)
    matrix = scipy.sparse.csr_array(X)
    run, plain = fit(matrix, metric=metric, report=True), fit(X, metric=metric, report=True)
    assert sha(run.embedding) == sha(plain.embedding)
    assert {**run.report["measures"]} == {**plain.report["measures"]}
    block_sizes(row_block=90, max_cell_rows=200, cells=8)
    assert sha(fit(matrix, metric=metric).embedding) == sha(fit(X, metric=metric).embedding)


def test_rows_far_from_the_origin_are_moved(fit):
    X = dense(400, 6) / 100 + 1e5
    run = fit(scipy.sparse.csr_array(X))
    assert run.store.documents.load("facts/cast")["centre"] is not None
    assert sha(run.embedding) == sha(fit(X).embedding)


def test_workers_of_other_processes_read_a_copy(fit, tmp_path):
    """As of an array in memory; another process goes on with it."""
    X = dense(400, 12)
    run = fit(scipy.sparse.csr_array(X), tmp_path / "run.zarr")
    np.testing.assert_array_equal(run.store.read("input/rows"), X)
    assert sha(run.embedding) == sha(fit(X).embedding)
    assert sha(fit(X, tmp_path / "run.zarr").embedding) == sha(run.embedding)  # it is the same input


def test_new_rows(fit):
    X, new = dense(400, 12), dense(30, 12)
    run, plain = fit(scipy.sparse.csr_array(X)), fit(X)
    placed = [
        one.transform(rows, progress=False, client="sequential").embedding
        for one, rows in ((run, scipy.sparse.csc_array(new)), (plain, new), (run, new))
    ]
    held = daskumap.transform(plain, scipy.sparse.coo_array(new), progress=False)
    assert len({sha(one) for one in (*placed, held.embedding)}) == 1
