"""The schema: each item has one writer and later readers, is touched as declared, and lies as declared."""

import ast
import dataclasses
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from zarr.core.sync import sync

import daskumap
from daskumap.engine.sequential import SequentialEngine
from daskumap.kernels.cells.join import LEVELS
from daskumap.kernels.cells.slices import join_cells
from daskumap.params import Params
from daskumap.pipeline import (
    DECODE,
    DISTANCES_FIT,
    DISTANCES_TRANSFORM,
    ENCODE,
    FIT,
    INVERSE,
    PREDICT,
    TRANSFORM,
    again,
    by_pairs,
    by_simplices,
    steps_of,
)
from daskumap.report.progress import choose_progress
from daskumap.request import make_request
from daskumap.session import fit_request
from daskumap.stages.cells import order
from daskumap.stages.map import initialize
from daskumap.stages.shared import choose, micro
from daskumap.store import schema
from daskumap.store.arrays import groups_around
from daskumap.store.exchange import batch_name


def of_pairs(pipeline):
    """Return the steps of a pipeline whose edges are not weighed by simplices."""
    return [step for step, condition in pipeline if condition is not by_simplices]


def of_simplices(pipeline):
    """Return those of one whose edges are."""
    return [step for step, condition in pipeline if condition is not by_pairs]


STEPS, WEIGHED_STEPS = of_pairs(FIT), of_simplices(FIT)
# A fit of a run's neighbours, by what it does not have from that run.
ANEW = ((), ("graph",), ("start",), ("graph", "start"))
AGAIN = {
    (*anew, *simplices): steps(again(anew))
    for anew in ANEW
    for simplices, steps in (((), of_pairs), (("simplices",), of_simplices))
}
TRAINING = [step for step, _ in again((), trains=True)]
# What goes through a network that was brought, or trained.
THROUGH = [step for pipeline in (ENCODE, DECODE, PREDICT) for step, _ in pipeline]
INVERSE_STEPS = [step for step, _ in INVERSE]
GIVEN_STEPS, WEIGHED_GIVEN_STEPS = of_pairs(DISTANCES_FIT), of_simplices(DISTANCES_FIT)
# A transform ends with places or with edges.
NEW_STEPS, EDGES, GIVEN_NEW_STEPS, GIVEN_EDGES = (
    steps_of(pipeline, Params(transform_mode=mode))
    for pipeline in (TRANSFORM, DISTANCES_TRANSFORM)
    for mode in ("embedding", "graph")
)
# What the driver brings into the run store before the first step.
BROUGHT = (
    schema.SOURCE,
    schema.INIT,
    schema.GIVEN_INDICES,
    schema.GIVEN_DISTANCES,
    schema.LABELS,
    schema.LANDMARKS,
    schema.START,
)
# What no step reads: it is for the user, `CELLS` for plans, and `TYPICAL` for a transform.
UNREAD = (schema.MEASURES, schema.PICTURE, schema.CELLS, schema.TYPICAL, schema.EMBEDDING_LIST)
NEW_UNREAD = (schema.EMBEDDING, schema.FIT_DISTANCE, schema.PLACED)
INVERSE_UNREAD = (schema.ROWS, schema.INVERTED)
EDGES_UNREAD = (schema.NEW_GRAPH, schema.FIT_DISTANCE, schema.PLACED)
OF_VECTORS = (
    schema.LIMITS,
    schema.ON_AXES,
    schema.IN_MICRO,
    schema.FIRST,
    schema.LEFT_OUT,
    schema.UNDEFINED,
    schema.GIVEN,
)
# Each pipeline, what none of its steps reads, and what a step that it shares reads where there are vectors.
PIPELINES = {
    "fit": (STEPS, UNREAD, (schema.SIMPLICES,)),
    "fit by simplices": (WEIGHED_STEPS, UNREAD, ()),
    "transform": (NEW_STEPS, (*NEW_UNREAD, schema.UNDEFINED), ()),
    "edges": (EDGES, (*EDGES_UNREAD, schema.UNDEFINED), ()),
    "inverse": (INVERSE_STEPS, INVERSE_UNREAD, ()),
    "given fit": (GIVEN_STEPS, UNREAD, (*OF_VECTORS, schema.SIMPLICES)),
    "given fit by simplices": (WEIGHED_GIVEN_STEPS, UNREAD, OF_VECTORS),
    "given transform": (GIVEN_NEW_STEPS, NEW_UNREAD, ()),
    "given edges": (GIVEN_EDGES, EDGES_UNREAD, ()),
}
# Of arrays that tasks make themselves, since only they know how many there are.
MADE = ("micro-cell", "bound", "cell bound", "group bound", "quantile", "given neighbor")


