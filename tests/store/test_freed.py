"""Scratch goes when its last reader is done, as `keep` says; resume, verify and repair know it."""

import numpy as np
import pytest
import zarr
from conftest import copied, damage_in, forget, newest_record, sha
from zarr.storage import MemoryStore

import daskumap
from daskumap.driver import STAGES
from daskumap.errors import StoreError
from daskumap.params import make_params
from daskumap.pipeline import FIT, steps_of
from daskumap.store import lock, schema
from daskumap.store.places import Held, find_place
from daskumap.store.run import RunStore
from daskumap.testing.faults import FailingEngine, Fault

OPTIONS = {"n_epochs": 20, "checkpoint_every": 5, "report": True}
STEPS = [step.name for step in steps_of(FIT, make_params({}))]
ITEMS = {item.name: item for step, _ in FIT for item in (*step.reads, *step.writes)}
# A chunk of what stays by default, and the step that makes it.
MODEL = {
    "partition.cells": "cells/centroids/c/0/0",
    "partition.order": "order/cell_starts/c/0",
    "partition.shuffle": "rows/vertex/c/0",
    "neighbors.merge": "knn/distances/c/0/0",
    "calibrate": "calibration/sigma/c/0",
    "symmetrize": "graph/00000000/weights/c/0",
    "publish": "embedding/c/0/0",
}


def present(place):
    """Return the names of the items of the schema that a run store holds."""
    store = daskumap.open(place).store

    def has(item):
        if isinstance(item, schema.Fact):
            return store.documents.load(item.name) is not None
        if isinstance(item, schema.File):
            return store.documents.load_bytes(item.name) is not None
        return store.has(item.name)

    return {name for name, item in ITEMS.items() if has(item)}


def resume(place, **options):
    return daskumap.resume(place, client="sequential", progress=False, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory, small):
    path = tmp_path_factory.mktemp("source") / "data.zarr"
    zarr.create_array(str(path), data=small, chunks=(128, 8))
    return path


