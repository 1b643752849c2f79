"""Counter-based random numbers: every number is a hash of what it is for, never of who drew it."""

from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel

# Stages draw from separate streams.
STREAMS = {
    "sample": 1,
    "noise": 2,
    "cells": 3,
    "negatives": 4,
    "phase": 5,
    "start": 6,
    "probe": 7,
    "report": 8,
    "transform": 9,
    "regions": 10,
    "encoder": 11,
    "windows": 12,
}


def stream_key(seed: int, stream: str, index: int = 0) -> int:
    """Return the 64-bit key of one stream: a hash of the seed, the stage and an index (SplitMix64).

    >>> stream_key(42, "cells") != stream_key(42, "noise")
    True
    """
    key = 0
    for word in (seed, STREAMS[stream], index):
        key = (key + word + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        key ^= key >> 31
    return key


def uniform(key: int, first: int, count: int, columns: int) -> "np.ndarray[Any, Any]":
    """Return (count, columns) float64 in [0, 1), the numbers of items first, first + 1, ... of stream `key`.

    An item's numbers do not depend on the range that they are asked in.
    """
    return _uniform(np.uint64(key), first, count, columns)  # type: ignore[no-any-return]


@kernel
def _uniform(key, first, count, columns):  # type: ignore[no-untyped-def]
    out = np.empty((count, columns))
    for i in range(count):
        for j in range(columns):
            x = key + np.uint64((first + i) * columns + j) * np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x ^= x >> np.uint64(31)
            out[i, j] = np.float64(x >> np.uint64(11)) * (1.0 / 9007199254740992.0)
    return out


def mix_rows(rows: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return a hash of each row number, int64 of the same shape, not negative (SplitMix64)."""
    x = rows.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x >> np.uint64(1)).astype(np.int64)
