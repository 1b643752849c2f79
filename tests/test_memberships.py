"""Fits with other memberships than the exponential, and with alpha in place of repulsion_strength."""

import logging

import numpy as np
import pytest
from conftest import QUIET, forget
from sklearn.base import clone

import daskumap
from daskumap import UMAP
from daskumap.cli.main import main
from daskumap.errors import ParameterError, StoreError
from daskumap.kernels.graph import chosen
from daskumap.kernels.graph.calibrate import calibrate, memberships
from daskumap.store import schema
from daskumap.testing import reference_graph as reference
from daskumap.testing.datasets import uneven_clusters

OTHERS = ["gaussian", "quadratic", "morse", "harmonic", "constant"]
HERE = {"client": "sequential", "progress": False}
FACTS = (schema.BITS, schema.GRAPH_FACTS, schema.REPULSION)


@pytest.fixture(scope="module")
def rows():
    """420 x 8, of which the last 20 are kept out of the fits."""
    return uneven_clusters(420, 8, 4, seed=1).rows()


@pytest.fixture(scope="module")
def known(rows, tmp_path_factory):
    return daskumap.fit(
        rows[:400], tmp_path_factory.mktemp("known") / "run.zarr", n_epochs=30, report=False, **QUIET
    )


def facts_of(run):
    return [run.store.documents.load(item.name) for item in FACTS]


def test_what_the_report_says(fit, rows):
    run = fit(rows[:400], membership="harmonic", report=True)
    found, (bits, graph, repulsion) = run.report["measures"], facts_of(run)
    assert found["weights_above_1"] == graph["weights_above_1"] > 0
    assert found["edges_dropped_negative"] == graph["edges_dropped_negative"]
    assert (found["median_gap"], found["vanished_rows"]) == (bits["median_gap"], 0)
    assert found["implied_alpha"] == repulsion["alpha"] > 0
    assert f"weights above 1   {graph['weights_above_1']:,}" in str(run)
    assert "0 rows lose all but the nearest" in str(run)


def fired(caplog):
    return [record for record in caplog.records if "compares distances with 1" in record.getMessage()]


@pytest.mark.parametrize("name", OTHERS)
def test_a_map_by_another_kernel(known, rows, name):
    """From neighbours that are known: its graph is the union of memberships, and new rows have a place."""
    calibration = "exponential" if name == "harmonic" else "kernel"
    run = daskumap.fit(known, membership=name, calibration=calibration, **HERE)
    assert {"calibrate", "symmetrize"} <= run.status().keys()
    ids, distances = run.knn()
    weights, bandwidths = chosen.resolve(name, calibration)
    mean = distances.sum(dtype=np.float64) / (distances.size + len(distances))
    rho, sigma = calibrate(distances, 15, 1.0, mean, bandwidths)
    p = reference.dense(ids, memberships(distances, rho, sigma, weights), 400)
    wanted = reference.fuzzy_union(p, 1.0)
    np.testing.assert_allclose(run.graph().toarray(), np.maximum(wanted, 0.0), rtol=1e-5, atol=1e-6)
    bits, graph, _ = facts_of(run)
    assert graph["weights_above_1"] == np.count_nonzero(run.graph().data > 1)
    assert (graph["weights_above_1"] > 0) == (name == "harmonic")
    assert graph["edges_dropped_negative"] == np.count_nonzero((wanted <= 0) & (p + p.T > 0))
    assert bits["bits"] == pytest.approx(p.sum(), rel=1e-6)
    assert bits["on_target"] == (400 if name in ("gaussian", "quadratic", "morse") else 0)
    placed = run.transform(rows[380:], **HERE).embedding[:]
    np.testing.assert_array_equal(placed[:20], run.embedding[380:])
    assert (np.abs(placed - placed.mean(axis=0)) < 30).all()
    found = run.inverse_transform(placed, **HERE).rows[:]
    assert np.abs(found - rows[380:]).mean() < 0.6 * np.abs(rows - rows.mean(axis=0)).mean()