@pytest.fixture(scope="module")
def kept(source):
    """A finished run for each `keep`, in memory but as on disk, to be copied before it is changed."""
    made, quiet = {}, {"client": "sequential", "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Held, "shared", True)
        patch.setattr(lock, "SETTLE_SECONDS", 0.0)
        for keep in schema.KEEP:
            made[keep] = MemoryStore()
            daskumap.fit(source, made[keep], keep=keep, random_state=1, **quiet, **OPTIONS)
    return made


@pytest.fixture(scope="module")
def whole(kept):
    """The digest of the map."""
    return sha(daskumap.open(kept["all"]).embedding)


@pytest.mark.parametrize("keep", schema.KEEP)
def test_what_is_kept(kept, whole, keep):
    everything = present(kept["all"])
    assert {"shuffle", "found", "reverse", "layout", "facts/loss"} <= everything
    stays = {name for name in everything if ITEMS[name].stays >= schema.KEEP[keep]}
    assert present(kept[keep]) == (stays | {"typical"} if keep == "model" else stays)
    run = daskumap.open(kept[keep])
    assert sha(run.embedding) == whole
    more = {"calibrate.typical": 1} if keep == "model" else {}
    assert run.status() == daskumap.open(kept["all"]).status() | more
    assert run.report["measures"] == daskumap.open(kept["all"]).report["measures"]
    assert run.store.documents.load(STAGES).keys() == {*STEPS, *more}
    assert daskumap.verify(kept[keep]) == {}
    if keep in ("model", "embedding"):
        with pytest.raises(StoreError, match=r"has no knn/indices, since .* Fit with keep='graph'"):
            run.knn()
    else:
        assert sha(run.knn()[0]) == sha(daskumap.open(kept["all"]).knn()[0])


def test_the_graph_is_kept_by_default(kept):
    assert daskumap.open(kept["graph"]).params["keep"] == make_params({}).keep


@pytest.mark.parametrize("keep", schema.KEEP)
def test_the_copy_of_an_array_in_memory(fit, small, whole, held, keep):
    """A model holds the rows that it is of; an embedding alone does without, and can be verified as well."""
    run = fit(small, held, keep=keep, **OPTIONS)
    assert sha(run.embedding) == whole
    assert run.store.has("input/rows") == (keep != "embedding")
    assert daskumap.verify(held) == {}
    assert resume(held).finished
    damage_in(held, "embedding/c/0/0")
    assert list(daskumap.verify(held, repair=True)) == ["publish"]
    if keep == "embedding":
        with pytest.raises(StoreError, match=r"has deleted its copy of the input.*Call daskumap\.fit again"):
            resume(held)
        fit(small, held, keep=keep, **OPTIONS)
    else:
        resume(held)
    assert sha(daskumap.open(held).embedding) == whole
    assert daskumap.open(held).store.has("input/rows") == (keep != "embedding")
    assert daskumap.verify(held) == {}


@pytest.mark.parametrize("keep", ["graph", "embedding"])
def test_a_start_that_the_user_gave(fit, small, held, keep):
    """It stays: nobody but the user could bring it again."""
    start = np.asarray(small[:, :2], np.float32)
    before = sha(fit(small, held, keep=keep, init=start, **{**OPTIONS, "report": False}).embedding)
    damage_in(held, "embedding/c/0/0")
    daskumap.verify(held, repair=True)
    if keep == "graph":
        resume(held)
    else:
        fit(small, held, keep=keep, init=start, **{**OPTIONS, "report": False})
    assert sha(daskumap.open(held).embedding) == before


def test_a_run_that_stops_before_each_step(fit, source, whole, kept, held, sequential, tmp_path):
    for step in STEPS:
        engine = FailingEngine(sequential, tmp_path / "w", stop_at=step)
        with pytest.raises(Fault):
            fit(source, held, client=engine, keep="graph", **OPTIONS)
        assert daskumap.verify(held) == {}
    run = resume(held)
    assert sha(run.embedding) == whole
    counts = FailingEngine(sequential, tmp_path / "w").counts()
    # Each fit but the one that scanned read the input again from there on.
    assert counts.pop("scan.reread") == run.status()["scan"] * len(STEPS[STEPS.index("scan") + 2 :])
    assert counts == {step: count for step, count in run.status().items() if step != STEPS[-1]}
    assert present(held) == present(kept["graph"])


def test_a_run_that_stops_in_each_step(fit, source, whole, kept, held, sequential, tmp_path):
    for step in STEPS:
        engine = FailingEngine(sequential, tmp_path / step, {(step, 0): [Fault("x")]}, after=True)
        with pytest.raises(daskumap.DaskumapError, match=f"Stage '{step}', task 0 failed"):
            fit(source, held, client=engine, keep="graph", **OPTIONS)
        assert daskumap.verify(held) == {}
    assert sha(resume(held).embedding) == whole
    assert present(held) == present(kept["graph"])


@pytest.mark.parametrize(("keep", "step"), [*(("graph", step) for step in MODEL), ("embedding", "publish")])
def test_damage_is_mended_from_what_was_freed(kept, whole, caplog, keep, step):
    """Steps whose products were freed and are needed again run again, and theirs are freed again."""
    place = copied(kept[keep])
    damage_in(place, MODEL[step])
    assert list(daskumap.verify(place)) == [step]
    assert list(daskumap.verify(place, repair=True)) == [step]
    assert not daskumap.open(place).finished
    run = resume(place)
    assert sha(run.embedding) == whole
    assert run.finished
    assert daskumap.verify(place) == {}
    assert present(place) == present(kept[keep])
    assert run.status() == daskumap.open(kept[keep]).status()
    if step == "publish":
        assert "Stage 'layout' runs again: layout was freed" in caplog.text
        assert "was freed and is needed" in caplog.text


def test_a_damaged_record_where_inputs_were_freed(fit, source, whole, kept, sequential, tmp_path):
    """The step runs again, and before it those whose products it needs."""
    place, engine = MemoryStore(), FailingEngine(sequential, tmp_path / "w", stop_at="neighbors")
    with pytest.raises(Fault):
        fit(source, place, client=engine, keep="graph", **OPTIONS)
    damage_in(place, newest_record(place, "partition.shuffle", 0))
    assert sha(resume(place).embedding) == whole
    assert present(place) == present(kept["graph"])


def test_a_driver_that_died_while_it_freed(fit, source, whole, kept, sequential, tmp_path):
    """The list of what is freed is written, and half of it is there: that half goes."""
    place, engine = tmp_path / "run.zarr", FailingEngine(sequential, tmp_path / "w", stop_at="layout")
    with pytest.raises(Fault):
        fit(source, place, client=engine, keep="graph", **OPTIONS)
    freed = daskumap.open(place).store.ledger.freed()
    assert {"shuffle", "found", "reverse", "assign/cells"} <= freed
    for name in freed:
        for key in [key for key in kept["all"]._store_dict if key.startswith(f"{name}/")][1::2]:
            (place / key).parent.mkdir(parents=True, exist_ok=True)
            (place / key).write_bytes(kept["all"]._store_dict[key].to_bytes())
    assert daskumap.verify(place) == {}
    assert sha(resume(place).embedding) == whole
    assert present(place) == present(kept["graph"])


def test_a_driver_that_died_before_it_said_that_it_is_finished(kept, whole):
    place = copied(kept["graph"])
    forget(place)
    before = {step: daskumap.open(place).store.ledger.records(step) for step in STEPS}
    run = resume(place)
    assert run.finished
    assert sha(run.embedding) == whole
    assert {step: run.store.ledger.records(step) for step in STEPS} == before


class Undeletable(MemoryStore):
    """A store in memory that does not let go of the sample."""

    async def delete_dir(self, prefix):
        recorded = [
            key for key in self._store_dict if "/partition.cells/" in key and key.startswith("ledger/")
        ]
        if prefix == "scan/sample" and recorded:
            raise OSError("lightning")
        await super().delete_dir(prefix)


def test_what_is_freed_is_said_before_it_goes(fit, small):
    """So a driver that dies between the two leaves nothing that looks like damage."""
    memory = Undeletable()
    with pytest.raises(StoreError, match="lightning"):
        fit(small, memory, keep="graph", **OPTIONS)
    assert "scan/sample" in RunStore.open(find_place(memory)).ledger.freed()
