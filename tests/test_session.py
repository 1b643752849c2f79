"""How a run is begun, and how it goes on: what it says of itself, and when it is refused."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from functools import partial

import numba
import pytest
import zarr
from conftest import sha, unstamped

import daskumap
from daskumap.cli.main import main
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import RunMismatchError, StoreError
from daskumap.kernels.jit import is_compiled
from daskumap.opening import (
    versions,
)
from daskumap.planning.memory import COMPILING
from daskumap.report.progress import Silent
from daskumap.request import make_request
from daskumap.session import (
    describe,
)
from daskumap.store.places import find_place
from daskumap.store.run import RunStore
from daskumap.testing.faults import FailingEngine, Fault

OPTIONS = {"n_epochs": 10}


class Stopped(Silent):
    """The user stops a run when a step begins."""

    def __init__(self, step="layout"):
        self.step = step

    def start(self, stage, tasks, done):
        if stage == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def place(tmp_path):
    return tmp_path / "run.zarr"


@pytest.fixture
def stopped(fit, small, place, sequential, tmp_path):
    """A run store that stopped before its layout."""
    with pytest.raises(Fault):
        fit(small, place, client=FailingEngine(sequential, tmp_path / "w", stop_at="layout"), **OPTIONS)
    return place


@pytest.fixture
def upgraded(monkeypatch):
    """Another numba than before."""
    made = {**versions(), "numba": "99.0"}
    for module in ("opening", "session"):
        monkeypatch.setattr(f"daskumap.{module}.versions", lambda *_: made)


def test_versions_are_recorded(fit, small):
    recorded = fit(small, **OPTIONS).store.about["versions"]
    assert recorded == versions()
    wanted = {"daskumap", "kernels", "numba", "numpy", "scipy", "scikit-learn", "pynndescent"}
    assert recorded.keys() == wanted
    assert recorded["daskumap"] == daskumap.__version__
    assert recorded["numba"] == numba.__version__


def test_bits_of_two_versions_do_not_mix(fit, small, stopped, upgraded):
    message = rf"begun by other versions: numba was '{versions()['numba']}' and is now '99\.0'\. Bits of both"
    with pytest.raises(RunMismatchError, match=message):
        daskumap.resume(stopped, client="sequential", progress=False)
    with pytest.raises(RunMismatchError, match=message + r" would mix\. .* restart \(--restart\)"):
        fit(small, stopped, **OPTIONS)
    assert fit(small, stopped, restart=True, **OPTIONS).finished


def test_other_versions_are_said_of_a_finished_run(fit, small, place, upgraded, caplog, request):
    made = fit(small, place, **OPTIONS)
    assert "other versions" not in caplog.text
    request.getfixturevalue("monkeypatch").undo()
    assert sha(fit(small, place, **OPTIONS).embedding) == sha(made.embedding)
    assert "was made by other versions: numba was '99.0' and is now" in caplog.text
    caplog.clear()
    assert daskumap.resume(place, client="sequential", progress=False).finished
    assert "was made by other versions: numba was '99.0' and is now" in caplog.text
    assert daskumap.verify(place) == {}


def test_other_versions_are_said_of_a_model(fit, small, place, upgraded, caplog, request, tmp_path):
    """Whatever is made from it, and of its copy; what is unfinished of that is refused."""
    made = fit(small, place, **OPTIONS)
    copy, out, quiet = made.save(tmp_path / "model.zarr"), tmp_path / "out.zarr", {"progress": False}
    with pytest.raises(KeyboardInterrupt):
        made.transform(small, out, client="sequential", progress=Stopped("transform.place"))
    request.getfixturevalue("monkeypatch").undo()
    for make in (
        lambda: fit(made, tmp_path / "again.zarr", min_dist=0.3, **OPTIONS),
        lambda: daskumap.open(copy.path).transform(small[:9], client="sequential", **quiet),
        lambda: made.inverse_transform(made.embedding[:9], client="sequential", **quiet),
        lambda: copy.save(tmp_path / "copy.zarr"),
    ):
        caplog.clear()
        assert make().finished
        assert "was made by other versions: numba was '99.0' and is now" in caplog.text
    for go_on in (
        lambda: daskumap.resume(out, client="sequential", **quiet),
        lambda: made.transform(small, out, client="sequential", **quiet),
    ):
        with pytest.raises(
            RunMismatchError, match=r"out\.zarr was begun by other versions: numba was '99\.0'"
        ):
            go_on()


@pytest.mark.parametrize("again", ["fit", "resume"])
def test_a_finished_run_says_that_nothing_was_left_to_do(fit, small, place, caplog, again):
    with caplog.at_level(logging.INFO, "daskumap"):
        finished = fit(small, place, **OPTIONS).store.ledger.finished()
        assert "Nothing was left" not in caplog.text
        if again == "fit":
            fit(small, place, **OPTIONS)
        else:
            daskumap.resume(place, client="sequential", progress=False)
    said = [record.getMessage() for record in caplog.records if "Nothing was left" in record.getMessage()]
    assert said == [f"Nothing was left to do: the run in {place} was finished at {finished}."]


def test_a_run_that_stopped_before_its_input_was_copied(fit, small, place):
    """It says what it is, and nothing else is there: only a fit brings the rows."""
    request = make_request(small, {"random_state": 1, "keep": "all", "report": False, **OPTIONS}, None)
    planned = request.plan(SequentialEngine(4 * 10**9).resources, ingested=True)
    RunStore.open_or_create(find_place(place), describe(planned, request))
    for go_on in (daskumap.resume, daskumap.verify, partial(daskumap.verify, repair=True)):
        with pytest.raises(
            StoreError, match=r"stopped before its input was copied\. Call daskumap\.fit again"
        ):
            go_on(place)
    run = daskumap.open(place)
    unfinished(run, small)
    for made in (run.knn, run.graph, run.calibration):
        with pytest.raises(StoreError, match=r"is missing in|has no"):
            made()
    assert fit(small, place, **OPTIONS).finished
    assert daskumap.verify(place) == {}


def unfinished(run, rows):
    """See that all that needs a finished run says in our words that this one is none."""
    assert not run.finished
    assert "unfinished" in str(run)
    assert "verdict" in run.report
    assert sum(run.status().values()) < 20
    for ask in (
        run.diagnose,
        run.to_umap,
        lambda: run.embedding,
        lambda: run.diagnose(rows[:, :2]),
        lambda: run.transform(rows),
        lambda: run.inverse_transform(rows[:, :2]),
        lambda: run.save(f"{run.path}-copy"),
        lambda: daskumap.fit(run, f"{run.path}-again"),
        lambda: daskumap.fit(rows, init=run),
        lambda: daskumap.plan(rows, run),
    ):
        with pytest.raises(StoreError, match=r"unfinished|has no \w+ yet|is missing in"):
            ask()


def test_a_run_that_stopped_is_no_finished_one(small, stopped):
    unfinished(daskumap.open(stopped), small)
    assert daskumap.verify(stopped) == {}


def test_a_run_that_has_not_begun_has_no_damage(fit, small, write, place, sequential, tmp_path):
    with pytest.raises(Fault):
        fit(write(small), place, client=FailingEngine(sequential, tmp_path / "w", stop_at="scan"), **OPTIONS)
    assert daskumap.verify(place) == {}


def was_stopped(place):
    return (
        f"The run in {place} was stopped, and its finished tasks are kept: go on with "
        f"daskumap.resume({str(place)!r}), or in a shell with daskumap resume {place}"
    )


def test_a_script_that_is_stopped_says_what_is_kept(fit, small, write, place, caplog, monkeypatch, tmp_path):
    """And ends as Python does."""
    with pytest.raises(KeyboardInterrupt):
        fit(small, place, progress=Stopped(), **OPTIONS)
    assert f"{was_stopped(place)}\n" in caplog.text
    assert daskumap.resume(place, client="sequential", progress=False).finished
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for data in (small, write(small)):  # The run store is in memory, or a temporary folder.
        caplog.clear()
        with pytest.raises(KeyboardInterrupt):
            fit(data, progress=Stopped(), **OPTIONS)
        assert "nothing of it is kept, since it had no place of its own: name one with run=" in caplog.text
        assert not list(tmp_path.glob("daskumap-*"))


def test_a_command_that_is_stopped_says_what_is_kept(small, write, place, monkeypatch, capsys):
    monkeypatch.setattr("daskumap.api.choose_progress", lambda wanted: Stopped())
    assert main(["fit", str(write(small)), str(place), "--scheduler", "sequential", "--n-epochs", "2"]) == 130
    assert unstamped(capsys.readouterr().err).splitlines()[-2:] == [
        f"daskumap  {was_stopped(place)}",
        "daskumap: stopped.",
    ]


def test_a_zarr_store_is_a_place(fit, small, place):
    """A run store in a store that the caller holds, and in a local one by its path."""
    memory = zarr.storage.MemoryStore()
    run = fit(small, memory, **OPTIONS)
    assert sha(daskumap.open(memory).embedding) == sha(run.embedding)
    local = fit(small, zarr.storage.LocalStore(place), **OPTIONS)
    assert local.path == str(place)
    assert sha(daskumap.open(place).embedding) == sha(run.embedding)


def test_a_run_store_that_was_moved_goes_on(fit, small, stopped, tmp_path):
    """It holds the copy of its input, wherever it lies."""
    run = daskumap.resume(stopped.rename(tmp_path / "moved.zarr"), client="sequential", progress=False)
    assert sha(run.embedding) == sha(fit(small, **OPTIONS).embedding)


class Uncompiled(SequentialEngine):
    """An engine whose workers say that they find no kernels compiled."""

    def ask(self, question):
        return [False]


def test_what_compiling_leaves_in_a_process_is_planned_for(fit, small):
    steps = [
        fit(small, client=engine(4 * 10**9), **OPTIONS).report["steps"]
        for engine in (SequentialEngine, Uncompiled)
    ]
    for name, step in steps[0].items():
        more = steps[1][name]["projected_bytes"] - step["projected_bytes"]
        assert more == (COMPILING if is_compiled() else 0), name


# Large enough that what compiling leaves, 110 MB, is above a plan that does not count it.
FIRST = """
import json
import sys
import daskumap
from daskumap.testing.datasets import uneven_clusters
data = uneven_clusters(60_000, 64, 12, seed=3).rows()
options = {"client": "sequential", "memory": "1GB", "n_epochs": 5, "progress": False, "random_state": 1}
run = daskumap.fit(data, sys.argv[1], **options)
steps = run.report["steps"].items()
print(json.dumps({name: [step["peak_bytes"], step["projected_bytes"]] for name, step in steps}))
"""


@pytest.mark.slow
def test_the_first_fit_of_an_installation_stays_within_its_plan(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    done = subprocess.run(
        [sys.executable, "-c", FIRST, str(tmp_path / "run.zarr")],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    for name, (measured, projected) in json.loads(done.stdout).items():
        assert 0 < measured <= projected, name
