import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.storage import MemoryStore

from daskumap.errors import DependencyError, ParameterError, SourceError, SourceNotFoundError
from daskumap.store import ingest as ingest_module
from daskumap.store import source as source_module
from daskumap.store.ingest import ingest_dask, ingest_numpy
from daskumap.store.source import Source, needs_ingest, open_source, open_spec

DTYPES = ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"]
X = np.arange(60, dtype="f4").reshape(12, 5)


def store(where, data=X, **options):
    """Write `data` as a Zarr array and return it."""
    options = {"chunks": (4, 5), **options}
    array = zarr.create_array(where, shape=data.shape, dtype=data.dtype, **options)
    array[...] = data
    return array


@st.composite
def layouts(draw):
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    zarr_format = draw(st.sampled_from([2, 3]))
    # A zarr 2 array can be big-endian or column-major.
    dtype = draw(st.sampled_from([*DTYPES, ">f4", ">i8"] if zarr_format == 2 else DTYPES))
    options = {"chunks": (draw(st.integers(1, 45)), draw(st.integers(1, 10))), "zarr_format": zarr_format}
    if zarr_format == 2:
        options["order"] = draw(st.sampled_from("CF"))
    elif draw(st.booleans()):
        options["shards"] = tuple(c * draw(st.integers(1, 3)) for c in options["chunks"])
    seed = draw(st.integers(0, 2**16))
    raw = np.random.default_rng(seed).integers(0, 256, (rows, columns, np.dtype(dtype).itemsize), dtype="u1")
    data = (raw[..., 0] & 1).astype(dtype) if dtype == "?" else raw.view(dtype)[..., 0]
    start = draw(st.integers(0, rows))
    wanted = sorted(draw(st.lists(st.integers(0, rows - 1), max_size=12)))
    return data, options, start, draw(st.integers(start, rows)), wanted


@given(layouts(), st.sampled_from([1, 200, 16 << 20]))
@settings(max_examples=120, deadline=None)
def test_reads_what_numpy_would(case, window):
    data, options, start, stop, wanted = case
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(source_module, "WINDOW_BYTES", window)  # one tile, many tiles, tiles within a row
        source = open_source(store(MemoryStore(), data, **options))
        expected = data.astype("f4")
        block = source.read(start, stop)
        np.testing.assert_array_equal(block, expected[start:stop])
        assert block.dtype == np.float32
        assert block.flags.c_contiguous
        np.testing.assert_array_equal(source.take(wanted), expected[wanted])
        assert source.shape == data.shape
        assert source.dtype.isnative
        assert source.chunks == tuple(options.get("shards", options["chunks"]))
        # The fingerprint of the rows knows the values, not the layout.
        native = np.asfortranarray(data.astype(source.dtype))
        assert open_source(native).identity()["rows"] == source.identity()["rows"]


@given(hnp.arrays("f8", (7, 3), elements=st.floats(allow_nan=True, allow_infinity=True, width=64)))
@settings(max_examples=20, deadline=None)
def test_nan_passes_and_overflow_becomes_inf(data):
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(open_source(store(MemoryStore(), data)).read(0, 7), data.astype("f4"))


@pytest.mark.parametrize("dtype", ["u1", "?", "i8", "f4"])
def test_bits_as_uint8(dtype):
    data = (X.astype("i8") % 2).astype(dtype)
    source = open_source(store(MemoryStore(), data))
    assert source.read(1, 9, dtype=np.uint8).dtype == np.uint8
    np.testing.assert_array_equal(source.read(1, 9, dtype=np.uint8), data[1:9])
    np.testing.assert_array_equal(source.take([2, 11], dtype=np.uint8), data[[2, 11]])


@pytest.mark.parametrize("value", [0.5, -1, 256, np.nan])
def test_uint8_refuses_what_it_would_change(value):
    data = X * 0
    data[3, 1] = value
    with pytest.raises(SourceError, match=r"float32 values other than integers in 0 to 255.*threshold"):
        open_source(data).read(0, 12, dtype=np.uint8)


