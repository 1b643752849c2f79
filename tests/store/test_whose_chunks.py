"""Chunks are known by what they are and whose; metadata are what was written, and nothing else is decoded."""

import dataclasses
import json
import shutil

import numcodecs
import numpy as np
import pytest
import zarr
from conftest import copied, sha
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

import daskumap
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import DaskumapError, StoreError
from daskumap.report.progress import choose_progress
from daskumap.request import make_request
from daskumap.run import Run
from daskumap.session import fit_request
from daskumap.sources import ingest
from daskumap.store import lock
from daskumap.store.places import Held

OPTIONS = {"n_epochs": 20, "checkpoint_every": 5, "keep": "all", "max_cell_rows": 600}
# Small enough for several chunks of each array.
ROWS = 2000
SIZES = {
    "row_block": 400,
    "vertex_chunk": 400,
    "partition_rows": 1200,
    "layout_rows": 1200,
    "group_rows": 1000,
}
# Of each array that a run keeps in chunks, two in each other's place.
SWAPPED = {
    "neighbors.merge": "knn/indices",
    "calibrate": "calibration/rho",
    "initialize": "initial",
    "layout": "layout/00000003/positions",
    "publish": "embedding",
    "partition.assign": "assign/cells",
}
# An array, and another one of the same shape and type whose chunk passes for its own.
EXCHANGED = {
    "calibrate": ("calibration/rho", "calibration/sigma"),
    "layout": ("layout/00000003/mean", "layout/00000003/positions"),
    "symmetrize": ("graph/00000000/weights", "graph/00000001/weights"),
    "neighbors": ("found/00000000/ids", "found/00000001/ids"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, clustered):
    """A run, and another one of the same rows with another seed: their stores in memory, and the map."""
    source = tmp_path_factory.mktemp("made") / "x.zarr"
    zarr.create_array(str(source), data=clustered[:ROWS], chunks=(512, 16))
    runs = []
    for seed in (1, 2):
        asked = make_request(source, {**OPTIONS, "random_state": seed, "report": False}, 2)
        asked = dataclasses.replace(asked, adjust=lambda sizes: dataclasses.replace(sizes, **SIZES))
        engine = SequentialEngine(4 * 10**9)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Held, "shared", True)  # with checkpoints, as on disk
            patch.setattr(lock, "SETTLE_SECONDS", 0.0)
            runs.append(Run(fit_request(asked, MemoryStore(), engine, choose_progress(False), restart=False)))
    first, second = (run.store.documents.store for run in runs)
    return first, second, sha(runs[0].embedding)


@pytest.fixture
def place(made):
    """A copy of the first."""
    return copied(made[0])


def chunks(place, array):
    return sorted(key for key in place._store_dict if key.startswith(f"{array}/c/"))


def swap(place, one, other):
    first, second = place._store_dict[one].to_bytes(), place._store_dict[other].to_bytes()
    assert len(first) == len(second)
    assert first != second
    put(place, one, second)
    put(place, other, first)


def put(place, key, content):
    place._store_dict[key] = default_buffer_prototype().buffer.from_bytes(content)


def remove(place, folder):
    for key in [key for key in place._store_dict if key.startswith(f"{folder}/")]:
        del place._store_dict[key]


def written(place, folder):
    """Write what a store in memory holds to disk; return where."""
    for key, value in place._store_dict.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(value.to_bytes())
    return folder


def assert_mended(place, damaged, bits):
    """All that is damaged, arrays by stage, is found and named, and made again to the same bits."""
    found = daskumap.verify(place, repair=True)
    assert found.keys() >= damaged.keys()
    for stage, array in damaged.items():
        assert any(array in text for text in found[stage]), found
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == bits
    assert daskumap.verify(place) == {}


def test_chunks_in_each_others_place_are_found(made, place):
    for array in SWAPPED.values():
        first, second, *_ = chunks(place, array)
        swap(place, first, second)
    assert_mended(place, SWAPPED, made[2])


