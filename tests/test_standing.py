"""How far a run is, for schedulers and people: totals, pace, holder, attempts, failure, and exit codes."""

import json
import os
import time

import numpy as np
import pytest

import daskumap
from daskumap.cli.main import main
from daskumap.standing import describe, standing_of
from daskumap.store import lock
from daskumap.store.places import find_place
from daskumap.store.run import RunStore

ROWS = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
FAST = {"n_neighbors": 5, "n_epochs": 5, "random_state": 1, "report": False, "client": "sequential"}


class At:
    """Progress that does something when a stage begins."""

    def __init__(self, stage, does):
        self.stage, self.does = stage, does

    def start(self, stage, tasks, done):
        if stage == self.stage:
            self.does()

    def advance(self, done): ...

    def finish(self): ...


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "run.zarr")


def look(place):
    return standing_of(RunStore.open(find_place(place), mode="r"))


def stop():
    raise KeyboardInterrupt


def test_a_run_under_way_says_who_how_fast_and_how_long(place):
    seen = []
    daskumap.fit(ROWS, place, progress=At("layout", lambda: seen.append(look(place))), **FAST)
    (now,) = seen
    assert now["state"] == "unfinished"
    assert now["stage"] == "layout"
    assert 0 < now["share"] < 1
    assert now["totals"]["done"] == sum(now["tasks"].values()) < now["totals"]["tasks"]
    assert now["rate"] > 0
    assert now["seconds_left"] >= 0
    assert now["holder"].items() >= {"host": os.uname().nodename, "pid": os.getpid(), "alive": True}.items()
    assert f"process {os.getpid()} on" in describe(now)
    assert " s left at " in describe(now)


def test_exit_codes_of_a_run_that_stopped_failed_and_finished(place, monkeypatch, capsys):
    with pytest.raises(KeyboardInterrupt):
        daskumap.fit(ROWS, place, progress=At("layout", stop), **FAST)
    assert main(["status", place]) == 10
    said = capsys.readouterr().out
    assert "nobody works on it" in said
    assert main(["status", place, "--json"]) == 10
    found = json.loads(capsys.readouterr().out)
    assert (found["attempts"], found["holder"], found["rate"], found["failure"]) == (1, None, None, None)

    with monkeypatch.context() as patch:
        patch.setattr("daskumap.driver.run_stage", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            daskumap.fit(ROWS, place, progress=False, **FAST)
    assert main(["status", place, "--json"]) == 11
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["attempts"]) == ("failed", 2)
    assert "ZeroDivisionError" in found["failure"]["error"]

    run = daskumap.fit(ROWS, place, progress=False, **FAST)
    assert main(["status", place, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["share"], found["failure"], found["attempts"]) == ("finished", 1, None, 3)
    assert found["tasks"] == run.status()
    assert found["totals"]["done"] == found["totals"]["tasks"]
    assert main(["status", place + "x"]) == 5


def test_a_holder_that_died_is_told_from_one_that_works(place, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        daskumap.fit(ROWS, place, progress=At("layout", stop), **FAST)
    store = RunStore.open(find_place(place))
    about = {"id": "x", "host": "other", "system": "another", "pid": 7, "time": time.time() - 5}
    store.documents.save("lock/x", about)
    holder = look(place)["holder"]
    assert 5 <= holder.pop("seconds_silent") < 60
    assert holder == {"host": "other", "pid": 7, "alive": True}
    store.documents.save("lock/x", {**about, "time": time.time() - 600})
    assert look(place)["holder"]["alive"] is False
    assert "is dead, heard of 60" in describe(look(place))
    store.documents.save("lock/x", {**about, "time": time.time() + 600})
    assert look(place)["holder"]["alive"] is None
    monkeypatch.setattr(lock, "_is_dead", lambda *_: True)
    assert look(place)["holder"]["alive"] is False
