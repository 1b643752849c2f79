"""One driver writes at a time: dead holders are followed, and those who live after all are fenced."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import zarr
from conftest import damage_in, forget, in_memory, is_held, sha
from zarr.storage import MemoryStore

import daskumap
from daskumap.cli.main import main
from daskumap.engine.base import measured
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import StoreError
from daskumap.params import make_params
from daskumap.pipeline import FIT, steps_of
from daskumap.store import lock
from daskumap.store.lock import RunLock, alone
from daskumap.store.places import find_place
from daskumap.store.run import RunStore

OPTIONS = {"n_epochs": 20, "checkpoint_every": 5}
STEPS = [step.name for step in steps_of(FIT, make_params({"report": False}))]
GO_ON = {"client": "sequential", "progress": False}


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
    """A finished run, to be copied, and the digest of its map."""
    path = tmp_path_factory.mktemp("finished") / "run.zarr"
    run = daskumap.fit(source, path, keep="all", report=False, random_state=1, **GO_ON, **OPTIONS)
    return path, sha(run.embedding)


@pytest.fixture(scope="module")
def in_ram(finished):
    """What it holds, in memory."""
    return in_memory(finished[0])


@pytest.fixture
def begun(in_ram, held):
    """A run store with something left to do, in `held`."""
    held._store_dict.update(in_ram._store_dict)
    return forget(held, "layout", "publish")


def lock_of(store, **changes):
    """Write the lock of somebody else."""
    about = {"host": "elsewhere", "system": lock._system(), "pid": os.getpid(), "time": time.time()}
    store.documents.save("lock/other", {**about, **changes})


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"age": 61.0}], ids=["dead", "silent"])
def test_a_dead_holder_is_followed(begun, changes):
    lock_of(begun, **changes, time=time.time() - changes.get("age", 0.0))
    before = begun.documents.numbers("generations")[-1]
    with RunLock(begun) as held:
        assert held.generation == before + 1
        assert begun.documents.members("lock") == [f"{held.id}.json"]
    assert begun.documents.members("lock") == []
    assert begun.documents.numbers("generations")[-1] == before + 1


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc, which says who has ended")
def test_a_holder_whose_exit_code_nobody_asked_for_is_followed(begun):
    """In a container without an init process, whoever is killed stays in the table of processes."""
    with subprocess.Popen(["sleep", "60"]) as killed:
        lock_of(begun, pid=killed.pid)
        with pytest.raises(StoreError, match="in use by process"), RunLock(begun):
            pass
        killed.kill()
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
        with RunLock(begun):
            assert len(begun.documents.members("lock")) == 1


@pytest.mark.parametrize(
    "changes",
    [{"pid": 2**22 + 1, "system": "another boot"}, {"ahead": 30.0, "pid": 1}],
    ids=["a namespace that this one does not see", "a clock a little ahead"],
)
def test_who_may_be_alive_is_not_followed(begun, held, changes):
    now = time.time() + changes.get("ahead", 0.0)
    lock_of(begun, **changes, time=now)
    with pytest.raises(StoreError, match=r"in use by process \d+ on elsewhere.*or at once with take_over"):
        daskumap.resume(held, **GO_ON)


AN_HOUR_AHEAD = "an hour ahead"


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        (AN_HOUR_AHEAD, r"the lock is dated 3[56]\d\d s ahead of now"),
        ("soon", "the lock is dated 'soon', which is no time"),
        (float("nan"), "the lock is dated nan, which is no time"),
        (None, "the lock is dated None, which is no time"),
        (True, "the lock is dated True, which is no time"),
    ],
)
def test_a_lock_that_is_dated_by_a_wrong_clock(begun, held, finished, moment, message):
    """It says so, and is taken over by command."""
    lock_of(begun, time=time.time() + 3600 if moment == AN_HOUR_AHEAD else moment)
    with pytest.raises(StoreError, match=message + r".*go on with take_over \(--take-over\)"):
        daskumap.resume(held, **GO_ON)
    assert sha(daskumap.resume(held, take_over=True, **GO_ON).embedding) == finished[1]
    assert not is_held(held)


def test_to_take_over_by_the_command_line(finished, place, capsys):
    shutil.copytree(finished[0], place)
    lock_of(forget(place, "publish"), time=time.time() + 3600)
    command = ["resume", str(place), "--scheduler", "sequential", "--quiet"]
    assert main(command) == 9
    assert "go on with take_over (--take-over)" in capsys.readouterr().err
    assert main([*command, "--take-over"]) == 0
    assert sha(daskumap.open(place).embedding) == finished[1]
    assert not is_held(place)


def test_a_second_driver_is_refused(begun, held):
    message = rf"in use by process {os.getpid()} on \S+, which was alive \d+ s ago"
    with RunLock(begun), pytest.raises(StoreError, match=message):
        daskumap.resume(held, **GO_ON)
    assert daskumap.resume(held, **GO_ON).finished


def test_a_late_look_does_not_displace(begun):
    """Who looked, and is then so slow that another takes the place meanwhile, makes no generation."""

    class Late(RunLock):
        def _others(self):
            found = super()._others()
            held.__enter__()
            return found

    held = RunLock(begun)
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()} "), Late(begun):
        pass
    held.check()
    assert begun.documents.members("lock") == [f"{held.id}.json"]
    held.__exit__(None, None, None)


def test_a_heartbeat_stops_when_another_took_over(begun, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    with RunLock(begun) as first:
        first.check()
        with RunLock(begun, take_over=True) as second:
            first._thread.join(10)
            assert not first._thread.is_alive()
            with pytest.raises(StoreError, match=f"taken over by another process \\({os.getpid()} on"):
                first.check()
            second.check()
            assert begun.documents.members("lock") == [f"{second.id}.json"]


def test_a_place_that_was_made_anew_has_other_generations(begun):
    with RunLock(begun) as held:
        begun.documents.save(f"generations/{held.generation:08d}", {"id": "x", "host": "h", "pid": 1})
        with pytest.raises(StoreError, match="taken over by another process"):
            held.check()


@pytest.mark.parametrize("step", ["neighbors", "layout", "publish"])
def test_a_run_store_that_is_deleted_under_its_driver(source, place, step):
    """Tasks that find nothing, and tasks that write into what is gone, end with one error."""
    engine = Followed(step, lambda: shutil.rmtree(place))
    with pytest.raises(StoreError, match=r"run\.zarr is gone: it was deleted or moved while this process"):
        daskumap.fit(source, place, client=engine, progress=False, report=False, **OPTIONS)
    if place.exists():  # What late tasks left, which is no run store.
        with pytest.raises(StoreError, match="holds something, and it is no run store"):
            daskumap.fit(source, place, **GO_ON)


# Drivers that go on after they were followed.


class Followed(SequentialEngine):
    """Another driver takes the run store over, as from one that is stopped, while a step's tasks run."""

    def __init__(self, step, act):
        super().__init__(4 * 10**9)
        self.step, self.act = step, act

    def run(self, stage, todo, listener):
        for number, receipt in super().run(stage, todo, listener):
            if stage.name == self.step and number == todo[-1]:
                self.act()
            yield number, receipt


