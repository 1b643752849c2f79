import threading

import numpy as np
import pytest
import scipy.sparse
from source_arrays import X

from daskumap.errors import SourceError
from daskumap.sources import base
from daskumap.sources.find import find

da = pytest.importorskip("dask.array")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 3000)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("chunks", [(1, 7), (13, 7), (50, 3), (400, 7), ((1, 150, 3, 246), (2, 5))])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
def test_reads_what_numpy_would(chunks, dtype):
    data = np.random.default_rng(0).normal(100, 30, size=(400, 7)).astype(dtype)
    source, same = find(da.from_array(data, chunks=chunks)), find(data)
    block = source.read(37, 301)
    np.testing.assert_array_equal(block, data[37:301].astype("f4"))
    assert block.flags.carray
    assert source.identity() == same.identity()
    assert source.digest() == same.digest()


def test_what_a_run_has_to_know():
    source = find(da.from_array(X, chunks=((4, 5, 3), 5)))
    assert not source.in_place
    assert source.spec() is None
    assert source.block_rows == 5
    assert source.read_bytes(2) >= (2 + 5) * 5 * 4


@pytest.mark.usefixtures("small_blocks")
def test_never_holds_the_array():
    """Every dask block is computed once, and few of them at a time."""
    made, lock = [], threading.Lock()

    def block(x, block_info=None):
        with lock:
            made.append(block_info[0]["chunk-location"][0])
        return x

    array = da.zeros((1000, 7), chunks=(20, 7)).map_blocks(block, dtype="f8", meta=np.empty((0, 0)))
    lengths = [len(rows) for rows in find(array).blocks()]
    assert sorted(made) == list(range(50))
    assert max(lengths) * 7 * 8 <= 3000
    assert sum(lengths) == 1000


def test_chunks_of_unknown_size_are_counted():
    array = da.from_array(X, chunks=(4, 5))
    unknown = array[array[:, 0] > 20]
    source = find(unknown)
    np.testing.assert_array_equal(source.read(0, 7), X[X[:, 0] > 20])
    assert np.isnan(unknown.shape[0])  # the caller's stays as it is
    with pytest.raises(SourceError, match=r"cannot be computed \(ZeroDivisionError"):
        find(array.map_blocks(lambda x: 1 / 0, dtype="f4", meta=X[:0])[array[:, 0] > 20])


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_sparse_blocks_become_dense(kind):
    array = da.from_array(X, chunks=(4, 5)).map_blocks(kind)
    found = find(array)
    assert found.dtype == X.dtype
    np.testing.assert_array_equal(found.read(3, 11), X[3:11])
    assert found.digest() == find(X).digest()


def test_blocks_that_are_not_what_they_promise():
    array = da.from_array(X, chunks=(4, 5)).map_blocks(lambda x: x[:-1], dtype="f4", meta=np.empty((0, 0)))
    with pytest.raises(SourceError, match=r"came out as .*not as its chunks promise"):
        find(array).read(0, 12)


def test_other_collections_of_dask():
    import dask.bag
    import dask.dataframe as dd
    import pandas as pd

    frame = pd.DataFrame(X, columns=list("abcde"), index=pd.Index([f"row {n}" for n in range(12)], name="id"))
    found = find(dd.from_pandas(frame, npartitions=3, sort=False))
    np.testing.assert_array_equal(found.read(0, 12), X)
    assert found.labels["id"][:2].tolist() == ["row 0", "row 1"]
    with pytest.raises(SourceError, match=r"columns that are not numbers: word \(.*data\[\['a', 'b'\]\]"):
        find(dd.from_pandas(frame.assign(word="x"), npartitions=2, sort=False))
    with pytest.raises(SourceError, match="dask Bag; pass a dask array or DataFrame"):
        find(dask.bag.from_sequence([1, 2]))
