"""What things take in memory, in bytes: a process, and rows and vertices where stages share the figure."""

from __future__ import annotations

# A worker's own memory with dask, zarr, numba, scikit-learn and the compiled kernels loaded (measured: 300 to
# 370 MB in the caller's process, what glibc keeps of freed memory included; 270 MB in a worker process).
RESERVED = 420_000_000
# What compiling the kernels leaves in a process, where they are not in the cache yet (measured: 393 against
# 283 MB).
COMPILING = 110_000_000
# pynndescent with what it compiled, which stays in the process (measured: 180 to 210 MB).
DESCENT_RESERVED = 220_000_000
# torch, imported, and what its first step leaves (measured: 187 and 19 MB).
TORCH_RESERVED = 220_000_000
# What NN-descent holds a row beside the vectors: 30 candidates, old and new, and the trees (measured).
DESCENT_ROW = 900
# The pieces in which a product of matrices is formed.
SCORES = 16_000_000
# The picture of 900 x 900 pixels while it is drawn (measured).
PICTURE = 60_000_000


def edge_row(n_neighbors: int) -> int:
    """Return what a vertex takes while its edges are joined: lists, incoming edges and CSR entries."""
    return n_neighbors * (12 + 20 + 2 * 24)


def edge_read(n_neighbors: int) -> int:
    """Return what a vertex takes while its edges are read for the layout."""
    return n_neighbors * 2 * 28


def layout_edges(n_neighbors: int) -> int:
    """Return what a vertex' edges take in the layout, at most: tails, rates, and masks of a byte."""
    return (n_neighbors - 1) * 2 * 9


def map_row(n_components: int) -> int:
    """Return what a place of the map takes where it is searched.

    It is there in float64, once more without those that have no place, and in the tree (measured: 17 bytes in
    2-D, 22 in 5-D).
    """
    return n_components * 16 + 8 + 28


# Cells that a new row is compared with, at most.
MOST_CELLS = 32


def transform_row(n_neighbors: int, n_components: int) -> int:
    """Return what a new row takes beside its values: lists as found and merged, memberships, cells, place."""
    return n_neighbors * 60 + MOST_CELLS * 12 + n_components * 12


def positions(rows: int, n_components: int) -> int:
    """Return what the layout holds of all vertices: two snapshots, two moments and the gathered positions."""
    return rows * n_components * 4 * 5
