"""Nothing is lost, and nothing damaged passes for whole: resume, the lock, signals, verify."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr
from conftest import sha

import daskumap
from daskumap.cli.main import main
from daskumap.driver import FINISHED
from daskumap.errors import RunMismatchError, StoreError
from daskumap.params import make_params
from daskumap.pipeline import FIT, steps_of
from daskumap.store import lock
from daskumap.store.lock import RunLock
from daskumap.store.places import find_place
from daskumap.store.run import RunStore

OPTIONS = {"n_epochs": 20, "checkpoint_every": 5}
STEPS = [step.name for step in steps_of(FIT, make_params({}))]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "run.zarr"


@pytest.fixture(scope="module")
def source(tmp_path_factory, small):
    path = tmp_path_factory.mktemp("source") / "data.zarr"
    zarr.create_array(str(path), data=small, chunks=(128, 8))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, source):
    """A finished run, to be copied before it is damaged, and the digest of its map."""
    path = tmp_path_factory.mktemp("finished") / "run.zarr"
    quiet = {"client": "sequential", "progress": False, "random_state": 1}
    run = daskumap.fit(source, path, keep="all", **quiet, **OPTIONS)
    return path, sha(run.embedding)


def opened(place):
    return RunStore.open(find_place(place))


def forget(place, *stages):
    """Let a finished run be one that stopped in its last stage, and in these."""
    store = opened(place)
    store.documents.delete(f"{FINISHED}.json")
    for stage in (*stages, "report.summary"):
        store.ledger.forget(stage)
    return store


@pytest.mark.parametrize("stage", STEPS)
def test_resume_makes_a_stage_again_and_nothing_else(finished, place, stage):
    shutil.copytree(finished[0], place)
    before = {step: opened(place).ledger.records(step) for step in STEPS}
    forget(place, stage)
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == finished[1]
    after = {step: run.store.ledger.records(step) for step in STEPS}
    assert run.status() == {step: len(before[step]) for step in STEPS}
    again = {step for step in STEPS if after[step] != before[step]}  # seconds differ where a task ran
    assert again == {stage, "report.summary"}


def test_resume_needs_nothing_but_the_store(fit, small, place):
    start = np.asarray(small[:, :2], np.float32)
    whole = sha(fit(small, place, init=start, **OPTIONS).embedding)
    forget(place, "layout", "publish")
    assert sha(daskumap.resume(place, client="sequential", progress=False).embedding) == whole


def test_resume_refuses_what_the_store_does_not_hold(fit, small, place):
    fit(small, place, metric=_metric, **OPTIONS)
    forget(place)
    with pytest.raises(StoreError, match="started with a function or an array that it does not hold"):
        daskumap.resume(place, client="sequential")


def _metric(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        total += abs(x[i] - y[i])
    return total


def test_resume_refuses_an_input_that_changed(source, small, place, tmp_path):
    copy = tmp_path / "data.zarr"
    shutil.copytree(source, copy)
    daskumap.fit(copy, place, client="sequential", progress=False, random_state=1, **OPTIONS)
    forget(place)
    zarr.open_array(str(copy), mode="r+")[0] = 7.0
    with pytest.raises(RunMismatchError, match=r"holds another run: rows was '\w+' and is now '\w+'"):
        daskumap.resume(place, client="sequential")


def _damage(path, kind):
    content = path.read_bytes()
    if kind == "flipped":
        path.write_bytes(content[:9] + bytes([content[9] ^ 16]) + content[10:])
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()


CHUNKS = {
    "scan": "scan/sample/00000000/rows/c/0/0",
    "partition.cells": "cells/centroids/c/0/0",
    "partition.assign": "assign/cells/c/0/0",
    "partition.shuffle": "shuffle/00000000/ids/c/0",
    "neighbors": "found/00000000/ids/c/0/0",
    "neighbors.merge": "knn/distances/c/0/0",
    "calibrate": "calibration/sigma/c/0",
    "symmetrize": "graph/00000000/weights/c/0",
    "initialize": "initial/c/0/0",
    "layout": "layout/odd/positions/c/0/0",
    "publish": "embedding/c/0/0",
}


@pytest.mark.parametrize("kind", ["flipped", "truncated", "deleted"])
def test_damage_is_named_and_mended(finished, place, capsys, kind):
    shutil.copytree(finished[0], place)
    assert daskumap.verify(place) == {}
    for chunk in CHUNKS.values():
        _damage(place / chunk, kind)
    found = daskumap.verify(place)
    assert list(found) == list(CHUNKS)
    assert main(["verify", str(place)]) == 5
    said = capsys.readouterr().out
    for stage, chunk in CHUNKS.items():
        assert len(found[stage]) == 1
        assert f"{stage}: {chunk.rpartition('/c/')[0]}" in said
    assert daskumap.verify(place, repair=True) == found
    assert sha(daskumap.resume(place, client="sequential", progress=False).embedding) == finished[1]
    assert daskumap.verify(place) == {}


@pytest.mark.parametrize("kind", ["flipped", "truncated", "deleted"])
def test_a_damaged_record_counts_as_none(finished, place, kind):
    shutil.copytree(finished[0], place)
    forget(place)
    whole = daskumap.open(finished[0]).status()
    damaged = ["scan", "partition.order", "layout", "publish"]
    for stage in damaged:
        _damage(place / "ledger" / stage / "00000000.json", kind)
        assert len(opened(place).ledger.records(stage)) == whole[stage] - 1
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == finished[1]
    assert {stage: len(run.store.ledger.records(stage)) for stage in STEPS} == whole


def test_a_missing_chunk_is_found_without_being_asked(finished, place, caplog):
    shutil.copytree(finished[0], place)
    forget(place, "publish")
    (place / "rows/vertex/c/0").unlink()
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == finished[1]
    assert "'partition.shuffle' runs again: rows/vertex: 1 of" in caplog.text


def test_a_second_driver_is_refused(finished, place):
    shutil.copytree(finished[0], place)
    store = forget(place)
    message = rf"in use by process {os.getpid()} on \S+, which was alive \d+ s ago"
    with RunLock(store), pytest.raises(StoreError, match=message):
        daskumap.resume(place, client="sequential")
    assert daskumap.resume(place, client="sequential", progress=False).finished


@pytest.mark.parametrize(("pid", "age"), [(2**22 + 1, 0.0), (os.getpid(), 61.0)], ids=["dead", "silent"])
def test_a_dead_holder_is_followed(finished, place, pid, age):
    shutil.copytree(finished[0], place)
    store = opened(place)
    about = {"id": "x", "host": os.uname().nodename, "pid": pid, "time": time.time() - age}
    store.documents.save("lock/00000004", about)
    with RunLock(store) as held:
        assert held.generation == 5
        assert store.documents.members("lock") == ["00000005.json"]
    assert store.documents.members("lock") == []


class LateLock(RunLock):
    """Looks for others, and is then so slow that another takes the place meanwhile."""

    def __init__(self, store, first):
        super().__init__(store)
        self.first, self.looks = first, 0

    def _generations(self):
        self.looks += 1
        return self.first if self.looks == 1 else super()._generations()

    def _refuse_if_alive(self, generation):
        if self.looks > 1:  # at first it saw the lock of one that died
            super()._refuse_if_alive(generation)


@pytest.mark.parametrize("seen", [[], [0]], ids=["nobody", "one that died"])
def test_a_late_look_does_not_displace(finished, place, seen):
    """With the lock of a dead one still in its list, the late one makes the next generation: it has to go."""
    shutil.copytree(finished[0], place)
    store = opened(place)
    with RunLock(store) as held:
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()} "), LateLock(store, seen):
            pass
        held.check()
        assert store.documents.members("lock") == ["00000000.json"]


def test_a_holder_that_was_followed_stops(finished, place, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    shutil.copytree(finished[0], place)
    store = opened(place)
    with RunLock(store) as held:
        held.check()
        store.documents.save("lock/00000001", {"id": "other"})
        held._thread.join(10)
        with pytest.raises(StoreError, match="taken over by another process"):
            held.check()
    assert store.documents.members("lock") == ["00000000.json", "00000001.json"]


@pytest.fixture(scope="module")
def long(small):
    """The digest of a map of so many epochs that a run can be stopped among them."""
    options = {"client": "sequential", "n_epochs": 6000, "random_state": 1}
    return sha(daskumap.fit(small, progress=False, report=False, **options).embedding)


def _start(source, place):
    command = [sys.executable, "-m", "daskumap.cli.main", "fit", str(source), str(place), "--seed", "1"]
    more = ["--scheduler", "sequential", "--set", "n_epochs=6000", "--set", "checkpoint_every=60"]
    return subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True)


def _until(path, process):
    for _ in range(12_000):
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    assert path.exists()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
    ids=["term", "int", "kill"],
)
def test_a_run_that_was_stopped_goes_on(source, long, place, number, code):
    """Stopped in the middle of the layout, at any checkpoint but the last: the same map as without."""
    process = _start(source, place)
    _until(place / "ledger/layout/00000001.json", process)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert ("daskumap resume" in error) == (number != signal.SIGKILL)
    records = {path.name: json.loads(path.read_text()) for path in (place / "ledger/layout").iterdir()}
    assert 2 <= len(records) < 100
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == long
    for name, record in records.items():
        assert json.loads((place / "ledger/layout" / name).read_text()) == record  # not done again
