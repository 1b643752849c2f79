"""Measures of a map are those of the values as stored, also where float32 cannot tell the rows apart."""

import numpy as np
import pytest

import daskumap
from daskumap.kernels.quality import figures
from daskumap.stages.rows.look import STRETCH_ROWS, STRETCHES
from daskumap.testing.datasets import uneven_clusters

QUICK = {"n_epochs": 3, "report": True}
ROWS, K = 4000, 14


def hidden_rows(count):
    """Return the first rows that no stretch looks at before the scan."""
    starts = np.linspace(0, ROWS - STRETCH_ROWS, STRETCHES).astype(int)
    seen = (starts[:, None] + np.arange(STRETCH_ROWS)).ravel()
    return np.setdiff1d(np.arange(ROWS), seen)[:count]


@pytest.fixture(scope="module")
def dense():
    """4,000 x 8 float64, far from zero, of which 4 in 10 differ by less than float32 resolves."""
    rng = np.random.default_rng(0)
    data = uneven_clusters(ROWS, 8, 6, seed=3).rows() + 3000.0 * rng.choice([-1, 1], (ROWS, 8))
    hidden = hidden_rows(1600)
    data[hidden] = 1e3 * rng.normal(size=8) + rng.uniform(-1e-6, 1e-6, (len(hidden), 8))
    return data


def euclidean(rows, row):
    return np.sqrt(((rows - row) ** 2).sum(axis=1))


def manhattan(rows, row):
    return np.abs(rows - row).sum(axis=1)


def chord(rows, row):
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    return euclidean(unit, row / np.linalg.norm(row))


def truth(data, run, distance=euclidean, rows=None):
    """Return recall and trustworthiness of some rows, the probes unless they are given, in float64."""
    found, embedding = run.knn()[0], run.embedding[:].astype("f8")
    hits, ranks = [], []
    rows = run.store.array("cells/probe_rows")[:] if rows is None else rows
    for row in rows:
        here, there = distance(data, data[row]), euclidean(embedding, embedding[row])
        here[row] = there[row] = np.inf
        hits.append(np.isin(np.argpartition(here, K)[:K], found[row]).mean())
        on_map = np.argsort(there, kind="stable")[:K]
        ranks.append([(here < here[other]).sum() + 1 for other in on_map])
    return np.mean(hits), figures.trustworthiness_from_ranks(np.array(ranks), len(data), K)


def test_measures_are_those_of_the_values_as_stored(fit, dense):
    """Recall was .96 and the map sound: rows that the cast makes equal found each other."""
    run = fit(dense, **QUICK)
    measures = run.report["measures"]
    recall, _ = truth(dense, run, rows=range(3, ROWS, 5))
    assert recall < 0.65
    assert measures["recall"] == pytest.approx(recall, abs=0.05)
    recall, trustworthiness = truth(dense, run)
    assert measures["recall"] == pytest.approx(recall, abs=1e-3)
    # To probes that are far from them, rows that the cast makes equal are equally far.
    assert measures["trustworthiness"] == pytest.approx(trustworthiness, abs=5e-3)
    assert measures["cast_recall"] < 0.65
    warnings = [warning["measure"] for warning in run.report["verdict"]["warnings"]]
    assert warnings[:2] == ["cast_recall", "recall"]


def test_directions_that_float32_cannot_tell_apart(fit, small):
    """The rows are float32 already, and the cast changes none: their directions lie too close together."""
    data = (small + np.float32(3e6)).astype("f4")
    run = fit(data, metric="cosine", **QUICK)
    measures = run.report["measures"]
    recall, trustworthiness = truth(data.astype("f8"), run, chord)
    assert recall < 0.9
    assert measures["recall"] == pytest.approx(recall, abs=1e-3)
    assert measures["trustworthiness"] == pytest.approx(trustworthiness, abs=1e-3)


def test_a_metric_without_a_space(fit, dense):
    run = fit(dense, metric="manhattan", **QUICK)
    measures = run.report["measures"]
    recall, trustworthiness = truth(dense, run, manhattan)
    assert recall < 0.75
    assert measures["recall"] == pytest.approx(recall, abs=1e-3)
    assert measures["trustworthiness"] == pytest.approx(trustworthiness, abs=5e-3)


def test_copies_that_count_once_are_no_neighbours(fit, small):
    data = (small + np.float32(3e6)).astype("f4")
    run = fit(np.concatenate([data, data[::2]]), metric="cosine", unique=True, **QUICK)
    plain, measures = fit(data, metric="cosine", **QUICK).report["measures"], run.report["measures"]
    assert measures["duplicate_rows"] == 200
    assert measures["cast_recall"] == plain["cast_recall"] < 0.95


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_usual_rows_are_measured_as_before(fit, small, dtype):
    data = (small * 1000).round().astype(dtype)
    run = fit(data, **QUICK)
    probes, exact = (run.store.array(name)[:] for name in ("cells/probe_rows", "order/probe_ids"))
    assert run.report["measures"]["recall"] == figures.recall(run.knn()[0][probes], exact)
    assert run.report["measures"]["cast_recall"] == 1.0
    assert run.store.documents.load("facts/order")["doubted"] == 0
    assert not run.store.has("report/stored_ids")


def test_measures_do_not_depend_on_blocks_and_engines(fit, dense, write, block_sizes):
    names = ("recall", "cast_recall", "trustworthiness", "knn_preservation")
    plain = fit(dense, **QUICK).report["measures"]
    block_sizes(row_block=700)
    path = write(dense, chunks=(300, 3))
    for client in ("threads", "1x2"):
        measures = fit(path, client=client, **QUICK).report["measures"]
        assert [measures[name] for name in names] == [plain[name] for name in names]


def test_plans_hold_the_most_that_may_be_in_doubt(dense):
    """Before a run nobody knows of a float64 input whether a probe will be in doubt; of float32 none is."""
    stages = [
        {stage.name: set(stage.memory) for stage in daskumap.plan(data, calibrate=False).stages}
        for data in (dense, dense.astype("f4"))
    ]
    for step in ("report.rows", "report.ranks"):
        assert stages[0][step] - stages[1][step] >= {"stored rows", "stored, gathered"}
