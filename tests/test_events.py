"""What a run tells: each event with its facts, for people and for programs, and what a dead worker leaves."""

import json
import logging
import os
import signal

import numpy as np
import pytest
from distributed import Client, LocalCluster

import daskumap
from daskumap import events
from daskumap.engine.threads import ThreadsEngine
from daskumap.planning.stage import Receipt, Stage

ROWS = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
FAST = {"n_neighbors": 5, "n_epochs": 60, "random_state": 1}


class Heard(logging.Handler):
    """Keeps what is told, as facts and as both kinds of lines."""

    def __init__(self):
        super().__init__()
        self.facts, self.lines, self.json = [], [], []

    def emit(self, record):
        self.facts.append({**events.facts_of(record), "level": record.levelno})
        self.lines.append(events.Line().format(record))
        self.json.append(events.JsonLine().format(record))

    def of(self, kind):
        return [about for about in self.facts if about["event"] == kind]


@pytest.fixture
def heard():
    log, handler = logging.getLogger("daskumap"), Heard()
    before = log.level
    log.setLevel(events.DETAIL)
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)
    log.setLevel(before)


def test_a_fit_tells_its_stages_tasks_checkpoints_and_verdict(heard, tmp_path):
    run = daskumap.fit(ROWS, tmp_path / "run.zarr", client="sequential", progress=False, **FAST)
    assert [about["state"] for about in heard.of("run")] == ["begun", "finished"]
    assert {about["run"] for about in heard.facts} == {str(tmp_path / "run.zarr")}
    done = {about["stage"]: about for about in heard.of("stage") if about["state"] == "finished"}
    assert set(run.report["steps"]) == set(done)
    assert all(about["done"] == about["tasks"] for about in done.values())
    assert len(heard.of("task")) == sum(about["tasks"] for about in done.values())
    assert [about["task"] for about in heard.of("checkpoint")] == list(range(done["layout"]["tasks"]))
    assert heard.of("verdict")[0]["sentence"] == run.report["verdict"]["sentence"]
    for line in map(json.loads, heard.json):
        assert line.keys() >= {"time", "level", "host", "pid", "run", "event", "text"}


def test_a_line_says_when_where_and_of_which_run(heard):
    with events.of_run("maps/a.zarr"):
        logging.getLogger("daskumap.x").warning("two\nlines of s3://me:secret@host/x")
    first, second = heard.lines[0].splitlines()
    time, level, host, run, said = first.split(maxsplit=4)
    assert time.endswith("+00:00")
    assert (level, host, run, said) == ("WARNING", os.uname().nodename, "maps/a.zarr", "daskumap  two")
    assert second.endswith("daskumap  lines of s3://host/x")
    assert heard.of("warning") == [{"event": "warning", "run": "maps/a.zarr", "level": logging.WARNING}]
    assert "secret" not in heard.json[0]


def test_an_error_is_told_and_stays_with_the_run(heard, tmp_path, monkeypatch):
    monkeypatch.setattr("daskumap.driver.run_stage", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        daskumap.fit(ROWS, tmp_path / "run.zarr", client="sequential", progress=False, **FAST)
    assert "ZeroDivisionError" in heard.of("failure")[0]["error"]
    assert "ZeroDivisionError" in daskumap.open(tmp_path / "run.zarr").store.ledger.failure()["error"]


def test_a_task_that_fails_once_is_told(heard):
    class Context:
        url, resources = "run.zarr", None

        def enter(self, stage):
            return False

    failed = []

    def task(context, number):
        if number == 1 and not failed:
            failed.append(number)
            raise OSError("away")
        return Receipt(1)

    engine = ThreadsEngine(1 << 30, 2)
    engine.begin(Context())
    assert len(list(engine.run(Stage(task, 3, {}, name="scan"), [0, 1, 2], lambda *_: None))) == 3
    (told,) = heard.of("retry")
    assert (told["stage"], told["task"], told["attempt"], told["run"]) == ("scan", 1, 1, "run.zarr")
    assert told["error"] == "OSError: away"


@pytest.mark.processes
def test_a_killed_worker_leaves_a_trace(heard, tmp_path):
    class Kills:
        def start(self, stage, tasks, done):
            if stage == "layout":
                pids = client.run(os.getpid)
                self.address, pid = next(iter(pids.items()))
                os.kill(pid, signal.SIGKILL)

        def advance(self, done): ...

        def finish(self): ...

    kills = Kills()
    with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        np.save(tmp_path / "rows.npy", ROWS)
        run = daskumap.fit(ROWS, tmp_path / "run.zarr", client=client, progress=kills, **FAST)
        assert run.finished
    (told,) = heard.of("dead worker")
    assert told["worker"] == kills.address
    assert told["level"] == logging.WARNING
    assert told["run"] == str(tmp_path / "run.zarr")
