"""Inputs are decoded by codecs that make numbers, and by no others."""

import json

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec
from zarr.codecs import numcodecs as wrapped

import daskumap
from daskumap.errors import SourceError
from daskumap.sources import codecs
from daskumap.sources.find import find

DATA = np.arange(120, dtype="f4").reshape(30, 4)


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return open, (self.witness, "w")


def plant(path, witness, dtype="<f8"):
    """Write an array of Zarr v2 whose chunk runs code when it is decoded."""
    zarr.create_array(
        str(path), shape=(30, 4), chunks=(30, 4), dtype="f8", filters=None, compressors=None, zarr_format=2
    )
    document = json.loads((path / ".zarray").read_text())
    document |= {"dtype": dtype, "filters": [{"id": "pickle", "protocol": 4}], "fill_value": None}
    (path / ".zarray").write_text(json.dumps(document))
    objects = np.full((30, 4), None)
    objects[...] = Bomb(str(witness))
    (path / "0.0").write_bytes(numcodecs.Pickle(4).encode(objects))


@pytest.mark.parametrize("dtype", ["<f8", "|O"])
def test_no_pickle_is_decoded(tmp_path, dtype):
    """Neither of objects nor of what says that it is numbers, nor as one of a group's arrays."""
    plant(tmp_path / "g.zarr" / "x", tmp_path / "witness", dtype)
    (tmp_path / "g.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    for place in (tmp_path / "g.zarr" / "x", tmp_path / "g.zarr"):
        with pytest.raises(SourceError):
            daskumap.fit(place, client="sequential", progress=False)
    assert not (tmp_path / "witness").exists()


REFUSED = [
    {"id": "pickle", "protocol": 4},
    {"id": "json2"},
    {"id": "msgpack2"},
    {"id": "vlen-array", "dtype": "<f8"},
    {"id": "vlen-utf8"},
    {"id": "categorize", "labels": ["a"], "dtype": "|O", "astype": "|u1"},
    {"id": "base64"},
]


@pytest.mark.parametrize("codec", REFUSED, ids=lambda codec: codec["id"])
@pytest.mark.parametrize("where", ["filters", "compressor"])
def test_codecs_of_objects_are_refused_by_name(tmp_path, codec, where):
    array = zarr.create_array(str(tmp_path / "x.zarr"), data=DATA, zarr_format=2, compressors=None)
    path = tmp_path / "x.zarr" / ".zarray"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {where: [codec] if where == "filters" else codec}))
    # Zarr itself refuses some of them for numbers.
    ours = rf"is stored with the filter or compressor '{codec['id']}', .* Allowed are blosc, .*Rewrite"
    with pytest.raises(SourceError, match=rf"{ours}|cannot be opened as Zarr .*{codec['id']}"):
        find(tmp_path / "x.zarr")
    path.write_text(json.dumps(document))
    np.testing.assert_array_equal(find(array).read(0, 30), DATA)


@pytest.mark.filterwarnings("ignore:.*[Nn]umcodecs.*")
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a shard"])
def test_other_codecs_of_v3_are_refused_by_name(tmp_path, monkeypatch, inside):
    """One that is installed, and that nobody looked at."""
    path, shards = tmp_path / "x.zarr", {"shards": (20, 4)} if inside else {}
    zarr.create_array(
        str(path), shape=(20, 4), chunks=(10, 4), dtype="f4", compressors=[wrapped.Adler32()], **shards
    )
    assert find(path).shape == (20, 4)
    monkeypatch.setattr(codecs, "NAMES", codecs.NAMES - {"numcodecs.adler32"})
    with pytest.raises(SourceError, match=r"stored with the codec 'numcodecs\.adler32', which may"):
        find(path)


V2 = {
    "blosc": {"compressors": numcodecs.Blosc("lz4", shuffle=1)},
    "zlib": {"compressors": numcodecs.Zlib()},
    "lzma": {"compressors": numcodecs.LZMA()},
    "bz2": {"compressors": numcodecs.BZ2()},
    "lz4": {"compressors": numcodecs.LZ4()},
    "delta": {"filters": [numcodecs.Delta("<f4")], "compressors": numcodecs.Zstd()},
    "scaled": {"filters": [numcodecs.FixedScaleOffset(0, 1, "<f4", "<i4")], "compressors": None},
    "shuffle": {"filters": [numcodecs.Shuffle(4)], "compressors": numcodecs.GZip()},
    "bitround": {"filters": [numcodecs.BitRound(20)], "compressors": None},
}
V3 = {
    "blosc": {"compressors": [BloscCodec()]},
    "gzip": {"compressors": [GzipCodec()]},
    "zstd, in shards": {"compressors": [ZstdCodec()], "shards": (20, 4)},
    "transpose": {"filters": [TransposeCodec(order=(1, 0))]},
    "zlib": {"compressors": [wrapped.Zlib()]},
    "shuffle": {"compressors": [wrapped.Shuffle(elementsize=4), wrapped.LZ4()]},
    "delta": {"filters": [wrapped.Delta(dtype="<f4")]},
}
CASES = [(2, name) for name in V2] + [(3, name) for name in V3]


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:.*[Nn]umcodecs.*")
@pytest.mark.parametrize(("version", "name"), CASES, ids=str)
def test_codecs_of_numbers_are_taken(tmp_path, version, name):
    options = {2: V2, 3: V3}[version][name]
    where = str(tmp_path / "x.zarr")
    array = zarr.create_array(
        where, shape=(30, 4), chunks=(10, 4), dtype="f4", zarr_format=version, **options
    )
    array[...] = DATA
    np.testing.assert_allclose(find(where).read(0, 30), DATA, rtol=1e-5)