def test_it_is_a_fit_of_the_rows(known, rows, fit):
    """From neighbours that the run has, or that are given; and a fit of it in turn knows what it knew."""
    words = {"membership": "harmonic", "n_epochs": 30}
    again, first = daskumap.fit(known, **words, **HERE), fit(rows[:400], **words)
    np.testing.assert_array_equal(again.embedding[:], first.embedding[:])
    assert facts_of(again) == facts_of(first)
    other = daskumap.fit(again, min_dist=0.5, **HERE)
    assert "taken.graph" in other.status()
    assert facts_of(other) == facts_of(first)
    given = fit(rows[:400], precomputed_knn=known.knn(), **words)
    assert abs(given.graph() - first.graph()).max() < 1e-3


def test_partitions_change_no_bit(fit, clustered, block_sizes):
    words = {"n_epochs": 3, "membership": "morse", "calibration": "kernel", "alpha": 0.01}
    block_sizes(chunks=4)
    whole = fit(clustered[:1200], **words)
    block_sizes(chunks=1)
    parts = fit(clustered[:1200], **words)
    assert parts.status()["calibrate"] > whole.status()["calibrate"]
    np.testing.assert_array_equal(parts.embedding[:], whole.embedding[:])
    assert facts_of(parts) == facts_of(whole)


def test_units_of_the_data(fit, rows, caplog):
    """Where a kernel compares distances with 1 a fit says so once; with scaled values it does not go on."""
    graph = {"transform_mode": "graph", "membership": "morse"}
    fit(rows, **graph)
    fit(100 * rows, transform_mode="graph", membership="constant")
    assert not fired(caplog)
    with caplog.at_level(logging.WARNING):
        run = fit(1e6 * rows[:400], **graph)
    (said,) = fired(caplog)
    gap = np.median(np.diff(run.knn()[1][:, [0, -1]], axis=1))
    assert f"is {gap:.3g} farther than its nearest one. Scale the data" in said.getMessage()
    assert run.store.documents.load(schema.BITS.name)["vanished"] == 400
    # None of their memberships is above 0, so the nearest is joined, as in the fit.
    new = run.transform(1e6 * rows[400:], **HERE).graph()
    assert (np.diff(new.indptr) == 1).all()
    assert (new.data == 1.0).all()
    with pytest.raises(ParameterError, match=r"distances were scaled by 2\*\*[0-9]+ to suit float32"):
        fit(1e-30 * rows.astype(np.float64), **graph)


def test_rows_that_are_cut_off_copied_or_distances(fit, rows):
    """At inf nothing is joined, whatever the kernel; copies of rows count once."""
    words = {"transform_mode": "graph", "membership": "constant"}
    ids, distances = fit(rows, **words).knn()
    cut = float(np.median(distances))
    run = fit(rows, disconnection_distance=cut, **words)
    there = np.zeros((420, 420), bool)
    there[np.repeat(np.arange(420), 14), ids.ravel()] = (distances < cut).ravel()
    np.testing.assert_array_equal(run.graph().toarray(), there | there.T)
    twice = fit(np.concatenate([rows, rows[:100]]), unique=True, **words)
    assert (twice.graph() != fit(rows, **words).graph()).nnz == 0
    square = np.sqrt(((rows[:, None].astype("f8") - rows[None]) ** 2).sum(axis=2))
    words["membership"] = "quadratic"
    given = fit(square, metric="precomputed", **words)
    assert abs(given.graph() - fit(rows, **words).graph()).max() < 1e-4


