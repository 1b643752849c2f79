import gc
import json
import sys
import types
import weakref

import numpy as np
import pytest
import zarr
from source_arrays import X, python, store
from zarr.storage import MemoryStore

from daskumap.errors import DependencyError, SourceError, SourceNotFoundError
from daskumap.sources.find import find, open_spec


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_paths(tmp_path, monkeypatch, zarr_format, consolidated):
    group = zarr.open_group(tmp_path / "data.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("deep/X", data=X)
    if consolidated:
        zarr.consolidate_metadata(tmp_path / "data.zarr", zarr_format=zarr_format)
    (tmp_path / "link").symlink_to(tmp_path / "data.zarr")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    inside = tmp_path / "data.zarr" / "deep" / "X"
    for path in [
        inside,
        str(inside) + "/",
        "data.zarr/deep/../deep/X",
        "~/data.zarr/deep/X",
        "link/deep/X",
        tmp_path / "data.zarr",
        "data.zarr/deep/",
        f"file://{inside}",
        group,
        group["deep/X"],
        group.store,
    ]:
        source = find(path)
        np.testing.assert_array_equal(source.read(0, 12), X)
        assert source.spec() == {"kind": "zarr", "path": str(inside)}


def test_arrays_added_after_consolidation_are_seen(tmp_path):
    group = zarr.open_group(tmp_path / "g", mode="w")
    zarr.consolidate_metadata(tmp_path / "g")
    group.create_array("X", data=X)
    assert find(tmp_path / "g").shape == X.shape


def test_memory_url():
    store("memory://bucket/a.zarr/X")
    source = find("memory://bucket/a.zarr/X/")
    np.testing.assert_array_equal(open_spec(json.loads(json.dumps(source.spec()))).read(0, 12), X)
    with pytest.raises(SourceNotFoundError, match=r"no Zarr array or group at memory://bucket/none"):
        find("memory://bucket/none")


def test_secrets_stay_out_of_the_spec():
    fs = zarr.storage.FsspecStore.from_url("memory://b", storage_options={"anon": True, "secret": "hunter2"})
    spec = find(store(fs)).spec()
    assert spec["storage_options"] == {"anon": True}
    assert "hunter2" not in json.dumps(spec)


@pytest.mark.parametrize("stored", [False, True])
def test_what_no_other_process_can_open_has_no_spec(stored):
    source = find(store(MemoryStore()) if stored else X)
    assert source.spec() is None
    assert source.identity()["path"] is None


def test_missing_package_names_the_extra(monkeypatch):
    # Not s3fs: fsspec remembers what it loaded, and other tests load that.
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DependencyError, match=r"gs://bucket/x .*gcsfs.*daskumap\[gs\]"):
        find("gs://bucket/x")


def test_a_source_is_what_it_is():
    source = find(X)
    assert find(source) is source


def test_kinds_are_known_without_their_libraries():
    code = (
        "import sys, numpy as np; from daskumap.sources.find import find; find(np.zeros((3, 3)));"
        "print(sorted({'dask', 'xarray', 'anndata', 'numba'} & set(sys.modules)))"
    )
    assert python(code) == "[]\n"


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nothing_outlives_a_source(dtype):
    data = X.astype(dtype)
    alive = weakref.ref(data)
    source = find(data)
    source.read(0, 5)
    source.identity()
    source.digest()
    with pytest.raises(SourceError):
        find(data * np.nan).read(0, 3, np.uint8)
    del data
    assert alive() is not None
    del source
    gc.collect()
    assert alive() is None


# --- groups


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_anndata_layout(tmp_path, zarr_format):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    group.attrs["encoding-type"] = "anndata"
    group.create_array("obsm/pca", data=X[:, :2])
    with pytest.raises(SourceError, match=r"a\.zarr has no X\. It has obsm/pca\. Choose by use_rep"):
        find(tmp_path / "a.zarr")
    group.create_array("X", data=X)
    assert find(tmp_path / "a.zarr").spec()["path"].endswith("a.zarr/X")


