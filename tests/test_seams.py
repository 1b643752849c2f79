"""Seams: 1 where a map does not know the cells, more where it parts at their borders."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

import daskumap
from daskumap.evaluation import seams
from daskumap.evaluation.pair import open_pair
from daskumap.kernels.metrics.metric import resolve
from daskumap.store import schema

K, CELLS = 10, 12


@pytest.fixture(scope="module")
def digits():
    rows = load_digits().data.astype(np.float32)
    near = NearestNeighbors(n_neighbors=K).fit(rows).kneighbors(return_distance=False)
    return rows, PCA(2).fit_transform(rows), near


def cells_of(rows, seed):
    some = np.random.default_rng(seed).choice(len(rows), 600, replace=False)
    model = KMeans(CELLS, n_init=1, init="random", max_iter=10, random_state=seed)
    with threadpool_limits(1):
        return model.fit(rows[some]).predict(rows)


def stretched(places, near, cells):
    lengths = np.linalg.norm(places[near] - places[:, None], axis=2)
    return np.array([seams.stretch(lengths, one, one[near]) for one in cells])


def test_intervals_hold_1_for_a_map_that_knows_no_cells(digits):
    rows, places, near = digits
    every = stretched(places, near, [cells_of(rows, seed) for seed in range(24)])
    rng, found = np.random.default_rng(0), []
    for _ in range(100):
        probes = rng.choice(len(rows), 500, replace=False)
        own, *others = every[rng.choice(len(every), 6, replace=False)][:, probes]
        found.append(seams.beside(own, np.array(others)))
    assert np.mean([one.low < 1 < one.high for one in found]) >= 0.9
    assert np.exp(np.mean(np.log([one.value for one in found]))) == pytest.approx(1, abs=0.02)


def test_a_map_that_parts_at_its_cells_is_told(digits):
    rows, places, near = digits
    cells = [cells_of(rows, seed) for seed in range(6)]
    angles = 2 * np.pi * cells[0] / CELLS
    parted = places + 20 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    own, *others = stretched(parted, near, cells)
    assert seams.beside(own, np.array(others)).low > 1.1
    own, *others = stretched(places, near, cells)
    assert seams.beside(own, np.array(others)).low < 1


def test_stretch_by_its_definition():
    lengths = np.array([[1.0, 2.0, 8.0, 4.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 3.0, 3.0]])
    own, near = np.array([0, 1, 0]), np.array([[0, 0, 1, 0], [1, 1, 1, 1], [0, 1, 1, -1]])
    found = seams.stretch(lengths, own, near)
    # The third neighbour is beyond a border: beside it the second and the fourth.
    assert found[0] == pytest.approx(np.log(8) - (np.log(2) + np.log(4)) / 2)
    assert np.isnan(found[1])
    # A pair at one place, and a row in no cell, count for nothing.
    assert found[2] == pytest.approx(np.log(3))


def test_without_neighbours_beyond_a_border_there_is_no_figure():
    nothing = np.full(30, np.nan)
    assert np.isnan(seams.beside(nothing, np.zeros((5, 30))).value)
    assert np.isnan(seams.beside(np.zeros(30), np.stack([nothing, *np.zeros((4, 30))])).value)


@pytest.fixture(scope="module")
def run():
    rows = load_digits().data[:700].astype(np.float32)
    return rows, daskumap.fit(
        rows,
        client="sequential",
        progress=False,
        report=False,
        max_cell_rows=100,
        max_overlap=1,
        n_neighbors=8,
        n_epochs=200,
        random_state=1,
    )


def test_a_run_of_one_cell_a_row_has_seams(run):
    rows, made = run
    few = {"probe_rows": 400, "sample_rows": 100}
    assert daskumap.evaluate(made, **few)["seams"].low > 1.1
    # A map from elsewhere has no cells.
    assert "seams" not in daskumap.evaluate(rows, made.embedding[:], **few)


def test_cells_are_those_of_the_run(run):
    rows, made = run
    cells = seams.cells_in(made.store)
    assert cells.searched == cells.small > 1
    centres = made.store.read(schema.CENTROIDS.name)
    nearest = ((rows[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert (cells.of(np.arange(len(rows))) == nearest).mean() > 0.99
    holed = made.embedding[:]
    holed[::3] = np.nan
    pair = open_pair(daskumap.source(rows), holed, resolve("euclidean"))
    numbers = pair.numbers(np.array([0, 1, 5]))
    np.testing.assert_array_equal(numbers, np.flatnonzero(np.arange(700) % 3)[[0, 1, 5]])