def test_alpha_is_the_strength_that_it_amounts_to(fit, rows, tmp_path):
    """Also for new rows, in a copy of the model, after a stop, and for umap-learn."""
    run = fit(rows[:400], tmp_path / "run.zarr", alpha=0.02, keep="graph")
    strength = run.store.documents.load(schema.REPULSION.name)["strength"]
    degree = run.graph().sum(dtype=np.float64) / 400
    assert strength == pytest.approx(2 * 400 * 0.02 / (5 * degree), rel=1e-6)
    same = fit(rows[:400], repulsion_strength=strength)
    np.testing.assert_array_equal(run.embedding[:], same.embedding[:])
    assert same.store.documents.load(schema.REPULSION.name)["alpha"] == pytest.approx(0.02)
    placed = run.transform(rows[400:], **HERE).embedding[:]
    np.testing.assert_array_equal(placed, same.transform(rows[400:], **HERE).embedding[:])
    copy = run.save(tmp_path / "copy.zarr", rows=True)
    np.testing.assert_array_equal(placed, copy.transform(rows[400:], **HERE).embedding[:])
    known = run.embedding[:]
    forget(run.path, "symmetrize", "initialize", "layout", "publish")
    np.testing.assert_array_equal(daskumap.resume(run.path, **HERE).embedding[:], known)
    other = daskumap.fit(run, repulsion_strength=0.5, **HERE)
    assert other.params["alpha"] is None
    np.testing.assert_array_equal(daskumap.fit(other, alpha=0.02, **HERE).embedding[:], known)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"alpha": 0.1, "repulsion_strength": 2.0}, "alpha is 0.1 and repulsion_strength is 2; one sets"),
        ({"alpha": 0.1, "negative_sample_rate": 0}, "with which nothing repels"),
        ({"alpha": 100.0}, "alpha is 100, and 420 rows take less than 16.7: above it"),
        ({"alpha": 10.0}, "alpha is 10, and the graph of 420 rows takes at most 3.[0-9]*: above it"),
        ({"alpha": -1.0}, "alpha is -1.0; it must be a number from 0"),
        ({"membership": "cauchy"}, "membership is 'cauchy'; allowed are exponential, gaussian"),
        ({"membership": 3}, "membership is a int; it must be a name, or a pair of functions"),
        ({"membership": (abs, None)}, "membership is a tuple; it must be a name, or a pair of functions"),
        ({"calibration": "own"}, "calibration is 'own'; allowed are exponential, kernel"),
        ({"membership": "harmonic", "calibration": "kernel"}, "no bandwidth makes them sum to log2"),
    ],
)
def test_what_cannot_be_is_refused(fit, rows, words, says, tmp_path):
    with pytest.raises(ParameterError, match=says):
        fit(rows, tmp_path / "run.zarr", **words)
    assert (tmp_path / "run.zarr").exists() == ("takes at most" in says)  # that takes the graph to know


def test_the_estimator(rows):
    ours = UMAP(membership="gaussian", calibration="kernel", n_epochs=5, random_state=1, n_neighbors=6)
    found = clone(ours).fit(rows)
    run = daskumap.fit(
        rows, membership="gaussian", calibration="kernel", n_neighbors=6, transform_mode="graph", **QUIET
    )
    assert (found.graph_ != run.graph()).nnz == 0
    assert np.isfinite(found.transform(rows[:3] + 0.1)).all()
    with pytest.raises(ParameterError, match="a map that umap-learn knows, and this one has membership='gau"):
        found.to_umap()


def own(x, y):
    return y / (x + y)


def test_functions_of_the_users(fit, rows, tmp_path):
    """They are known by their code, and by it alone a run store does not have them."""
    words = {"membership": [own, None], "calibration": "kernel", "n_epochs": 5}
    run = fit(rows[:400], tmp_path / "run.zarr", **words)
    assert run.store.documents.load(schema.BITS.name)["on_target"] == 400
    assert run.params["membership"][0].startswith("callable:test_memberships.own:")
    assert run.params["membership"][1] is None
    np.testing.assert_array_equal(fit(rows[:400], run.path, **words).embedding[:], run.embedding[:])
    with pytest.raises(StoreError, match="was started with a function or an array that it does not hold"):
        daskumap.open(run.path).transform(rows[400:], **HERE)


def test_the_command_line(rows, write, tmp_path):
    place, quick = (
        tmp_path / "run.zarr",
        ["--scheduler", "sequential", "--quiet", "--no-report", "--seed", "1"],
    )
    command = ["fit", str(write(rows)), str(place), "--membership", "quadratic", "--n-epochs", "2", *quick]
    assert main([*command, "--set", "calibration=kernel", "--set", "alpha=0.01"]) == 0
    params = daskumap.open(place).params
    assert [params[name] for name in ("membership", "calibration", "alpha")] == ["quadratic", "kernel", 0.01]
