"""Whether a map shows where the cells of its run meet: seams.

Neighbours are searched cell by cell. Those that the search missed lie beyond a border, so a map may part
there what is together in the data. Neighbours across any border are farther apart on the map, since borders
of k-means run where there are few rows; so they are compared with neighbours across borders that the run does
not know: those of other cells of the same kind, as many, from another sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from daskumap.evaluation.neighborhoods import Neighborhoods
from daskumap.evaluation.pair import Pair
from daskumap.evaluation.tables import draw
from daskumap.kernels.cells import find
from daskumap.kernels.metrics.metric import Metric, to_space
from daskumap.kernels.neighbors import knn
from daskumap.kernels.quality.sampled import Estimate, of_rows
from daskumap.pipeline import purpose_in
from daskumap.planning.sizes import Sizes
from daskumap.store import schema
from daskumap.store.run import RunStore

Array = np.ndarray[Any, Any]

# Other cells that are found, and what t is for a mean of so many beside one, two-sided, 95 %.
CONTROLS, T_95 = 5, 2.776


@dataclass(frozen=True)
class Cells:
    """The cells of a run.

    Attributes
    ----------
    small
        How many there are.
    searched
        How many are left where near ones are searched together.
    """

    store: RunStore
    small: int
    searched: int

    @property
    def sizes(self) -> Sizes:
        """The sizes of the run."""
        return Sizes(**self.store.about["sizes"])

    @property
    def wanted(self) -> int:
        """How many cells the run asked for: as many fewer as fewer rows take part."""
        distinct = int(self.store.documents.load(schema.ORDER.name)["distinct"])
        return -(-self.sizes.cells * distinct // self.sizes.rows)

    def of(self, rows: Array) -> Array:
        """Return the searched cell of some rows, ascending; -1 for copies, which are in none."""
        vertices = np.empty(len(rows), np.int64)
        blocks = rows // self.sizes.row_block
        for block in np.unique(blocks).tolist():
            start, stop = self.sizes.block(block)
            here = blocks == block
            vertices[here] = self.store.read(schema.VERTEX.name, start, stop)[rows[here] - start]
        cells = np.searchsorted(self.store.read(schema.CELL_STARTS.name), vertices, side="right") - 1
        known = cells < self.small
        if self.searched < self.small:
            cells = self.store.read(schema.WIDE_OF.name)[np.minimum(cells, self.small - 1)]
        return np.where(known, cells, -1)


def cells_in(store: RunStore) -> Cells | None:
    """Return the cells of a run; None where there is one alone, or the run did not keep them."""
    if purpose_in(store.about) != "fit" or store.ledger.finished() is None:
        return None
    if {schema.VERTEX.name, schema.CELL_STARTS.name} & store.ledger.freed():
        return None
    small = len(store.read(schema.CELL_STARTS.name)) - 1
    wide = (store.documents.load(schema.ORDER.name) or {}).get("wide", 0)
    # A run of another one's neighbours does not have which cells were searched together.
    wide = wide if wide and store.has(schema.WIDE_OF.name) else 0
    return Cells(store, small, wide or small) if (wide or small) > 1 else None


def seams(pair: Pair, cells: Cells, found: Neighborhoods, rng: np.random.Generator) -> Estimate:
    """Return how many times as far apart neighbours are on the map with a border between them, than usual."""
    own = cells.of(pair.numbers(found.wanted))
    sample = pair.gather(draw(rng, pair.rows, cells.sizes.sample_rows))[0]
    with threadpool_limits(1):
        others = [
            _other_cells(cells, sample, found.gathered[0], pair.sides[0].metric, int(seed))
            for seed in rng.integers(1 << 31, size=CONTROLS)
        ]
    probes, near = (np.searchsorted(found.wanted, ids) for ids in (found.probes, found.near[0]))
    places = found.gathered[1].astype(np.float64)
    lengths = np.linalg.norm(places[near] - places[probes][:, None], axis=2)
    stretched, *usual = (stretch(lengths, codes[probes], codes[near]) for codes in (own, *others))
    return beside(stretched, np.array(usual))


def _other_cells(cells: Cells, sample: Array, rows: Array, metric: Metric, seed: int) -> Array:
    """Return the cell of some rows among others than those of the run, found as those were."""
    if metric.space is None:
        centres = find.find_pivots(sample, cells.wanted, seed)
    else:
        flat = to_space(sample, metric)
        centres = find.find_centroids(flat, min(len(flat), cells.wanted), 3.0 / cells.wanted, seed).centres
    small = knn.assign_cells(rows, centres, 1, metric)[0][:, 0]
    if cells.searched == cells.small:
        return small
    # Centres are in an order that puts near ones together, and searched cells are about equally large.
    counts = np.bincount(knn.assign_cells(sample, centres, 1, metric)[0][:, 0], minlength=len(centres))
    middle: Array = np.cumsum(counts) - counts / 2
    return (middle * cells.searched / len(sample)).astype(np.int64)[small]


def stretch(lengths: Array, own: Array, near: Array) -> Array:
    """Return the logarithm of how much longer, for each probe, its pairs across a border are than others.

    Each is compared with those of the probe's neighbours on its own side that are nearest to it in order.

    Parameters
    ----------
    lengths
        (q, k) on the map, in the order of the distances in the data; 0 counts for nothing.
    own, near
        (q,) and (q, k) cells; -1 where a row has none.

    Returns
    -------
    :
        (q,), NaN for probes whose neighbours are all on one side.
    """
    found = np.full(len(lengths), np.nan)
    for i, (row, cell, cells) in enumerate(zip(lengths, own, near, strict=True)):
        known = (row > 0) & (cells >= 0) & (cell >= 0)
        across, within = np.flatnonzero(known & (cells != cell)), np.flatnonzero(known & (cells == cell))
        if len(across) and len(within):
            gaps = np.abs(across[:, None] - within)
            beside = gaps == gaps.min(axis=1, keepdims=True)
            usual = (beside * np.log(row[within])).sum(axis=1) / beside.sum(axis=1)
            found[i] = np.mean(np.log(row[across]) - usual)
    return found


def beside(stretched: Array, others: Array) -> Estimate:
    """Return the ratio of lengths across the borders of a run and across others.

    Its interval is that of other probes, and of other cells: borders lie here or there by chance.

    Parameters
    ----------
    stretched, others
        (q,) and (c, q) from `stretch`.
    """
    if np.isnan(stretched).all() or np.isnan(others).all(axis=1).any():
        return Estimate(np.nan, np.nan, np.nan)

    def ratio(probes: Array) -> float:
        return float(_mean(stretched[probes]) - np.mean([_mean(one[probes]) for one in others]))

    part = of_rows(ratio, len(stretched))
    spread = T_95 * np.std([_mean(one) for one in others], ddof=1) * (1 + 1 / len(others)) ** 0.5
    error = np.hypot(part.high - part.value, spread)
    return Estimate(*(float(np.exp(part.value + sign * error)) for sign in (0, -1, 1)))


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
