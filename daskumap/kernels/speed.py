"""How fast this machine is beside the one on which the costs of the plan were measured.

Two things bound a run: matrix products with their selection, and kernels that wait for memory. Each is timed
alone on one thread for a fraction of a second.
"""

import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from daskumap.kernels.layout import iterations as layout
from daskumap.kernels.neighbors import products
from daskumap.kernels.neighbors.scores import SQRT

# The reference: one core of an AMD EPYC (Zen 5) at 2.6 GHz with OpenBLAS' AVX2 kernels.
DISTANCE_SECONDS = 2.15e-9  # a distance of 64 columns, product and selection
VERTEX_SECONDS = 153e-9  # a vertex in an iteration of the layout in 2-D, 15 neighbours
ROWS, COLUMNS, VERTICES, DEGREE = 4_096, 64, 20_000, 22


@lru_cache(maxsize=1)
def measure_speed() -> tuple[float, float]:
    """Return the speeds of products and of kernels as multiples of the reference's; takes about a second."""
    return DISTANCE_SECONDS / _distance_seconds(), VERTEX_SECONDS / _vertex_seconds()


def _least(run: Callable[[], object], repeats: int = 5) -> float:
    """Return the least seconds of some calls, the first of which compiles and does not count."""
    run()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _distance_seconds() -> float:
    X = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    own = np.arange(ROWS, dtype=np.int32)
    return _least(lambda: products.search(X, X, 14, SQRT, own)) / ROWS**2


def _vertex_seconds() -> float:
    rng = np.random.default_rng(0)
    snapshot = rng.normal(scale=5.0, size=(VERTICES, 2)).astype(np.float32)
    near = np.arange(VERTICES)[:, None] + rng.integers(1, 500, (VERTICES, DEGREE))
    tails = (near % VERTICES).astype(np.int32).ravel()
    rates = layout.edge_rates(rng.random(tails.size, np.float32), 1.0, 200)
    edges = layout.mask_edges(layout.Edges(np.arange(0, tails.size + 1, DEGREE), tails, rates), 0, 0, 0)
    state = layout.State(np.zeros_like(snapshot), np.zeros_like(snapshot))
    out, table = np.empty_like(snapshot), layout.forces(1.58, 0.9, 1.0, 5)
    pool = layout.negative_pool(snapshot, 0, 0)

    def iteration() -> None:
        layout.adam_iteration(snapshot, out, 0, 0, VERTICES, edges, state, pool, table, 0, 3, 200, 1.0)

    return _least(iteration) / VERTICES
