"""Nothing is lost, and nothing damaged passes for whole: resume, the lock, signals, verify."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
import zarr
from conftest import copied, damage, damage_in, forget, in_memory, newest_record, sha

import daskumap
from daskumap.cli.main import main
from daskumap.errors import RunMismatchError, StoreError
from daskumap.params import make_params
from daskumap.pipeline import FIT, steps_of
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


@pytest.fixture(scope="module")
def in_ram(finished):
    """The same in memory."""
    return in_memory(finished[0])


def opened(place):
    return RunStore.open(find_place(place))


@pytest.mark.parametrize("stage", STEPS)
def test_resume_makes_a_stage_again_and_nothing_else(finished, in_ram, stage):
    place = copied(in_ram)
    before = {step: opened(place).ledger.records(step) for step in STEPS}
    forget(place, stage)
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == finished[1]
    after = {step: run.store.ledger.records(step) for step in STEPS}
    assert run.status() == {step: len(before[step]) for step in STEPS}
    again = {step for step in STEPS if after[step] != before[step]}  # seconds differ where a task ran
    assert again == {stage}


def test_resume_needs_nothing_but_the_store(fit, small, held):
    start = np.asarray(small[:, :2], np.float32)
    whole = sha(fit(small, held, init=start, **OPTIONS).embedding)
    forget(held, "layout", "publish")
    assert sha(daskumap.resume(held, client="sequential", progress=False).embedding) == whole


def test_resume_refuses_what_the_store_does_not_hold(fit, small, held):
    fit(small, held, metric=_metric, **OPTIONS)
    forget(held, "publish")
    with pytest.raises(StoreError, match="started with a function or an array that it does not hold"):
        daskumap.resume(held, client="sequential")


def _metric(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        total += abs(x[i] - y[i])
    return total


def test_resume_refuses_an_input_that_changed(source, small, held, tmp_path):
    copy = tmp_path / "data.zarr"
    shutil.copytree(source, copy)
    daskumap.fit(copy, held, client="sequential", progress=False, random_state=1, report=False, **OPTIONS)
    forget(held, "publish")
    zarr.open_array(str(copy), mode="r+")[0] = 7.0
    with pytest.raises(RunMismatchError, match=r"holds another run: rows was '\w+' and is now '\w+'"):
        daskumap.resume(held, client="sequential")


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
    "layout": "layout/00000003/positions/c/0/0",
    "publish": "embedding/c/0/0",
}


@pytest.mark.parametrize("kind", ["flipped", "truncated", "deleted"])
def test_damage_is_named_and_mended(finished, place, capsys, kind):
    shutil.copytree(finished[0], place)
    assert daskumap.verify(place) == {}
    for chunk in CHUNKS.values():
        damage(place / chunk, kind)
    found = daskumap.verify(place)
    assert list(found) == list(CHUNKS)
    assert main(["verify", str(place)]) == 5
    said = capsys.readouterr().out
    for stage, chunk in CHUNKS.items():
        assert len(found[stage]) == 1
        assert f"{stage}: {chunk.rpartition('/c/')[0]}" in said
    assert daskumap.verify(place, repair=True) == found
    memory = in_memory(place)
    assert sha(daskumap.resume(memory, client="sequential", progress=False).embedding) == finished[1]
    assert daskumap.verify(memory) == {}


@pytest.mark.parametrize("kind", ["flipped", "truncated", "deleted"])
def test_a_damaged_record_counts_as_none(finished, in_ram, kind):
    place = copied(in_ram)
    forget(place)
    whole = daskumap.open(finished[0]).status()
    damaged = ["scan", "partition.order", "layout", "publish"]
    for stage in damaged:
        damage_in(place, newest_record(place, stage, 0), kind)
        assert len(opened(place).ledger.records(stage)) == whole[stage] - 1
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == finished[1]
    assert {stage: len(run.store.ledger.records(stage)) for stage in STEPS} == whole


def test_a_missing_chunk_is_found_without_being_asked(finished, in_ram, caplog):
    place = copied(in_ram)
    forget(place, "publish")
    del place._store_dict["rows/vertex/c/0"]
    run = daskumap.resume(place, client="sequential", progress=False)
    assert sha(run.embedding) == finished[1]
    assert "'partition.shuffle' runs again: rows/vertex: 1 of" in caplog.text


def test_a_second_driver_is_refused(in_ram, held):
    held._store_dict.update(in_ram._store_dict)
    store = forget(held, "publish")
    message = rf"in use by process {os.getpid()} on \S+, which was alive \d+ s ago"
    with RunLock(store), pytest.raises(StoreError, match=message):
        daskumap.resume(held, client="sequential")
    assert daskumap.resume(held, client="sequential", progress=False).finished


@pytest.fixture(scope="module")
def long(small):
    """The digest of a map of so many epochs that a run can be stopped among them."""
    options = {"client": "sequential", "n_epochs": 300, "random_state": 1}
    return sha(daskumap.fit(small, progress=False, report=False, **options).embedding)


def _until(place, stage, task, process):
    for _ in range(12_000):
        if list(place.glob(f"ledger/*/*/{stage}/{task:08d}.json")):
            return
        assert process.is_alive()
        time.sleep(0.01)
    raise AssertionError(f"{stage} came nowhere")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
    ids=["term", "int", "kill"],
)
def test_a_run_that_was_stopped_goes_on(source, long, place, held, command, number, code):
    """Stopped in the middle of the layout, at any checkpoint but the last: the same map as without."""
    settings = ("--seed", 1, "--no-report", "--set", "n_epochs=300", "--set", "checkpoint_every=6")
    process, said = command("fit", source, place, "--scheduler", "sequential", *settings)
    _until(place, "layout", 1, process)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code
    assert ("daskumap resume" in said.read_text()) == (number != signal.SIGKILL)
    before = opened(place).ledger.records("layout")
    assert 2 <= len(before) < 50
    held._store_dict.update(in_memory(place)._store_dict)  # to go on there takes a third of the time
    run = daskumap.resume(held, client="sequential", progress=False)
    assert sha(run.embedding) == long
    after = run.store.ledger.records("layout")
    assert {task: after[task] for task in before} == before  # not done again
