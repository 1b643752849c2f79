"""Arithmetic of grids: ranges of stacked points as boxes, boxes as windows that end where chunks do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

Box = tuple[slice, ...]


def boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[Box]:
    """Cut points start to stop, numbered with the last dimension fastest, into boxes, in order.

    The points of each box are consecutive too.

    >>> [tuple((s.start, s.stop) for s in box) for box in boxes((3, 4), 2, 9)]
    [((0, 1), (2, 4)), ((1, 2), (0, 4)), ((2, 3), (0, 1))]
    """
    if start >= stop:
        return
    if len(shape) == 1:
        yield (slice(start, stop),)
        return
    inner, rest = math.prod(shape[1:]), shape[1:]
    first, last = -(-start // inner), stop // inner
    if first > last:  # within one line
        yield from _in_line(rest, last, start - last * inner, stop - last * inner)
        return
    if start < first * inner:
        yield from _in_line(rest, first - 1, start - (first - 1) * inner, inner)
    if first < last:
        yield (slice(first, last), *(slice(0, size) for size in rest))
    if last * inner < stop:
        yield from _in_line(rest, last, 0, stop - last * inner)


def _in_line(rest: tuple[int, ...], line: int, start: int, stop: int) -> Iterator[Box]:
    for box in boxes(rest, start, stop):
        yield (slice(line, line + 1), *box)


def windows(box: Box, chunks: tuple[int, ...], items: int) -> Iterator[Box]:
    """Cut a box into windows of whole chunks, of at most so many items unless a chunk is larger.

    >>> [tuple((s.start, s.stop) for s in w) for w in windows((slice(1, 5), slice(0, 3)), (2, 3), 6)]
    [((1, 2), (0, 3)), ((2, 4), (0, 3)), ((4, 5), (0, 3))]
    """
    shape = window_shape(tuple(part.stop - part.start for part in box), chunks, items)
    cuts = [list(_cut(part, size)) for part, size in zip(box, shape, strict=True)]
    yield from itertools.product(*cuts)


def window_shape(lengths: tuple[int, ...], chunks: tuple[int, ...], items: int) -> tuple[int, ...]:
    """Return the shape of a window: a chunk, and more of them from the last dimension on while they fit."""
    shape = list(chunks)
    for axis in reversed(range(len(shape))):
        room = max(1, items // math.prod(shape))
        # One more, since a box need not begin where a chunk does.
        shape[axis] *= min(room, lengths[axis] // chunks[axis] + 2)
    return tuple(shape)


def _cut(part: slice, size: int) -> Iterator[slice]:
    start = part.start
    while start < part.stop:
        end = min(part.stop, (start // size + 1) * size)
        yield slice(start, end)
        start = end
