"""Data sets on which something is far from uniform: what caps, plans and maps have to stand.

Rows are hashes of their ids, as in `datasets`. Each maker takes the number of rows; `SKEWED` lists them all.

>>> sorted(SKEWED)  # doctest: +NORMALIZE_WHITESPACE
['constant_columns', 'duplicates', 'one_giant_cell', 'one_hub', 'sorted_by_class', 'tiny_components']
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from daskumap.testing.datasets import Dataset, Labels, Rows, _normals, _uniforms, uneven_clusters

# A row of `one_hub` has 13 neighbours in its group, so the hub is the 14th: the last that n_neighbors = 15
# keeps.
HUB_GROUP = 14


def one_giant_cell(n: int = 300_000, d: int = 32, seed: int = 0) -> Dataset:
    """Return nine rows of ten in one dense blob, the others in clusters a thousand times as wide.

    k-means puts its centroids where the squares are, which is everywhere but in the blob.
    """
    around = uneven_clusters(n, d, 20, seed + 1)
    spread = 1.0 / (1.0 + np.arange(d) / 8.0)

    def make(start: int, stop: int) -> tuple[Rows, Labels]:
        rows, labels = around.make(start, stop)
        inside = _uniforms(seed, 8, start, stop, 1)[:, 0] < 0.9
        blob = (0.01 * spread * _normals(seed, 9, start, stop, d)).astype(np.float32)
        return np.where(inside[:, None], blob, 10 * rows), np.where(inside, 0, labels + 1)

    return Dataset("one_giant_cell", (n, d), make)


def one_hub(n: int = 150_000, d: int = 64, seed: int = 0) -> Dataset:
    """Return tight groups of 14 on a sphere, and one row in its centre that is the 14th neighbour of all.

    In 64 dimensions two groups are about 1.4 apart and the centre, row 0, is at 1. So it has n incoming edges
    in the exact graph: 10^5 and more at 150,000 rows. The label is the group.
    """

    def make(start: int, stop: int) -> tuple[Rows, Labels]:
        ids = np.arange(start, stop)
        group = ids // HUB_GROUP
        first = start // HUB_GROUP
        centres = _on_sphere(_normals(seed, 10, first, -(-max(stop, 1) // HUB_GROUP), d))
        rows = centres[group - first] + 0.01 * _normals(seed, 11, start, stop, d)
        rows[ids == 0] = 0.0
        return rows.astype(np.float32), group.astype(np.int64)

    return Dataset("one_hub", (n, d), make)


def _on_sphere(directions: Any) -> Any:
    squares = np.zeros(len(directions))
    # Column by column: a sum along rows may be reordered with the shape of the block.
    for column in directions.T:
        squares += column * column
    return directions / np.sqrt(squares)[:, None]


def duplicates(n: int = 300_000, d: int = 32, seed: int = 0) -> Dataset:
    """Return rows of which 30 % are exact copies: half of them of ten rows, half of every fourth row.

    So a few rows come many times (1.5 % of n each), and many rows up to four times.
    """
    base = uneven_clusters(n, d, 20, seed)
    few, few_labels = base.make(0, 10)

    def make(start: int, stop: int) -> tuple[Rows, Labels]:
        first = start - start % 4
        rows, labels = base.make(first, stop)
        ids = np.arange(first, stop)
        draw, choice = _uniforms(seed, 12, first, stop, 2).T
        source = np.where((ids % 4 > 0) & (draw < 0.2), ids - ids % 4, ids) - first  # 3/4 x 0.2 = 15 %
        rows, labels = rows[source], labels[source]
        often = (ids % 4 > 0) & (draw > 0.8)
        chosen = (choice[often] * len(few)).astype(np.int64)
        rows[often], labels[often] = few[chosen], few_labels[chosen]
        return rows[start - first :], labels[start - first :]

    return Dataset("duplicates", (n, d), make)


def tiny_components(n: int = 300_000, d: int = 16, seed: int = 0) -> Dataset:
    """Return tight groups of 20 to 30 rows far apart: with 15 neighbours each is a component of the graph."""

    def make(start: int, stop: int) -> tuple[Rows, Labels]:
        ids = np.arange(start, stop)
        pair, last = start // 50, -(-max(stop, 1) // 50)
        cut = 20 + (11 * _uniforms(seed, 13, pair, last, 1)[:, 0]).astype(np.int64)
        group = 2 * (ids // 50) + (ids % 50 >= cut[ids // 50 - pair])
        centres = 100.0 * _normals(seed, 14, 2 * pair, 2 * last, d)
        rows = centres[group - 2 * pair] + _normals(seed, 15, start, stop, d)
        return rows.astype(np.float32), group.astype(np.int64)

    return Dataset("tiny_components", (n, d), make)


def constant_columns(n: int = 300_000, d: int = 64, seed: int = 0) -> Dataset:
    """Return uneven clusters in every other column; the columns between them are 0, 1 or 1,000 throughout."""
    varied = uneven_clusters(n, -(-d // 2), 20, seed)
    constants = np.resize(np.array([0.0, 1.0, 1_000.0], np.float32), d // 2)

    def make(start: int, stop: int) -> tuple[Rows, Labels]:
        rows, labels = varied.make(start, stop)
        out = np.empty((stop - start, d), np.float32)
        out[:, ::2], out[:, 1::2] = rows, constants
        return out, labels

    return Dataset("constant_columns", (n, d), make)


def sorted_by_class(n: int = 300_000, d: int = 32, seed: int = 0) -> Dataset:
    """Return uneven clusters one after the other: a block of rows sees one or two of them."""
    return replace(uneven_clusters(n, d, 20, seed, by_class=True), name="sorted_by_class")


SKEWED: dict[str, Callable[[int], Dataset]] = {
    "one_giant_cell": one_giant_cell,
    "one_hub": one_hub,
    "duplicates": duplicates,
    "tiny_components": tiny_components,
    "constant_columns": constant_columns,
    "sorted_by_class": sorted_by_class,
}


def largest_slice(run: Any) -> int:
    """Return the rows of the largest slice of a cell that a run searched which kept all (`keep="all"`)."""
    store, sizes = run.store, run.report["sizes"]
    blocks = -(-sizes["rows"] // sizes["row_block"])
    counts = [np.diff(store.read(f"shuffle/{block:08d}/offsets")) for block in range(blocks)]
    return int(np.sum(counts, axis=0).max())


def slice_limit(run: Any) -> int:
    """Return the rows that a slice may have: those of a wide cell, where the run chose such cells."""
    order = run.store.documents.load("facts/order")
    sizes = run.report["sizes"]
    return int(sizes["wide_rows" if order["wide"] else "max_cell_rows"])
