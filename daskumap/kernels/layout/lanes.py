"""Positions of many rows that move side by side, each a lane of vectors.

What moves a row is a chain of steps, each of which waits for the one before. Of rows that do not meet each
other many chains go on at a time: 10,000 rows take 0.10 s in place of 0.22 (measured, two components).
"""

import numpy as np

from daskumap.kernels.jit import fast_kernel
from daskumap.kernels.layout.components import STEP_LIMIT, ZERO
from daskumap.kernels.layout.forces import clip, entry
from daskumap.kernels.layout.sampling import below, mix

# With 32 lanes 10,000 rows take 0.14 s, with 16 0.18: as few are unrolled and become no vectors (measured).
# More wait longer for the one whose edges fire most.
LANES = 64


@fast_kernel
def measure(position, other, squares):  # type: ignore[no-untyped-def]
    """Write the squared distances of positions and others, both (d, LANES)."""
    for lane in range(squares.shape[0]):
        squares[lane] = ZERO
    for c in range(np.uint64(position.shape[0])):  # unsigned, or numba tests each index for being negative
        for lane in range(squares.shape[0]):
            difference = position[c, lane] - other[c, lane]
            squares[lane] += difference * difference


@fast_kernel
def look_up(table, squares, coefficients):  # type: ignore[no-untyped-def]
    """Write the coefficients of forces at squared distances. Loads from a table end the loop of a vector."""
    for lane in range(squares.shape[0]):
        coefficients[lane] = table[entry(squares[lane])]


@fast_kernel
def step(position, other, coefficients, alphas):  # type: ignore[no-untyped-def]
    """Move each position by one clipped force from another one; by nothing where its alpha is 0."""
    for c in range(np.uint64(position.shape[0])):
        for lane in range(coefficients.shape[0]):
            force = clip(coefficients[lane] * (position[c, lane] - other[c, lane]), STEP_LIMIT)
            position[c, lane] += alphas[lane] * force


@fast_kernel
def draw(draws, size, at):  # type: ignore[no-untyped-def]
    """Draw a number below `size` for each lane."""
    for lane in range(draws.shape[0]):
        draws[lane] = np.uint32(draws[lane] + np.uint32(1))
        at[lane] = np.uint32(below(mix(draws[lane]), size))


@fast_kernel
def fetch(pool, at, other):  # type: ignore[no-untyped-def]
    """Write the places of the pool, (d, s), that were drawn."""
    for c in range(np.uint64(other.shape[0])):
        for lane in range(at.shape[0]):
            other[c, lane] = pool[c, at[lane]]
