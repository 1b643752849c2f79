"""Killed between any two writes or deletions: resume, verify --repair and restart go on to the same bits.

The store is in memory, and stands for one that other processes reach: with a lock, a copy of an array, and
checkpoints. What it held before its n-th change is what the next driver finds after a death at that moment.
"""

import itertools

import numpy as np
import pytest
import zarr
from conftest import forget, sha
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

import daskumap
from daskumap.errors import RunMismatchError, StoreError
from daskumap.store import calls, lock
from daskumap.store.places import Held
from daskumap.testing.datasets import uneven_clusters
from daskumap.testing.faults import FailingEngine, Fault

OPTIONS = {
    "client": "sequential",
    "progress": False,
    "random_state": 1,
    "report": False,
    "n_epochs": 12,
    "checkpoint_every": 2,
}
GO_ON = {"client": "sequential", "progress": False}


class Mortal(MemoryStore):
    """A store that remembers what it held before each of its changes: a process may die at any of them."""

    def __init__(self, content=None, read_only=False):
        super().__init__(dict(content or {}), read_only=read_only)
        self.before = []

    def with_read_only(self, read_only=False):
        other = type(self)(read_only=read_only)
        other._store_dict, other.before = self._store_dict, self.before
        return other

    def content(self):
        return dict(self._store_dict)

    def _change(self):
        self.before.append(self.content())

    async def set(self, key, value, byte_range=None):
        self._change()
        await super().set(key, value, byte_range)

    async def set_if_not_exists(self, key, value):
        self._change()
        await super().set_if_not_exists(key, value)

    async def delete(self, key):
        if key in self._store_dict:
            self._change()
        await super().delete(key)


@pytest.fixture(autouse=True)
def shared(monkeypatch):
    """Stores in memory are treated as those that other processes reach; who left a lock is dead."""
    monkeypatch.setattr(Held, "shared", True)
    monkeypatch.setattr(calls, "AT_ONCE", {MemoryStore, Mortal})
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "_is_dead", lambda system, pid: True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "data.zarr"
    zarr.create_array(str(path), data=uneven_clusters(80, 4, 3, seed=1).rows(), chunks=(40, 4))
    return path


