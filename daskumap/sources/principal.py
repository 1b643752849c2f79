"""Main axes of rows that come block by block: by their covariance, or by block Lanczos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from daskumap.kernels.random import stream_key, uniform

Array = np.ndarray[Any, Any]
# Applies a function to each block of rows, dense or SciPy's sparse ones, and yields what it returns in order.
Pass = Callable[[Callable[[Any], tuple[Array, ...]]], Iterator[tuple[Array, ...]]]

# Up to here the covariance itself is summed: 72 MB, and thrice that while its axes are found.
COVARIANCE_COLUMNS = 3_000
# Of block Lanczos: most passes over the rows, columns beyond those wanted, and by how much of the largest
# variance one may change in the last pass. Record 41 has what they give.
PASSES = 12
SPARE = 14
TOLERANCE = 1e-6
# What tells the random directions from others that are where something starts.
START = 41


def main_axes(columns: int, count: int, rows: int, each: Pass, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return the mean of rows, their main axes, and the variance along each.

    Sums run in float64, block by block in the order of the rows, so the bits depend on the blocks and on
    nothing else.

    Parameters
    ----------
    columns, count, rows
        Columns of a block, axes wanted (fewer than columns and rows), and rows of all blocks.
    each
        A pass over the rows.

    Returns
    -------
    mean, axes, variances
        (D,), (D, count) and (count,) float64, variances descending; of an axis the largest component is
        positive.

    References
    ----------
    Golub, Underwood (1977), The block Lanczos method for computing eigenvalues.
    """
    if columns <= COVARIANCE_COLUMNS:
        mean, scatter = _scatter(each, rows)
        found, axes = _largest(scatter, count)
    else:
        mean, found, axes = _lanczos(columns, count, rows, each, seed)
        found, axes = found[:count], axes[:, :count]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return mean, axes * np.where(signs == 0, 1.0, signs), np.maximum(found, 0) / max(1, rows - 1)


def bytes_of_sums(columns: int, count: int, threads: int) -> int:
    """Return what is held beside the rows: sums of each block under way, and what the axes are found of."""
    if columns <= COVARIANCE_COLUMNS:
        return 8 * columns * columns * (threads + 4)
    width = count + SPARE
    return 8 * columns * width * (2 * PASSES + 2 * threads + 6)


def _scatter(each: Pass, rows: int) -> tuple[Array, Array]:
    """Return the mean of all rows, and the sum of outer products of what each differs from it by."""
    sums, products = _added(each(_moments))
    mean = sums / rows
    return mean, products - rows * np.outer(mean, mean)


def _moments(block: Any) -> tuple[Array, Array]:
    product = block.T @ block
    return _sums(block), product if isinstance(product, np.ndarray) else product.toarray()


def _sums(block: Any) -> Array:
    return np.asarray(block.sum(axis=0), np.float64).ravel()


def _lanczos(columns: int, count: int, rows: int, each: Pass, seed: int) -> tuple[Array, Array, Array]:
    """Return mean, values and axes of the scatter by Rayleigh and Ritz, in the space of a few products."""
    width = count + SPARE
    start = uniform(stream_key(seed, "start", START), 0, columns, width) - 0.5
    basis, image = np.linalg.qr(start)[0], np.empty((columns, 0))
    fresh = basis
    mean = np.zeros(columns)
    values, vectors = np.zeros(width), np.eye(width)
    for number in range(PASSES):
        sums, product = _product(each, fresh)
        mean = sums / rows
        product -= rows * np.outer(mean, mean @ fresh)
        image = np.hstack([image, product])
        ritz, before = basis.T @ image, values[:count]
        values, vectors = _largest((ritz + ritz.T) / 2, width)
        if np.abs(values[:count] - before).max() <= TOLERANCE * values[0] or number + 1 == PASSES:
            break
        fresh = _new_directions(product, basis)
        basis = np.hstack([basis, fresh])
    return mean, values, basis @ vectors


def _product(each: Pass, directions: Array) -> tuple[Array, Array]:
    """Return the sum of rows, and of their outer products times directions."""
    return _added(each(lambda block: (_sums(block), block.T @ (block @ directions))))


def _added(parts: Iterator[tuple[Array, ...]]) -> tuple[Array, Array]:
    """Return the sums of pairs, added in the order in which they come."""
    first, second = next(parts)
    for one, other in parts:
        first, second = first + one, second + other
    return first, second


def _new_directions(product: Array, basis: Array) -> Array:
    """Return an orthonormal basis of what products have beyond the directions that are known."""
    for _ in range(2):  # Once is not enough in floating point.
        product = np.linalg.qr(product - basis @ (basis.T @ product))[0]
    return product


def _largest(symmetric: Array, count: int) -> tuple[Array, Array]:
    from scipy.linalg import eigh

    size = len(symmetric)
    found, vectors = eigh(symmetric, subset_by_index=(size - count, size - 1), check_finite=False)
    return found[::-1], vectors[:, ::-1]
