"""Measures of any map, each against its reference implementation, and out of core."""

import numpy as np
import pytest
import zarr
from scipy.stats import spearmanr
from sklearn import metrics
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

import daskumap
from daskumap.errors import ParameterError, SourceError, SourceNotFoundError
from daskumap.evaluation import pair
from daskumap.kernels.quality import sampled

K = 15
ROWS = 400
ALL = {"probe_rows": 10_000, "sample_rows": 10_000}


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    rows = found.data[:ROWS].astype(np.float32)
    # No two distances are equal: which of two equal ones comes first is nobody's promise.
    rows += np.random.default_rng(0).normal(0, 0.01, rows.shape).astype(np.float32)
    return rows, PCA(2).fit_transform(rows).astype(np.float32), found.target[:ROWS]


@pytest.fixture(scope="module")
def whole(digits):
    return daskumap.evaluate(*digits, n_neighbors=K, **ALL)


def area_under_rnx(X, Y):
    """From its definition, a neighbourhood after the other."""
    m = len(X)
    order = [
        np.argsort(d + np.diag([-1.0] * m), axis=1)[:, 1:]
        for d in (pairwise_distances(X), pairwise_distances(Y))
    ]
    sizes = np.arange(1, m - 1)
    kept = [
        np.mean([len(np.intersect1d(a[:k], b[:k])) / k for a, b in zip(*order, strict=True)]) for k in sizes
    ]
    gain = ((m - 1) * np.array(kept) - sizes) / (m - 1 - sizes)
    return np.sum(gain / sizes) / np.sum(1 / sizes)


def test_neighbourhoods_are_those_of_scikit_learn(digits, whole):
    X, Y, _ = digits
    assert whole["trustworthiness"].value == pytest.approx(trustworthiness(X, Y, n_neighbors=K), abs=1e-9)
    assert whole["continuity"].value == pytest.approx(trustworthiness(Y, X, n_neighbors=K), abs=1e-9)
    near = [NearestNeighbors(n_neighbors=K).fit(rows).kneighbors(return_distance=False) for rows in (X, Y)]
    kept = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(*near, strict=True)])
    assert whole["knn_preservation"].value == pytest.approx(kept, abs=1e-9)


def test_distances_of_pairs(digits, whole):
    X, Y, _ = digits
    upper = np.triu_indices(len(X), 1)
    expected = spearmanr(pairwise_distances(X)[upper], pairwise_distances(Y)[upper]).statistic
    assert whole["distance_correlation"].value == pytest.approx(expected, abs=1e-5)
    few = daskumap.evaluate(X[:120], Y[:120], n_neighbors=K, **ALL)
    assert few["auc_rnx"].value == pytest.approx(area_under_rnx(X[:120], Y[:120]), abs=1e-9)


def test_triplets(digits, whole):
    """All triplets there are lie in the interval of those that were drawn."""
    X, Y, _ = digits
    high, low = pairwise_distances(X), pairwise_distances(Y)
    agree = [
        np.mean(np.sign(a[:, None] - a[None]) == np.sign(b[:, None] - b[None]))
        for a, b in zip(high, low, strict=True)
    ]
    assert whole["triplet_accuracy"].low < np.mean(agree) < whole["triplet_accuracy"].high


def test_classes_are_those_of_scikit_learn(digits, whole):
    X, Y, classes = digits
    near = NearestNeighbors(n_neighbors=1).fit(Y).kneighbors(return_distance=False)[:, 0]
    assert whole["nearest_accuracy"].value == pytest.approx(np.mean(classes[near] == classes))
    votes = [
        KNeighborsClassifier(K).fit(np.delete(Y, i, 0), np.delete(classes, i)).predict(Y[i : i + 1])[0]
        == classes[i]
        for i in range(0, len(X), 7)
    ]
    every = daskumap.evaluate(X, Y, classes, n_neighbors=K, **ALL)["knn_accuracy"].value
    assert every == whole["knn_accuracy"].value
    assert np.mean(votes) == pytest.approx(every, abs=0.1)
    assert whole["silhouette"].value == pytest.approx(metrics.silhouette_score(Y, classes), abs=1e-5)
    found = {
        "kmeans": KMeans(10, n_init=10, random_state=0).fit_predict(Y),
        "hdbscan": HDBSCAN(5, copy=True).fit_predict(Y),
    }
    for name, clusters in found.items():
        for score, measure in {
            "nmi": metrics.normalized_mutual_info_score,
            "ari": metrics.adjusted_rand_score,
            "ami": metrics.adjusted_mutual_info_score,
        }.items():
            assert whole[f"{name}_{score}"].value == pytest.approx(measure(classes, clusters))


