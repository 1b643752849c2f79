"""Chunks are known by what they are and whose; metadata are what was written, and nothing else is decoded."""

import dataclasses
import json
import shutil
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from conftest import sha
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

OPTIONS = {"n_epochs": 20, "checkpoint_every": 5, "keep": "all", "max_cell_rows": 600}
# Small enough for several chunks of each array.
SIZES = {
    "row_block": 1024,
    "vertex_chunk": 1024,
    "partition_rows": 3072,
    "layout_rows": 3072,
    "group_rows": 3000,
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


@pytest.fixture
def place(tmp_path):
    return tmp_path / "run.zarr"


@pytest.fixture(scope="module")
def made(tmp_path_factory, clustered):
    """A run, and another one of the same rows with another seed: places of their stores, and the map."""
    folder = tmp_path_factory.mktemp("made")
    zarr.create_array(str(folder / "x.zarr"), data=clustered, chunks=(512, 16))
    runs = []
    for seed in (1, 2):
        asked = make_request(folder / "x.zarr", {**OPTIONS, "random_state": seed, "report": False}, 2)
        asked = dataclasses.replace(asked, adjust=lambda sizes: dataclasses.replace(sizes, **SIZES))
        engine = SequentialEngine(4 * 10**9)
        store = fit_request(asked, folder / f"{seed}.zarr", engine, choose_progress(False), restart=False)
        runs.append(Run(store))
    return Path(runs[0].path), Path(runs[1].path), sha(runs[0].embedding)


def chunks(place, array):
    return sorted(path for path in (place / array / "c").rglob("*") if path.is_file())


def swap(one, other):
    first, second = one.read_bytes(), other.read_bytes()
    assert len(first) == len(second)
    assert first != second
    one.write_bytes(second)
    other.write_bytes(first)


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
    shutil.copytree(made[0], place)
    for array in SWAPPED.values():
        first, second, *_ = chunks(place, array)
        swap(first, second)
    assert_mended(place, SWAPPED, made[2])


def test_chunks_of_another_array_are_found(made, place):
    shutil.copytree(made[0], place)
    for array, other in EXCHANGED.values():
        shutil.copyfile(chunks(made[0], other)[0], chunks(place, array)[0])
    assert_mended(place, {stage: array for stage, (array, _) in EXCHANGED.items()}, made[2])


def test_chunks_of_another_run_are_found(made, place):
    shutil.copytree(made[0], place)
    damaged = {
        "scan": "scan/sample/00000000/rows",
        "partition.cells": "cells/centroids",
        "initialize": "initial",
        "publish": "embedding",
    }
    for array in damaged.values():
        shutil.copyfile(chunks(made[1], array)[0], chunks(place, array)[0])
    assert_mended(place, damaged, made[2])


def test_what_reads_a_chunk_in_the_wrong_place_stops(made, place):
    """Not only `verify` sees it: a task that reads it fails."""
    shutil.copytree(made[0], place)
    first, second, *_ = chunks(place, "calibration/rho")
    swap(first, second)
    with pytest.raises(StoreError, match=r"calibration/rho, rows 0 to the last, is damaged .*checksum"):
        daskumap.open(place).store.read("calibration/rho")


def test_a_missing_chunk_is_no_filling(made, place):
    shutil.copytree(made[0], place)
    chunks(place, "embedding")[1].unlink()
    with pytest.raises(StoreError, match=r"The chunk embedding/c/1/0 is missing in .* verify --repair"):
        daskumap.open(place).embedding[:]


def test_a_batch_that_is_missing_is_found(made, place):
    shutil.copytree(made[0], place)
    shutil.rmtree(place / "graph/00000001")
    shutil.rmtree(place / "reverse/00000000/heads")
    found = daskumap.verify(place)
    assert found["calibrate"] == ["reverse/00000000/heads is missing"]
    assert found["symmetrize"] == ["graph/00000001 is gone"]
    assert_mended(place, {"symmetrize": "graph/00000001"}, made[2])


def test_other_tools_read_the_embedding_and_are_told_of_the_rest(made):
    np.testing.assert_array_equal(
        zarr.open_array(f"{made[0]}/embedding")[:], daskumap.open(made[0]).embedding[:]
    )
    group = zarr.open_group(made[0], mode="r")
    assert sha(group["embedding"]) == made[2]
    with pytest.raises(Exception, match=r"daskumap\.seal"):
        group["knn/indices"]


def test_the_copy_of_an_input_is_known_too(fit, small, place, monkeypatch):
    monkeypatch.setattr(ingest, "CHUNK_BYTES", 1600)
    bits = sha(fit(small, place, **OPTIONS).embedding)
    first, second, *_ = chunks(place, "input/rows")
    swap(first, second)
    (found,) = daskumap.verify(place).values()
    assert found[0].startswith("input/rows, rows 0 to ")
    assert list(daskumap.verify(place, repair=True)) == ["input"]
    with pytest.raises(StoreError, match=r"Call daskumap\.fit again to go on"):
        daskumap.resume(place, client="sequential", progress=False)
    assert sha(fit(small, place, **OPTIONS).embedding) == bits
    assert daskumap.verify(place) == {}


# Metadata.


def documents(place):
    """Return the metadata of all arrays and inner groups of a run store."""
    return sorted(path for path in place.rglob("zarr.json") if path.parent != place)


def test_every_flipped_bit_in_metadata_is_found(made):
    """A bit that changes nothing but how the text is laid out is none."""
    content, silent = (made[0] / "embedding/zarr.json").read_bytes(), 0
    meant, to_buffer = json.loads(content), default_buffer_prototype().buffer.from_bytes
    held = {"zarr.json": to_buffer((made[0] / "zarr.json").read_bytes())}
    store = daskumap.open(MemoryStore(held)).store
    held["embedding/zarr.json"] = to_buffer(content)
    assert store.array("embedding").shape == (6000, 2)
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
    shutil.copytree(made[0], place)
    for array, change in CHANGES.values():
        path = place / array / "zarr.json"
        before = json.loads(path.read_text())
        assert before | change != before
        path.write_text(json.dumps(before | change))
    damaged = {stage: f"the metadata of {array} are damaged" for stage, (array, _) in CHANGES.items()}
    assert list(daskumap.verify(place)) == list(damaged)
    assert_mended(place, damaged, made[2])


def test_metadata_of_another_run_or_array_are_found(made, place):
    shutil.copytree(made[0], place)
    shutil.copyfile(f"{made[1]}/initial/zarr.json", place / "initial/zarr.json")
    shutil.copyfile(place / "calibration/rho/zarr.json", place / "calibration/sigma/zarr.json")
    assert list(daskumap.verify(place)) == ["calibrate", "initialize"]


@pytest.mark.parametrize("kind", ["cut short", "deleted"])
def test_all_metadata_are_made_again(made, place, kind):
    """Those of inner groups too."""
    shutil.copytree(made[0], place)
    before = {path: path.read_bytes() for path in documents(place)}
    for path in before:
        if kind == "deleted":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(StoreError):
        daskumap.open(place).embedding[:]
    daskumap.verify(place, repair=True)
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == made[2]
    assert daskumap.verify(place) == {}
    assert {path: path.read_bytes() for path in documents(place)} == before


def test_groups_alone_are_made_again(made, place):
    shutil.copytree(made[0], place)
    for group in ("knn", "graph", "graph/00000000"):
        (place / group / "zarr.json").write_text("{")
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
    shutil.copytree(made[0], place)
    about = json.loads((place / "zarr.json").read_text())["attributes"]
    (place / ".zgroup").write_text('{"zarr_format": 2}')
    (place / ".zattrs").write_text(json.dumps(about))
    (place / "zarr.json").unlink()
    shutil.rmtree(place / "embedding")
    plant(place / "embedding", tmp_path / "witness")
    with pytest.raises(DaskumapError, match="There is no run store at"):
        daskumap.open(place)
    with pytest.raises(DaskumapError, match="There is no run store at"):
        daskumap.verify(place)
    assert not (tmp_path / "witness").exists()


def test_nothing_of_a_v2_array_in_a_run_store_is_decoded(made, place, tmp_path):
    shutil.copytree(made[0], place)
    shutil.rmtree(place / "embedding")
    plant(place / "embedding", tmp_path / "witness")
    assert daskumap.verify(place) == {"publish": ["embedding is missing"]}
    with pytest.raises(StoreError, match="embedding is missing"):
        daskumap.open(place).embedding  # noqa: B018
    assert not (tmp_path / "witness").exists()
