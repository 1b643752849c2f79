"""Rows of another source on their main axes, found in a few passes that hold no more than a block of rows."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from daskumap.errors import ParameterError, SourceError
from daskumap.sources.base import Array, Source
from daskumap.sources.csr import CsrSource
from daskumap.sources.sparse import SparseSource

log = logging.getLogger(__name__)

# Rows that are summed at a time depend on the columns alone, so that memory and chunks change no bit.
BLOCK_BYTES = 32 << 20
BLOCK_ROWS = 4096
# Blocks at a time; more would only wait for the store.
MOST_THREADS = 8


class Axes(NamedTuple):
    """Where rows are projected to.

    Attributes
    ----------
    mean, axes, variances
        (D,), (D, k) and (k,) float64.
    """

    mean: Array
    axes: Array
    variances: Array


class AxesSource(Source):
    """Rows of another source, less their mean, on their main axes: PCA, as scanpy and scikit-learn do it.

    The axes are found when a row is first read. Reading a few rows costs as much as reading the block that
    they lie in, so that a run writes all rows into its store first.

    Parameters
    ----------
    inner
        The rows.
    count
        Axes.
    columns
        Numbers of the columns that take part; None for all.
    """

    in_place: ClassVar[bool] = False

    def __init__(self, inner: Source, count: int, columns: Array | None = None) -> None:
        taken = inner.shape[1] if columns is None else len(columns)
        most = min(inner.shape[0], taken) - 1
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= most:
            raise ParameterError(
                f"pca is {count!r}; of {inner.shape[0]:,} rows and {taken:,} columns it must be an integer "
                f"from 1 to {most}."
            )
        self.inner, self.columns, self._taken = inner, columns, taken
        self.block_of = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (8 * taken)))
        shape = (inner.shape[0], int(count))
        super().__init__(
            np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), shape, (0, 0)), inner.name, 1
        )
        self.block_rows = min(self.block_of, shape[0])

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint of the rows themselves, and of how they are projected: no axes are found."""
        inner = self.inner.identity()
        chosen = None if self.columns is None else self.columns.tolist()
        return {
            **inner,
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "axes": [self.shape[1], self._taken, _digest(chosen)],
        }

    def read_bytes(self, rows: int) -> int:
        """Return the bytes of the rows, and of a block before it is projected."""
        block = min(self.block_of, self.shape[0])
        return rows * self.shape[1] * 4 + self.inner.read_bytes(block) + 8 * block * self._taken

    def count_missing(self) -> int | None:
        """Return how many chunks of the rows are not stored."""
        return self.inner.count_missing()

    def blocks(self) -> Iterator[Array]:
        """Return all rows as blocks."""
        yield from (block for (block,) in self._each(lambda block: (self._project(block),)))

    @cached_property
    def axes(self) -> Axes:
        """The axes; found in one pass, or in a few where columns are many."""
        from threadpoolctl import threadpool_limits

        from daskumap.sources.principal import COVARIANCE_COLUMNS, PASSES, main_axes  # compiled: by Numba

        rows, count = self.shape
        passes = "one pass" if self._taken <= COVARIANCE_COLUMNS else f"up to {PASSES} passes"
        log.info(
            "%d main axes of %s rows and %s columns of %s are found in %s.",
            count,
            f"{rows:,}",
            f"{self._taken:,}",
            self.name,
            passes,
        )
        with threadpool_limits(1, user_api="blas"):
            found = Axes(*main_axes(self._taken, count, rows, self._each))
        if not np.isfinite(found.mean).all():
            bad = int(np.flatnonzero(~np.isfinite(found.mean))[0])
            raise SourceError(
                f"{self.name} has values that are not finite, in column "
                f"{bad if self.columns is None else self.columns[bad]}; main axes need finite ones. Replace "
                "them first."
            )
        return found

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        out = np.empty((stop - start, self.shape[1]), dtype)
        for first in range(start // self.block_of * self.block_of, stop, self.block_of):
            end = min(first + self.block_of, self.shape[0])
            low, high = max(first, start), min(end, stop)
            rows = self._project(self._block(first, end))[low - first : high - first]
            self._cast(rows, out[low - start : high - start], low)
        return out

    def _project(self, block: Any) -> Array:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            on_axes: Array = block @ self.axes.axes - self.axes.mean @ self.axes.axes
        return on_axes.astype(np.float32)

    def _each(self, function: Callable[[Any], tuple[Array, ...]]) -> Iterator[tuple[Array, ...]]:
        """Apply a function to each block, in threads; yield what it returns in the order of the blocks."""
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        waiting: deque[Future[tuple[Array, ...]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, self.shape[0], self.block_of):
                stop = min(start + self.block_of, self.shape[0])
                waiting.append(pool.submit(lambda a, b: function(self._block(a, b)), start, stop))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _block(self, start: int, stop: int) -> Any:
        """Return rows in float64, sparse where they are stored so."""
        if isinstance(self.inner, CsrSource | SparseSource):
            block = self.inner.entries(start, stop, np.float64)
        else:
            block = self.inner.read_stored(start, stop).astype(np.float64)
        return block if self.columns is None else block[:, self.columns]


def refuse_own_axes(source: Source) -> None:
    """Refuse new rows on main axes of their own, which are not those of the rows that were fitted."""
    if isinstance(source, AxesSource):
        raise SourceError(
            f"Main axes of the new rows in {source.name} would be other ones than those of the fitted rows. "
            'Put the new rows on the axes that were fitted, such as obsm["X_pca"] by varm["PCs"]; or fit and '
            'transform the columns themselves, by use_rep="X".'
        )


def _digest(chosen: list[int] | None) -> str | None:
    """Return a name for a choice of columns."""
    return None if chosen is None else hashlib.sha256(str(chosen).encode()).hexdigest()[:16]
