"""Lists into which rows are entered block by block are those of one search."""

import numpy as np
import pytest

from daskumap.kernels.metrics.metric import resolve
from daskumap.kernels.neighbors import knn


def blocks(n, step):
    return [(start, min(n, start + step)) for start in range(0, n, step)]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("far_first", [False, True])
def test_entering_blocks_is_one_search(metric, dtype, far_first):
    """Also where lists are full of rows farther away, whose bound lets most of the next block pass."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(700, 24)).astype(np.float32)
    X[400:500] = X[100:200]  # ties, which go to the lower id
    queries = (X[::9] + 0.05).astype(np.float32)
    resolved, k = resolve(metric), 7
    distance = np.linalg.norm(X - queries.mean(axis=0), axis=1)
    X = X[np.argsort(-distance if far_first else distance, kind="stable")]
    expected = knn.nearest(queries, X, k, resolved, np.full(len(queries), -1), 0)
    ids, distances = np.full((len(queries), k), -1, dtype), np.full((len(queries), k), np.inf, np.float32)
    for start, stop in blocks(len(X), 150):
        knn.enter(queries, X[start:stop], resolved, start, ids, distances)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


def test_lists_stay_short_where_there_are_too_few_rows():
    ids, distances = np.full((2, 5), -1, np.int32), np.full((2, 5), np.inf, np.float32)
    for first, block in ((0, np.empty((0, 2))), (10, np.eye(2)), (20, np.eye(2)[:1])):
        knn.enter(np.eye(2), block, resolve("euclidean"), first, ids, distances)
    np.testing.assert_array_equal(ids, [[10, 20, 11, -1, -1], [11, 10, 20, -1, -1]])
    assert np.isinf(distances[:, 3:]).all()
    assert (distances[0, :2] == 0).all()