def test_all_rows_leave_nothing_uncertain(whole):
    drawn = {"triplet_accuracy"}
    assert {name for name, found in whole.items() if found.low != found.high} == drawn


def test_a_sample_is_out_of_core(digits, whole, tmp_path, monkeypatch):
    """In blocks of 64 rows it is the same, and its intervals hold what all rows give."""
    X, Y, classes = digits
    zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(100, 64))
    zarr.create_array(str(tmp_path / "y.zarr"), data=Y, chunks=(90, 2))
    drawn = {"n_neighbors": K, "probe_rows": 300, "sample_rows": 300}
    at_once = daskumap.evaluate(X, Y, classes, **drawn)
    monkeypatch.setattr(pair, "BLOCK_BYTES", 64 * 64 * 4)
    streamed = daskumap.evaluate(tmp_path / "x.zarr", tmp_path / "y.zarr", classes, **drawn)
    assert streamed == at_once
    off = [
        abs(at_once[name].value - whole[name].value) / (at_once[name].high - at_once[name].value)
        for name in whole
        if "hdbscan" not in name and "kmeans" not in name  # Fewer rows have other clusters.
    ]
    assert max(off) < 2
    assert np.mean(np.array(off) < 1) > 0.7


@pytest.mark.processes
def test_intervals_cover_what_they_estimate(digits, whole):
    """Of 40 samples most: what all rows give, or what samples of as many rows give on average."""
    samples = [
        daskumap.evaluate(*digits, n_neighbors=K, probe_rows=120, sample_rows=120, random_state=seed)
        for seed in range(40)
    ]
    names = [name for name in whole if not name.endswith(("_nmi", "_ari", "_ami"))]  # those hold the clusters
    truth = {name: whole[name].value for name in names}
    for name in ("auc_rnx", "triplet_accuracy"):  # of as many rows; and drawn, from all rows too
        truth[name] = np.mean([found[name].value for found in samples])
    hits = {name: sum(f[name].low <= truth[name] <= f[name].high for f in samples) for name in names}
    assert {name: count for name, count in hits.items() if count < 32} == {}


def test_intervals_cover(digits):
    """Of 40 samples some 38 intervals hold the figure of all rows."""
    tables = [pairwise_distances(rows) for rows in digits[:2]]
    truth, hit = sampled.distance_correlation(*tables), 0
    for seed in range(40):
        rows = np.random.default_rng(seed).choice(ROWS, 120, replace=False)
        found = sampled.of_rows(correlation_of(tables, rows), len(rows))
        hit += found.low < truth < found.high
    assert 34 <= hit < 40


def correlation_of(tables, rows):
    return lambda part: sampled.distance_correlation(*(t[np.ix_(rows[part], rows[part])] for t in tables))


def test_worse_maps_measure_worse(digits, whole):
    X, Y, classes = digits
    mixed = daskumap.evaluate(X, np.random.default_rng(1).permutation(Y), classes, n_neighbors=K, **ALL)
    assert all(mixed[name].value < whole[name].value for name in whole)
    assert mixed["auc_rnx"].value == pytest.approx(0, abs=0.02)


def test_rows_off_the_map_are_left_out(digits):
    X, Y, classes = digits
    gone = np.arange(len(X)) % 5 == 0
    holed = np.where(gone[:, None], np.nan, Y).astype(np.float32)
    X = np.where(gone[:, None], np.nan, X)
    assert daskumap.evaluate(X, holed, classes, **ALL) == daskumap.evaluate(
        X[~gone], Y[~gone], classes[~gone], **ALL
    )