def test_wrong_ranges_and_types():
    source = open_source(X)
    for start, stop in [(-1, 3), (0, 13), (5, 4)]:
        with pytest.raises(ParameterError, match=r"were asked for; .* has 12 rows"):
            source.read(start, stop)
    with pytest.raises(ParameterError, match="ascending"):
        source.take([3, 1])
    for rows in ([-1, 2], [3, 12]):
        with pytest.raises(ParameterError, match="has 12 rows"):
            source.take(rows)
    with pytest.raises(ParameterError, match="float32 or uint8, not as float64"):
        source.read(0, 1, dtype="f8")


def test_take_skips_chunks_that_nobody_asked_for():
    array = store(MemoryStore(), np.zeros((1000, 4), "f4"), chunks=(10, 4))
    source, ranges = open_source(array), []
    load = source._load
    source._load = lambda tile, out=None: ranges.append((tile[0].start, tile[0].stop)) or load(tile, out)
    source.take([5, 9, 12, 500, 999])
    assert ranges == [(5, 13), (500, 501), (999, 1000)]


def test_threads_read_the_same(tmp_path):
    data = np.random.default_rng(0).normal(size=(2000, 16))
    source = open_source(store(tmp_path / "x", data, chunks=(64, 16), shards=(256, 16)))
    starts = np.random.default_rng(1).integers(0, 1900, 60).tolist()
    with ThreadPoolExecutor(6) as pool:
        for start, block in zip(starts, pool.map(lambda a: source.read(a, a + 100), starts), strict=True):
            np.testing.assert_array_equal(block, data[start : start + 100].astype("f4"))


# --- where the array is found


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
        source = open_source(path)
        np.testing.assert_array_equal(source.read(0, 12), X)
        assert source.spec() == {"kind": "zarr", "path": str(inside)}
        assert not needs_ingest(path)


def test_arrays_added_after_consolidation_are_seen(tmp_path):
    group = zarr.open_group(tmp_path / "g", mode="w")
    zarr.consolidate_metadata(tmp_path / "g")
    group.create_array("X", data=X)
    assert open_source(tmp_path / "g").shape == X.shape


def test_memory_url():
    store("memory://bucket/a.zarr/X")
    source = open_source("memory://bucket/a.zarr/X/")
    np.testing.assert_array_equal(open_spec(json.loads(json.dumps(source.spec()))).read(0, 12), X)
    with pytest.raises(SourceNotFoundError, match=r"no Zarr array or group at memory://bucket/none"):
        open_source("memory://bucket/none")


def test_secrets_stay_out_of_the_spec():
    fs = zarr.storage.FsspecStore.from_url("memory://b", storage_options={"anon": True, "secret": "hunter2"})
    spec = open_source(store(fs)).spec()
    assert spec["storage_options"] == {"anon": True}
    assert "hunter2" not in json.dumps(spec)


def test_missing_package_names_the_extra(monkeypatch):
    # Not s3fs: fsspec remembers what it loaded, and other tests load that.
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DependencyError, match=r"gs://bucket/x .*daskumap\[remote\].*gcsfs"):
        open_source("gs://bucket/x")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_anndata_layout(tmp_path, zarr_format):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    group.attrs["encoding-type"] = "anndata"
    group.create_array("obsm/pca", data=X[:, :2])
    group.create_array("X", data=X)
    assert open_source(tmp_path / "a.zarr").spec()["path"].endswith("a.zarr/X")


