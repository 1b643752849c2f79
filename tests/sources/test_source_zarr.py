import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from source_arrays import DTYPES, X, measure, python, store
from zarr.storage import MemoryStore

from daskumap.errors import ParameterError, SourceError
from daskumap.sources import zarr as zarr_module
from daskumap.sources.find import find


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
    return data, options, start, draw(st.integers(start, rows))


@given(layouts(), st.sampled_from([1, 200, 16 << 20]))
@settings(max_examples=120, deadline=None)
def test_reads_what_numpy_would(case, window):
    data, options, start, stop = case
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(zarr_module, "WINDOW_BYTES", window)  # one tile, many tiles, tiles within a row
        source = find(store(MemoryStore(), data, **options))
        block = source.read(start, stop)
        np.testing.assert_array_equal(block, data.astype("f4")[start:stop])
        assert block.dtype == np.float32
        assert block.flags.c_contiguous
        assert source.shape == data.shape
        assert source.dtype.isnative
        assert source.identity()["chunks"] == list(options.get("shards", options["chunks"]))
        # The fingerprint of the rows and the digest know the values, not the layout.
        native = find(np.asfortranarray(data.astype(source.dtype)))
        assert native.identity()["rows"] == source.identity()["rows"]
        assert native.digest() == source.digest()
        np.testing.assert_array_equal(native.read(start, stop), block)


@given(hnp.arrays("f8", (7, 3), elements=st.floats(allow_nan=True, allow_infinity=True, width=64)))
@settings(max_examples=20, deadline=None)
def test_nan_passes_and_overflow_becomes_inf(data):
    with np.errstate(all="ignore"):
        for given in (data, store(MemoryStore(), data)):
            np.testing.assert_array_equal(find(given).read(0, 7), data.astype("f4"))


@pytest.mark.parametrize("dtype", ["u1", "?", "i8", "f4"])
@pytest.mark.parametrize("stored", [False, True])
def test_bits_as_uint8(dtype, stored):
    data = (X.astype("i8") % 2).astype(dtype)
    source = find(store(MemoryStore(), data) if stored else data)
    assert source.read(1, 9, dtype=np.uint8).dtype == np.uint8
    np.testing.assert_array_equal(source.read(1, 9, dtype=np.uint8), data[1:9])


@pytest.mark.parametrize("value", [0.5, -1, 256, np.nan])
@pytest.mark.parametrize("stored", [False, True])
def test_uint8_refuses_what_it_would_change(value, stored):
    data = X * 0
    data[3, 1] = value
    source = find(store(MemoryStore(), data) if stored else data)
    with pytest.raises(
        SourceError, match=r"Rows 0 to 12 .*float32 values other than integers in 0 to 255.*threshold"
    ):
        source.read(0, 12, dtype=np.uint8)


@pytest.mark.parametrize("stored", [False, True])
def test_wrong_ranges_and_types(stored):
    source = find(store(MemoryStore()) if stored else X)
    for start, stop in [(-1, 3), (0, 13), (5, 4)]:
        with pytest.raises(ParameterError, match=r"were asked for; .* has 12 rows"):
            source.read(start, stop)
    with pytest.raises(ParameterError, match="float32 or uint8, not as float64"):
        source.read(0, 1, dtype="f8")


def test_threads_read_the_same(tmp_path):
    data = np.random.default_rng(0).normal(size=(2000, 16))
    source = find(store(tmp_path / "x", data, chunks=(64, 16), shards=(256, 16)))
    starts = np.random.default_rng(1).integers(0, 1900, 60).tolist()
    with ThreadPoolExecutor(6) as pool:
        for start, block in zip(starts, pool.map(lambda a: source.read(a, a + 100), starts), strict=True):
            np.testing.assert_array_equal(block, data[start : start + 100].astype("f4"))


@pytest.mark.parametrize(("shards", "rows"), [(None, 4), ((8, 5), 4)])
def test_blocks_that_read_well_are_chunks(shards, rows):
    source = find(store(MemoryStore(), shards=shards))
    assert source.block_rows == rows
    assert source.in_place