def flatten(value):
    if not isinstance(value, tuple):
        return [value]
    return [part for each in value for part in flatten(each)]


def all_items():
    found = [each for value in vars(schema).values() for each in flatten(value)]
    return list(dict.fromkeys(item for item in found if isinstance(item, schema.Item)))


def names(items):
    return {item.name for item in items}


ITEMS = all_items()


def test_each_item_has_a_place_of_its_own():
    """To free one is to delete its folder."""
    paths = sorted(f"{item.name}/" for item in ITEMS)
    assert len(paths) > 60
    assert not [(outer, inner) for outer, inner in itertools.pairwise(paths) if inner.startswith(outer)]


@pytest.mark.parametrize(
    "steps",
    [*(steps for steps, _, _ in PIPELINES.values()), *AGAIN.values(), of_pairs(again((), trains=True))],
    ids=[*PIPELINES, *map(str, AGAIN), "training"],
)
def test_each_item_has_one_writer(steps):
    written = [item for step in steps for item in step.writes]
    assert len(set(written)) == len(written)
    assert not names(written) & names(BROUGHT)


def test_each_item_has_a_writer():
    every = [*(steps for steps, _, _ in PIPELINES.values()), TRAINING, THROUGH]
    written = [item for steps in every for step in steps for item in step.writes]
    assert names(written) | names(BROUGHT) == names(ITEMS)


def test_a_model_is_kept():
    """But for the distances, whose quantiles a model has instead; a fit of neighbours needs the graph too."""
    every = [step for steps, _, _ in PIPELINES.values() for step in steps]
    lost = {item for step in every for item in step.model if item.stays < schema.MODEL}
    assert lost == {schema.DISTANCES}
    steps = [step for again_steps in AGAIN.values() for step in again_steps]
    assert all(item.stays >= schema.GRAPH_TOO for step in steps for item in step.model)


@pytest.mark.parametrize("anew", AGAIN, ids=str)
def test_a_fit_of_neighbours_copies_what_a_model_is_for(anew):
    """What a transform reads of a run, what the report does, and what the next fit of its neighbours does."""
    written = names(item for step in AGAIN[anew] for item in step.writes)
    read = names(item for step in [*NEW_STEPS, *AGAIN[()]] for item in step.model)
    assert read - names(BROUGHT) <= written
    brought = names(BROUGHT) | ({schema.SIMPLICES.name} if "simplices" not in anew else set())
    for step in AGAIN[anew]:
        assert not names(step.reads) - written - brought, step.name


@pytest.mark.parametrize("name", PIPELINES)
def test_each_item_is_read_after_it_was_written(name):
    steps, unread, shared = PIPELINES[name]
    written, read = names(BROUGHT), set()
    for step in steps:
        assert not names(step.reads) - written - names(shared), step.name
        assert not names(step.reads) & names(step.writes), step.name
        written |= names(step.writes)
        read |= names(step.reads)
    assert written - read - names(BROUGHT) == names(unread)
    assert all(item.stays == schema.RESULT for item in unread if item is not schema.TYPICAL)


def test_dimensions_are_described():
    table = schema.__doc__.split("===\n")[1]
    described = {line[:11].strip() for line in table.splitlines() if not line.startswith("=")}
    for item in ITEMS:
        if isinstance(item, schema.Array):
            assert set(item.dims) <= described | {*MADE, "cell and twins"}, item.name
        if isinstance(item, schema.Exchange):
            assert {width for _, width in item.columns.values()} <= described | {"", "seed"}, item.name


# What tasks touch, and what they leave.


class Seen(frozenset):
    """Declared names that remember which of them were asked for."""

    def __new__(cls, declared, seen):
        new = super().__new__(cls, declared)
        new.seen = seen
        return new

    def __contains__(self, name):
        found = super().__contains__(name)
        if found:
            self.seen.add(name)
        return found