def test_sparse_anndata(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.attrs["encoding-type"] = "anndata"
    group.create_group("X", attributes={"encoding-type": "csr_matrix"}).create_array("data", data=X[0])
    group.create_array("obsm/pca", data=X[:, :2])
    with pytest.raises(SourceError, match=r"X is sparse; dense is needed.*toarray.*obsm/pca 12 x 2 float32"):
        open_source(tmp_path / "a.zarr")
    with pytest.raises(SourceError, match="X is sparse"):
        open_source(tmp_path / "a.zarr" / "X")


def test_groups_that_leave_a_choice(tmp_path):
    group = zarr.open_group(tmp_path / "g", mode="w")
    group.create_array("labels", data=X[:, 0])
    group.create_array("words", data=np.full((3, 3), "a"))
    with pytest.raises(SourceError, match="without a two-dimensional numeric array"):
        open_source(group)
    group.create_array("a", data=X)
    assert open_source(group).shape == X.shape
    group.create_array("sub/b", data=X[:3].astype("u1"))
    with pytest.raises(SourceError, match=r"2 two-dim.*Append one.*a 12 x 5 float32; sub/b 3 x 5 uint8"):
        open_source(group)


# --- what is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(3), r"1 dimensions \(3,\); 2 are needed. Reshape"),
        (np.zeros((3, 3, 3)), r"3 dimensions \(3, 3, 3\); 2 are needed"),
        (np.zeros((0, 3)), r"empty: its shape is \(0, 3\)"),
        (np.zeros((3, 0)), r"empty: its shape is \(3, 0\)"),
        (np.zeros((3, 3), "c8"), "holds complex64; allowed are float16.*astype"),
        (np.full((3, 3), "a"), "holds <U1; allowed"),
        (np.zeros((3, 3), "M8[s]"), r"holds datetime64\[s\]; allowed"),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_refuses_arrays(data, message, stored):
    if stored:
        data = zarr.create_array(MemoryStore(), shape=data.shape, dtype=data.dtype, chunks=(3,) * data.ndim)
    with pytest.raises(SourceError, match=message):
        open_source(data)


class Sparse:
    def tocsr(self): ...


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((3, 3), object), "holds object; allowed"),
        ([[1, 2], [3]], "The list is no two-dimensional array"),
        (Sparse(), r"sparse \(Sparse\); dense is needed for now"),
        (np.ma.masked_array(X, X > 3), r"masked array.*filled"),
    ],
)
def test_refuses_objects(data, message):
    with pytest.raises(SourceError, match=message):
        open_source(data)


def test_missing_path_lists_what_is_near(tmp_path):
    zarr.open_group(tmp_path / "data.zarr", mode="w").create_array("Xmatrix", data=X)
    with pytest.raises(SourceNotFoundError, match=r"Near it, in .*: data\.zarr\. Check the path"):
        open_source(tmp_path / "dta.zarr")
    with pytest.raises(FileNotFoundError, match=r"nothing at .*data\.zarr/X\. Near it.*: Xmatrix"):
        open_source(tmp_path / "data.zarr" / "X")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.npy", "is a NumPy file, not a Zarr array.*mmap_mode='r'"),
        ("x.h5ad", "AnnData HDF5 file.*write_zarr"),
        ("x.csv", "table of text.*read_csv"),
        ("x.dat", "is a file, not a Zarr array"),
    ],
)
def test_other_files(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"1")
    for path in (tmp_path / name, tmp_path / name / "X"):
        with pytest.raises(SourceError, match=message):
            open_source(path)


def test_other_folders(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SourceError, match=r"is a folder, but no Zarr.*holds notes\.txt"):
        open_source(tmp_path)


def test_metadata_that_zarr_cannot_use(tmp_path):
    store(tmp_path / "broken")
    (tmp_path / "broken" / "zarr.json").write_text("{")
    with pytest.raises(SourceError, match=r"cannot be opened as Zarr.*JSONDecodeError"):
        open_source(tmp_path / "broken")


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
        open_source(tmp_path)


@pytest.mark.parametrize("codec", ["zstd", "raw"])
def test_a_damaged_chunk_is_named(tmp_path, codec):
    store(tmp_path / "x", **({} if codec == "zstd" else {"compressors": None}))
    chunk = tmp_path / "x" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    source = open_source(tmp_path / "x")
    np.testing.assert_array_equal(source.read(0, 4), X[:4])
    for read in (lambda: source.read(0, 12), lambda: source.take([0, 5, 11])):
        with pytest.raises(
            SourceError, match=r"Rows 4 to 8 of .*chunk 'c/1/0' fails with .*Restore it"
        ) as info:
            read()
        assert info.value.__cause__ is not None


