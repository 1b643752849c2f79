"""Cells sized for tasks: small ones joined to wide ones, oversized ones cut into slices, slices grouped."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.random import mix_rows

Array = np.ndarray[Any, Any]


def join_cells(members: Array, rows: int) -> Array:
    """Join consecutive cells to wide ones of about so many rows; returns (c,) int32, the wide cell of each.

    Neighbouring numbers are neighbouring cells. A cell of more rows stays alone.

    Parameters
    ----------
    members
        (c,) int64: rows of each cell.
    """
    middle = np.cumsum(members) - members / 2
    wides = max(1, round(float(members.sum()) / rows))
    share = (middle * (wides / max(1.0, float(members.sum())))).astype(np.int64)
    return np.unique(np.minimum(share, wides - 1), return_inverse=True)[1].astype(np.int32)


def halve(wide_of: Array, members: Array, large: Array) -> Array:
    """Return the wide cells with each of the `large` ones, (w,) bool, cut in two; single cells stay."""
    out, next_ = np.empty_like(wide_of), 0
    for wide in range(int(wide_of[-1]) + 1):
        here = np.flatnonzero(wide_of == wide)
        parts = join_cells(members[here], max(1, int(members[here].sum()) // 2)) if large[wide] else 0 * here
        out[here] = next_ + parts
        next_ = int(out[here[-1]]) + 1
    return out


def slices_of(rows: Array, cells: Array, slice_starts: Array) -> Array:
    """Return the slice of each cell that a row joins, shaped as `cells`; -1 for no cell.

    The slice is a hash of row and cell: two rows that are parted in one cell may meet in another.

    Parameters
    ----------
    rows
        (...) int64 row ids.
    cells
        (..., m) int32: the cells that each joins, negative for none.
    slice_starts
        (c + 1,) int64: first slice of each cell.
    """
    some = np.maximum(cells, 0)
    pieces = np.diff(slice_starts)[some]
    slices = slice_starts[some] + mix_rows(mix_rows(rows)[..., None] ^ some) % pieces
    return np.where(cells >= 0, slices, -1)


def cut(members: Array, max_rows: int) -> Array:
    """Cut cells of more than `max_rows` into slices; returns (c + 1,) int64, the first slice of each cell.

    A hash decides who is in which slice, so they aim at 90 % of the limit: chance does not pass it.
    """
    pieces = np.where(members > max_rows, np.ceil(members / (0.9 * max_rows)), 1).astype(np.int64)
    return np.concatenate([[0], np.cumsum(pieces)])


def plan_slices(members: Array, max_rows: int, group_rows: int, group_cells: int) -> tuple[Array, Array]:
    """Slice oversized cells and group the slices for tasks.

    Parameters
    ----------
    members
        (c,) int64: rows that joined each cell.
    max_rows
        Rows that one slice may hold.
    group_rows, group_cells
        Rows, and slices, that one task may hold.

    Returns
    -------
    slice_starts, group_starts
        (c + 1,) and (g + 1,) int64: first slice of each cell, and of each group.
    """
    slice_starts = cut(members, max_rows)
    pieces = np.diff(slice_starts)
    rows = np.repeat(members / pieces, pieces)
    starts, held = [0], 0.0
    for number, size in enumerate(rows):
        if number - starts[-1] == group_cells or (held and held + size > group_rows):
            starts.append(number)
            held = 0.0
        held += size
    starts.append(len(rows))
    return slice_starts, np.asarray(starts, np.int64)
