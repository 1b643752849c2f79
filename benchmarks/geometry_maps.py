"""The maps that `information_geometry.py` compares: one graph for each kernel, two layouts of it."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
# The paper's.
N_NEIGHBORS, MIN_DIST = 30, 0.0
KERNELS = ("exponential", "gaussian", "quadratic", "morse", "harmonic", "constant")


class Graphs:
    """Fits of one data set with one seed, all kernels by the same neighbours and from the same start.

    The bandwidth is that of the exponential for every kernel, as in the paper.
    """

    def __init__(self, rows: Array, seed: int, **options: Any) -> None:
        fixed = {"n_neighbors": N_NEIGHBORS, "min_dist": MIN_DIST}
        self.rows, self.seed = rows, seed
        self.options = {**fixed, "random_state": seed, "report": False, "progress": False, **options}
        self._runs: dict[str, Any] = {}

    def run(self, kernel: str) -> Any:
        """Return the fit with a kernel, made at the first call."""
        import daskumap

        if kernel not in self._runs:
            first = kernel == KERNELS[0]
            data = self.rows if first else self.run(KERNELS[0])
            chosen = {} if first else {"membership": kernel}
            self._runs[kernel] = daskumap.fit(data, **self.options, **chosen)
        return self._runs[kernel]


def daskumap_layout(graphs: Graphs, kernel: str) -> Array:
    """Return daskumap's own map."""
    return np.asarray(graphs.run(kernel).embedding[:])


def umap_learn_layout(graphs: Graphs, kernel: str) -> Array:
    """Return umap-learn's map of the same graph: its spectral start, its epochs, one thread."""
    return simplicial_set_embedding(graphs.run(kernel), graphs.rows, graphs.seed)


def simplicial_set_embedding(run: Any, rows: Array, seed: int) -> Array:
    """Return umap-learn's map of the graph of a run, with the run's parameters of the layout."""
    from umap.umap_ import simplicial_set_embedding

    from daskumap.params import fit_curve

    p = run.params
    a, b = fit_curve(p["spread"], p["min_dist"])
    with warnings.catch_warnings():
        # It says that components of the graph are laid out apart.
        warnings.simplefilter("ignore")
        places, _ = simplicial_set_embedding(
            data=np.asarray(rows, np.float32),
            graph=run.graph(),
            n_components=p["n_components"],
            initial_alpha=p["learning_rate"],
            a=a,
            b=b,
            gamma=p["repulsion_strength"],
            negative_sample_rate=p["negative_sample_rate"],
            n_epochs=p["n_epochs"],
            init="spectral",
            random_state=np.random.RandomState(seed),
            metric="euclidean",
            metric_kwds={},
            densmap=False,
            densmap_kwds={},
            output_dens=False,
        )
    return np.asarray(places)


LAYOUTS: dict[str, Callable[[Graphs, str], Array]] = {
    "daskumap": daskumap_layout,
    "umap-learn": umap_learn_layout,
}
