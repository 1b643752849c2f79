"""Chunks that are read and written without zarr: what zarr writes and reads, and errors that it has."""

import numpy as np
import pytest
import zarr
from conftest import damaged
from zarr.core.buffer import cpu
from zarr.storage import LocalStore, MemoryStore

from daskumap.errors import StoreError
from daskumap.store import chunks
from daskumap.store.arrays import ArrayStore, create_array, open_array
from daskumap.store.chunks import read_rows, write_rows
from daskumap.store.run import read_range


@pytest.fixture(params=["memory", "folder"])
def store(request, tmp_path):
    return ArrayStore(MemoryStore() if request.param == "memory" else LocalStore(tmp_path), "a run")


@pytest.fixture
def no_zarr(monkeypatch):
    """Nothing is left to zarr."""

    def fail(*args):
        raise AssertionError("zarr was asked")

    monkeypatch.setattr(zarr.Array, "__getitem__", fail)
    monkeypatch.setattr(zarr.Array, "__setitem__", fail)


def values(dtype, *shape):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("name", ["made", "embedding"])  # of the run alone, and of other tools too
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool"])
def test_what_is_written_is_what_zarr_writes_and_reads(store, name, dtype):
    data = values(dtype, 10, 3)
    for one, write in (("ours", lambda array: write_rows(array, (0,), data)), ("theirs", None)):
        array = create_array(ArrayStore(store._store, one), name, (10, 3), (10, 3), dtype)
        if write:
            write(array)
            np.testing.assert_array_equal(array[:], data)
            written = zarr.core.sync.sync(array.store_path.store.get(f"{name}/c/0/0", cpu.buffer_prototype))
        else:
            array[:] = data
            assert read_rows(array, 0, None).dtype == np.dtype(dtype)
            np.testing.assert_array_equal(read_rows(array, 2, 7), data[2:7])
            again = zarr.core.sync.sync(array.store_path.store.get(f"{name}/c/0/0", cpu.buffer_prototype))
            assert again.to_bytes() == written.to_bytes()


def test_whole_chunks_need_no_zarr(store, no_zarr):
    array = create_array(store, "made", (10, 2), (4, 2), "float32")
    data = values("float32", 8, 2)
    write_rows(array, (0,), data[:4])
    write_rows(array, (4, 0), data[4:])
    found = read_rows(array, 5, 7)
    np.testing.assert_array_equal(found, data[5:7])
    found[:] = 0  # the caller's own
    np.testing.assert_array_equal(read_rows(array, 4, 8), data[4:])


def test_all_else_is_left_to_zarr(store, monkeypatch):
    array = create_array(store, "made", (10, 2), (4, 2), "float32")
    data = values("float32", 10, 2)
    write_rows(array, (0,), data)  # several chunks, the last one cut
    for start, stop in ((0, None), (3, 5), (8, 10), (4, 4), (8, 12)):
        np.testing.assert_array_equal(read_rows(array, start, stop), data[start:stop])
    wide = create_array(store, "wide", (4, 6), (4, 2), "int64")
    broad = values("int64", 4, 6)
    for column in (0, 2, 4):
        write_rows(wide, (0, column), broad[:, column : column + 2])
    np.testing.assert_array_equal(read_rows(wide, 0, 4), broad)
    write_rows(array, (0,), data[:4].astype(int))  # of another type
    monkeypatch.setattr(chunks, "crc32c", None)
    np.testing.assert_array_equal(read_rows(open_array(store, "made"), 0, 4), data[:4])


@pytest.mark.parametrize("kind", ["flipped", "truncated", "deleted"])
def test_what_is_damaged_is_refused_as_by_zarr(kind):
    inner = MemoryStore()
    array = create_array(ArrayStore(inner, "a run"), "made", (10, 2), (10, 2), "float32")
    write_rows(array, (0,), values("float32", 10, 2))
    left = damaged(inner._store_dict.pop("made/c/0/0").to_bytes(), kind)
    if left is not None:
        inner._store_dict["made/c/0/0"] = cpu.Buffer.from_bytes(left)
    with pytest.raises(StoreError):
        read_range(array, 0, 10)
