"""Counts of single cells as a biologist sees them: types of all sizes, two of them rare and isolated."""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN

from daskumap.testing.datasets import Dataset, in_memory

# Types 1, 4 and 6 are relatives of 0, 3 and 5, and cells of type 11 lie between types 10 and 11. Types 8 and
# 9 are rare and isolated: a layout may draw them as needles.
SHARES = np.array([22, 13, 9, 10, 6, 16, 5, 4, 2, 2, 5, 6]) / 100
RELATIVES = ((1, 0), (4, 3), (6, 5))
FROM, TO = 10, 11
# Of a class whose shape is measured: all steps between neighbours among them are far below 1.
ISLAND_ROWS = 2_000


def rare_types(n: int = 20_000, genes: int = 1_500, axes: int = 50, seed: int = 0) -> Dataset:
    """Return principal axes of the log counts of cells of 12 types, in memory.

    Counts are Poisson around a type's profile times the cell's depth, normalised to 10,000 a cell. At 20,000
    rows the two rare types have about 400 each.

    Parameters
    ----------
    n, genes, axes
        Rows, genes that are counted, and axes that are kept: the rows are (n, axes) float32.
    seed
        Of everything that is drawn.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.choice(len(SHARES), n, p=SHARES)
    profiles = _profiles(rng, genes)
    means = profiles[kinds]
    along = rng.random((n, 1))
    path = kinds == TO
    means[path] = (1 - along[path]) * profiles[FROM] + along[path] * profiles[TO]
    means /= means.sum(axis=1, keepdims=True)
    depth = rng.lognormal(np.log(2500), 0.4, (n, 1)) * rng.gamma(5, 0.2, (n, genes))
    counts = rng.poisson(means * depth).astype(np.float32)
    logs = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4)
    logs -= logs.mean(axis=0)
    vectors = np.linalg.eigh(logs.T @ logs)[1][:, ::-1]
    return in_memory("rare_types", logs @ vectors[:, :axes], kinds)


def _profiles(rng: np.random.Generator, genes: int) -> NDArray[np.float64]:
    """Return a profile of each type: some genes of a common base are up or down."""
    base = rng.gamma(0.3, 1.0, genes)
    profiles = np.stack(
        [base * np.exp(rng.normal(0, 0.9, genes) * (rng.random(genes) < 0.12)) for _ in SHARES]
    )
    for child, parent in RELATIVES:
        profiles[child] = (profiles[parent] + profiles[child]) / 2
    return profiles


def aspects(embedding: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[int, float]:
    """Return the long over the short standard deviation of each class' main island on the map.

    An island is what steps of at most 1, the scale of the map, join, among at most 2,000 rows of the class.
    The 5 % of its rows that lie farthest from its median do not count.
    """
    return {int(kind): _aspect(embedding[labels == kind]) for kind in np.unique(labels)}


def _aspect(rows: NDArray[np.float32]) -> float:
    points = rows[:: -(-len(rows) // ISLAND_ROWS)].astype(np.float64)
    islands = DBSCAN(eps=1.0, min_samples=1).fit_predict(points)
    points = points[islands == np.bincount(islands).argmax()]
    far = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    spread = np.linalg.eigvalsh(np.cov(points[far <= np.quantile(far, 0.95)].T))
    return float(np.sqrt(spread[-1] / max(spread[0], 1e-12)))
