"""What users pass by mistake: known by name, at once, and refused with the line that works, or taken."""

import time
import types
from array import array

import numpy as np
import pytest
import scipy.sparse
import zarr
from source_arrays import X
from zarr.storage import MemoryStore

import daskumap
from daskumap.errors import ParameterError, SourceError
from daskumap.sources.find import find


@pytest.fixture(autouse=True)
def at_once():
    """Less than a second by itself; NumPy would take minutes to look at every item."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 10.0


def of(library, name, **members):
    """Return an object as another library would, which is not needed then."""
    return type(name, (), {"__module__": library, **members})()


class Items:
    """As AnnData and others: NumPy would ask it item by item, for minutes."""

    def __len__(self):
        return 20_000

    def __getitem__(self, place):
        time.sleep(0.01)
        return [1.0, 2.0]


SPARSE = scipy.sparse.csr_matrix(X)


def anndata(matrix, **obsm):
    return type("AnnData", (Items,), {"__module__": "anndata._core.anndata", "X": matrix, "obsm": obsm})()


def test_an_anndata_in_memory_is_its_matrix():
    for matrix in (X, SPARSE):
        np.testing.assert_array_equal(find(anndata(matrix)).read(0, 12), X)
    stored = zarr.create_array(MemoryStore(), data=X, chunks=(4, 5))
    np.testing.assert_array_equal(find(anndata(stored)).read(0, 12), X)


def test_an_anndata_without_x_names_what_it_has():
    with pytest.raises(SourceError, match=r"has no X\. It has obsm/X_umap, obsm/knn\. Choose by use_rep"):
        daskumap.fit(anndata(None, X_umap=X[:, :2], knn=SPARSE))


@pytest.mark.parametrize("labels", [np.arange(12), X, [1, 2], (1, 2)])
def test_labels_are_no_place(labels):
    with pytest.raises(ParameterError, match=r"^run is a .*; it must be the place .* Labels are not taken"):
        daskumap.fit(X, labels, n_neighbors=3, client="sequential", progress=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a.zarr", "b.zarr"], r"list of 2 \(str\).*concatenate\(\[dask\.array\.from_zarr\(path\)"),
        ([X, X], r"list of 2 \(ndarray\); it must be one array\. Pass numpy\.concatenate"),
        ((SPARSE, SPARSE), r"tuple of 2 \(csr_matrix\)"),
        (Items(), r"is a Items and no two-dimensional array"),
        (None, r"is a NoneType and no two-dimensional array"),
        ({"X": X}, r"is a dict and no"),
        (3, r"is a int and no"),
        (types, r"is a module and no"),
        (
            of("sparse.numba_backend._coo.core", "COO", todense=lambda self: X),
            r"sparse \(COO\), and none of SciPy's",
        ),
        (X.astype("M8[s]"), r"datetime64\[s\]; .*timedelta64\(1, 's'\)"),
        (np.zeros((3, 3), "f4,f4"), r"structured_to_unstructured"),
        (X * 1j, r"complex.*data\.real, data\.imag"),
        (X.astype(object), r"holds object; .*astype first"),
        (of("torch", "Tensor", __array__=lambda self, *a, **k: 1 / 0), r"detach\(\)\.cpu\(\)"),
    ],
)
def test_what_is_no_array_of_numbers(data, message):
    with pytest.raises(SourceError, match=message):
        daskumap.fit(data)


@pytest.mark.parametrize("data", [memoryview(X), X.tolist(), [array("f", row) for row in X], X.astype(">f8")])
def test_what_numpy_knows_is_taken(data):
    np.testing.assert_array_equal(find(data).read(0, 12), X)


def test_blocks_of_dask_that_are_no_arrays():
    dask_array = pytest.importorskip("dask.array")
    data = dask_array.from_array(X, chunks=(5, 5))
    with pytest.raises(SourceError, match=r"masked.*dask\.array\.ma\.filled"):
        find(dask_array.ma.masked_greater(data, 3))
    late = {
        r"sparse \(csr_matrix\)|cannot be computed": scipy.sparse.csr_matrix,
        r"cannot be computed \(ZeroDivisionError": lambda block: 1 / 0,
        r"came out as <U32, not as float32": lambda block: block.astype(str),
    }
    for message, function in late.items():
        with pytest.raises(SourceError, match=message):
            find(data.map_blocks(function, meta=X[:0])).read(0, 12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.parquet", r"x\.parquet is no parquet file, or a damaged one"),
        ("x.nc", r"netCDF file.*open_dataset\(path\)\.to_zarr"),
    ],
)
def test_files_and_folders_of_other_tools(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(b"1")
    with pytest.raises(SourceError, match=message):
        find(tmp_path / "folder" / name)
    with pytest.raises(SourceError, match=message if "arquet" in message else "is a folder, but no Zarr"):
        find(tmp_path / "folder")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_of_no_size(tmp_path, zarr_format):
    zarr.create_array(tmp_path / "x", data=X, chunks=(4, 5), zarr_format=zarr_format)
    file = tmp_path / "x" / (".zarray" if zarr_format == 2 else "zarr.json")
    text = file.read_text()
    for chunks in ("4,\n", "4,"):
        text = text.replace(chunks, chunks.replace("4", "0"), 1)
    file.write_text(text)
    with pytest.raises(SourceError, match=r"chunks of \(0, 5\)|cannot be opened as Zarr"):
        find(tmp_path / "x").read(0, 3)
