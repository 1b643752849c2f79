"""Maps as tables, read back by the libraries that people use."""

import csv

import numpy as np
import pandas as pd
import pytest

import daskumap
from daskumap.errors import ParameterError, StoreError
from daskumap.exports import tables
from daskumap.exports.files import whole_file
from daskumap.sources.find import find
from daskumap.store import labels
from daskumap.store.labels import InMemory

QUICK = {"n_epochs": 5, "report": False, "client": "sequential", "progress": False}
TIMES = np.datetime64("2026-01-01", "ns") + np.arange(200).astype("m8[h]")
NAMES = [f'a, "b" {row}' if row else None for row in range(200)]


@pytest.fixture(scope="module")
def run():
    """A run with labels."""
    rows = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    found = find(rows)
    found.labels = {"name": InMemory(NAMES), "x": InMemory(np.arange(200)), "time": InMemory(TIMES)}
    return daskumap.fit(found, **QUICK)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_ROWS", 64)


def test_parquet(run, tmp_path):
    assert daskumap.export(run, tmp_path / "map.parquet") == tmp_path / "map.parquet"
    table = pd.read_parquet(tmp_path / "map.parquet")
    assert list(table) == ["x", "y", "name", "x_label", "time"]
    assert table.dtypes["x"] == table.dtypes["y"] == np.float32
    np.testing.assert_array_equal(table[["x", "y"]].to_numpy(), run.embedding[:])
    assert table["name"].isna()[0]
    assert table["name"][1:].tolist() == NAMES[1:]
    assert table["x_label"].tolist() == list(range(200))
    np.testing.assert_array_equal(table["time"].to_numpy(), TIMES)


@pytest.mark.parametrize(("ending", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_text(run, tmp_path, ending, delimiter):
    path = daskumap.export(run, str(tmp_path / f"map{ending}"), columns=["umap_1", "umap_2"])
    table = pd.read_csv(path, sep=delimiter, parse_dates=["time"])
    assert list(table) == ["name", "x", "time", "umap_1", "umap_2"]
    np.testing.assert_array_equal(table[["umap_1", "umap_2"]].to_numpy(np.float32), run.embedding[:])
    assert table["name"][1:].tolist() == NAMES[1:]
    np.testing.assert_array_equal(table["time"].to_numpy(), TIMES)
    with open(path, newline="") as file:
        assert len(list(csv.reader(file, delimiter=delimiter))) == 201


def test_npy(run, tmp_path):
    np.testing.assert_array_equal(np.load(daskumap.export(run, tmp_path / "map.npy")), run.embedding[:])


def test_what_is_there_stays(run, tmp_path):
    path = tmp_path / "map.npy"
    path.write_bytes(b"mine")
    with pytest.raises(ParameterError, match=r"map.npy is there already.*--overwrite"):
        daskumap.export(run, path)
    assert path.read_bytes() == b"mine"
    daskumap.export(run, path, overwrite=True)
    assert np.load(path).shape == (200, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.npy"]


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text("mine")
    with pytest.raises(AttributeError), whole_file(path, overwrite=True) as made:
        made.write_text("half").__fspath__()
    assert path.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.csv"]


def test_targets_that_cannot_be(run, tmp_path):
    with pytest.raises(
        ParameterError, match=r"target 'map.xyz'. A map is written as: .*NAME.parquet.*NAME.npy"
    ):
        daskumap.export(run, "map.xyz")
    with pytest.raises(ParameterError, match=r"kind='excel'"):
        daskumap.export(run, "map.csv", kind="excel")
    with pytest.raises(ParameterError, match="kind npy has no option columns; it has none"):
        daskumap.export(run, tmp_path / "map.npy", columns=["a"])
    with pytest.raises(ParameterError, match=r"columns names \['a'\]; the map has 2 columns"):
        daskumap.export(run, tmp_path / "map.csv", columns=["a"])
    with pytest.raises(ParameterError, match="overwrite is 'no'"):
        daskumap.export(run, tmp_path / "map.csv", overwrite="no")
    with pytest.raises(StoreError, match="no folder"):
        daskumap.export(run, tmp_path / "none" / "map.csv")
    with pytest.raises(ParameterError, match="is a folder"):
        daskumap.export(run, tmp_path, kind="csv")
    with pytest.raises(StoreError, match="no run store"):
        daskumap.export(tmp_path / "none.zarr", tmp_path / "map.csv")


def test_rows_that_were_placed_are_exported_by_path(run, tmp_path):
    placed = daskumap.transform(
        run, np.zeros((3, 5), np.float32), tmp_path / "placed.zarr", client="sequential", progress=False
    )
    daskumap.export(tmp_path / "placed.zarr", tmp_path / "new.csv")
    table = pd.read_csv(tmp_path / "new.csv")
    np.testing.assert_array_equal(table[["x", "y"]].to_numpy(np.float32), placed.embedding[:])
    assert labels.read_labels(placed.store) == {}