def test_labels_of_all_kinds(digits):
    X, Y, classes = digits
    named = np.array([f"d{c}" for c in classes], object)
    small = {"probe_rows": 100, "sample_rows": 100}
    assert daskumap.evaluate(X, Y, named, **small) == daskumap.evaluate(X, Y, classes, **small)
    some = np.where(classes == 3, -1, classes)
    texts = [None if c == 3 else f"d{c}" for c in classes]
    assert daskumap.evaluate(X, Y, texts, **small) == daskumap.evaluate(X, Y, some, **small)
    floats = np.where(classes == 3, np.nan, classes)
    assert daskumap.evaluate(X, Y, floats, **small) == daskumap.evaluate(X, Y, some, **small)


def test_a_metric(digits):
    X, Y, _ = digits
    found = daskumap.evaluate(X, Y, metric="cosine", n_neighbors=K, **ALL)
    expected = trustworthiness(X, Y, n_neighbors=K, metric="cosine")
    assert found["trustworthiness"].value == pytest.approx(expected, abs=1e-6)


def test_a_run_is_its_map(digits):
    X = digits[0][:200]
    run = daskumap.fit(
        X, client="sequential", progress=False, report=False, n_epochs=5, random_state=1, metric="cosine"
    )
    found = daskumap.evaluate(X, run.embedding[:], metric="cosine")
    assert daskumap.evaluate(X, run) == found  # its metric too
    assert daskumap.evaluate(run) == found
    assert daskumap.evaluate(X, run, metric="euclidean") != found
    with pytest.raises(ParameterError, match="embedding is missing, and data is no run"):
        daskumap.evaluate(X)


def test_labels_by_name_and_a_run_by_its_path(digits, tmp_path):
    pandas = pytest.importorskip("pandas")
    X, _, classes = digits
    frame = pandas.DataFrame(X[:200]).assign(kind=[f"d{c}" for c in classes[:200]]).rename(columns=str)
    place, options = str(tmp_path / "run.zarr"), {"columns": [str(c) for c in range(64)]}
    frame.to_parquet(tmp_path / "rows.parquet")
    source = daskumap.source(tmp_path / "rows.parquet", **options)
    run = daskumap.fit(source, place, client="sequential", progress=False, report=False, n_epochs=5)
    found = daskumap.evaluate(place, labels="kind")
    assert found == daskumap.evaluate(X[:200], run.embedding[:], classes[:200])
    assert found == daskumap.evaluate(source, run.embedding[:], labels="kind")
    with pytest.raises(SourceNotFoundError, match=r"labels is 'sort', which is no file and no column.*kind"):
        daskumap.evaluate(place, labels="sort")


def test_unlabelled_rows_are_left_out_of_classes_alone(digits, whole):
    """As if they were not there for these measures, however few are labelled."""
    X, Y, classes = digits
    asked = np.arange(len(X)) % 8 == 0
    found = daskumap.evaluate(X, Y, np.where(asked, classes, -1), n_neighbors=K, **ALL)
    few = daskumap.evaluate(X[asked], Y[asked], classes[asked], n_neighbors=K, **ALL)
    names = [name for name in found if name in classes_measures()]
    assert len(names) == 9
    assert [found[name] for name in names] == [few[name] for name in names]
    assert found["continuity"] == whole["continuity"]


def classes_measures():
    scores = {f"{one}_{score}" for one in ("kmeans", "hdbscan") for score in ("nmi", "ari", "ami")}
    return {"knn_accuracy", "nearest_accuracy", "silhouette"} | scores


