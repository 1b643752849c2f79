"""NumPy's files, memory maps, vectors of benchmarks and HDF5: in place, by any process, or refused."""

import json

import h5py
import numpy as np
import pytest

import daskumap
from daskumap.errors import SourceError, SourceNotFoundError
from daskumap.sources.find import find, open_spec, source

ROWS = np.random.default_rng(0).normal(size=(250, 6)).astype(np.float32)
QUICK = {"random_state": 0, "n_epochs": 5, "report": False, "client": "sequential", "progress": False}


def save(path, rows=ROWS, **options):
    np.save(path, rows, **options)
    return path


def vectors(path, rows=ROWS):
    lengths = np.full((len(rows), 1), rows.shape[1], "<i4").view(np.uint8)
    path.write_bytes(np.concatenate([lengths, np.ascontiguousarray(rows).view(np.uint8)], 1).tobytes())
    return path


def hdf5(path, rows=ROWS, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("deep/embedding", data=rows, **options)
        file["names"] = [f"name {row}" for row in range(len(rows))]
    return path


def mapped(path):
    return np.load(save(path), mmap_mode="r")


MAKE = {
    "npy": lambda folder: save(folder / "x.npy"),
    "fvecs": lambda folder: vectors(folder / "x.fvecs"),
    "hdf5": lambda folder: hdf5(folder / "x.h5"),
    "memmap": lambda folder: mapped(folder / "x.npy"),
    "view": lambda folder: mapped(folder / "x.npy")[:, :],
    "dataset": lambda folder: h5py.File(hdf5(folder / "x.hdf5"))["deep/embedding"],
    "group": lambda folder: h5py.File(hdf5(folder / "x.hdf5"))["deep"],
}


@pytest.mark.parametrize("kind", MAKE)
def test_rows_are_read_where_they_are(kind, tmp_path):
    data = MAKE[kind](tmp_path)
    found = find(data)
    assert (found.shape, found.dtype) == ((250, 6), np.float32)
    np.testing.assert_array_equal(found.read(0, 250), ROWS)
    np.testing.assert_array_equal(found.read(7, 9), ROWS[7:9])
    again = open_spec(json.loads(json.dumps(found.spec())))
    np.testing.assert_array_equal(again.read(0, 250), ROWS)
    assert again.identity()["rows"] == found.identity()["rows"]
    run = daskumap.fit(data, tmp_path / "run.zarr", **QUICK)
    assert not (tmp_path / "run.zarr" / "input").exists()
    placed = daskumap.transform(tmp_path / "run.zarr", ROWS[:5], client="sequential", progress=False)
    np.testing.assert_array_equal(placed.embedding[:], run.embedding[:5])


@pytest.mark.parametrize("dtype", [">f4", "<f8", "f2", "u1", "bool", ">i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_type_and_order(tmp_path, dtype, order):
    rows = np.asarray(np.abs(ROWS * 9), dtype, order=order)
    wanted = rows.astype(np.float32)
    for found in (find(save(tmp_path / "x.npy", rows)), find(hdf5(tmp_path / "x.h5", rows, chunks=(7, 2)))):
        np.testing.assert_array_equal(found.read(3, 50), wanted[3:50])
        assert found.dtype == rows.dtype.newbyteorder("=")
        assert find(rows).digest() == found.digest()


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("cut", [np.s_[5:90, 2:5], np.s_[::3], np.s_[:, ::2], np.s_[17:, :]])
def test_views_of_a_map_know_where_they_lie(tmp_path, cut, mode):
    ROWS.tofile(tmp_path / "x.bin")
    whole = np.memmap(tmp_path / "x.bin", np.float32, mode, 24 * 5, (245, 6))
    again = open_spec(json.loads(json.dumps(find(whole[cut]).spec())))
    np.testing.assert_array_equal(again.read(0, again.shape[0]), ROWS[5:][cut])


def test_a_map_that_others_cannot_see_is_the_process_own(tmp_path):
    save(tmp_path / "x.npy")
    assert find(np.load(tmp_path / "x.npy", mmap_mode="c")).spec() is None
    assert find(np.load(tmp_path / "x.npy", mmap_mode="r")[::-1]).spec() is None
    gone = np.load(tmp_path / "x.npy", mmap_mode="r")
    (tmp_path / "x.npy").unlink()
    assert find(gone).spec() is None
    assert find(gone + 1).spec() is None


def test_binary_files_whose_kind_is_told(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"head" + ROWS.tobytes())
    found = source(tmp_path / "x.bin", kind="raw", dtype="<f4", shape=[-1, 6], offset=4)
    np.testing.assert_array_equal(found.read(0, 250), ROWS)
    np.testing.assert_array_equal(open_spec(found.spec()).read(0, 250), ROWS)
    for options, message in [
        ({}, "Say which, such as dtype='<f4'"),
        ({"dtype": "<f4", "shape": [251, 6]}, "has 6,004 bytes; 251 x 6 float32 from byte 0 on need 6,024"),
        ({"dtype": "f5", "shape": [1, 6]}, "dtype is 'f5'"),
    ]:
        with pytest.raises(SourceError, match=message):
            source(tmp_path / "x.bin", kind="raw", **options)


@pytest.mark.parametrize(("ending", "dtype"), [(".bvecs", "u1"), (".ivecs", "<i4")])
def test_vectors_of_other_types(tmp_path, ending, dtype):
    rows = np.arange(60, dtype=dtype).reshape(20, 3)
    found = find(vectors(tmp_path / f"x{ending}", rows))
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found.read_stored(0, 20), rows)


def test_vectors_that_are_none(tmp_path):
    path = vectors(tmp_path / "x.fvecs")
    content = path.read_bytes()
    for wrong, message in [
        (b"", "is empty"),
        (content[:-3], r"rows have 6 values, and its 6,997 bytes are not whole rows of 28"),
        (b"\xff" * 28, "rows have -1 values"),
        (content[:28] + b"\x07" + content[29:], r"Row 1 of .*x.fvecs has 7 values, and row 0 has 6"),
    ]:
        path.write_bytes(wrong)
        with pytest.raises(SourceError, match=message):
            find(path)


def test_files_of_numpy_that_are_none(tmp_path):
    save(tmp_path / "x.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])
    save(tmp_path / "objects.npy", np.array([[1, "a"]], object), allow_pickle=True)
    save(tmp_path / "line.npy", ROWS[0])
    (tmp_path / "empty.npy").touch()
    for name, message in [
        ("cut.npy", "is no whole NumPy file"),
        ("empty.npy", "is no whole NumPy file"),
        ("objects.npy", "holds objects of Python, which are not loaded"),
        ("line.npy", r"line.npy has 1 dimensions \(6,\); 2 are needed"),
    ]:
        with pytest.raises(SourceError, match=message):
            find(tmp_path / name)
    with pytest.raises(SourceNotFoundError, match=r"nothing at .*y.npy. Near it"):
        find(tmp_path / "y.npy")
    with pytest.raises(SourceError, match="Pass the path of the file, with nothing after it"):
        find(tmp_path / "x.npy" / "inside")
    with pytest.raises(SourceError, match=r"is a NumPy file behind a URL.*daskumap convert"):
        find("s3://bucket/x.npy")


def test_a_file_that_changes(tmp_path):
    for make in ("npy", "hdf5"):
        found = find(MAKE[make](tmp_path))
        (tmp_path / ("x.npy" if make == "npy" else "x.h5")).write_bytes(b"other")
        with pytest.raises(SourceError, match="was written anew"):
            found.read(0, 9)


def test_archives_of_numpy(tmp_path):
    np.savez(tmp_path / "x.npz", a=ROWS, line=ROWS[0])
    np.testing.assert_array_equal(find(tmp_path / "x.npz").read(0, 250), ROWS)
    np.savez_compressed(tmp_path / "x.npz", a=ROWS, b=ROWS * 2)
    with pytest.raises(SourceError, match=r"2 arrays of two dimensions: a \(250, 6\), b .*Name one"):
        find(tmp_path / "x.npz")
    np.testing.assert_array_equal(source(tmp_path / "x.npz", array="b").read(0, 250), ROWS * 2)
    with pytest.raises(SourceError, match=r"has no array 'c'. It has a, b"):
        source(tmp_path / "x.npz", array="c")


# -- HDF5


def test_the_dataset_and_its_labels_are_chosen(tmp_path):
    path = hdf5(tmp_path / "x.h5", chunks=(50, 6), compression="gzip")
    with h5py.File(path, "a") as file:
        file["other"] = ROWS * 2
    with pytest.raises(SourceError, match=r"2 datasets.*dataset=NAME.*/deep/embedding 250 x 6 float32; /o"):
        find(path)
    found = source(path, dataset="other", labels=["names"])
    np.testing.assert_array_equal(found.read(0, 9), ROWS[:9] * 2)
    assert found.labels["names"][:2].tolist() == ["name 0", "name 1"]
    again = open_spec(json.loads(json.dumps(found.spec())))
    assert again.labels["names"][249:].tolist() == ["name 249"]
    assert source(path, dataset="deep").block_rows == 50
    with pytest.raises(SourceError, match=r"has no 'none'. It has /deep/embedding"):
        source(path, dataset="none")
    with pytest.raises(SourceError, match="no dataset 'other' with 250 values"):
        source(path, dataset="deep/embedding", labels="other")


def test_hdf5_that_is_none(tmp_path):
    path = hdf5(tmp_path / "x.h5")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SourceError, match=r"cannot be opened as HDF5"):
        find(path)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["text"] = [["a", "b"]]
    with pytest.raises(SourceError, match=r"0 datasets of two dimensions.*no matrix of numbers"):
        find(tmp_path / "y.h5")
    with h5py.File(hdf5(tmp_path / "z.h5")) as file:
        closed = file["deep/embedding"]
    with pytest.raises(SourceError, match="is closed"):
        find(closed)


def test_a_damaged_chunk_is_named(tmp_path):
    path = hdf5(tmp_path / "x.h5", chunks=(50, 6), compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        at = file["deep/embedding"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[at : at + 20] = b"\xff" * 20
    path.write_bytes(content)
    assert find(path).read(0, 100).shape == (100, 6)
    with pytest.raises(SourceError, match=r"Rows 100 to 110 of .*x.h5:/deep/embedding cannot be read"):
        find(path).read(100, 110)


def test_a_file_that_is_written_is_this_process_own(tmp_path):
    with h5py.File(hdf5(tmp_path / "x.h5"), "r+") as file:
        found = find(file["deep/embedding"])
        assert found.spec() is None
        run = daskumap.fit(file, tmp_path / "run.zarr", **QUICK)
    assert run.finished
    np.testing.assert_array_equal(run.embedding[:], daskumap.fit(ROWS, **QUICK).embedding[:])


def test_without_h5py(tmp_path, monkeypatch):
    import sys

    path = hdf5(tmp_path / "x.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(daskumap.DependencyError, match=r"An HDF5 file needs h5py .*daskumap\[hdf5\]"):
        find(path)
