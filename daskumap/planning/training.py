"""What a training holds in memory, and the largest window of rows that fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from daskumap.encoder_params import EncoderParams
from daskumap.planning.stage import Receipt

# Consecutive vertices that come into a window together: cell-major, so mostly of one cell, and a slice.
RUN_ROWS = 512
# Below this share of the rows a window is refused: it holds few edges but the shortest (measured: 10 % of the
# rows cost .007 to .010 of trustworthiness even where half of the steps regress to the map).
LEAST_SHARE = 0.1


def row_bytes(inputs: int, known: int, degree: float) -> float:
    """Return what a row takes that is trained on: as the network sees it, what is known of it, and its edges.

    An edge takes 16 bytes: 8 in the end, and half as much again while the parts that were read are joined.
    Beside them a row has where its edges begin, what they weigh, and its place among those with a target.

    Parameters
    ----------
    inputs
        Values of a row.
    known
        Bytes of its label, landmark and place.
    degree
        Edges of a row, on average.

    >>> row_bytes(64, 0, 22.6)
    641.6
    """
    return 4 * inputs + known + 16 * degree + 24


def batch_rows(batch_edges: int) -> int:
    """Return the rows of a batch: two ends an edge, and at most as many with labels, and with landmarks."""
    return 4 * batch_edges


def windows(encoder: EncoderParams, rows: int, threads: int) -> int:
    """Return how many windows a worker holds: one without windows, else the next one too, read ahead.

    Replicas that it trains at the same time are each at a window of their own.
    """
    windowed = encoder.held_rows(rows) < encoder.trained_rows(rows)
    return 1 + min(threads, encoder.replicas) if windowed else 1


def largest_window(room: int, row: float, rows: int, windows: int = 2) -> int:
    """Return the most rows of a window that fit into so many bytes, in whole runs; 0 where none may be used.

    Parameters
    ----------
    windows
        How many there are at a time.

    >>> largest_window(10**9, 650.0, 1_000_000), largest_window(10**8, 650.0, 1_000_000)
    (768512, 0)
    """
    fits = int(room / (windows * row)) // RUN_ROWS * RUN_ROWS
    return fits if fits >= LEAST_SHARE * rows else 0


def history(segments: Sequence[tuple[int, int]], receipts: Mapping[int, Receipt]) -> list[dict[str, Any]]:
    """Return the mean of each term of the loss, over the steps of a segment and the replicas, by segment."""
    found = []
    for number, receipt in sorted(receipts.items()):
        (first, last), sums = segments[number], receipt.found["terms"]
        count = len(sums) * (last - first)
        terms = {name: math.fsum(one[name] for one in sums) / count for name in sums[0]}
        found.append({"segment": number, "first": first, "last": last, **terms})
    return found
