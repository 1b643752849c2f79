"""What `convert` writes is the input again, with its labels, whole or not there."""

import numpy as np
import pandas as pd
import pytest
import zarr

import daskumap
from daskumap.cli.main import main
from daskumap.errors import ParameterError, SourceError, StoreError
from daskumap.sources import converted
from daskumap.sources.find import find
from daskumap.testing.faults import FailingEngine, Fault

ROWS = np.random.default_rng(0).normal(size=(250, 6))
QUICK = {"random_state": 0, "n_epochs": 5, "report": False, "client": "sequential", "progress": False}
TIMES = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(250), "h")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(converted, "CHUNK_BYTES", 40 * 48)
    monkeypatch.setattr(converted, "BLOCK_ROWS", 64)


@pytest.fixture
def path(tmp_path):
    frame = pd.DataFrame({"v": list(ROWS), "id": [f"é {row}" for row in range(250)], "time": TIMES})
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=70)
    return tmp_path / "x.parquet"


def test_rows_and_labels_are_those_of_the_input(path, tmp_path):
    made = daskumap.convert(path, tmp_path / "x.zarr")
    found = find(str(tmp_path / "x.zarr"))
    for source in (made, found):
        np.testing.assert_array_equal(source.read_stored(0, 250), ROWS)
        assert source.block_rows == 40
        assert source.labels["id"][60:70].tolist() == [f"é {row}" for row in range(60, 70)]
        assert (source.labels["time"][:] == TIMES.to_numpy()).all()
    np.testing.assert_array_equal(zarr.open(tmp_path / "x.zarr")["X"][:], ROWS)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_the_map_is_the_same(path, tmp_path):
    daskumap.convert(path, tmp_path / "x.zarr")
    run = daskumap.fit(tmp_path / "x.zarr", tmp_path / "run.zarr", **QUICK)
    np.testing.assert_array_equal(run.embedding[:], daskumap.fit(path, **QUICK).embedding[:])
    assert run.labels["id"][:3].tolist() == ["é 0", "é 1", "é 2"]


def test_a_run_goes_on_by_what_it_says_of_its_input(path, tmp_path, sequential):
    """That leads to the array in the group, which has no names; they are in the run store by then."""
    daskumap.convert(path, tmp_path / "x.zarr")
    engine = FailingEngine(sequential, tmp_path / "witnesses", {("layout", 1): [Fault()]})
    options = QUICK | {"n_epochs": 20, "checkpoint_every": 5, "client": engine}
    with pytest.raises(daskumap.TaskError):
        daskumap.fit(tmp_path / "x.zarr", tmp_path / "run.zarr", **options)
    run = daskumap.resume(tmp_path / "run.zarr", client="sequential", progress=False)
    assert run.finished
    assert run.labels["id"][:3].tolist() == ["é 0", "é 1", "é 2"]


def test_the_command(path, tmp_path, capsys):
    arguments = ["convert", str(path), str(tmp_path / "x.zarr"), "--source-option", "labels=id"]
    assert main(arguments) == 0
    assert "x.zarr: 250 x 6 float64" in capsys.readouterr().out
    assert list(find(tmp_path / "x.zarr").labels) == ["id"]
    assert main(arguments) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--json"]) == 0
    assert '"columns": 6' in capsys.readouterr().out
    assert main([*arguments[:3], "--source-option", "columns"]) == 2
    assert (
        "write --source-option NAME=VALUE, such as --source-option columns=embedding"
        in capsys.readouterr().err
    )


def test_other_things_are_never_replaced(path, tmp_path):
    (tmp_path / "mine").mkdir()
    zarr.create_array(tmp_path / "other.zarr" / "X", data=ROWS)
    zarr.open_group(tmp_path / "group.zarr", mode="w")
    for name in ("mine", "other.zarr", "group.zarr", "x.parquet"):
        with pytest.raises(ParameterError, match=r"no conversion wrote|never written"):
            daskumap.convert(path, tmp_path / name, overwrite=True)
    daskumap.convert(path, tmp_path / "x.zarr")
    with pytest.raises(ParameterError, match="which is never written"):
        daskumap.convert(tmp_path / "x.zarr", tmp_path / "x.zarr", overwrite=True)
    with pytest.raises(StoreError, match="there is no folder"):
        daskumap.convert(path, tmp_path / "none" / "x.zarr")


def test_a_conversion_that_stops_is_not_there(path, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(converted, "_write_label", fail)
    with pytest.raises(StoreError, match="the disk is full"):
        daskumap.convert(path, tmp_path / "x.zarr")
    assert [one.name for one in tmp_path.iterdir()] == ["x.parquet"]
    with pytest.raises(StoreError):
        daskumap.convert(path, "memory://bucket/cut.zarr")
    with pytest.raises(SourceError, match=r"cut short, and not all rows.*--overwrite"):
        find("memory://bucket/cut.zarr")
    monkeypatch.undo()
    assert daskumap.convert(path, "memory://bucket/cut.zarr", overwrite=True).labels["id"][0] == "é 0"