@pytest.mark.parametrize("step", STEPS)
def test_a_driver_that_was_followed_changes_nothing(source, held, finished, step):
    """The one that followed it ends with the undisturbed bits, and the first is refused."""
    kept = {}

    def follow():
        with pytest.raises(StoreError, match="in use by process"):
            daskumap.resume(held, **GO_ON)
        assert sha(daskumap.resume(held, take_over=True, **GO_ON).embedding) == finished[1]
        kept.update(held._store_dict)

    options = {"progress": False, "report": False, "random_state": 1, **OPTIONS}
    with pytest.raises(StoreError, match="was taken over by another process"):
        daskumap.fit(source, held, client=Followed(step, follow), **options)
    assert held._store_dict.keys() == kept.keys()
    assert all(held._store_dict[key] is kept[key] for key in kept)
    assert sha(daskumap.resume(held, **GO_ON).embedding) == finished[1]
    assert daskumap.verify(held) == {}


class Remembering(SequentialEngine):
    """Keeps all stages of a run, and their context."""

    def begin(self, context):
        super().begin(context)
        self.context, self.stages = context, []

    def run(self, stage, todo, listener):
        self.stages.append(stage)
        return super().run(stage, todo, listener)


def test_tasks_that_come_late_write_what_is_there(source, held, finished, monkeypatch):
    """As those of a worker that was thought dead: nothing is deleted, and all that is written is the same."""
    engine = Remembering(4 * 10**9)
    options = {"progress": False, "report": False, "random_state": 1, "keep": "all", **OPTIONS}
    daskumap.fit(source, held, client=engine, **options)
    before = {key: value.to_bytes() for key, value in held._store_dict.items()}

    async def refuse(store, key):
        raise AssertionError(f"{key} was deleted")

    monkeypatch.setattr(MemoryStore, "delete", refuse)
    for stage in engine.stages:
        # What an earlier segment of the layout began with is gone.
        for number in range(stage.tasks)[-1 if stage.ordered else -2 :]:
            measured(stage, engine.context, number)
    after = {key: value.to_bytes() for key, value in held._store_dict.items()}
    assert after == before
    assert daskumap.verify(held) == {}