def test_a_damaged_shard_is_named(tmp_path):
    store(tmp_path / "x", chunks=(2, 5), shards=(6, 5))
    shard = tmp_path / "x" / "c" / "1" / "0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    with pytest.raises(SourceError, match=r"Rows 6 to 8 of .*chunk 'c/1/0'"):
        open_source(tmp_path / "x").read(5, 12)


class Unreachable(MemoryStore):
    """A store whose second row of chunks cannot be had for the first `failures` requests."""

    failures = 0

    async def get(self, key, prototype, byte_range=None):
        if key == "c/1/0" and self.failures:
            self.failures -= 1
            raise PermissionError("no entry")
        return await super().get(key, prototype, byte_range)


@pytest.mark.parametrize(
    ("failures", "message"),
    [
        (99, r"Rows 4 to 8 of .*'c/1/0' fails with PermissionError: no entry. Check .* the network"),
        (1, r"Rows 0 to 12 of .* second attempt succeeded: the store is unreliable.*PermissionError"),
    ],
)
def test_a_store_out_of_reach_is_not_called_damaged(failures, message):
    source = open_source(store(where := Unreachable()))
    where.failures = failures
    with pytest.raises(SourceError, match=message):
        source.read(0, 12)


# --- other processes


def test_spec_opens_in_another_process(tmp_path):
    array = store(tmp_path / "g" / "X")
    array.attrs["note"] = 1
    source = open_source(array)
    code = (
        "import json, sys; from daskumap.store.source import open_spec;"
        "s = open_spec(json.loads(sys.argv[1]));"
        "print(json.dumps([s.identity(), s.read(2, 9).tolist()]))"
    )
    command = [sys.executable, "-c", code, json.dumps(source.spec())]
    root = Path(source_module.__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    array.attrs["note"] = 2  # the user's attributes are not the data
    assert json.loads(done.stdout) == [open_source(tmp_path / "g" / "X").identity(), X[2:9].tolist()]


def test_pickle_carries_the_spec_only(tmp_path):
    source = open_source(store(tmp_path / "x"))
    function, arguments = source.__reduce__()
    assert (function, arguments) == (open_spec, (source.spec(),))
    with pytest.raises(SourceError, match=r"cannot open the ndarray.*ingest_numpy"):
        open_source(X).spec()
    with pytest.raises(SourceError, match="cannot open the MemoryStore"):
        open_source(store(MemoryStore())).spec()


def test_identity_sees_values_and_layout(tmp_path):
    other = X.copy()
    other[-1, -1] += 1
    identities = [
        open_source(store(tmp_path / str(i), data, chunks=chunks)).identity()
        for i, (data, chunks) in enumerate([(X, (4, 5)), (other, (4, 5)), (X, (3, 5))])
    ]
    assert json.loads(json.dumps(identities)) == identities
    assert identities[0]["rows"] != identities[1]["rows"]
    assert identities[0]["metadata"] == identities[1]["metadata"]
    assert identities[0]["metadata"] != identities[2]["metadata"]


@pytest.mark.parametrize("shards", [None, (6000, 256)])
def test_projection_bounds_what_reading_takes(tmp_path, shards):
    store(
        tmp_path / "x", np.random.default_rng(0).normal(size=(150000, 256)), chunks=(1000, 256), shards=shards
    )
    code = """
import sys
import numpy as np
from daskumap.engine.base import give_back
from daskumap.store.source import open_source
def status(key):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(key))
give_back()  # as every engine does
source = open_source(sys.argv[1])
source.read(0, 1)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
source.read(0, 150000)
print(status("VmHWM") - before, source.projected_read_bytes(150000))
"""
    root = Path(source_module.__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no /proc to measure with: {error.stderr[-200:]}")
    measured, projected = map(int, done.stdout.split())
    assert measured <= projected <= 2 * measured


# --- ingestion


@pytest.fixture
def group(tmp_path):
    return zarr.open_group(tmp_path / "run.zarr", mode="w")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(ingest_module, "INGEST_CHUNK_BYTES", 700)
    monkeypatch.setattr(ingest_module, "INGEST_BLOCK_BYTES", 3000)


def files(group):
    root = Path(group.store.root)
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [*DTYPES, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_ingest_numpy(group, dtype, order):
    data = np.random.default_rng(0).normal(0, 50, (200, 7)).astype(dtype, order=order)
    source = ingest_numpy(data, group, "source")
    np.testing.assert_array_equal(source.read(0, 200), data.astype("f4"))
    assert source.dtype == np.dtype(dtype).newbyteorder("=")
    assert source.identity()["rows"] == open_source(data).identity()["rows"]
    before = files(group)
    ingest_numpy(data, group, "source")
    assert files(group) == before
    assert open_spec(source.spec()).identity() == source.identity()


@pytest.mark.usefixtures("small_chunks")
def test_ingest_takes_what_numpy_takes(group):
    np.testing.assert_array_equal(ingest_numpy(X.tolist(), group, "list").read(0, 12), X)
    np.testing.assert_array_equal(ingest_numpy(store(MemoryStore()), group, "zarr").read(0, 12), X)
    with pytest.raises(SourceError, match="2 are needed"):
        ingest_numpy(X[0], group, "row")


def test_ingested_chunks_are_checked(group):
    source = ingest_numpy(X, group, "source")
    array = group["source"]
    assert array.fill_value != array.fill_value  # NaN: a lost chunk shows
    chunk = Path(group.store.root) / "source" / "c" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[3] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(SourceError, match=r"Rows 0 to 12 .*'c/0/0'.*checksum"):
        source.read(0, 12)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("chunks", [(1, 7), (13, 7), (50, 3), (400, 7), ((1, 150, 3, 246), (2, 5))])
def test_ingest_dask_gives_the_same_bytes(group, chunks):
    da = pytest.importorskip("dask.array")
    data = np.random.default_rng(0).normal(size=(400, 7))
    array = da.from_array(data, chunks=chunks)
    assert needs_ingest(array)
    expected = ingest_numpy(data, group, "source").identity()
    before = files(group)
    assert ingest_dask(array, group, "source").identity() == expected
    assert files(group) == before


@pytest.mark.usefixtures("small_chunks")
def test_ingest_dask_never_holds_the_array(group):
    """Every dask block is computed once, and few of them between two writes."""
    da = pytest.importorskip("dask.array")
    made, writes, lock = [], [], threading.Lock()

    def block(x, block_info=None):
        with lock:
            made.append(block_info[0]["chunk-location"][0])
        return x

    array = da.zeros((1000, 7), chunks=(20, 7)).map_blocks(block, dtype="f8", meta=np.empty((0, 0)))
    compute = ingest_module._compute
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_module, "_compute", lambda a, i, j: writes.append(j - i) or compute(a, i, j))
        ingest_dask(array, group, "source")
    assert sorted(made) == list(range(50))
    assert max(writes) * 7 * 8 <= 3000
    assert sum(writes) == 1000


def test_dask_of_unknown_size(group):
    da = pytest.importorskip("dask.array")
    array = da.from_array(X, chunks=(4, 5))
    unknown = array[array[:, 0] > 20]
    for use in (open_source, lambda data: ingest_dask(data, group, "source")):
        with pytest.raises(SourceError, match=r"unknown size. Call compute_chunk_sizes\(\)"):
            use(unknown)
    assert ingest_dask(unknown.compute_chunk_sizes(), group, "source").shape == (7, 5)


def test_who_needs_ingestion(tmp_path):
    assert needs_ingest(X)
    assert needs_ingest(X.tolist())
    assert needs_ingest(store(MemoryStore()))
    assert not needs_ingest(str(tmp_path))
    assert not needs_ingest(store(tmp_path / "x"))


def test_data_in_memory_can_be_planned_with():
    source = open_source(X)
    assert isinstance(source, Source)
    assert source.shape == (12, 5)
    assert source.identity()["path"] is None
    assert source.projected_read_bytes(10) >= 10 * 5 * 4
