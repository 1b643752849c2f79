"""Sources with options, and what of them goes with a run."""

import json

import numpy as np
import pytest
from source_arrays import X

import daskumap
from daskumap.errors import ParameterError, RunMismatchError, StoreError
from daskumap.sources import find as module
from daskumap.sources.base import Labelled
from daskumap.sources.find import Opener, check_stored_spec, find, open_spec, source
from daskumap.sources.memory import MemorySource
from daskumap.store.labels import InMemory

QUICK = {"n_epochs": 5, "report": False, "client": "sequential", "progress": False}


class Scaled(MemorySource):
    """Rows of a .npy file times a factor, as a kind with an option is made."""

    def __init__(self, path, factor):
        super().__init__(np.load(path) * factor)
        self._path, self._factor = str(path), factor
        self.labels = {"id": InMemory([f"row {row}" for row in range(self.shape[0])])}

    def _spec(self):
        return {"kind": "scaled", "path": self._path, "options": {"factor": self._factor}}


@pytest.fixture
def scaled(tmp_path, small, monkeypatch):
    """The path of a file of a kind that has an option."""
    path = tmp_path / "rows.scaled"
    with path.open("wb") as file:
        np.save(file, small[:300])
    opener = Opener(
        "scaled",
        lambda data: str(data).endswith(".scaled"),
        lambda data, factor=1.0: Scaled(data, factor),
        ("factor",),
        by_path=True,
    )
    monkeypatch.setattr(module, "OPENERS", (opener, *module.OPENERS))
    return path


def test_options_reach_the_kind_that_has_them(scaled, small):
    twice = source(scaled, factor=2.0)
    np.testing.assert_array_equal(twice.read(0, 9), small[:9] * 2)
    again = open_spec(json.loads(json.dumps(twice.spec())))
    np.testing.assert_array_equal(again.read(0, 9), small[:9] * 2)
    assert find(twice) is twice
    assert twice.identity()["options"] == {"factor": 2.0}
    assert twice.identity()["labels"] == again.identity()["labels"]


def test_options_that_nothing_takes_are_refused(scaled):
    with pytest.raises(
        ParameterError,
        match=r"No input has the option faktor. Did you mean 'factor'\? Options are kind, .*factor",
    ):
        source(scaled, faktor=2.0)
    with pytest.raises(ParameterError, match=r"read as memory, without the option factor\. Its.*kind"):
        source(X, factor=2.0)
    with pytest.raises(ParameterError, match="open already, without the option factor"):
        source(source(X), factor=2.0)
    with pytest.raises(ParameterError, match=r"kind is 'excel'; kinds of files are scaled, .*zarr"):
        source(scaled, kind="excel")


def test_the_kind_can_be_told(scaled, tmp_path):
    other = scaled.rename(tmp_path / "rows.bin")
    assert source(other, kind="scaled", factor=2.0).shape == (300, 8)


def test_a_run_goes_on_with_the_options_that_it_began_with(scaled, tmp_path, small):
    place = tmp_path / "run.zarr"
    run = daskumap.fit(source(scaled, factor=2.0), place, **QUICK)
    assert run.store.about["spec"]["options"] == {"factor": 2.0}
    assert daskumap.fit(source(scaled, factor=2.0), place, **QUICK).finished
    with pytest.raises(RunMismatchError, match=r"options was \{'factor': 2.0\} and is now \{'factor': 3.0\}"):
        daskumap.fit(source(scaled, factor=3.0), place, **QUICK)
    placed = daskumap.transform(place, source(scaled, factor=2.0), client="sequential", progress=False)
    np.testing.assert_array_equal(placed.embedding[:], run.embedding[:])
    assert run.labels["id"][:2].tolist() == placed.labels["id"][:2].tolist() == ["row 0", "row 1"]


def test_a_run_store_names_known_options_alone():
    spec = {"kind": "zarr", "path": "/data/x.zarr"}
    check_stored_spec(spec, "/runs/run.zarr")
    for wrong in ({"options": {"dataset": "x"}}, {"options": []}, {"kind": ["zarr"]}, {"kind": "memory"}):
        with pytest.raises(StoreError, match="does not say where its input is"):
            check_stored_spec(spec | wrong, "/runs/run.zarr")


def test_passwords_stay_in_memory(small, write):
    import zarr

    zarr.create_array("memory://bucket/secret.zarr", data=small[:200])
    where = source("memory://bucket/secret.zarr", storage_options={"anon": True, "secret": "hunter2"})
    assert where.spec()["storage_options"] == {"anon": True, "secret": "hunter2"}
    run = daskumap.fit(where, **QUICK)
    assert run.store.about["spec"]["storage_options"] == {"anon": True}
    assert "hunter2" not in json.dumps(run.store.about) + repr(where)


def test_names_of_rows_come_with_what_is_found_on_the_way(monkeypatch):
    opener = Opener(
        "named",
        lambda data: isinstance(data, dict),
        lambda data: Labelled(data["values"], {"name": InMemory(data["names"])}),
    )
    monkeypatch.setattr(module, "OPENERS", (opener, *module.OPENERS))
    found = find({"values": X, "names": list("abcdefghijkl")})
    assert found.labels["name"][:3].tolist() == ["a", "b", "c"]
    assert find(X).labels == {}
