"""Programs in the manner of umap-learn's documentation, with the import changed: each has to be worth it.

Precomputed distances, the inverse of digits and other metrics of the map have files of their own.
"""

import warnings

import numba
import numpy as np
import pytest
import scipy.sparse
from sklearn.cluster import HDBSCAN
from sklearn.datasets import load_digits, load_iris
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from daskumap import UMAP

pytestmark = pytest.mark.filterwarnings("ignore:y has no effect")


def purity(Y, labels):
    """Return how often five neighbours on the map tell the label."""
    return cross_val_score(KNeighborsClassifier(5), Y, labels, cv=3).mean()


@pytest.fixture(scope="module")
def digits():
    """600 of the digits: as many as tell them apart."""
    found = load_digits()
    return found.data[:600], found.target[:600]


@pytest.fixture(scope="module")
def digits_map(digits):
    return UMAP(random_state=42, n_epochs=200).fit(digits[0])


def test_iris():
    """Basic usage: scaled columns, and the three kinds of iris."""
    iris = load_iris()
    scaled = StandardScaler().fit_transform(iris.data)
    embedding = UMAP(random_state=42, n_epochs=200).fit_transform(scaled)
    assert embedding.shape == (150, 2)
    assert purity(embedding, iris.target) > 0.85
    assert trustworthiness(scaled, embedding, n_neighbors=10) > 0.95


def test_digits(digits, digits_map):
    assert digits_map.embedding_.shape == (600, 2)
    # Five neighbours in all 64 columns do not tell all digits of 600 either.
    assert purity(digits_map.embedding_, digits[1]) > 0.87
    assert trustworthiness(digits[0], digits_map.embedding_, n_neighbors=10) > 0.95


def test_more_components_and_parameters(digits):
    """How parameters change the map: min_dist and n_neighbors pull and spread it."""
    spreads = []
    for min_dist in (0.0, 0.9):
        model = UMAP(n_neighbors=10, min_dist=min_dist, n_components=3, random_state=42, n_epochs=100)
        Y = model.fit_transform(digits[0])
        table = np.linalg.norm(Y[:, None] - Y[None], axis=2) + np.diag(np.full(600, np.inf))
        spreads.append(np.median(table.min(axis=1)) / np.ptp(Y))
        assert purity(Y, digits[1]) > 0.87
    assert spreads[0] < 0.7 * spreads[1]