@pytest.fixture
def run(source):
    """Fit into a store, with options."""
    return lambda store, **options: daskumap.fit(source, store, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def made():
    """What stores hold that were made once, by what made them."""
    return {}


@pytest.fixture
def finished(made, run):
    """A finished run in a store of its own, by `keep`, and the digest of its map."""

    def finished_(keep, twice=False):
        if (keep, twice) not in made:
            store, bits = finished_(keep) if twice else (Mortal(), None)
            if twice:  # so that two generations recorded something
                forget(store, "publish")
                daskumap.resume(store, **GO_ON)
            else:
                bits = sha(run(store, keep=keep).embedding)
            made[keep, twice] = store.content(), bits
        content, bits = made[keep, twice]
        return Mortal(content), bits

    return finished_


@pytest.fixture
def stopped(made, run, sequential, tmp_path):
    """A store of a run whose driver died when its layout was done."""
    if "stopped" not in made:
        store = Mortal()
        with pytest.raises(Fault):
            run(store, client=FailingEngine(sequential, tmp_path / "w", stop_at="publish"))
        made["stopped"] = store.content()
    return Mortal(made["stopped"])


def deaths(content, act, every):
    """Let a driver begin with a content; yield what it would have left had it died before a change.

    Before each of the first changes, in which a driver takes its turn, and of every so many of the rest.
    """
    store = Mortal(content)
    act(store)
    yield from map(Mortal, (*store.before[:6], *store.before[6::every]))


# All moments take minutes.
ALL = pytest.param(1, id="all", marks=pytest.mark.slow)
EVERY = [pytest.param(19, id="some"), ALL]
# What the default run leaves out is as in EVERY.
EVERY_APART = [pytest.param(19, id="some", marks=pytest.mark.processes), ALL]


def check_whole(store, bits):
    """Resume ends with the same bits, and with nothing damaged, whatever the store said of itself."""
    if daskumap.open(store).finished:
        assert sha(daskumap.open(store).embedding) == bits
    again = daskumap.resume(store, **GO_ON)
    assert again.finished
    assert sha(again.embedding) == bits
    assert daskumap.verify(store) == {}


def flipped(store, key, at=9):
    """Flip a bit of an object."""
    content = bytearray(store._store_dict[key].to_bytes())
    content[at] ^= 16
    store._store_dict[key] = default_buffer_prototype().buffer.from_bytes(bytes(content))


def records(store, stage):
    """Return the keys of the newest records of a step, by task."""
    keys = sorted(key for key in store.content() if key.startswith("ledger/") and f"/{stage}/" in key)
    newest = {key.rpartition("/")[2]: key for key in keys}
    return [newest[name] for name in sorted(newest)]


@pytest.mark.parametrize("every", EVERY)
def test_resume(finished, every):
    store, bits = finished("all")
    forget(store, "layout", "publish")
    seen = 0
    for left in deaths(store.content(), lambda store: daskumap.resume(store, **GO_ON), every):
        check_whole(left, bits)
        seen += 1
    assert seen > 60 // every


@pytest.mark.parametrize("every", EVERY_APART)
def test_resume_where_scratch_was_freed(finished, every):
    """It runs nearly all steps again, and frees as it goes."""
    store, bits = finished("model")
    flipped(store, "embedding/c/0/0")
    daskumap.verify(store, repair=True)
    seen = 0
    for left in deaths(store.content(), lambda store: daskumap.resume(store, **GO_ON), 2 * every):
        check_whole(left, bits)
        seen += 1
    assert seen > 60 // every


DAMAGE = {
    "embedding": lambda store: flipped(store, "embedding/c/0/0"),
    "embedding, lost": lambda store: store._store_dict.pop("embedding/c/0/0"),
    "vertex": lambda store: flipped(store, "rows/vertex/c/0"),
    "record": lambda store: flipped(store, records(store, "layout")[2], 60),
    "fact": lambda store: flipped(store, "facts/order.json", 30),
    "beginning": lambda store: flipped(
        store, max(k for k in store.content() if k.endswith("begun.json")), 30
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("keep", ["all", pytest.param("graph", marks=pytest.mark.processes)])
def test_repair(finished, damage, keep):
    store, bits = finished(keep, twice=True)
    DAMAGE[damage](store)
    said = daskumap.verify(store)
    assert said
    seen = 0
    for left in deaths(store.content(), lambda store: daskumap.verify(store, repair=True), 1):
        was_finished = daskumap.open(left).finished
        assert daskumap.verify(left, repair=True) == said or not was_finished
        check_whole(left, bits)
        seen += 1
    assert seen > 3


@pytest.mark.parametrize("every", EVERY_APART)
def test_restart(run, finished, every):
    """Before one write the old run is whole, and after it the new one begins: there is nothing between."""
    store, old = finished("embedding")
    new = sha(run(Mortal(), min_dist=0.5).embedding)
    assert new != old
    before, after = 0, 0
    restart = {"min_dist": 0.5, "restart": True}
    for left in deaths(store.content(), lambda store: run(store, **restart), 2 * every):
        if daskumap.open(left).params["min_dist"] == 0.5:
            after += 1
            assert not daskumap.open(left).finished
            check_whole(left, new)
        else:
            before += 1
            with pytest.raises(RunMismatchError, match="min_dist was"):
                run(left, min_dist=0.5)
            check_whole(left, old)
    assert before == 3  # the lock, the generation, and the one write itself
    assert after > 90 // every


def is_uncopied(store):
    """Return whether a run store lacks the copy of its input."""
    return not daskumap.open(store).store.documents.load("input/digest")


@pytest.mark.parametrize("every", EVERY_APART)
def test_restart_with_an_array_in_memory(source, every):
    """The copy of the old run's input is not taken for the new one's."""
    rows = zarr.open_array(str(source), mode="r")[:]
    store = Mortal()
    daskumap.fit(rows, store, **OPTIONS)
    other = np.ascontiguousarray(rows[::-1])
    new = sha(daskumap.fit(other, Mortal(), **OPTIONS).embedding)

    def restart(store):
        daskumap.fit(other, store, restart=True, **OPTIONS)

    # Few changes are made before the copy is whole: the last of them is looked at in any case.
    uncopied = [left for left in deaths(store.content(), restart, 1) if is_uncopied(left)]
    assert len(uncopied) > 3
    for left in (uncopied[-1], *deaths(store.content(), restart, 2 * every)):
        if is_uncopied(left):
            with pytest.raises(StoreError, match=r"before its input was copied\. Call daskumap\.fit again"):
                daskumap.resume(left, **GO_ON)
        try:
            assert sha(daskumap.fit(other, left, **OPTIONS).embedding) == new
        except RunMismatchError:
            assert daskumap.open(left).finished  # the old one, whole


@pytest.mark.parametrize("every", EVERY)
def test_a_first_fit(run, finished, every):
    bits = finished("model")[1]
    seen = 0
    for left in deaths({}, run, 2 * every):
        if left.content():
            check_whole(left, bits)
        seen += 1
    assert seen > 90 // every


@pytest.mark.parametrize(
    "task", [0, *(pytest.param(task, marks=pytest.mark.processes) for task in range(1, 5)), 5]
)
@pytest.mark.parametrize("where", ["finished", "stopped in the layout"])
def test_a_bit_of_a_record_of_the_layout(finished, stopped, task, where):
    """Whichever of the six: the same bits afterwards, after a repair and without."""
    whole, bits = finished("model")
    store = whole if where == "finished" else stopped
    key = records(store, "layout")[task]
    size = len(store.content()[key].to_bytes())
    for at, repair in zip(range(3, size, size // 4), itertools.cycle([False, True]), strict=False):
        damaged = Mortal(store.content())
        flipped(damaged, key, at)
        if repair:
            daskumap.verify(damaged, repair=True)
        check_whole_or_said(damaged, bits)


def check_whole_or_said(store, bits):
    """A finished run's map is whole whatever its records say, and `verify` names what is damaged."""
    run = daskumap.resume(store, **GO_ON)
    assert sha(run.embedding) == bits
    if daskumap.verify(store, repair=True):
        assert sha(daskumap.resume(store, **GO_ON).embedding) == bits
    assert daskumap.verify(store) == {}


@pytest.mark.parametrize("part", ["positions", "mean", "variance"])
@pytest.mark.parametrize("lost", [1, 2], ids=["the last", "the last two"])
def test_a_checkpoint_that_is_another_one_s(finished, stopped, sequential, tmp_path, part, lost):
    """With a checksum of its own, but from another segment: the layout goes back to one that is whole."""
    bits, store = finished("model")[1], stopped
    chunks = [f"layout/{task:08d}/{part}/c/0/0" for task in (4, 5)]
    values = store._store_dict
    values[chunks[1]] = values[chunks[0]]
    if lost == 2:
        values[chunks[0]] = values[f"layout/00000004/{'mean' if part == 'positions' else 'positions'}/c/0/0"]
    assert list(daskumap.verify(store)) == ["layout"]
    engine = FailingEngine(sequential, tmp_path / "rest")
    resumed = daskumap.resume(store, client=engine, progress=False)
    assert sha(resumed.embedding) == bits
    assert engine.counts()["layout"] == {1: 1, 2: 6}[lost]