def test_chunks_of_another_array_are_found(made, place):
    for array, other in EXCHANGED.values():
        place._store_dict[chunks(place, array)[0]] = made[0]._store_dict[chunks(place, other)[0]]
    assert_mended(place, {stage: array for stage, (array, _) in EXCHANGED.items()}, made[2])


def test_chunks_of_another_run_are_found(made, place):
    damaged = {
        "scan": "scan/sample/00000000/rows",
        "partition.cells": "cells/centroids",
        "initialize": "initial",
        "publish": "embedding",
    }
    for array in damaged.values():
        place._store_dict[chunks(place, array)[0]] = made[1]._store_dict[chunks(place, array)[0]]
    assert_mended(place, damaged, made[2])


def test_what_reads_a_chunk_in_the_wrong_place_stops(made, place):
    """Not only `verify` sees it: a task that reads it fails."""
    first, second, *_ = chunks(place, "calibration/rho")
    swap(place, first, second)
    with pytest.raises(StoreError, match=r"calibration/rho, rows 0 to the last, is damaged .*checksum"):
        daskumap.open(place).store.read("calibration/rho")


def test_a_missing_chunk_is_no_filling(made, place):
    del place._store_dict[chunks(place, "embedding")[1]]
    with pytest.raises(StoreError, match=r"The chunk embedding/c/1/0 is missing in .* verify --repair"):
        daskumap.open(place).embedding[:]


def test_a_batch_that_is_missing_is_found(made, place):
    remove(place, "graph/00000001")
    remove(place, "reverse/00000000/heads")
    found = daskumap.verify(place)
    assert found["calibrate"] == ["reverse/00000000/heads is missing"]
    assert found["symmetrize"] == ["graph/00000001 is gone"]
    assert_mended(place, {"symmetrize": "graph/00000001"}, made[2])


def test_other_tools_read_the_embedding_and_are_told_of_the_rest(made, tmp_path):
    place = written(made[0], tmp_path / "run.zarr")
    np.testing.assert_array_equal(zarr.open_array(f"{place}/embedding")[:], daskumap.open(place).embedding[:])
    group = zarr.open_group(place, mode="r")
    assert sha(group["embedding"]) == made[2]
    with pytest.raises(Exception, match=r"daskumap\.seal"):
        group["knn/indices"]


def test_the_copy_of_an_input_is_known_too(fit, small, held, monkeypatch):
    monkeypatch.setattr(ingest, "CHUNK_BYTES", 1600)
    bits = sha(fit(small, held, **OPTIONS).embedding)
    first, second, *_ = chunks(held, "input/rows")
    swap(held, first, second)
    (found,) = daskumap.verify(held).values()
    assert found[0].startswith("input/rows, rows 0 to ")
    assert list(daskumap.verify(held, repair=True)) == ["input"]
    with pytest.raises(StoreError, match=r"Call daskumap\.fit again to go on"):
        daskumap.resume(held, client="sequential", progress=False)
    assert sha(fit(small, held, **OPTIONS).embedding) == bits
    assert daskumap.verify(held) == {}


# Metadata.


def documents(place):
    """Return the metadata of all arrays and inner groups of a run store."""
    return {key: value.to_bytes() for key, value in place._store_dict.items() if key.endswith("/zarr.json")}


def test_every_flipped_bit_in_metadata_is_found(made):
    """A bit that changes nothing but how the text is laid out is none."""
    held = {key: made[0]._store_dict[key] for key in ("zarr.json", "embedding/zarr.json")}
    content, silent = held["embedding/zarr.json"].to_bytes(), 0
    meant, to_buffer = json.loads(content), default_buffer_prototype().buffer.from_bytes
    store = daskumap.open(MemoryStore(held)).store
    assert store.array("embedding").shape == (ROWS, 2)
    for bit in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        held["embedding/zarr.json"] = to_buffer(bytes(flipped))
        try:
            store.array("embedding")
        except StoreError:
            continue
        silent += 1
        assert json.loads(flipped) == meant
    assert silent < 300


