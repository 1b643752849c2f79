"""How a parametric map is judged: on rows that it was not trained on, by the measures of its paper.

References
----------
Sainburg, McInnes, Gentner (2021), Parametric UMAP Embeddings for Representation and Semisupervised Learning.
Lee, Peluffo-Ordonez, Verleysen (2015), Multi-scale similarities in stochastic neighbour embedding: the area
under R_NX.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
NEIGHBORS = 15
# So many edges put the standard error of the cross-entropy at .001.
EDGES, NEGATIVES = 200_000, 5
# Pairs of rows for the correlation of distances: its standard error is .002.
PAIRS = 200_000
# Rows whose ranks among all others on the map are compared with those before.
QUERIES = 1_000
# Reconstructions are judged by the first rows: without a decoder each takes milliseconds.
REBUILT = 1_000
# A distance below this is taken as this, as in the training: the logarithm of 0 is none.
FLOOR = 1e-12


def ranks(rows: Array, queries: Array) -> Array:
    """Return the rank of every row by its distance from each query, 0 for the query itself.

    Parameters
    ----------
    rows, queries
        (n, d), and (q,) which of them are asked.

    Returns
    -------
    (q, n) int32. Ties go to the lower row.
    """
    rows = np.asarray(rows, np.float64)
    rows = rows - rows.mean(axis=0)
    found = np.empty((len(queries), len(rows)), np.int32)
    squares = np.einsum("ij,ij->i", rows, rows)
    for k, query in enumerate(queries):
        distances = squares - 2.0 * (rows @ rows[query])
        distances[query] = -np.inf
        found[k, np.argsort(distances, kind="stable")] = np.arange(len(rows), dtype=np.int32)
    return found


def trustworthiness(high: Array, places: Array, k: int = NEIGHBORS) -> float:
    """Return the trustworthiness of a map, from the `ranks` of all its rows in the input, (n, n)."""
    from daskumap.kernels.quality.figures import trustworthiness_from_ranks
    from daskumap.kernels.quality.neighbors import exact_neighbors

    everyone = np.arange(len(places))
    near, _ = exact_neighbors(places, everyone, k)
    return trustworthiness_from_ranks(high[everyone[:, None], near], len(places), k)


def area_under_rnx(high: Array, low: Array) -> float:
    """Return the area under R_NX over ln K, from `ranks` of rows before and on a map; (q, n) both.

    R_NX(K) is the share of a row's K nearest that are kept, rescaled so that 0 is chance and 1 all of them.
    """
    queries, n = high.shape
    # A neighbour is kept for K from the worse of its two ranks on.
    worse = np.maximum(high, low).ravel()
    K = np.arange(1, n - 1)
    kept = np.cumsum(np.bincount(worse, minlength=n)[1 : n - 1]) / (queries * K)
    r = ((n - 1) * kept - K) / (n - 1 - K)
    return float(np.sum(r / K) / np.sum(1.0 / K))


def cross_entropy(places: Array, graph: Any, curve: tuple[float, float], seed: int = 0) -> float:
    """Return UMAP's cross-entropy an edge: edges are drawn by weight, each with some pairs drawn at random.

    Parameters
    ----------
    places
        (n, d) of the rows that the graph joins.
    graph
        Sparse (n, n), symmetric.
    curve
        a and b.
    """
    drawn = np.random.default_rng(seed)
    edges = graph.tocoo()
    sums = np.cumsum(edges.data, dtype=np.float64)
    chosen = np.searchsorted(sums, drawn.random(EDGES) * sums[-1], side="right")
    near = _scaled(places, edges.row[chosen], edges.col[chosen], curve)
    far = _scaled(places, *drawn.integers(0, len(places), (2, EDGES * NEGATIVES)), curve)
    # q = 1 / (1 + s) and 1 - q = s / (1 + s).
    loss = np.log1p(near).sum() + (np.log1p(far) - np.log(far)).sum()
    return float(loss / EDGES)


def _scaled(places: Array, heads: Array, tails: Array, curve: tuple[float, float]) -> Array:
    a, b = curve
    difference = places[heads].astype(np.float64) - places[tails]
    squared = np.maximum(np.einsum("ij,ij->i", difference, difference), FLOOR)
    scaled: Array = a * squared**b
    return scaled


def distance_correlation(rows: Array, places: Array, seed: int = 0) -> float:
    """Return the rank correlation of the distances of random pairs, before and on the map."""
    from scipy.stats import spearmanr

    heads, tails = np.random.default_rng(seed).integers(0, len(rows), (2, PAIRS))
    before, after = (np.linalg.norm(one[heads] - one[tails], axis=1) for one in (rows, places))
    return float(spearmanr(before, after).statistic)


FIGURES = (
    "trustworthiness",
    "1-NN",
    "15-NN",
    "cross_entropy",
    "rnx",
    "silhouette",
    "nmi",
    "distances",
)


class Judge:
    """Judges maps of one data set.

    Parameters
    ----------
    rows, held
        What was trained on, and what was not: (n, D) and (m, D).
    labels
        Of both, one after the other.
    graph, curve
        Of the rows, and a and b of the maps.
    """

    def __init__(
        self, rows: Array, held: Array, labels: Array, graph: Any, curve: tuple[float, float]
    ) -> None:
        self.held, self.graph, self.curve = held, graph, curve
        self.labels, self.wanted = labels[: len(rows)], labels[len(rows) :]
        # int32: (m, m) of 10,000 held-out rows are 400 MB.
        self.high = ranks(held, np.arange(len(held)))
        # Evenly, as rows may be sorted.
        self.sample = np.linspace(0, len(held) - 1, min(QUERIES, len(held))).astype(int)

    def measure(self, places: Array, held: Array) -> dict[str, float]:
        """Return all figures of a map of the rows and of the held-out rows; NaN of one with NaN."""
        from sklearn.cluster import KMeans
        from sklearn.metrics import normalized_mutual_info_score, silhouette_score
        from sklearn.neighbors import KNeighborsClassifier

        if not (np.isfinite(places).all() and np.isfinite(held).all()):
            return dict.fromkeys(FIGURES, float("nan"))
        clusters = KMeans(len(np.unique(self.wanted)), n_init=5, random_state=0).fit_predict(held)
        return {
            "trustworthiness": trustworthiness(self.high, held),
            **{
                f"{k}-NN": float(KNeighborsClassifier(k).fit(places, self.labels).score(held, self.wanted))
                for k in (1, NEIGHBORS)
            },
            "cross_entropy": cross_entropy(places, self.graph, self.curve),
            "rnx": area_under_rnx(self.high[self.sample], ranks(held, self.sample)),
            "silhouette": float(silhouette_score(held, self.wanted)),
            "nmi": float(normalized_mutual_info_score(self.wanted, clusters)),
            "distances": distance_correlation(self.held, held),
        }

    def reconstruction(self, rebuilt: Array) -> float:
        """Return the mean squared error of the first held-out rows, brought back from their places."""
        return float(np.mean((rebuilt[:REBUILT] - self.held[: len(rebuilt)][:REBUILT]) ** 2))
