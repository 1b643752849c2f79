"""Equal rows: a hash of 128 bits for each row, and the first of each kind."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import kernel

Words = NDArray[np.uint64]


def hash_rows(X: NDArray[Any]) -> tuple[Words, Words]:
    """Return two independent 64-bit hashes of each row, equal for equal rows.

    Taken as one of 128 bits, two different rows among 10^9 share it with a probability of 10^-21: the rows
    themselves need not be compared.

    Parameters
    ----------
    X
        (r, D) float32 or uint8. -0.0 counts as 0.0, as for any metric.

    Returns
    -------
    high, low
        (r,) uint64 each.
    """
    X = np.ascontiguousarray(X)
    words = X.view(np.uint32) if X.dtype == np.float32 else X
    high, low = np.empty(len(X), np.uint64), np.empty(len(X), np.uint64)
    _hash(words, X.dtype == np.float32, high, low)
    return high, low


@kernel
def _hash(words, floats, high, low):  # type: ignore[no-untyped-def]
    """Take in a word by xor and product in one hash, by sum, product and another shift in the other."""
    for i in range(words.shape[0]):
        a = np.uint64(0x9E3779B97F4A7C15)
        b = np.uint64(0xD1342543DE82EF95)
        for j in range(words.shape[1]):
            word = np.uint64(words[i, j])
            if floats and word == np.uint64(0x80000000):  # -0.0
                word = np.uint64(0)
            a = (a ^ word) * np.uint64(0xBF58476D1CE4E5B9)
            a ^= a >> np.uint64(32)
            b = (b + word) * np.uint64(0x94D049BB133111EB)
            b ^= b >> np.uint64(29)
        # SplitMix64's finaliser, as the high bits choose a bucket.
        a = (a ^ (a >> np.uint64(30))) * np.uint64(0x94D049BB133111EB)
        b = (b ^ (b >> np.uint64(27))) * np.uint64(0xBF58476D1CE4E5B9)
        high[i] = a ^ (a >> np.uint64(31))
        low[i] = b ^ (b >> np.uint64(31))


def first_of_equal(high: Words, low: Words, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each record the smallest row id among the records of the same hash, (r,) int64."""
    order = np.lexsort((rows, low, high))
    new = np.ones(len(order), bool)
    for part in (high[order], low[order]):
        new[1:] &= part[1:] == part[:-1]
    new[1:] = ~new[1:]
    out = np.empty(len(rows), np.int64)
    out[order] = rows[order[new]][np.cumsum(new) - 1]
    return out