class RecordingEngine:
    """Keeps what the tasks of each stage touched, and what appeared in the run store until the next one."""

    local = True

    def __init__(self, engine):
        self.engine, self.resources, self.context = engine, engine.resources, None
        self.read, self.written, self.appeared = defaultdict(set), defaultdict(set), defaultdict(set)
        self.outputs, self.stage, self.there = {}, None, set()

    def ask(self, question):
        return self.engine.ask(question)

    def begin(self, context):
        self.context = context
        self.there = self._present()
        self.engine.begin(context)

    def run(self, stage, todo, listener):
        outputs = {output.name: output for output in stage.outputs}
        self._look(without=outputs)
        self.outputs |= outputs
        self.stage = stage.name
        watched = dataclasses.replace(
            stage,
            reads=Seen(stage.reads, self.read[stage.name]),
            writes=Seen(stage.writes, self.written[stage.name]),
        )
        return self.engine.run(watched, todo, listener)

    def end(self):
        self._look(without=())
        self.engine.end()

    def close(self):
        pass

    def _look(self, without):
        """Give what appeared to the stage before; the driver has made the outputs of the next one."""
        now = self._present() - set(without)
        if self.stage is not None:
            self.appeared[self.stage] |= now - self.there
        self.there = now

    def _present(self):
        """Return the names of the items that are there. One listing: it is asked for after each stage."""
        there = set()
        for key in sync(_keys(self.context.store.documents.store)):
            there.update([key, *groups_around(key)])
        ends = {schema.Fact: ".json"}
        return {item.name for item in ITEMS if item.name + ends.get(type(item), "") in there}


async def _keys(store):
    return [key async for key in store.list()]


ROWS = 2000
CONFIGURATIONS = {
    "plain": {"report": True},
    "unique": {"unique": True, "report": True, "n_epochs": [1, 2]},
    "spectral": {"init": "spectral"},
    "random": {"init": "random"},
    "array": {"init": np.random.default_rng(0).random((ROWS, 2))},
    "bits": {"metric": "bit_hamming"},
    "in doubt": {"metric": "cosine", "report": True},
    "left out": {"metric": "cosine", "undefined": "isolate"},
    "left out as copies are": {"metric": "cosine", "undefined": "isolate", "unique": True, "report": True},
    "apart": {"metric": "cosine", "undefined": "apart"},
    "wide cells": {"max_cell_rows": 1500},
    "moved rows": {},
    "moved rows of wide cells": {"max_cell_rows": 1500, "unique": True},
    "segments": {"checkpoint_every": 1, "report": True},
    "model alone": {"keep": "model"},
    "given": {},
    "simplices": {"simplices": 3, "report": True},
}


def wide_cells(context, probes, members):
    return choose.Choice(join_cells(members[0], 750), 6, np.ones(LEVELS))


@pytest.fixture(scope="module")
def runs(clustered, tmp_path_factory):
    """The engine of a run of each configuration."""
    found = {}
    for name, options in CONFIGURATIONS.items():
        X = clustered[:ROWS] if name != "bits" else (clustered[:ROWS] > 0).astype(np.uint8)
        X = X + np.float32(3e6) if name == "in doubt" else X
        if name == "given":
            ids = (np.arange(ROWS)[:, None] + np.arange(15)) % ROWS
            options = {"precomputed_knn": (ids, np.tile(np.arange(15, dtype=np.float32), (ROWS, 1)))}
        common = {"n_epochs": 2, "random_state": 1, "keep": "all", "report": False, "max_cell_rows": 512}
        changes = {"row_block": 750, **({"cache_bytes": 0} if "moved" in name else {})}
        asked = dataclasses.replace(
            make_request(X, common | options, None),
            adjust=lambda sizes, changes=changes: dataclasses.replace(sizes, **changes),
        )
        place = tmp_path_factory.mktemp("segments") / "run.zarr" if name == "segments" else None
        engine = RecordingEngine(SequentialEngine(4 * 10**9))
        with pytest.MonkeyPatch.context() as patch:
            if name == "spectral":  # of micro-cells
                for module in (micro, initialize):
                    patch.setattr(module, "EXACT_ROWS", 1500)
            if "wide" in name:
                patch.setattr(order, "choose_cells", wide_cells)
            patch.setitem(schema.KEEP, "model", schema.SCRATCH)
            fit_request(asked, place, engine, choose_progress(False), restart=False)
        found[name] = engine
    return found


