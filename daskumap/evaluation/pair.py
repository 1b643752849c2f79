"""The data and a map of them, read together, block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from daskumap.diagnosis import open_map
from daskumap.errors import ParameterError, SourceError
from daskumap.kernels.metrics.metric import Metric, check_shape, invalid_rows, misplaced_rows, resolve
from daskumap.sources.base import Source
from daskumap.sources.move import Move
from daskumap.stages.rows.look import LEAST_KEPT, choose_move

Array = np.ndarray[Any, Any]

# Bytes of rows of the data that are read at once.
BLOCK_BYTES = 64 << 20
EUCLIDEAN = resolve("euclidean")
# Rows that are looked at to see whether float32 tells them apart: so many, in as many places.
LOOKS, LOOK_ROWS = 8, 64


@dataclasses.dataclass(frozen=True)
class Side:
    """The data or the map: rows, and how they are measured.

    Attributes
    ----------
    move
        How they become what float32 tells apart: see `sources.move`.
    """

    source: Source
    metric: Metric
    move: Move

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop as the metric works on them."""
        if self.move.is_still:
            return self.source.read(start, stop, self.metric.dtype)
        return self.move.apply(self.source.read_stored(start, stop))


@dataclasses.dataclass(frozen=True)
class Pair:
    """The data and a map; rows that are not on the map, or are not asked for, count as not there.

    Attributes
    ----------
    sides
        The data, and the map.
    step
        Rows of a block.
    starts
        (b + 1,) how many rows count before each block.
    chosen
        (n,) bool, the rows that are asked for; None for all.
    """

    sides: tuple[Side, Side]
    step: int
    starts: Array
    chosen: Array | None = None

    @property
    def rows(self) -> int:
        """How many rows count."""
        return int(self.starts[-1])

    def only(self, chosen: Array) -> Pair:
        """Return the pair of those rows, (rows,) bool, that are chosen among its own."""
        among_all = np.zeros(self.sides[0].source.shape[0], np.bool_)
        among_all[self.numbers(np.flatnonzero(chosen))] = True
        starts = count_rows(self.sides[1], self.step, among_all)
        return dataclasses.replace(self, starts=starts, chosen=among_all)

    def blocks(self, wanted: Array | None = None) -> Iterator[tuple[int, Array, Array]]:
        """Yield (number of the first row, rows, places) of each block, or of those that hold some rows."""
        for first, start, counting, places in self._map_blocks(wanted):
            rows = self.sides[0].read(start, start + len(counting))[counting]
            _refuse_broken(self.sides[0], rows, start + np.flatnonzero(counting))
            yield first, rows, places[counting]

    def places(self) -> Iterator[tuple[int, Array]]:
        """Yield (number of the first row, places) of each block of the map."""
        for first, _, counting, places in self._map_blocks(None):
            yield first, places[counting]

    def gather(self, wanted: Array) -> tuple[Array, Array]:
        """Return the rows and the places of some numbers, ascending."""
        found = [
            (rows[here - first], places[here - first])
            for first, rows, places in self.blocks(wanted)
            for here in [wanted[(wanted >= first) & (wanted < first + len(rows))]]
        ]
        rows, places = zip(*found, strict=True)
        return np.concatenate(rows), np.concatenate(places)

    def gather_places(self, wanted: Array) -> Array:
        """Return the places of some numbers, ascending, without a look at the data."""
        found = [
            places[wanted[(wanted >= first) & (wanted < first + len(places))] - first]
            for first, places in self.places()
        ]
        return np.concatenate(found)

    def numbers(self, wanted: Array) -> Array:
        """Return which rows of the data some numbers, ascending, stand for."""
        found = [np.zeros(0, np.int64)]
        for first, start, counting, _ in self._map_blocks(wanted):
            ids = start + np.flatnonzero(counting)
            found.append(ids[wanted[(wanted >= first) & (wanted < first + len(ids))] - first])
        return np.concatenate(found)

    def counting(self) -> Array:
        """Return (n,) bool: which rows of the data count."""
        return np.concatenate([counting for _, _, counting, _ in self._map_blocks(None)])

    def _map_blocks(self, wanted: Array | None) -> Iterator[tuple[int, int, Array, Array]]:
        """Yield (number of the first row that counts, first row, which ones count, places) of each block."""
        held = None
        if wanted is not None:
            held = set(np.unique(np.searchsorted(self.starts, wanted, side="right") - 1).tolist())
        for start, counting, places in _places(self.sides[1], self.step, self.chosen, held):
            yield int(self.starts[start // self.step]), start, counting, places


def open_pair(data: Source, embedding: Any, metric: Metric) -> Pair:
    """Return the pair of a source and of whatever is a map of its rows.

    Raises
    ------
    ParameterError
        If they differ in rows, or there is no such map of a metric.
    SourceError
        If float32 does not tell the rows apart.
    """
    if metric.is_given:
        raise ParameterError(
            "metric is 'precomputed', and evaluate measures rows. Pass the rows that the distances are of, "
            "and their metric."
        )
    check_shape(metric, data.shape[1])
    places = open_map(embedding, data.shape[0], "data")
    step = max(1, BLOCK_BYTES // (data.shape[1] * 4) // data.block_rows) * data.block_rows
    sides = make_side(data, metric), make_side(places, EUCLIDEAN)
    return Pair(sides, step, count_rows(sides[1], step))


def count_rows(side: Side, step: int, chosen: Array | None = None) -> Array:
    """Return (b + 1,) how many rows of a map, or of those that are chosen, count before each block."""
    counts = [int(counting.sum()) for _, counting, _ in _places(side, step, chosen)]
    return np.concatenate([[0], np.cumsum(np.array(counts, np.int64))])


def _places(
    side: Side, step: int, chosen: Array | None = None, held: set[int] | None = None
) -> Iterator[tuple[int, Array, Array]]:
    """Yield (first row, which rows count, places) of each block of a map, or of those that are held."""
    for block, start in enumerate(range(0, side.source.shape[0], step)):
        if held is not None and block not in held:
            continue
        places = side.read(start, min(start + step, side.source.shape[0]))
        counting = np.asarray(np.isfinite(places).all(axis=1))
        if chosen is not None:
            counting &= chosen[start : start + step]
        yield start, counting, places


def make_side(source: Source, metric: Metric) -> Side:
    """Return a side with the least move under which float32 tells its rows apart, as a fit chooses it."""
    if metric.dtype != "float32":
        return Side(source, metric, Move())
    rows, each = source.shape[0], min(LOOK_ROWS, source.shape[0])
    starts = np.unique(np.linspace(0, rows - each, LOOKS).astype(np.int64)).tolist()
    block = np.unique(np.concatenate([source.read_stored(at, at + each) for at in starts]), axis=0)
    block = block[np.isfinite(block).all(axis=1)]
    if len(block) < 3:
        return Side(source, metric, Move())
    move, found = choose_move(block, metric, min(len(block) - 1, 14))
    if found["cast_recall"] < LEAST_KEPT:
        raise SourceError(
            f"float32 is too coarse for {source.name} under the metric {metric.name!r}: "
            f"{found['cast_recall']:.0%} of the nearest neighbours of sampled rows stay, where "
            f"{LEAST_KEPT:.0%} must. Subtract what all rows share, and scale the columns first."
        )
    return Side(source, metric, move)


def _refuse_broken(side: Side, rows: Array, ids: Array) -> None:
    broken = ~np.isfinite(rows).all(axis=1)
    if broken.any():
        raise SourceError(
            f"Row {int(ids[broken][0])} of {side.source.name} holds NaN or infinity, and has a place on the "
            "map. Give such rows NaN as their place, or replace the values."
        )
    undefined = invalid_rows(rows, side.metric) | misplaced_rows(rows, side.metric)
    if undefined.any():
        raise SourceError(
            f"The metric {side.metric.name!r} is not defined on row {int(ids[undefined][0])} of "
            f"{side.source.name}, which has a place on the map. Give such rows NaN as their place, or take "
            "another metric."
        )