def _until(place, count, process):
    """Wait until the layout has so many records."""
    for _ in range(12_000):
        if len(list(place.glob("ledger/*/*/layout/*.json"))) >= count:
            return
        assert process.is_alive()
        time.sleep(0.01)
    raise AssertionError("the layout came nowhere")


@pytest.mark.processes
@pytest.mark.parametrize("wakes", ["while the other works", "when the other is done"])
def test_a_driver_that_was_stopped_and_continued(source, small, place, command, wakes):
    """Of two that live on one store, one ends with the undisturbed bits, and the other is refused."""
    bits = sha(daskumap.fit(small, report=False, random_state=1, **GO_ON, n_epochs=300).embedding)
    settings = ("--seed", 1, "--no-report", "--set", "n_epochs=300", "--set", "checkpoint_every=3")
    first, said = command("fit", source, place, "--scheduler", "sequential", *settings)
    _until(place, 2, first)
    os.kill(first.pid, signal.SIGSTOP)
    before = len(list(place.glob("ledger/*/*/layout/*.json")))
    assert before < 90
    second, heard = command("resume", place, "--take-over", "--scheduler", "sequential")
    _until(place, before + 2, second)
    if wakes == "while the other works":
        assert second.is_alive()
    else:
        second.join(120)
    os.kill(first.pid, signal.SIGCONT)
    first.join(120)
    assert first.exitcode == 5
    assert f"was taken over by another process ({second.pid} on" in said.read_text()
    second.join(120)
    assert second.exitcode == 0, heard.read_text()
    assert sha(daskumap.open(place).embedding) == bits
    assert daskumap.verify(place) == {}
    assert not is_held(place)


def test_restart_through_a_link(source, place, finished, tmp_path):
    """It begins anew in what the link points to, and the link stays."""
    shutil.copytree(finished[0], place)
    link = tmp_path / "link.zarr"
    link.symlink_to(place, target_is_directory=True)
    run = daskumap.fit(source, link, restart=True, report=False, random_state=1, **GO_ON, n_epochs=10)
    assert link.is_symlink()
    assert daskumap.open(place).params["n_epochs"] == 10
    assert sha(run.embedding) == sha(daskumap.open(place).embedding) != finished[1]


def test_a_finished_run_whose_map_is_damaged_is_not_done(begun, held, finished):
    daskumap.resume(held, **GO_ON)
    for kind in ("truncated", "flipped", "deleted"):
        damage_in(held, "embedding/c/0/0", kind)
        assert sha(daskumap.resume(held, **GO_ON).embedding) == finished[1]


def test_verify_reads_what_is_there_whatever_is_missing_before(begun, held):
    """Not only up to the first step without records."""
    store = forget(held, "scan", "neighbors", "layout", "publish")
    for chunk in ("cells/centroids/c/0/0", "knn/distances/c/0/0", "graph/00000000/weights/c/0"):
        damage_in(held, chunk)
    assert list(daskumap.verify(held)) == ["partition.cells", "neighbors.merge", "symmetrize"]
    with alone(RunStore.open(find_place(held))):
        assert store.ledger.count("scan") == 0
