"""Killed between any two writes or deletions: resume, verify --repair and restart go on to the same bits.

The store is in memory, and stands for one that other processes reach: with a lock, a copy of an array, and
checkpoints. It dies at its n-th change, for every n; what it held then is what the next driver finds.
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
from daskumap.store import lock
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


class Death(BaseException):
    """What ends a process between two of its writes."""


class Mortal(MemoryStore):
    """A store whose process dies before its n-th change; None for never."""

    def __init__(self, content=None, dies_before=None, read_only=False):
        super().__init__(dict(content or {}), read_only=read_only)
        self.changes, self.dies_before = 0, dies_before

    def with_read_only(self, read_only=False):
        other = type(self)(read_only=read_only)
        other._store_dict = self._store_dict
        return other

    def content(self):
        return dict(self._store_dict)

    def _change(self):
        if self.changes == self.dies_before:
            raise Death
        self.changes += 1

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


@pytest.fixture
def finished(run):
    """A finished run in a store, by `keep`, and the digest of its map."""

    def finished_(keep):
        store = Mortal()
        return store.content, sha(run(store, keep=keep).embedding), store

    return finished_


def deaths(content, act, moments):
    """Let drivers that begin with a content die before a change each; yield what is left, until one lives."""
    for dies_before in moments:
        store = Mortal(content, dies_before)
        try:
            act(store)
        except Death:
            yield Mortal(store.content())
        else:
            return
    raise AssertionError("None lived, so some changes were not reached.")


# All moments take minutes. These are the first, in which a driver takes its turn, and some of the many.
EVERY = [pytest.param(19, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]


def moments(every):
    """Return the numbers of the first changes, and of every so many of the rest."""
    return itertools.chain(range(6), itertools.count(6, every))


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
def test_resume(run, finished, every):
    content, bits, store = finished("all")
    forget(store, "layout", "publish")
    seen = 0
    for left in deaths(content(), lambda store: daskumap.resume(store, **GO_ON), moments(every)):
        check_whole(left, bits)
        seen += 1
    assert seen > 60 // every


@pytest.mark.parametrize("every", EVERY)
def test_resume_where_scratch_was_freed(run, finished, every):
    """It runs nearly all steps again, and frees as it goes."""
    content, bits, store = finished("model")
    flipped(store, "embedding/c/0/0")
    daskumap.verify(store, repair=True)
    seen = 0
    for left in deaths(content(), lambda store: daskumap.resume(store, **GO_ON), moments(2 * every)):
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
@pytest.mark.parametrize("keep", ["all", "model"])
def test_repair(finished, damage, keep):
    _, bits, store = finished(keep)
    forget(store, "publish")  # so that two generations recorded something
    daskumap.resume(store, **GO_ON)
    DAMAGE[damage](store)
    said = daskumap.verify(store)
    assert said
    seen = 0
    for left in deaths(store.content(), lambda store: daskumap.verify(store, repair=True), range(99)):
        assert daskumap.verify(left) == said or not daskumap.open(left).finished
        daskumap.verify(left, repair=True)
        check_whole(left, bits)
        seen += 1
    assert seen > 3


@pytest.mark.parametrize("every", EVERY)
def test_restart(run, finished, every):
    """Before one write the old run is whole, and after it the new one begins: there is nothing between."""
    content, old, _ = finished("embedding")
    new = sha(run(Mortal(), min_dist=0.5).embedding)
    assert new != old
    before, after = 0, 0
    restart = {"min_dist": 0.5, "restart": True}
    for left in deaths(content(), lambda store: run(store, **restart), moments(2 * every)):
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


@pytest.mark.parametrize("every", EVERY)
def test_restart_with_an_array_in_memory(source, every):
    """The copy of the old run's input is not taken for the new one's."""
    rows = zarr.open_array(str(source), mode="r")[:]
    store, refused = Mortal(), 0
    daskumap.fit(rows, store, **OPTIONS)
    other = np.ascontiguousarray(rows[::-1])
    new = sha(daskumap.fit(other, Mortal(), **OPTIONS).embedding)
    restart = {"restart": True, **OPTIONS}
    for left in deaths(
        store.content(), lambda store: daskumap.fit(other, store, **restart), moments(2 * every)
    ):
        if not daskumap.open(left).store.documents.load("input/digest"):
            refused += 1
            with pytest.raises(StoreError, match=r"before its input was copied\. Call daskumap\.fit again"):
                daskumap.resume(left, **GO_ON)
        try:
            assert sha(daskumap.fit(other, left, **OPTIONS).embedding) == new
        except RunMismatchError:
            assert daskumap.open(left).finished  # the old one, whole
    assert refused >= 20 // every


@pytest.mark.parametrize("every", EVERY)
def test_a_first_fit(run, every):
    bits = sha(run(Mortal()).embedding)
    seen = 0
    for left in deaths({}, run, moments(2 * every)):
        if left.content():
            check_whole(left, bits)
        seen += 1
    assert seen > 90 // every


@pytest.mark.parametrize("task", range(6))
@pytest.mark.parametrize("where", ["finished", "stopped in the layout"])
def test_a_bit_of_a_record_of_the_layout(run, finished, sequential, tmp_path, task, where):
    """Whichever of the six: the same bits afterwards, after a repair and without."""
    if where == "finished":
        _, bits, store = finished("model")
    else:
        store, bits = Mortal(), sha(run(Mortal()).embedding)
        with pytest.raises(Fault):
            run(store, client=FailingEngine(sequential, tmp_path / "w", stop_at="publish"))
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
def test_a_checkpoint_that_is_another_one_s(run, sequential, tmp_path, part, lost):
    """With a checksum of its own, but from another segment: the layout goes back to one that is whole."""
    bits = sha(run(Mortal()).embedding)
    store = Mortal()
    with pytest.raises(Fault):
        run(store, client=FailingEngine(sequential, tmp_path / "w", stop_at="publish"))
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
