"""How far the clusters of a map are the classes that its rows have."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.quality.sampled import Estimate, of_rows

Array = np.ndarray[Any, Any]

# Least rows of a cluster of HDBSCAN, as a share of the sample, and in any case.
CLUSTER_SHARE, CLUSTER_ROWS = 0.01, 5


def codes_of(labels: Array) -> NDArray[np.int64]:
    """Return the number of each label's class, in their sorted order; -1 for negative, NaN and None."""
    if labels.dtype.kind == "O":
        none = np.array([label is None or label != label for label in labels], np.bool_)
        texts = np.array(["" if missing else str(label) for label, missing in zip(labels, none, strict=True)])
        return np.where(none, -1, np.unique(texts, return_inverse=True)[1])
    if labels.dtype.kind == "f":
        none = ~(labels >= 0)
    elif labels.dtype.kind == "i":
        none = labels < 0
    else:
        none = np.zeros(len(labels), np.bool_)
    return np.where(none, -1, np.unique(labels, return_inverse=True)[1])


def scores(places: Array, codes: Array, distances: Array, whole: bool) -> dict[str, Estimate]:
    """Return the silhouette of the classes, and how well clusters found on the map match them.

    Parameters
    ----------
    places, codes
        (m, d) and (m,) of a sample; rows at -1 are left out.
    distances
        (m, m) between the places.
    whole
        Whether the sample is all rows.

    References
    ----------
    scikit-learn's `silhouette_score`, `KMeans` with as many clusters as there are classes, `HDBSCAN` with
    clusters of at least a hundredth of the rows, and its `normalized_mutual_info_score`,
    `adjusted_rand_score` and `adjusted_mutual_info_score`.
    """
    from sklearn import metrics
    from sklearn.cluster import HDBSCAN, KMeans

    known = np.flatnonzero(codes >= 0)
    places, codes, distances = places[known], codes[known], distances[np.ix_(known, known)]
    classes = len(np.unique(codes))
    least = max(CLUSTER_ROWS, round(CLUSTER_SHARE * len(known)))
    assigned = {
        "kmeans": KMeans(classes, n_init=10, random_state=0).fit_predict(places),
        "hdbscan": HDBSCAN(least, copy=True).fit_predict(places),
    }
    measures = {
        "nmi": metrics.normalized_mutual_info_score,
        "ari": metrics.adjusted_rand_score,
        "ami": metrics.adjusted_mutual_info_score,
    }
    found = {"silhouette": of_rows(lambda rows: _silhouette(distances, codes, rows), len(known), whole)}
    for (name, clusters), (score, measure) in itertools.product(assigned.items(), measures.items()):
        found[f"{name}_{score}"] = of_rows(_part(measure, codes, clusters), len(known), whole)
    return found


def _part(
    measure: Callable[[Array, Array], float], codes: Array, clusters: Array
) -> Callable[[Array], float]:
    return lambda rows: float(measure(codes[rows], clusters[rows]))


def _silhouette(distances: Array, codes: Array, rows: Array) -> float:
    """Return the mean silhouette; NaN where the sample has rows of one class alone, or one row a class."""
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(codes[rows])) < len(rows):
        return float("nan")
    return float(silhouette_score(distances[np.ix_(rows, rows)], codes[rows], metric="precomputed"))