def test_mixed_columns():
    """Numbers and categories: two fits, whose graphs intersect; the map of one starts from the other."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 300)
    numbers = RobustScaler().fit_transform(np.eye(2)[kinds // 2] * 8 + rng.normal(size=(300, 2)))
    categories = np.where(rng.random((300, 12)) < 0.1, 1, 0) | np.repeat(
        np.eye(2)[kinds % 2], 6, axis=1
    ).astype(int)
    numeric = UMAP(n_neighbors=15, random_state=42, n_epochs=100).fit(numbers)
    ordinal = UMAP(metric="dice", n_neighbors=60, random_state=42, n_epochs=100).fit(
        categories + (np.arange(12) == 0)
    )
    assert purity(numeric.embedding_, kinds // 2) > 0.95
    assert purity(ordinal.embedding_, kinds % 2) > 0.9
    both = np.hstack([MinMaxScaler().fit_transform(model.embedding_) for model in (numeric, ordinal)])
    assert purity(UMAP(random_state=42, n_epochs=100).fit_transform(both), kinds) > 0.85
    assert numeric.graph_.multiply(ordinal.graph_).nnz > 0


def test_sparse_counts():
    """Counts of words in documents, as a vectorizer leaves them, under hellinger."""
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(2000, 0.02), 5)
    labels = rng.integers(0, 5, 400)
    counts = scipy.sparse.csr_matrix([rng.multinomial(60, topics[label]) for label in labels])
    mapper = UMAP(metric="hellinger", random_state=42, n_epochs=100).fit(counts)
    assert purity(mapper.embedding_, labels) > 0.95
    assert mapper.n_features_in_ == 2000
    new = scipy.sparse.csr_matrix([rng.multinomial(60, topic) for topic in topics])
    found = KNeighborsClassifier(5).fit(mapper.embedding_, labels).predict(mapper.transform(new))
    assert found.tolist() == [0, 1, 2, 3, 4]


@numba.njit()
def red_channel_dist(a, b):
    return np.abs(a[0] - b[0])


@numba.njit()
def hue_dist(a, b, around, weight=1.0):
    apart = abs(a[0] - b[0]) % around
    return weight * min(apart, around - apart)


def test_metrics_of_ones_own():
    """Functions of numba, one with keywords: each map is in the order of what the function looks at."""
    colours = np.random.default_rng(0).uniform(0, 1, (200, 3))
    for metric, words, spread in (
        (red_channel_dist, None, np.abs),
        (hue_dist, {"around": 1.0}, lambda apart: np.minimum(np.abs(apart), 1 - np.abs(apart))),
    ):
        mapper = UMAP(metric=metric, metric_kwds=words, random_state=42, n_epochs=100, n_components=2)
        table = np.linalg.norm(mapper.fit_transform(colours)[:, None] - mapper.embedding_[None], axis=2)
        nearest = np.argsort(table, axis=1)[:, 1:6]
        apart = spread(colours[:, :1] - colours[nearest, 0])
        assert np.median(apart) < 0.03  # of two colours by chance .29 and .25


def test_outliers(digits):
    """Noise among digits: the local outlier factor on the map finds it."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 16, (12, 64))
    data = np.vstack([digits[0], noise])
    Y = UMAP(set_op_mix_ratio=0.25, random_state=42, n_epochs=200).fit_transform(data)
    scores = LocalOutlierFactor(contamination=0.02).fit(Y).negative_outlier_factor_
    assert np.isfinite(scores).all()
    # Noise is no digit: it lies together, away from where digits do.
    near = np.argsort(np.linalg.norm(Y[-12:, None] - Y[None], axis=2), axis=1)[:, 1:6]
    assert (near >= 600).mean() > 0.8


def test_a_pipeline_that_is_searched(digits):
    """Transforming new data for a classifier, and the number of components by a search."""
    X, new, y, truth = train_test_split(*digits, random_state=42)
    pipeline = Pipeline(
        [("umap", UMAP(random_state=42, n_epochs=100)), ("classifier", KNeighborsClassifier())]
    )
    search = GridSearchCV(pipeline, {"umap__n_components": [2, 3]}, cv=2)
    search.fit(X, y)
    assert search.best_score_ > 0.85
    assert search.score(new, truth) > 0.9
    assert search.best_estimator_["umap"].embedding_.shape[1] == search.best_params_["umap__n_components"]


def test_new_rows_lie_with_their_kind(digits):
    X, new, y, truth = train_test_split(*digits, random_state=1)
    mapper = UMAP(n_neighbors=5, random_state=42, n_epochs=100).fit(X)
    classifier = KNeighborsClassifier().fit(mapper.embedding_, y)
    assert classifier.score(mapper.transform(new), truth) > 0.93


def test_features_for_clusters(digits):
    """Clustering: flat and dense maps are what HDBSCAN finds clusters in, and the 64 columns are not."""
    X, y = digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of scikit-learn's HDBSCAN about its own copy
        alone = HDBSCAN(min_samples=10, min_cluster_size=20).fit_predict(X)
        Y = UMAP(n_neighbors=15, min_dist=0.0, random_state=42, n_epochs=200).fit_transform(X)
        found = HDBSCAN(min_samples=5, min_cluster_size=20).fit_predict(Y)
    assert adjusted_rand_score(y, found) > max(0.75, adjusted_rand_score(y, alone) + 0.2)
