"""What a step draws: frequencies against weights, hashes of steps and slots, and odd graphs."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array
from scipy.stats import chisquare

from daskumap.kernels.encoder.batch import Settings
from daskumap.kernels.encoder.draw import Edges, draw_edges, draw_numbers
from daskumap.kernels.encoder.sampler import Sampler

N = 40
SETTINGS = Settings(1.58, 0.9, 100, batch_edges=64)


def graph(n=N, density=0.1):
    half = random_array((n, n), density=density, rng=np.random.default_rng(0), format="csr")
    return csr_matrix(half + half.T)


def edges_of(matrix):
    return Edges.of(matrix.indptr, matrix.indices, matrix.data)


def drawn(edges, steps, key=5, count=500):
    heads, tails = np.empty((2, steps, count), np.int32)
    for step in range(steps):
        draw_edges(edges, key, step, heads[step], tails[step])
    return heads.ravel(), tails.ravel()


def test_edges_are_drawn_by_their_weights():
    matrix = graph()
    matrix.data[3::5] = 0  # as edges that a union left without weight
    heads, tails = drawn(edges_of(matrix), 200)
    counts = np.zeros((N, N))
    np.add.at(counts, (heads, tails), 1)
    weights = np.asarray(matrix.todense())
    assert not counts[weights == 0].any()
    expected = weights[weights > 0]
    assert chisquare(counts[weights > 0], expected / expected.sum() * len(heads)).pvalue > 0.01


def test_steps_keys_and_slots_draw_apart():
    edges = edges_of(graph())
    first, other_key = drawn(edges, 2), drawn(edges, 2, key=6)
    assert not np.array_equal(first[0][:500], first[0][500:])
    assert not np.array_equal(first[0], other_key[0])
    heads, tails = np.empty((2, 100), np.int32)
    draw_edges(edges, 5, 1, heads, tails)  # fewer slots draw the same in those that they share
    np.testing.assert_array_equal(heads, first[0][500:600])
    np.testing.assert_array_equal(tails, first[1][500:600])


def test_numbers_are_equally_likely():
    numbers = np.empty(20_000, np.int32)
    draw_numbers(5, 3, 2, 25, numbers)
    assert chisquare(np.bincount(numbers, minlength=25)).pvalue > 0.01


def test_a_batch_holds_its_rows_in_order():
    matrix, rng = graph(), np.random.default_rng(1)
    X = rng.normal(size=(N, 4)).astype(np.float32)
    labels = np.where(np.arange(N) % 10 == 3, np.arange(N) % 7, -1).astype(np.int32)
    landmarks = np.full((N, 2), np.nan, np.float32)
    landmarks[5:8] = rng.normal(size=(3, 2))
    landmarks[9, 0] = 1.0  # half a place is none
    sampler = Sampler(X, edges_of(matrix), 5, SETTINGS._replace(global_weight=1.0), labels, landmarks)
    batch = sampler.batch(9)
    assert (batch.ends, batch.edges, len(batch.labels), len(batch.targets)) == (128, 64, 4, 3)
    assert len(batch.rows) == 128 + 4 + 3
    ids = [int(np.flatnonzero((row == X).all(1))[0]) for row in batch.rows]
    assert all(matrix[i, j] > 0 for i, j in zip(ids[:64], ids[64:128], strict=True))
    np.testing.assert_array_equal(labels[ids[128:132]], batch.labels)
    np.testing.assert_array_equal(landmarks[ids[132:]], batch.targets)
    np.testing.assert_array_equal(batch.pushed[:, 0], np.repeat(np.arange(64), 5))
    assert set(batch.pushed[:, 1]) <= set(range(64, 128))
    assert batch.far.max() < 128
    assert len(batch.places) == 0


def test_warm_steps_draw_rows_on_the_map():
    X, places = np.arange(N, dtype=np.float32)[:, None], np.arange(2.0 * N, dtype=np.float32).reshape(N, 2)
    places[::2] = np.nan
    sampler = Sampler(X, edges_of(graph()), 5, SETTINGS._replace(warm_steps=3), places=places)
    warm, later = sampler.batch(2), None
    assert (warm.edges, len(warm.pushed)) == (0, 0)
    np.testing.assert_array_equal(warm.places, places[warm.rows[:, 0].astype(int)])
    assert np.isfinite(warm.places).all()
    later = sampler.batch(3)
    assert (later.edges, len(later.places)) == (64, 0)


@pytest.mark.parametrize("n", [1, 5])
def test_rows_without_edges_are_drawn_as_no_pairs(n):
    edges = Edges.of(np.zeros(n + 1), np.empty(0), np.empty(0))
    batch = Sampler(np.ones((n, 3), np.float32), edges, 5, SETTINGS).batch(0)
    assert (batch.edges, len(batch.pushed), len(batch.rows)) == (0, 0, 128)
