import numpy as np
import pytest
from source_arrays import DTYPES, X, store
from zarr.storage import LocalStore, MemoryStore

from daskumap.errors import SourceError
from daskumap.sources import base
from daskumap.sources import ingest as ingest_module
from daskumap.sources.find import find
from daskumap.sources.ingest import ingest
from daskumap.store.arrays import ArrayStore, open_array


@pytest.fixture
def arrays(tmp_path):
    return ArrayStore(LocalStore(tmp_path / "run.zarr"), "a run")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(ingest_module, "CHUNK_BYTES", 700)
    monkeypatch.setattr(base, "BLOCK_BYTES", 3000)


def files(tmp_path):
    root = tmp_path / "run.zarr"
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [*DTYPES, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_ingested_rows_are_those_of_the_source(arrays, tmp_path, dtype, order):
    data = np.random.default_rng(0).normal(0, 50, (200, 7)).astype(dtype, order=order)
    given = find(data)
    digest = ingest(given, arrays, "source")
    source = find(open_array(arrays, "source"))
    np.testing.assert_array_equal(source.read(0, 200), given.read(0, 200))
    np.testing.assert_array_equal(source.read(0, 200), data.astype("f4"))
    assert source.dtype == np.dtype(dtype).newbyteorder("=")
    assert source.identity()["rows"] == given.identity()["rows"]
    assert source.digest() == given.digest() == digest
    before = files(tmp_path)
    ingest(given, arrays, "source")
    assert files(tmp_path) == before
    assert source.spec() is None  # nothing but the run store opens its chunks


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("data", [X.tolist(), store(MemoryStore()), store(MemoryStore(), chunks=(5, 2))])
def test_any_source_is_ingested(arrays, data):
    ingest(find(data), arrays, "rows")
    np.testing.assert_array_equal(open_array(arrays, "rows")[...], X)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("lengths", [[1] * 30, [30], [7, 1, 12, 10], [12, 13, 5], [3, 30, 7], [24]])
def test_parts_are_whole_chunks(lengths):
    rows = np.arange(sum(lengths))[:, None]
    cuts = np.cumsum(lengths)[:-1]
    parts = list(ingest_module.whole_chunks(iter(np.split(rows, cuts)), 12))
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert all(len(part) and len(part) % 12 == 0 for part in parts[:-1])
    assert len(parts[-1])


def test_ingested_chunks_are_checked(arrays, tmp_path):
    ingest(find(X), arrays, "source")
    array = open_array(arrays, "source")
    assert array.fill_value != array.fill_value  # NaN: a lost chunk shows
    chunk = tmp_path / "run.zarr" / "source" / "c" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[3] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(SourceError, match=r"Rows 0 to 12 .*'c/0/0'.*checksum"):
        find(array).read(0, 12)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("chunks", [(1, 7), (13, 7), (50, 3), (400, 7), ((1, 150, 3, 246), (2, 5))])
def test_a_dask_array_gives_the_same_bytes(arrays, tmp_path, chunks):
    da = pytest.importorskip("dask.array")
    data = np.random.default_rng(0).normal(size=(400, 7))
    expected = ingest(find(data), arrays, "source")
    before = files(tmp_path)
    assert ingest(find(da.from_array(data, chunks=chunks)), arrays, "source") == expected
    assert files(tmp_path) == before
