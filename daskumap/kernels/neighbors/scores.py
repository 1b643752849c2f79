"""Exact nearest rows in a Euclidean space: a matrix product proposes, a direct evaluation decides.

The product of two float32 blocks gives every squared distance with a rounding error that depends on the BLAS
and on the block. So it is only used as a filter with a proven bound: whatever could belong to the answer is
evaluated again by `squared_distance`, whose bits depend on the two rows alone. The answer is therefore the
same for every block size, every centre and every BLAS, and ties are broken by id.

Half scores. With x, y relative to a common centre, |x - y|^2 / 2 = hx + (hy - x.y), h = |.|^2 / 2. A dot
product of D terms in float32 is off by at most (D + 4) u |x||y|, u = 2^-24, in any order (Higham, Accuracy
and Stability of Numerical Algorithms, 2002, section 3.1); centring, the halves and the direct evaluation add
at most (D / 16 + 48) u (|x| + |y|)^2 with 16 or more partial sums. By |x||y| <= hx + hy all of it is at most
E (hx + hy) with E = `rounding_bound(D)`: one part for each row, so that an outlier loosens only its own
bounds.
"""

import math

import numpy as np

from daskumap.kernels.jit import FAST, compiled, fast_kernel, kernel

# Width of one test "is anything here below the bound". Loops of 32 are unrolled before LLVM's vectoriser sees
# them and then run five times slower (measured).
STRIP = 64
# A full list whose bound lets more rows pass than so many a neighbour is one of rows farther away: then the
# tile bounds better by itself. 5,000 x 784 rows in 1.8 cells each: 26 evaluations a row in place of 32.
LOOSE = 2
# A bound of inf must still leave out the padding, which scores inf.
LARGEST = float(np.finfo(np.float32).max)
SQRT, SQUARE, HALF, HALF_SQRT, ANGLE = range(5)
"""How a squared distance becomes the metric's: sqrt(s), s, s/2, sqrt(s/2), angle of unit rows over pi."""


def rounding_bound(columns: int) -> float:
    """Return E of the module's docstring for rows of `columns` numbers."""
    return 2.0**-24 * (1.25 * columns + 196.0)


@fast_kernel
def squared_distance(x, y):  # type: ignore[no-untyped-def]
    """Sum of squared differences in float32: symmetric to the bit, and 0 for equal rows."""
    total = np.float32(0.0)
    for c in range(x.shape[0]):
        difference = x[c] - y[c]
        total += difference * difference
    return total


@kernel
def finished(squared, finish):  # type: ignore[no-untyped-def]
    """Turn a float32 squared distance into the metric's distance; monotone."""
    if finish == SQRT:
        return np.sqrt(squared)
    if finish == SQUARE:
        return squared
    if finish == HALF:
        return np.float32(0.5) * squared
    if finish == HALF_SQRT:
        return np.sqrt(np.float32(0.5) * squared)
    chord = min(0.5 * math.sqrt(squared), 1.0)
    return np.float32(2.0 / math.pi * math.asin(chord))


@kernel
def unfinished(distance, finish):  # type: ignore[no-untyped-def]
    """Inverse of `finished` in float64."""
    d = np.float64(distance)
    if finish == SQRT:
        return d * d
    if finish == SQUARE:
        return d
    if finish == HALF:
        return 2.0 * d
    if finish == HALF_SQRT:
        return 2.0 * d * d
    return 4.0 * math.sin(0.5 * math.pi * min(d, 1.0)) ** 2


@kernel
def insert(ids, distances, candidate, distance):  # type: ignore[no-untyped-def]
    """Insert into one ascending list of (distance, id), dropping its last entry; NaN and inf never enter."""
    last = ids.shape[0] - 1
    if not (distance < distances[last] or (distance == distances[last] and candidate < ids[last])):
        return
    place = last
    while place > 0 and (
        distances[place - 1] > distance or (distances[place - 1] == distance and ids[place - 1] > candidate)
    ):
        distances[place] = distances[place - 1]
        ids[place] = ids[place - 1]
        place -= 1
    distances[place] = distance
    ids[place] = candidate


@fast_kernel
def move_rows(X, centre, moved, half):  # type: ignore[no-untyped-def]
    """Write rows less a centre, and |x|^2 / 2 of every one, (r,): what was just written is still at hand."""
    for i in range(X.shape[0]):
        total = np.float32(0.0)
        for c in range(X.shape[1]):
            value = X[i, c] - centre[c]
            moved[i, c] = value
            total += value * value
        half[i] = np.float32(0.5) * total