def test_labels_that_are_no_classes(digits):
    X, Y, classes = digits
    with pytest.raises(ParameterError, match="class for 3 of 400 rows on the map; at least 10"):
        daskumap.evaluate(X, Y, np.where(np.arange(len(X)) < 3, classes, -1))
    with pytest.raises(ParameterError, match="400 classes of 400 rows, as ids or values do"):
        daskumap.evaluate(X, Y, np.arange(len(X)))
    rare = daskumap.evaluate(X, Y, np.arange(len(X)) < 2, probe_rows=100, sample_rows=50, random_state=3)
    assert np.isnan(rare["kmeans_nmi"].value)
    assert rare["knn_accuracy"].value > 0.9
    pandas = pytest.importorskip("pandas")
    small = {"probe_rows": 100, "sample_rows": 100}
    kinds = pandas.Series([None if c == 3 else f"d{c}" for c in classes], dtype="category")
    texts = pandas.array([None if c == 3 else f"d{c}" for c in classes], dtype="string")
    numbers = pandas.array([None if c == 3 else int(c) for c in classes], dtype="Int64")
    expected = daskumap.evaluate(X, Y, np.where(classes == 3, -1, classes), **small)
    for labels in (kinds, texts, numbers):
        assert daskumap.evaluate(X, Y, labels, **small) == expected


def test_copies_and_maps_that_are_a_point(digits):
    """Copies cost a faithful map nothing, and one place for all rows gains nothing by its ties."""
    X = np.repeat(digits[0][:60], 5, axis=0)
    same = daskumap.evaluate(X, X, probe_rows=100)
    assert all(same[name].value == 1 for name in ("trustworthiness", "continuity", "auc_rnx"))
    X = digits[0][:200]
    point = daskumap.evaluate(X, np.full((200, 2), 3.1), digits[2][:200], **ALL)
    assert point["continuity"].value == pytest.approx(0.5, abs=0.1)
    assert point["trustworthiness"].value == pytest.approx(0.5, abs=0.1)
    assert np.isnan(point["distance_correlation"].value)
    assert point["kmeans_nmi"].value < 0.2
    nothing = daskumap.evaluate(np.zeros((200, 3)), digits[1][:200], **ALL)
    assert nothing["trustworthiness"].value == pytest.approx(0.5, abs=0.1)


def test_far_from_zero_and_small_types(digits, whole):
    X, Y, _ = digits
    assert daskumap.evaluate(X + 1e7, Y + 1e6, **ALL)["auc_rnx"].value == pytest.approx(
        whole["auc_rnx"].value, abs=1e-3
    )
    half = daskumap.evaluate(X.astype(np.float16), Y.astype(np.float16), **ALL)
    assert half["trustworthiness"].value == pytest.approx(whole["trustworthiness"].value, abs=0.01)
    line = np.linspace(0, 1, len(X))[:, None] * np.ones((1, 3))
    straight = daskumap.evaluate(line, line[:, :1], **ALL)
    assert straight["distance_correlation"].value == pytest.approx(1, abs=1e-6)
    assert straight["continuity"].value > 0.999


def test_mistakes(digits):
    X, Y, _ = digits
    with pytest.raises(ParameterError, match="embedding has 399 rows"):
        daskumap.evaluate(X, Y[:-1])
    with pytest.raises(ParameterError, match=r"labels has the shape \(3,\); .* 400 rows"):
        daskumap.evaluate(X, Y, [1, 2, 3])
    with pytest.raises(ParameterError, match="fewer than two classes"):
        daskumap.evaluate(X, Y, np.zeros(ROWS))
    with pytest.raises(ParameterError, match="20 rows with a place, too few for n_neighbors=15: at least 24"):
        daskumap.evaluate(X[:20], Y[:20])
    with pytest.raises(ParameterError, match="probe_rows is 0"):
        daskumap.evaluate(X, Y, probe_rows=0)
    broken = X.copy()
    broken[5, 1] = np.inf
    with pytest.raises(SourceError, match=r"Row 5 of .* holds NaN or infinity"):
        daskumap.evaluate(broken, Y)
    with pytest.raises(SourceError, match="'cosine' is not defined on row 7"):
        daskumap.evaluate(np.where(np.arange(ROWS)[:, None] == 7, 0, X), Y, metric="cosine")
    with pytest.raises(ParameterError, match=r"Unknown metric 'euclidian'. Did you mean 'euclidean'"):
        daskumap.evaluate(X, Y, metric="euclidian")
    with pytest.raises(ParameterError, match="precomputed"):
        daskumap.evaluate(X, Y, metric="precomputed")