@pytest.mark.parametrize("step", [step for step, _ in FIT], ids=lambda step: step.name)
def test_a_step_touches_all_that_it_declares(runs, step):
    read, written = set(), set()
    for name, engine in runs.items():
        if step not in steps_of(FIT, engine.context.params):
            continue
        appeared = engine.appeared[step.name]
        assert appeared <= names(step.writes), name
        facts = {item.name for item in step.writes if isinstance(item, schema.Fact)}
        read |= engine.read[step.name]
        written |= engine.written[step.name] | appeared & facts
    assert read == names(step.reads)
    assert written == names(step.writes)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_brought_is_what_was_given(runs, name):
    store = runs[name].context.store
    brought = {item.name for item in BROUGHT if store.has(item.name)}
    given = {schema.GIVEN_INDICES.name, schema.GIVEN_DISTANCES.name}
    wanted = {"array": {schema.INIT.name}, "segments": {schema.SOURCE.name}, "given": given}
    assert brought == wanted.get(name, set())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_arrays_lie_as_declared(runs, name):
    context, outputs, seen = runs[name].context, runs[name].outputs, 0
    for item in ITEMS:
        if not isinstance(item, schema.Array) or not context.store.has(item.name):
            continue
        array = context.store.array(item.name)
        assert array.dtype == context.dtype(item.dtype), item.name
        assert array.ndim == len(item.dims), item.name
        for size, dim in zip(array.shape, item.dims, strict=True):
            assert dim in MADE or size == context.extent(dim), (item.name, dim)
        if item.name in outputs:
            made = context.output(item)
            assert array.shape == made.shape == outputs[item.name].shape
            assert array.chunks == tuple(map(min, zip(made.chunks, made.shape, strict=True))), item.name
        seen += 1
    made, documents = context.output(schema.STATE), context.store.documents
    tasks = [task for task in documents.members(schema.STATE.name) if task.isdigit()]
    for place in (f"{schema.STATE.name}/{task}/{part}" for task in tasks for part in schema.STATE.parts):
        last = context.store.array(place)
        assert (last.shape, last.dtype) == (made.shape, made.dtype), last.path
        seen += 1
    assert seen >= 35


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_batches_lie_as_declared(runs, name):
    context = runs[name].context
    s, store = context.sizes, context.store
    slices = store.read(schema.SLICE_STARTS.name)[-1]
    destinations = {"all": 1, "slice of a cell": slices, "vertex chunk": s.vertex_chunks}
    for item in ITEMS:
        if not isinstance(item, schema.Exchange) or not store.has(item.name):
            continue
        batches = [node for node in store.documents.members(item.name) if node != "zarr.json"]
        assert sorted(f"{item.name}/{node}" for node in batches) == [
            batch_name(item, task) for task in range(context.extent(item.by))
        ]
        for task, batch in enumerate(sorted(batches)):
            place = f"{item.name}/{batch}"
            columns = set(store.documents.members(place)) - {"zarr.json"}
            arrays = {column: store.array(f"{place}/{column}") for column in columns}
            offsets = arrays.pop(item.offsets)[:]
            count = destinations.get(item.to) or (
                np.diff(s.partition(task))[0] if item.to == "vertex" else context.extent(item.to)
            )
            assert len(offsets) == count + 1, item.name
            assert arrays, item.name
            for column, array in arrays.items():
                dtype, width = item.columns[column]
                assert array.dtype == context.dtype(dtype), (item.name, column)
                assert array.shape == (offsets[-1], *([context.extent(width)] if width else [])), column


# What stages know of each other.


def test_no_stage_imports_another():
    """They meet in the run store, by what the schema says; what is shared has a place of its own."""
    root = Path(daskumap.__file__).parent
    files = sorted((root / "stages").rglob("*.py"))
    assert len(files) > 20
    for path in files:
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        imported |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), module
        others = {name for name in imported if name.startswith("daskumap.stages")}
        assert not {name for name in others if not name.startswith("daskumap.stages.shared.")}, module
