"""The network and its training: the same bits for any blocks and segments, and maps that keep clusters."""

from itertools import pairwise

import numpy as np
import pytest

from daskumap.kernels.encoder import adam, network, training
from daskumap.kernels.encoder.backend import Perceptron
from daskumap.kernels.encoder.batch import Settings
from daskumap.kernels.encoder.draw import Edges
from daskumap.kernels.encoder.sampler import Sampler
from daskumap.kernels.quality.figures import knn_accuracy

ROWS = 900
# The last ones make products with vectors.
SHAPES = [(784, 100, 100, 100, 2), (64, 100, 100, 3), (5, 25, 13, 1), (1, 1, 2), (300, 33, 64)]


def layers_of(widths):
    rng = np.random.default_rng(2)
    return tuple(
        layer._replace(bias=rng.normal(size=layer.bias.size).astype(np.float32))
        for layer in network.initial(widths, 3)
    )


@pytest.mark.parametrize("widths", SHAPES)
def test_a_row_has_the_same_bits_in_any_block(widths):
    layers, rng = layers_of(widths), np.random.default_rng(0)
    X = rng.normal(size=(ROWS, widths[0])).astype(np.float32)
    whole = network.apply(layers, X)
    for size in (1, 7, 383, 385):
        stop = min(ROWS, 60 * size)
        parts = [network.apply(layers, X[at : min(at + size, stop)]) for at in range(0, stop, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole[:stop])
    order = rng.permutation(ROWS)
    np.testing.assert_array_equal(network.apply(layers, X[order]), whole[order])
    np.testing.assert_array_equal(network.apply(layers, np.asfortranarray(X.astype(np.float64))), whole)
    assert network.apply(layers, X[:0]).shape == (0, widths[-1])


@pytest.mark.parametrize("widths", SHAPES)
def test_apply_is_the_formula(widths):
    layers, values = layers_of(widths), np.random.default_rng(0).normal(size=(50, widths[0]))
    X = values.astype(np.float32)
    values = X.astype(np.float64)
    for k, layer in enumerate(layers):
        values = values @ layer.weights + layer.bias
        values = np.maximum(values, 0) if k < len(layers) - 1 else values
    np.testing.assert_allclose(network.apply(layers, X), values, atol=1e-5 * np.abs(values).max())
    np.testing.assert_allclose(network.forward(layers, X)[-1], values, atol=1e-5 * np.abs(values).max())


def test_not_a_number_passes_the_rectifiers():
    layers = layers_of((4, 6, 2))
    layers[0].bias[2] = np.nan
    assert np.isnan(network.apply(layers, np.ones((3, 4)))).all()


def test_parts_are_views_of_the_flat_vector():
    net = Perceptron.of(5, (6, 4), 2, decoder=True, classes=3)
    vector = net.initial(9)
    assert net.widths == {"encoder": (5, 6, 4, 2), "decoder": (2, 4, 6, 5), "head": (4, 3)}
    parts = network.unpack(vector, net.widths)
    np.testing.assert_array_equal(network.pack(parts), vector)
    assert vector.size == net.size
    assert all(np.shares_memory(layer.weights, vector) for layers in parts.values() for layer in layers)
    limit = np.sqrt(6 / 11)
    assert 0.9 * limit < np.abs(parts["encoder"][0].weights).max() <= limit
    # The encoder starts alike with and without other parts.
    np.testing.assert_array_equal(
        Perceptron.of(5, (6, 4), 2).initial(9), vector[: network.count((5, 6, 4, 2))]
    )


def test_adam_is_its_formula():
    rng = np.random.default_rng(0)
    state = np.zeros((3, 7))
    w, m, v = np.zeros((3, 7))
    for step in range(20):
        gradient = 3 * rng.normal(size=7)
        adam.update(state, gradient, step, 20, 0.1)
        g = np.clip(gradient, -4, 4)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        rate = 0.1 * (1 - 0.99 * step / 20) * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        w = w - rate * m / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(state, [w, m, v], rtol=1e-10)


def planted(n=600, kinds=6):
    """Return rows of clusters, their edges and which cluster each is of."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % kinds
    X = (4 * rng.normal(size=(kinds, 8))[y] + rng.normal(size=(n, 8))).astype(np.float32)
    distances = ((X[:, None] - X) ** 2).sum(2)
    near = np.argsort(distances, axis=1)[:, 1:11]
    return X / 10, Edges.of(np.arange(n + 1) * 10, near.ravel(), np.ones(n * 10)), y


def test_training_separates_planted_clusters():
    X, edges, y = planted()
    given = Settings(1.58, 0.9, 400, batch_edges=100)
    net = Perceptron.of(8, (50, 50), 2)
    sampler = Sampler(X, edges, 5, given)
    state, sums = training.run_steps(net, training.start(net, 1), sampler, 0, 400, given)
    assert knn_accuracy(net.encode(state[0], X), y, k=1) > 0.99
    assert 0 < sums["attraction"] / 400 < np.log(2)


def test_segments_give_the_bits_of_one_run():
    X, edges, y = planted(120)
    labels = np.where(np.arange(120) % 5 == 0, y, -1).astype(np.int32)
    landmarks, places = np.full((2, 120, 2), np.nan, np.float32)
    landmarks[:3], places[:100] = 1.0, X[:100, :2]
    given = Settings(1.58, 0.9, 20, batch_edges=30, warm_steps=8, global_weight=0.1, autoencoder_weight=0.5)
    net = Perceptron.of(8, (10,), 2, decoder=True, classes=6)

    def run(*stops):
        state = first = training.start(net, 1)
        begun, total = first.copy(), 0.0
        for start, stop in pairwise(stops):
            sampler = Sampler(X, edges, 5, given, labels, landmarks, places)
            state, sums = training.run_steps(Perceptron(net.widths), state, sampler, start, stop, given)
            total += sum(sums.values())
        np.testing.assert_array_equal(first, begun)
        return state, total

    whole, total = run(0, 20)
    parts, summed = run(0, 3, 8, 9, 20)
    np.testing.assert_array_equal(whole, parts)
    assert np.isfinite(whole).all()
    assert summed == pytest.approx(total)
