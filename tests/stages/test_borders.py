"""The share of the true neighbours beyond borders of cells that the search found, beside its definition."""

import numpy as np
import pytest

import daskumap
from daskumap.store import schema

K = 5


@pytest.fixture(scope="module")
def run():
    X = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    return X, daskumap.fit(
        X,
        client="sequential",
        progress=False,
        n_neighbors=K,
        n_epochs=5,
        max_cell_rows=100,
        max_overlap=1,
        random_state=1,
    )


def test_border_recall_is_that_of_brute_force(run):
    X, made = run
    probes = made.store.read(schema.PROBE_ROWS.name)
    squares = ((X[probes][:, None] - X[None]) ** 2).sum(axis=2)
    squares[np.arange(len(probes)), probes] = np.inf
    exact = np.argsort(squares, axis=1, kind="stable")[:, : K - 1]
    starts, vertex = made.store.read(schema.CELL_STARTS.name), made.store.read(schema.VERTEX.name)
    cell = np.searchsorted(starts, vertex, side="right")
    beyond = cell[exact] != cell[probes][:, None]
    found = np.array([np.isin(row, near) for row, near in zip(exact, made.knn()[0][probes], strict=True)])
    measures = made.report["measures"]
    assert 0.1 < beyond.mean() < 0.9
    assert measures["border_recall"] == pytest.approx(found[beyond].mean())
    assert measures["border_recall"] < measures["recall"] == pytest.approx(found.mean())
    assert f"{measures['border_recall']:.4f} across cells" in str(made)


def test_one_cell_has_no_border(run):
    X, _ = run
    made = daskumap.fit(X[:150], client="sequential", progress=False, n_epochs=5, random_state=1)
    assert "border_recall" not in made.report["measures"]
    assert "across cells" not in str(made)
    assert "seams" not in daskumap.evaluate(made, probe_rows=50, sample_rows=50)