def test_groups_that_leave_a_choice(tmp_path):
    group = zarr.open_group(tmp_path / "g", mode="w")
    group.create_array("labels", data=X[:, 0])
    group.create_array("words", data=np.full((3, 3), "a"))
    with pytest.raises(SourceError, match="without a two-dimensional numeric array"):
        find(group)
    group.create_array("a", data=X)
    assert find(group).shape == X.shape
    group.create_array("sub/b", data=X[:3].astype("u1"))
    with pytest.raises(SourceError, match=r"2 two-dim.*Append one.*a 12 x 5 float32; sub/b 3 x 5 uint8"):
        find(group)


# --- what is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(3), r"1 dimensions \(3,\); 2 are needed. Reshape"),
        (np.zeros((3, 3, 3)), r"3 dimensions \(3, 3, 3\); 2 are needed"),
        (np.zeros((0, 3)), r"empty: its shape is \(0, 3\)"),
        (np.zeros((3, 0)), r"empty: its shape is \(3, 0\)"),
        (np.zeros((3, 3), "c8"), r"holds complex64; allowed are float16.*data\.real"),
        (np.full((3, 3), "a"), "holds <U1; allowed"),
        (np.zeros((3, 3), "M8[s]"), r"holds datetime64\[s\]; allowed"),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_refuses_arrays(data, message, stored):
    if stored:
        data = zarr.create_array(MemoryStore(), shape=data.shape, dtype=data.dtype, chunks=(3,) * data.ndim)
    with pytest.raises(SourceError, match=message):
        find(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((3, 3), object), "holds object; allowed"),
        ([[1, 2], [3]], "The list is no two-dimensional array"),
        (types.SimpleNamespace(tocsr=None), r"sparse \(SimpleNamespace\), and none of SciPy's"),
        (np.ma.masked_array(X, X > 3), r"masked array.*filled"),
    ],
)
def test_refuses_objects(data, message):
    with pytest.raises(SourceError, match=message):
        find(data)


def test_missing_path_lists_what_is_near(tmp_path):
    zarr.open_group(tmp_path / "data.zarr", mode="w").create_array("Xmatrix", data=X)
    with pytest.raises(SourceNotFoundError, match=r"Near it, in .*: data\.zarr\. Check the path"):
        find(tmp_path / "dta.zarr")
    with pytest.raises(FileNotFoundError, match=r"nothing at .*data\.zarr/X\. Near it.*: Xmatrix"):
        find(tmp_path / "data.zarr" / "X")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.csv", "table of text.*read_csv"),
        ("x.dat", "is a file, not a Zarr array"),
    ],
)
def test_other_files(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"1")
    for path in (tmp_path / name, tmp_path / name / "X"):
        with pytest.raises(SourceError, match=message):
            find(path)


def test_other_folders(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SourceError, match=r"is a folder, but no Zarr.*holds notes\.txt"):
        find(tmp_path)


def test_metadata_that_zarr_cannot_use(tmp_path):
    store(tmp_path / "broken")
    (tmp_path / "broken" / "zarr.json").write_text("{")
    with pytest.raises(SourceError, match=r"cannot be opened as Zarr.*JSONDecodeError"):
        find(tmp_path / "broken")


@pytest.mark.parametrize("place", ["filters", "compressor"])
@pytest.mark.parametrize("dtype", ["|O", "<f4"])
def test_pickles_are_never_opened(tmp_path, place, dtype):
    codec = {"id": "pickle", "protocol": 4}
    document = {
        "zarr_format": 2,
        "shape": [4, 3],
        "chunks": [2, 3],
        "dtype": dtype,
        "compressor": None,
        "fill_value": None,
        "order": "C",
        "filters": None,
        place: [codec] if place == "filters" else codec,
    }
    (tmp_path / ".zarray").write_text(json.dumps(document))
    with pytest.raises(SourceError, match=r"objects|pickles"):
        find(tmp_path)
