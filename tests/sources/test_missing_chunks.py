"""Chunks that are not there: counted, told, and refused on request."""

import numpy as np
import pytest
import zarr
from zarr.codecs import ShardingCodec
from zarr.storage import MemoryStore, WrapperStore

from daskumap.errors import ParameterError, SourceError
from daskumap.sources import ingest
from daskumap.sources.find import find
from daskumap.sources.missing import count_missing

DATA = np.arange(1, 1 + 50 * 6, dtype="f4").reshape(50, 6)
SHARDS = {"chunks": (4, 2), "shards": (12, 4)}


def array(store, fill_value=0, data=DATA, path="deep/x", **options):
    made = zarr.create_array(
        store,
        name=path,
        shape=data.shape,
        dtype=data.dtype,
        fill_value=fill_value,
        **{"chunks": (7, 4), **options},
    )
    made[...] = data
    return made


LAYOUTS = {
    "v3": {},
    "v3, dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3, as v2": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v2": {"zarr_format": 2},
    "v2, slashes": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", ["deep/x", None])
@pytest.mark.parametrize("local", [True, False])
def test_chunks_are_counted(tmp_path, layout, path, local):
    made = array(tmp_path / "a.zarr" if local else MemoryStore(), path=path, **LAYOUTS[layout])
    assert count_missing(made) == 0
    made[7:14] = 0  # of two chunks nothing is left
    made[0:3] = 0
    made[49:] = 0
    assert count_missing(made) == 4 == made.nchunks - made.nchunks_initialized
    made[...] = 0
    assert count_missing(made) == 16


def test_other_arrays_beside_do_not_count(tmp_path):
    made = array(tmp_path / "a.zarr", path="x")
    array(tmp_path / "a.zarr", path="x1")
    made[7:14] = 0
    assert count_missing(made) == 2
    made.resize((14, 6))  # chunks beyond the end are no part of it any more
    assert count_missing(made) == 2


@pytest.mark.parametrize("location", ["start", "end"])
def test_chunks_in_shards_are_counted(tmp_path, location):
    codec = ShardingCodec(chunk_shape=(4, 2), index_location=location)
    made = zarr.create_array(
        tmp_path / "a.zarr",
        shape=DATA.shape,
        dtype="f4",
        chunks=(12, 4),
        serializer=codec,
        compressors=None,
        fill_value=0,
    )
    made[...] = DATA
    assert made.chunks == (4, 2)
    assert made.shards == (12, 4)
    assert count_missing(made) == 0
    made[4:8] = 0
    assert count_missing(made) == 3
    made[48:50, 4:] = 0  # a shard at the corner, of one chunk that is part of the array
    assert count_missing(made) == 4
    made[12:24] = 0  # shards of which nothing is left
    assert count_missing(made) == 4 + 9


def test_shards_in_another_codec_count_as_wholes(tmp_path):
    made = array(tmp_path / "a.zarr", **SHARDS, compressors=None)
    made[0:12] = 0
    assert count_missing(made) == 9


class Mute(WrapperStore):
    supports_listing = False


def test_a_store_that_does_not_list(small, fit):
    stored = MemoryStore()
    array(stored, data=small, path=None)
    muted = zarr.open_array(Mute(stored), mode="r")
    assert count_missing(muted) is None
    assert fit(muted, n_epochs=3, report=True).report["measures"]["missing_chunks"] is None
    with pytest.raises(SourceError, match=r"cannot list its chunks.*missing='fill'"):
        fit(muted, n_epochs=3, missing="refuse")


def test_what_is_missing_is_told_or_refused(tmp_path, small, fit):
    made = array(tmp_path / "x.zarr", data=small, path=None, chunks=(50, 8))
    whole = fit(tmp_path / "x.zarr", n_epochs=3, report=True, missing="refuse")
    assert whole.report["measures"]["missing_chunks"] == 0
    made[50:100] = 0
    run = fit(tmp_path / "x.zarr", n_epochs=3, report=True)
    assert run.report["measures"]["missing_chunks"] == 1
    with pytest.raises(
        SourceError, match=r"x\.zarr lacks 1 chunks, which would be read as its fill value\. Write"
    ):
        fit(tmp_path / "x.zarr", n_epochs=3, missing="refuse")
    with pytest.raises(ParameterError, match="missing is 'drop'; allowed are fill, refuse"):
        fit(tmp_path / "x.zarr", missing="drop")


@pytest.mark.parametrize("in_folder", [False, True])
def test_copies_of_ours_lack_nothing(tmp_path, fit, monkeypatch, in_folder):
    monkeypatch.setattr(ingest, "CHUNK_BYTES", 1_600)
    data = np.zeros((500, 4), "i4")  # the first chunk of its copy is all fill value
    data[100:] = np.random.default_rng(0).integers(0, 10**6, (400, 4))
    run = fit(data, tmp_path / "run.zarr" if in_folder else None, n_epochs=3, report=True, missing="refuse")
    assert run.report["measures"]["missing_chunks"] == 0
    assert find(data).count_missing() == 0