CHANGES = {
    "scan": ("scan/sample/00000000/rows", {"attributes": {}}),
    "partition.cells": ("cells/centroids", {"codecs": [{"name": "bytes"}, {"name": "zstd"}]}),
    "neighbors.merge": ("knn/distances", {"chunk_key_encoding": {"name": "v2"}}),
    "calibrate": ("calibration/rho", {"data_type": "int32"}),
    "symmetrize": ("graph/00000000/weights", {"fill_value": 0.5}),
    "initialize": ("initial", {"dimension_names": ["a", "b"]}),
    "publish": ("embedding", {"shape": [3000, 2]}),
}


def test_metadata_are_those_that_were_written(made, place):
    for array, change in CHANGES.values():
        before = json.loads(documents(place)[f"{array}/zarr.json"])
        assert before | change != before
        put(place, f"{array}/zarr.json", json.dumps(before | change).encode())
    damaged = {stage: f"the metadata of {array} are damaged" for stage, (array, _) in CHANGES.items()}
    assert list(daskumap.verify(place)) == list(damaged)
    assert_mended(place, damaged, made[2])


def test_metadata_of_another_run_or_array_are_found(made, place):
    values = place._store_dict
    values["initial/zarr.json"] = made[1]._store_dict["initial/zarr.json"]
    values["calibration/sigma/zarr.json"] = values["calibration/rho/zarr.json"]
    assert list(daskumap.verify(place)) == ["calibrate", "initialize"]


@pytest.mark.parametrize("kind", ["cut short", "deleted"])
def test_all_metadata_are_made_again(made, place, kind):
    """Those of inner groups too."""
    before = documents(place)
    for key, content in before.items():
        if kind == "deleted":
            del place._store_dict[key]
        else:
            put(place, key, content[:20])
    with pytest.raises(StoreError):
        daskumap.open(place).embedding[:]
    daskumap.verify(place, repair=True)
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == made[2]
    assert daskumap.verify(place) == {}
    assert documents(place) == before


def test_groups_alone_are_made_again(made, place):
    for group in ("knn", "graph", "graph/00000000"):
        put(place, f"{group}/zarr.json", b"{")
    found = daskumap.verify(place)
    assert set(found) == {"neighbors.merge", "symmetrize"}
    assert any("the metadata of graph/00000000 are damaged" in text for text in found["symmetrize"])
    assert_mended(place, {"symmetrize": "graph/00000000"}, made[2])


# What is decoded.


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return open, (self.witness, "w")


def plant(path, witness):
    """Write an array of objects that run code when they are read, as Zarr v2 may hold them."""
    array = zarr.create_array(
        str(path), shape=(3, 2), chunks=(3, 2), dtype="f8", filters=None, compressors=None, zarr_format=2
    )
    array[...] = 0
    document = json.loads((path / ".zarray").read_text())
    document |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 4}], "fill_value": None}
    (path / ".zarray").write_text(json.dumps(document))
    objects = np.full((3, 2), None)
    objects[...] = Bomb(str(witness))
    (path / "0.0").write_bytes(numcodecs.Pickle(4).encode(objects))


def test_nothing_of_a_v2_run_store_is_decoded(made, place, tmp_path):
    """The group is one of Zarr v2, and so is the embedding."""
    place = written(place, tmp_path / "run.zarr")
    about = json.loads((place / "zarr.json").read_text())["attributes"]
    (place / ".zgroup").write_text('{"zarr_format": 2}')
    (place / ".zattrs").write_text(json.dumps(about))
    (place / "zarr.json").unlink()
    shutil.rmtree(place / "embedding")
    plant(place / "embedding", tmp_path / "witness")
    for look in (daskumap.open, daskumap.verify):
        with pytest.raises(DaskumapError, match="holds something, and it is no run store"):
            look(place)
    assert not (tmp_path / "witness").exists()


def test_nothing_of_a_v2_array_in_a_run_store_is_decoded(made, place, tmp_path):
    place = written(place, tmp_path / "run.zarr")
    shutil.rmtree(place / "embedding")
    plant(place / "embedding", tmp_path / "witness")
    assert daskumap.verify(place) == {"publish": ["embedding is missing"]}
    with pytest.raises(StoreError, match="embedding is missing"):
        daskumap.open(place).embedding  # noqa: B018
    assert not (tmp_path / "witness").exists()
