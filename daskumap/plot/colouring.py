"""What `color=` means: a class or a value for each row, as colours and as what the legend says.

Columns are read a block at a time, and 2 bytes a row of them are kept: a map of 10^8 rows takes 0.2 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.plot.columns import read_column
from daskumap.report.colours import CIVIDIS, MOST_CLASSES, of_classes, ramp
from daskumap.report.paint import Colouring
from daskumap.report.picture import Theme

Array = np.ndarray[Any, Any]

# Integers of more kinds than this are values, of fewer classes.
FEW_INTEGERS = 64
LEVELS = 256
# Rows of small classes count more where they share pixels with large ones, up to so many times.
MOST_WEIGHT = 64
# Rows of a column that are read at a time.
BLOCK_ROWS = 1 << 18
# Values from which the ends of the colour bar are taken: every so-many-th where there are more.
QUANTILE_ROWS = 1 << 20
# Single outliers do not use up the colours.
QUANTILES = 0.002, 0.998


@dataclass(frozen=True)
class Coloured:
    """Colours of rows, and what they mean.

    Attributes
    ----------
    names, counts
        Of classes, in their sorted order; empty for values.
    span
        Of values, the lowest and the highest of the colour bar.
    """

    colouring: Colouring
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    span: tuple[float, float] | None = None

    def on(self, theme: Theme) -> Coloured:
        """Return the same classes or values in the colours of another theme."""
        palette = of_classes(len(self.names), theme.ground) if self.names else self.colouring.palette
        return replace(self, colouring=replace(self.colouring, palette=palette, unlabelled=theme.unlabelled))


def coloured(color: Any, rows: int, labels: Any, theme: Theme) -> Coloured:
    """Return the colours of rows: classes for texts, booleans and few integers, values for all others.

    Arguments are those of `read_column`; colours that are known already stay.
    """
    if isinstance(color, Coloured):
        return color
    column = read_column(color, rows, labels)
    kind = np.dtype(next(_blocks(column)).dtype).kind if rows else "f"
    if kind not in "OUSTbiuf":
        raise ParameterError(f"color holds {column.dtype}; allowed are texts, integers, floats and bool.")
    if kind != "f":
        kinds = _kinds(column, FEW_INTEGERS if kind in "iu" else MOST_CLASSES)
        if kinds is not None:
            return _of_classes(column, kinds, theme)
        if kind not in "iu":
            raise ParameterError(
                f"color has more than {MOST_CLASSES} classes, which cannot be told apart. Merge some, or "
                "pass numbers to be drawn as values."
            )
    return _of_values(column, theme)


def _blocks(column: Any) -> Iterator[Array]:
    rows = len(column)
    for start in range(0, rows, BLOCK_ROWS):
        yield np.asarray(column[start : min(start + BLOCK_ROWS, rows)])


def _kinds(column: Any, most: int) -> dict[Any, int] | None:
    """Return each kind of a column and its rows; None for more than `most` kinds."""
    found: dict[Any, int] = {}
    for block in _blocks(column):
        values, counts = np.unique(_texts(block)[~_missing(block)], return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            found[value] = found.get(value, 0) + count
        if len(found) > most:
            return None
    return found


def _of_classes(column: Any, kinds: dict[Any, int], theme: Theme) -> Coloured:
    names = np.array(sorted(kinds))
    counts = np.array([kinds[name] for name in names.tolist()], np.int64)
    codes, start = np.full(len(column), -1, np.int16), 0
    for block in _blocks(column):
        known = ~_missing(block)
        codes[start : start + len(block)][known] = np.searchsorted(names, _texts(block)[known])
        start += len(block)
    weights = np.clip(np.rint(np.sqrt(counts.max(initial=1) / counts)), 1, MOST_WEIGHT).astype(np.int64)
    colouring = Colouring(codes, of_classes(len(names), theme.ground), theme.unlabelled, counts, weights)
    return Coloured(colouring, tuple(map(str, names.tolist())), tuple(counts.tolist()))


def _texts(values: Array) -> Array:
    """Return values that can be sorted: objects as texts, what is missing among them too."""
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace")
    return np.array([str(v) for v in values.tolist()], np.str_) if values.dtype.kind in "OT" else values


def _missing(values: Array) -> Array:
    if values.dtype.kind == "O":
        return np.array([value is None or value != value for value in values.tolist()], np.bool_)
    return values < 0 if values.dtype.kind == "i" else np.zeros(len(values), np.bool_)


def _of_values(column: Any, theme: Theme) -> Coloured:
    low, high = _span(column)
    codes, start = np.full(len(column), -1, np.int16), 0
    for block in _blocks(column):
        values = block.astype(np.float64)
        known = np.isfinite(values)
        share = (values[known] - low) / max(high - low, np.finfo(float).tiny)
        codes[start : start + len(block)][known] = np.clip(share * (LEVELS - 1), 0, LEVELS - 1)
        start += len(block)
    palette = np.rint(ramp(CIVIDIS, np.linspace(0, 1, LEVELS))).astype(np.uint8)
    return Coloured(Colouring(codes, palette, theme.unlabelled), span=(low, high))


def _span(column: Any) -> tuple[float, float]:
    """Return the ends of the colour bar: quantiles, or where these are one the least and the largest."""
    step = max(1, len(column) // QUANTILE_ROWS)
    some, least, most = [], np.inf, -np.inf
    for block in _blocks(column):
        values = block.astype(np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            some.append(values[::step])
            least, most = min(least, float(values.min())), max(most, float(values.max()))
    if not some:
        raise ParameterError("color has no finite value.")
    low, high = (float(v) for v in np.quantile(np.concatenate(some), QUANTILES))
    return (low, high) if low < high else (least, most)
