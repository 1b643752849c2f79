"""Imported by the fork server before it forks: each process begins with the kernels of a usual fit."""

import daskumap
from daskumap.testing.datasets import uneven_clusters

daskumap.fit(
    uneven_clusters(80, 4, 3, seed=1).rows(), client="sequential", progress=False, random_state=1, n_epochs=2
)
