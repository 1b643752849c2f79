"""What docs/compatibility.md says that umap-learn gets wrong, and has no test elsewhere."""

import numpy as np
import pytest

from daskumap import UMAP
from daskumap.kernels.metrics import metric as metrics


def nearest(table, k=10):
    np.fill_diagonal(table, np.inf)
    return np.argsort(table, axis=1)[:, :k]


def overlap(one, other):
    return np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(one, other, strict=True)])


def test_cosine_far_from_the_origin():
    """Theirs is 1 less a product that float32 rounds: of distances of 1e-6 one digit is left."""
    from umap.distances import cosine

    X = (np.random.default_rng(0).normal(size=(200, 8)) + 3000).astype(np.float32)
    unit = X.astype(float) / np.linalg.norm(X.astype(float), axis=1)[:, None]
    true = nearest(((unit[:, None] - unit[None]) ** 2).sum(axis=2))
    ours, _ = UMAP(metric="cosine", n_neighbors=11, n_epochs=1).fit(X)._run.knn()
    theirs = nearest(np.array([[cosine(x, y) for y in X] for x in X]))
    assert overlap(ours, true) > 0.99
    assert overlap(theirs, true) < 0.9


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cosine", lambda angle: 1 - np.cos(angle)), ("true_angular", lambda angle: angle / np.pi)],
)
def test_directions_are_ordered_beyond_a_right_angle(name, expected):
    angles = np.radians([0, 30, 90, 120, 179])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    distance = metrics.distance_function(metrics.resolve(name))
    found = [distance(rows[0], row) for row in rows]
    np.testing.assert_allclose(found, expected(angles), atol=1e-3)


def test_the_layout_leaves_the_graph_alone(small):
    """Of few epochs most edges are never pulled; umap-learn writes 0 over their memberships."""
    few, more = (UMAP(n_epochs=epochs, random_state=1).fit(small).graph_ for epochs in (1, 20))
    assert abs(few - more).max() == 0
    assert few.nnz == more.nnz
    assert few.data.min() < few.data.max() / 20
    assert (few.data > 0).all()
