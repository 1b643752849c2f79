"""Labels lie in a run store as they came, block by block."""

import numpy as np
import pytest

import daskumap
from daskumap.sources.find import find
from daskumap.store import labels as module
from daskumap.store.labels import InMemory, Read, find_damaged_labels

QUICK = {"n_epochs": 5, "report": False, "client": "sequential", "progress": False}
COLUMNS = {
    "name": [f"Zelle {row} é" if row % 7 else None for row in range(200)],
    "../odd / name": np.arange(200, dtype=np.int16),
    "weight": np.linspace(0, 1, 200).astype(np.float32),
    "good": np.arange(200) % 2 == 0,
    "time": np.datetime64("2026-01-01", "ns") + np.arange(200).astype("m8[h]"),
    "bytes": np.array([b"ab", b""] * 100),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 64)


@pytest.fixture
def labelled(small):
    found = find(small[:200])
    found.labels = {name: InMemory(values) for name, values in COLUMNS.items()}
    return found


def same(found, wanted):
    assert list(found) == list(wanted)
    for name, column in found.items():
        values = np.asarray(InMemory(wanted[name])[:])
        assert len(column) == 200
        for part in (
            slice(None),
            slice(60, 70),
            slice(64, 128),
            slice(5, 5),
            slice(-3, None),
            slice(0, 99, 2),
        ):
            assert column[part].dtype == values.dtype
            assert column[part].tolist() == values[part].tolist(), name
        assert column[3] == values[3]


@pytest.mark.parametrize("on_disk", [True, False])
def test_labels_are_what_they_were(labelled, tmp_path, on_disk):
    place = tmp_path / "run.zarr" if on_disk else None
    run = daskumap.fit(labelled, place, **QUICK)
    same(run.labels, COLUMNS)
    if on_disk:
        same(daskumap.open(place).labels, COLUMNS)
        assert daskumap.verify(place) == {}
        run.save(tmp_path / "model.zarr")
        same(daskumap.open(tmp_path / "model.zarr").labels, COLUMNS)
        # A fit of the run's neighbours is of the same rows.
        same(daskumap.fit(run, min_dist=0.3, **QUICK).labels, COLUMNS)


def test_labels_are_read_by_blocks(small):
    asked = []

    def read(start, stop):
        asked.append((start, stop))
        return [str(row) for row in range(start, stop)]

    found = find(small[:200])
    found.labels = {"id": Read(200, "text", read)}
    run = daskumap.fit(found, **QUICK)
    assert run.labels["id"][:].tolist() == [str(row) for row in range(200)]
    assert [pair for pair in asked if pair[1] - pair[0] > 1] == [(0, 64), (64, 128), (128, 192), (192, 200)]


def test_other_labels_are_another_input(labelled, small, tmp_path):
    daskumap.fit(labelled, tmp_path / "run.zarr", **QUICK)
    with pytest.raises(daskumap.RunMismatchError, match="labels was"):
        daskumap.fit(small[:200], tmp_path / "run.zarr", **QUICK)


def test_damaged_labels_are_found_and_brought_again(labelled, tmp_path):
    run = daskumap.fit(labelled, tmp_path / "run.zarr", **QUICK)
    (chunk,) = (tmp_path / "run.zarr" / "labels" / "0" / "00000001" / "letters" / "c").iterdir()
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    assert "'name'" in find_damaged_labels(run.store)[0]
    assert "'name'" in daskumap.verify(tmp_path / "run.zarr", repair=True)["input"][0]
    again = daskumap.fit(labelled, tmp_path / "run.zarr", **QUICK)
    same(again.labels, COLUMNS)


def test_what_pandas_lacks_is_missing():
    import pandas as pd

    assert str(InMemory(pd.array([1, None], "Int64"))[1]) in ("nan", "None")  # by the version of pandas
    assert InMemory(np.array([pd.NA, 1], object))[:].tolist() == [None, "1"]
    assert InMemory(pd.array(["a", None], "string"))[:].tolist() == ["a", None]
