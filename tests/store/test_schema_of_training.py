"""The steps of a training touch what they declare, all of it, and what they leave lies as declared."""

import dataclasses

import numpy as np
import pytest
from test_schema import ITEMS, RecordingEngine, names

import daskumap
from daskumap.engine.sequential import SequentialEngine
from daskumap.pipeline import ENCODER, TRAINED_REPORT, again, steps_of
from daskumap.report.progress import Silent
from daskumap.session import fit_request
from daskumap.store import schema
from daskumap.testing.datasets import uneven_clusters
from daskumap.train_request import make_train_request

ROWS = 1500
WORDS = {"steps": 6, "checkpoint_steps": 3, "hidden": (4,), "batch_edges": 8, "keep": "all"}
CONFIGURATIONS = {
    "all that is known": {"window_rows": 1024, "labels": True, "landmarks": True},
    "copies, and rows left out": {"fit": {"metric": "cosine", "undefined": "isolate", "unique": True}},
    "rows in doubt": {"fit": {"metric": "cosine"}, "doubt": 3e3},
    "goes on": {"start": True, "report": False},
}


@pytest.fixture(scope="module")
def runs():
    """The engine of a training of each configuration."""
    X, found = np.abs(uneven_clusters(ROWS, 6, 4, seed=2).rows()), {}
    common = {"client": "sequential", "progress": False, "random_state": 1, "n_epochs": 2, "report": False}
    for name, options in CONFIGURATIONS.items():
        own = {key: value for key, value in options.items() if key in ("window_rows", "report")}
        run = daskumap.fit(X + np.float32(options.get("doubt", 0)), **common, **options.get("fit", {}))
        labels = np.arange(ROWS) % 3 if "labels" in options else None
        landmarks = np.zeros((ROWS, 2)) if "landmarks" in options else None
        start = None
        if "start" in options:
            start = (
                daskumap.train(run, **WORDS, report=False, client="sequential", progress=False)
                .model()
                .encoder
            )
        request = make_train_request(run.model(), {**WORDS, **own}, labels, landmarks, start)
        request = dataclasses.replace(
            request, adjust=lambda made: dataclasses.replace(made, partition_rows=1024)
        )
        engine = found[name] = RecordingEngine(SequentialEngine(4 * 10**9))
        fit_request(request, None, engine, Silent(), restart=False)
    return found


@pytest.mark.parametrize(
    "step", [step for step, _ in (*ENCODER, *TRAINED_REPORT)], ids=lambda step: step.name
)
def test_a_step_touches_all_that_it_declares(runs, step):
    read, written = set(), set()
    for name, engine in runs.items():
        if step not in steps_of(again((), trains=True), engine.context.params):
            continue
        appeared = engine.appeared[step.name]
        assert appeared <= names(step.writes), name
        read |= engine.read[step.name]
        written |= engine.written[step.name] | appeared
    # Edges are weighed by pairs here, the group of a model is no array, and a plan reads the number of edges.
    assert names(step.reads) - read <= names((schema.SIMPLICES, schema.ENCODER, schema.GRAPH_FACTS))
    assert read <= names(step.reads)
    assert written == names(step.writes)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_arrays_lie_as_declared(runs, name):
    context, seen = runs[name].context, set()
    for item in ITEMS:
        if isinstance(item, schema.Array) and context.store.has(item.name):
            array = context.store.array(item.name)
            assert array.dtype == context.dtype(item.dtype), item.name
            assert array.ndim == len(item.dims), item.name
            seen.add(item.name)
    assert {schema.ENCODER_ROWS.name, schema.EMBEDDING.name} <= seen
    made = context.output(schema.TRAINING)
    for part in schema.TRAINING.parts:
        last = context.store.array(f"{schema.TRAINING.name}/00000001/{part}")
        assert (last.shape, last.dtype) == (made.shape, made.dtype)
