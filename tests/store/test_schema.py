"""The schema: each item has one writer and later readers, is touched as declared, and lies as declared."""

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.kernels.cells.join import LEVELS
from daskumap.kernels.cells.slices import join_cells
from daskumap.params import make_params
from daskumap.pipeline import FIT, steps_of
from daskumap.planning.job import Job
from daskumap.planning.sizes import Resources, Sizes
from daskumap.runtime.context import SINGLE, Context
from daskumap.sources.find import find
from daskumap.stages.cells import choose, order
from daskumap.store import schema
from daskumap.store.exchange import batch_name

STEPS = [step for step, _ in FIT]
# What the driver brings into the run store before the first step.
BROUGHT = (schema.SOURCE, schema.INIT)
# What no step reads: it is for the user, or for a model.
RESULTS = (schema.MEASURES, schema.PICTURE)


def items():
    """Return all items of the schema by name."""
    found = {}
    for value in vars(schema).values():
        for item in value if isinstance(value, tuple) else (value,):
            for each in item if isinstance(item, tuple) else (item,):
                if isinstance(each, schema.Item):
                    assert found.setdefault(each.name, each) is each, f"two items are called {each.name}"
    return found


def test_each_item_has_one_writer():
    writers = defaultdict(list)
    for step in STEPS:
        for item in step.writes:
            writers[item.name].append(step.name)
    assert writers.keys() | {item.name for item in BROUGHT} == items().keys()
    assert not writers.keys() & {item.name for item in BROUGHT}
    assert {name: found for name, found in writers.items() if len(found) > 1} == {}


def test_each_item_is_read_after_it_was_written():
    written, read = {item.name for item in BROUGHT}, set()
    for step in STEPS:
        early = {item.name for item in step.reads} - written
        assert not early, f"{step.name} reads {early}, which nothing has written by then"
        assert not {item.name for item in step.reads} & {item.name for item in step.writes}
        written |= {item.name for item in step.writes}
        read |= {item.name for item in step.reads}
    scratch = {name for name, item in items().items() if item.stays == schema.SCRATCH}
    assert scratch <= read, "what is not kept and not read is not needed"
    assert {name for name, item in items().items() if item in RESULTS} == {
        name for name, item in items().items() if item.stays == schema.RESULT and name not in read
    }


def test_dimensions_and_columns_are_known():
    """Those that only a task knows are those of arrays that tasks make themselves."""
    documented = {
        line.split()[0] for line in schema.__doc__.splitlines() if line[:1].isalpha() and "  " in line
    }
    known = documented | {"seed", "bucket", "group", ""}
    for item in items().values():
        if isinstance(item, schema.Exchange):
            assert {width for _, width in item.columns.values()} <= known, item.name
            assert item.by in known, item.name


# What steps touch, and what they declare.

CONFIGURATIONS = {
    "plain": {"report": True},
    "unique": {"unique": True, "report": True},
    "spectral": {"init": "spectral"},
    "random": {"init": "random"},
    "array": {"init": np.random.default_rng(0).random((4000, 2))},
    "wide cells": {"max_cell_rows": 3000},
    "moved rows": {},
    "moved rows of wide cells": {"max_cell_rows": 3000},
    "one epoch": {"n_epochs": 1},
}


class Recorder:
    """Keeps which stage touched which item in the contexts of this process."""

    def __init__(self, monkeypatch):
        self.read, self.written, self.contexts = defaultdict(set), defaultdict(set), []
        check = Context._check

        def record(context, item, writing):
            check(context, item, writing)
            if context._stage is not None:
                (self.written if writing else self.read)[context._stage.name].add(item.name)

        monkeypatch.setattr(Context, "_check", record)


@pytest.fixture(scope="module")
def runs(clustered):
    """A run of each configuration, with the names that each stage read and wrote."""
    with pytest.MonkeyPatch.context() as patch:
        yield {name: _fit(clustered[:4000], name, options, patch) for name, options in CONFIGURATIONS.items()}
