"""`ensure_all_finite`: rows with NaN or infinity are left to a metric that is a function, and to no other."""

import numpy as np
import pytest

import daskumap
from daskumap import UMAP
from daskumap.errors import ParameterError, SourceError
from daskumap.kernels.cells.find import fill_missing
from daskumap.testing.datasets import uneven_clusters


def nan_euclidean(x, y):
    """Return scikit-learn's distance of that name: over the columns that both rows have."""
    total, seen = 0.0, 0
    for c in range(x.shape[0]):
        difference = x[c] - y[c]
        if np.isfinite(difference):
            total += difference * difference
            seen += 1
    return np.sqrt(total * x.shape[0] / max(seen, 1))


@pytest.fixture(scope="module")
def rows():
    """400 x 8 in four clusters, a tenth of the values missing."""
    X = uneven_clusters(400, 8, 4, seed=1).rows()
    return np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(rows):
    """With both starts that see the rows, or their neighbours alone."""
    return [
        daskumap.fit(
            rows,
            metric=nan_euclidean,
            ensure_all_finite="allow-nan",
            init=init,
            n_epochs=60,
            random_state=1,
            client="sequential",
            progress=False,
        )
        for init in ("pca", "spectral")
    ]


def test_neighbours_are_those_of_the_metric(rows, fitted):
    from sklearn.metrics.pairwise import nan_euclidean_distances

    table = nan_euclidean_distances(rows.astype(float))
    np.fill_diagonal(table, np.inf)
    _, distances = fitted[0].knn()
    np.testing.assert_allclose(distances, np.sort(table, axis=1)[:, :14], rtol=1e-5)


def test_the_map_is_one_of_the_clusters(fitted):
    labels = uneven_clusters(400, 8, 4, seed=1).labels()
    for run in fitted:
        Y = run.embedding[:]
        table = np.linalg.norm(Y[:, None] - Y[None], axis=2) + np.diag(np.full(400, np.inf))
        assert (labels[table.argmin(axis=1)] == labels).mean() > 0.9
        assert run.report["measures"]["recall"] == 1.0


def test_new_rows_may_have_what_the_fit_had(rows, fitted):
    placed = fitted[0].transform(rows[:5], progress=False, client="sequential")
    np.testing.assert_array_equal(placed.embedding[:], fitted[0].embedding[:5])
    with pytest.raises(SourceError, match="rows hold NaN or infinity"):
        fitted[0].transform(rows[:5], ensure_all_finite=True, progress=False)
    with pytest.raises(SourceError, match="1 of 2 rows hold NaN or infinity"):
        fitted[0].transform(np.vstack([rows[:1], np.full((1, 8), np.inf)]), progress=False)
    with pytest.raises(ParameterError, match="ensure_all_finite is 'yes'; it must be True, False or"):
        fitted[0].transform(rows[:5], ensure_all_finite="yes", progress=False)


def test_infinity_needs_false(rows):
    X = rows[:60].copy()
    X[3, 0] = np.inf
    with pytest.raises(SourceError, match=r"1 of 60 rows hold NaN or infinity.*first: row 3"):
        UMAP(metric=nan_euclidean).fit(X, ensure_all_finite="allow-nan")
    model = UMAP(metric=nan_euclidean, n_epochs=3, init="pca").fit(X, ensure_all_finite=False)
    assert np.isfinite(model.embedding_).all()
    with pytest.raises(SourceError, match="hold NaN or infinity"):
        model.transform(X)
    np.testing.assert_array_equal(model.transform(X, ensure_all_finite=False), model.embedding_)


def test_a_metric_that_makes_nan_of_them_is_refused(rows):
    for call in (
        lambda: UMAP().fit(rows, ensure_all_finite="allow-nan"),
        lambda: daskumap.fit(rows, ensure_all_finite=False),
    ):
        with pytest.raises(ParameterError, match="the metric 'euclidean' makes NaN of rows with NaN"):
            call()
    with pytest.raises(SourceError, match="returns NaN, infinity or a negative number for sampled pairs"):
        UMAP(metric=lambda x, y: np.abs(x - y).sum()).fit(rows, ensure_all_finite="allow-nan")


def test_missing_values_start_at_the_mean_of_their_column():
    found = fill_missing(np.array([[1, np.nan], [3, np.inf], [np.nan, 5], [2, -np.inf]], np.float32))
    np.testing.assert_array_equal(found, [[1, 5], [3, 5], [2, 5], [2, 5]])
    assert not fill_missing(np.full((2, 1), np.nan, np.float32)).any()
