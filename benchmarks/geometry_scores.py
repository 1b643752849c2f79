"""How a map is judged in *The Information Geometry of UMAP*: its clusters beside the labels, silhouette.

And what does not depend on a clusterer: the share of a row's nearest neighbours that the map keeps.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
NAMES = {
    "ars": "ARS",
    "amis": "AMIS",
    "silhouette": "silhouette",
    "clusters": "clusters",
    "noise": "noise",
    "preservation": "kNN preservation",
}

MIN_SAMPLES = 10
# As compare.py: two thousand queries put the standard error of the preservation at 0.002 and less.
NEIGHBORS, SAMPLE_ROWS = 15, 2_000
# All pairs of 70,000 rows take minutes; so many put the standard error of the silhouette at 0.003.
SILHOUETTE_ROWS = 10_000


def with_scikit_learn(places: Array, min_cluster_size: int) -> Array:
    """Return the cluster of each row, -1 for noise, by scikit-learn's HDBSCAN, whose spanning tree is exact.

    It counts a point among its own neighbours, the package `hdbscan` does not.
    """
    from sklearn.cluster import HDBSCAN

    clusterer = HDBSCAN(min_samples=MIN_SAMPLES + 1, min_cluster_size=min_cluster_size, copy=True)
    return np.asarray(clusterer.fit_predict(places))


def with_hdbscan(places: Array, min_cluster_size: int) -> Array:
    """Return the cluster of each row by the paper's package `hdbscan`, whose spanning tree is not exact."""
    import hdbscan

    clusterer = hdbscan.HDBSCAN(min_samples=MIN_SAMPLES, min_cluster_size=min_cluster_size)
    return np.asarray(clusterer.fit_predict(places))


CLUSTERERS: dict[str, Callable[[Array, int], Array]] = {
    "scikit-learn": with_scikit_learn,
    "hdbscan": with_hdbscan,
}


def scores(places: Array, labels: Array, predicted: Array) -> dict[str, float]:
    """Return how clusters of a map agree with the labels, and how far they are apart on it.

    Noise counts as one more cluster, as in the paper. A map of one cluster has no silhouette: NaN.
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, silhouette_score

    noise = predicted < 0
    several = len(np.unique(predicted)) > 1
    sample = min(len(places), SILHOUETTE_ROWS)
    return {
        "ars": float(adjusted_rand_score(labels, predicted)),
        "amis": float(adjusted_mutual_info_score(labels, predicted)),
        "silhouette": float(silhouette_score(places, predicted, sample_size=sample, random_state=0))
        if several
        else float("nan"),
        "clusters": len(np.unique(predicted[~noise])),
        "noise": float(noise.mean()),
    }


class Judge:
    """Judges the maps of one data set, all by the same rows.

    Parameters
    ----------
    rows, labels
        (n, D) and (n,).
    min_cluster_size, clusterer
        Of HDBSCAN, and the name of one in `CLUSTERERS`.
    """

    def __init__(self, rows: Array, labels: Array, min_cluster_size: int, clusterer: str) -> None:
        from daskumap.kernels.quality.neighbors import exact_neighbors

        self.labels, self.size, self.clusterer = labels, min_cluster_size, CLUSTERERS[clusterer]
        chosen = np.random.default_rng(0).choice(len(rows), min(len(rows), SAMPLE_ROWS), replace=False)
        self.sample = np.sort(chosen)
        self.exact, _ = exact_neighbors(np.asarray(rows, np.float32), self.sample, NEIGHBORS)

    def measure(self, places: Array) -> dict[str, float]:
        """Return all figures of a map."""
        return {
            **scores(places, self.labels, self.clusterer(places, self.size)),
            "preservation": self.preservation(places),
        }

    def preservation(self, places: Array) -> float:
        """Return the share of the sampled rows' nearest neighbours that are among those on the map."""
        from daskumap.kernels.quality.figures import preservation
        from daskumap.kernels.quality.neighbors import embedding_neighbors

        close, _ = embedding_neighbors(np.asarray(places, np.float32), self.sample, NEIGHBORS)
        return float(preservation(self.exact, close))
