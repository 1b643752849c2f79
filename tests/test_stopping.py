"""A run that its user stops, at any stage, by whatever signal: what is kept, what is said, what is left."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from sklearn.datasets import load_digits

import daskumap

X = load_digits().data[:200].astype(np.float32)
QUICK = {"client": "sequential", "report": False, "n_epochs": 5, "random_state": 1}


def digest(run):
    return hashlib.sha256(run.embedding[:].tobytes()).hexdigest()


class Stops:
    """A user who stops the run in each stage once."""

    def __init__(self):
        self.stages = []

    def start(self, stage, tasks, done):
        name = stage.partition(".")[0]
        if name not in self.stages:
            self.stages.append(name)
            raise KeyboardInterrupt

    def advance(self, done):
        pass

    def finish(self):
        pass


def test_a_run_stopped_in_each_stage_goes_on(tmp_path, caplog):
    place, user = tmp_path / "a run.zarr", Stops()
    with pytest.raises(KeyboardInterrupt):
        daskumap.fit(X, place, progress=user, **QUICK)
    said = f"go on with daskumap.resume('{place}'), or in a shell with daskumap resume '{place}'"
    assert said in caplog.text
    run = None
    while run is None:
        try:
            run = daskumap.resume(str(place), client="sequential", progress=user)
        except KeyboardInterrupt:
            assert len(user.stages) < 40
    assert caplog.text.count(said) == len(user.stages)
    assert {"scan", "neighbors", "symmetrize", "layout", "publish"} <= set(user.stages)
    assert digest(run) == digest(daskumap.fit(X, progress=False, **QUICK))


def test_a_run_in_memory_is_said_to_be_gone(caplog):
    with pytest.raises(KeyboardInterrupt):
        daskumap.fit(X, progress=Stops(), **QUICK)
    assert "nothing of it is kept, since it had no place of its own: name one with run=" in caplog.text
    assert "resume" not in caplog.text


LOCAL = "kind: local\nworkers: 2\nthreads: 1\nmemory: 1GB\n"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("where", "number", "times", "codes"),
    [
        ("local", signal.SIGINT, 1, {130}),
        ("local", signal.SIGTERM, 1, {143}),
        ("local", signal.SIGINT, 2, {130, -signal.SIGINT}),
        ("threads", signal.SIGINT, 1, {130}),
        ("threads", signal.SIGTERM, 2, {143, -signal.SIGTERM}),
    ],
)
def test_a_command_that_is_stopped(tmp_path, where, number, times, codes):
    """A terminal interrupts all processes that it sees, `kill` one: no traceback, and no process is left."""
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "local.yaml").write_text(LOCAL)
    run = tmp_path / "run.zarr"
    place = ["--cluster", tmp_path / "local.yaml"] if where == "local" else ["--scheduler", "threads"]
    settings = ["--set", "n_epochs=100000", "--set", "checkpoint_every=50", "--no-report"]
    said = (tmp_path / "said").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "daskumap", "fit", tmp_path / "x.npy", run, *place, *settings],
        stdout=said,
        stderr=said,
        start_new_session=True,
    )
    began = time.monotonic()
    while not list(run.glob("ledger/*/*/layout/*")):
        assert process.poll() is None, (tmp_path / "said").read_text()
        assert time.monotonic() - began < 400
        time.sleep(0.05)
    others = psutil.Process(process.pid).children(recursive=True)
    assert (len(others) >= 2) == (where == "local")
    for _ in range(times):
        if process.poll() is None:
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        time.sleep(0.3)
    assert process.wait(120) in codes
    _, left = psutil.wait_procs(others, timeout=60)
    assert not left
    text = (tmp_path / "said").read_text()
    assert "Traceback" not in text
    assert len(text.splitlines()) < 25
    if times == 1:
        assert f"daskumap.resume('{run}')" in text
        assert text.splitlines()[-1].endswith("daskumap: stopped.")
    assert daskumap.open(run).status()["layout"] >= 1