@kernel
def _group_minima(strips, high, minima):  # type: ignore[no-untyped-def]
    """Fill (groups / STRIP, STRIP) minima of one query's half scores; return how many strips count."""
    used = min(minima.shape[0], strips.shape[0])
    for s in range(used):
        for c in range(STRIP):
            minima[s, c] = high[s, c] - strips[s, c]
    # Interleaved groups: the loop over them is element-wise and vectorises without reordering.
    target = 0
    for s in range(used, strips.shape[0]):
        for c in range(STRIP):
            score = high[s, c] - strips[s, c]
            minima[target, c] = score if score < minima[target, c] else minima[target, c]
        target = 0 if target + 1 == used else target + 1
    return used


@compiled(fastmath=FAST | {"nnan"})
def _at_least(minima, used, rank):  # type: ignore[no-untyped-def]
    """Return a value that at least `rank` of the minima do not exceed, close to the smallest such value.

    Each group holds a different row, so at least `rank` rows score no more than that. Bisection by counting
    is branch-free; a loose result costs time and nothing else. inf marks groups without a row.
    """
    low = np.float32(np.inf)
    high = np.float32(-np.inf)
    for s in range(used):
        for c in range(STRIP):
            value = minima[s, c]
            finite = value if value < np.inf else np.float32(-np.inf)
            low = value if value < low else low
            high = finite if finite > high else high
    for _ in range(24):
        middle = np.float32(0.5) * (low + high)
        count = np.int32(0)
        for s in range(used):
            for c in range(STRIP):
                count += np.int32(minima[s, c] <= middle)
        if count < rank:
            low = middle
        else:
            high = middle
            if count <= rank + 2:
                break
    return high


@kernel
def _passing(strips, low, top):  # type: ignore[no-untyped-def]
    """Return how many rows of a tile do not score above a bound."""
    count = np.int32(0)
    for s in range(strips.shape[0]):
        hits = np.int32(0)
        for c in range(STRIP):
            hits += np.int32(low[s, c] - strips[s, c] <= top)
        count += hits
    return count


@kernel
def _top(bound):  # type: ignore[no-untyped-def]
    """Return a bound as float32, rounded up."""
    return np.float32(min(bound + 2.4e-7 * abs(bound), LARGEST))


@kernel
def absorb(scores, low, high, half, own, Q, X, first, error, finish, ids, distances, minima):  # type: ignore[no-untyped-def]
    """Insert the rows of one tile into the lists of its queries.

    Parameters
    ----------
    scores
        (m, w / STRIP, STRIP) float32, products of the centred queries and rows, in strips.
    low, high
        (w / STRIP, STRIP) float32, the rows' half norms less and plus their share of the error; inf past the
        last row.
    half
        (m,) float32, half norms of the centred queries.
    own
        (m,) int32, id of the row that is the query itself and is left out; -1 where there is none.
    Q, X
        (m, D) and (w, D) float32, queries and rows as they are, not centred.
    first
        id of row 0.
    error
        `rounding_bound(D)`.
    finish
        which distance a squared distance becomes.
    ids, distances
        (m, k) int32 or int64, and float32, updated: ascending lists, -1 and inf where short.
    minima
        scratch, (groups / STRIP, STRIP) float32.
    """
    k = ids.shape[1]
    flags = np.zeros(STRIP, np.uint8)
    words = flags.view(np.uint64)
    for i in range(scores.shape[0]):
        strips = scores[i]
        slack = error * np.float64(half[i])
        bound = np.inf
        if ids[i, k - 1] >= 0:
            # A full list bounds by itself; 1e-6 covers the rounding from squared distance to distance.
            bound = 0.5 * (1.0 + 1e-6) * unfinished(distances[i, k - 1], finish) - half[i] + slack
        if X.shape[0] > k + 1 and (bound == np.inf or _passing(strips, low, _top(bound)) > LOOSE * k):
            used = _group_minima(strips, high, minima)
            if min(used * STRIP, X.shape[0]) > k:
                bound = min(bound, _at_least(minima, used, k + 1) + 2.0 * slack)
        top = _top(bound)
        for s in range(strips.shape[0]):
            hits = np.int32(0)
            for c in range(STRIP):
                hits += np.int32(low[s, c] - strips[s, c] <= top)
            if hits > 0:
                for c in range(STRIP):
                    flags[c] = np.uint8(low[s, c] - strips[s, c] <= top)
                for word in range(STRIP // 8):
                    if words[word] != 0:
                        for c in range(word * 8, word * 8 + 8):
                            j = s * STRIP + c
                            if flags[c] != 0 and first + j != own[i]:
                                squared = squared_distance(Q[i], X[j])
                                insert(ids[i], distances[i], first + j, finished(squared, finish))