@pytest.mark.parametrize("codec", ["zstd", "raw"])
def test_a_damaged_chunk_is_named(tmp_path, codec):
    store(tmp_path / "x", **({} if codec == "zstd" else {"compressors": None}))
    chunk = tmp_path / "x" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    source = find(tmp_path / "x")
    np.testing.assert_array_equal(source.read(0, 4), X[:4])
    with pytest.raises(SourceError, match=r"Rows 4 to 8 of .*chunk 'c/1/0' fails with .*Restore it") as info:
        source.read(0, 12)
    assert info.value.__cause__ is not None


def test_a_damaged_shard_is_named(tmp_path):
    store(tmp_path / "x", chunks=(2, 5), shards=(6, 5))
    shard = tmp_path / "x" / "c" / "1" / "0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    with pytest.raises(SourceError, match=r"Rows 6 to 8 of .*chunk 'c/1/0'"):
        find(tmp_path / "x").read(5, 12)


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
    source = find(store(where := Unreachable()))
    where.failures = failures
    with pytest.raises(SourceError, match=message):
        source.read(0, 12)


def test_spec_opens_in_another_process(tmp_path):
    array = store(tmp_path / "g" / "X")
    array.attrs["note"] = 1
    code = (
        "import json, sys; from daskumap.sources.find import open_spec;"
        "s = open_spec(json.loads(sys.argv[1]));"
        "print(json.dumps([s.identity(), s.digest(), s.read(2, 9).tolist()]))"
    )
    seen = json.loads(python(code, json.dumps(find(array).spec())))
    array.attrs["note"] = 2  # the user's attributes are not the data
    source = find(tmp_path / "g" / "X")
    assert seen == [source.identity(), source.digest(), X[2:9].tolist()]


def test_identity_sees_values_and_layout(tmp_path):
    other = X.copy()
    other[-1, -1] += 1
    identities = [
        find(store(tmp_path / str(i), data, chunks=chunks)).identity()
        for i, (data, chunks) in enumerate([(X, (4, 5)), (other, (4, 5)), (X, (3, 5))])
    ]
    assert json.loads(json.dumps(identities)) == identities
    assert identities[0]["rows"] != identities[1]["rows"]
    assert identities[0]["metadata"] == identities[1]["metadata"]
    assert identities[0]["metadata"] != identities[2]["metadata"]


def test_identity_of_runs_that_were_started_before(tmp_path):
    """The values are those that version 0.1.0 wrote into run stores, or those runs could not go on."""
    identity, in_memory = find(store(tmp_path / "x")).identity(), find(X).identity()
    assert len(identity.pop("metadata")) == 64  # it depends on what zarr's version writes
    assert identity == {
        "shape": [12, 5],
        "dtype": "<f4",
        "chunks": [4, 5],
        "path": str(tmp_path / "x"),
        "rows": "b9e9ec688c9cf8a551f6951494cd0f9daba63ea171eaff645426d20f66b8577c",
    }
    assert in_memory == identity | {"chunks": [12, 5], "path": None, "metadata": None}
    for source in (find(X), find(tmp_path / "x")):
        assert source.digest() == "ebfcf5bd6ced82bc1fc16a62422dc006fdd5afca15a51143159c43ed65392ed6"


@pytest.mark.parametrize("shards", [None, (6000, 256)])
def test_projection_bounds_what_reading_takes(tmp_path, shards):
    chunk = np.random.default_rng(0).normal(size=(1000, 256))
    store(tmp_path / "x", np.tile(chunk, (75, 1)), chunks=(1000, 256), shards=shards)
    code = """
source = find(sys.argv[1])
source.read(0, 1)
before = reset()
source.read(0, 75000)
print(status("VmHWM") - before, source.read_bytes(75000))
"""
    measured, projected = measure(code, tmp_path / "x")
    assert measured <= projected <= 2 * measured
