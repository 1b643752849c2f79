"""Rows of another source on their main axes, found in a few passes that hold no more than a block of rows."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from daskumap.errors import ParameterError, SourceError
from daskumap.sources.base import Array, Source
from daskumap.sources.csr import CsrSource
from daskumap.sources.part import Part
from daskumap.sources.sparse import SparseSource
from daskumap.store.labels import Column

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


class OnAxes(Source):
    """Rows of another source, less a mean, on axes.

    Reading a few rows costs as much as reading the block that they lie in, so that a run writes all rows into
    its store first. Blocks depend on the columns alone: neither chunks nor reads change a bit.

    Parameters
    ----------
    inner
        The rows.
    count
        Axes.
    columns
        Numbers of the columns that take part, in the order of the axes' entries; None for all.

    Attributes
    ----------
    taken
        How many columns take part.
    progress
        Hears of each pass over the rows, as `report.progress.Progress`; None: nobody does.
    """

    in_place: ClassVar[bool] = False

    def __init__(self, inner: Source, count: int, columns: Array | None = None) -> None:
        self.inner, self.columns = inner, columns
        self.taken = inner.shape[1] if columns is None else len(columns)
        self.block_of = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (8 * self.taken)))
        self.progress: Any = None
        shape = (inner.shape[0], int(count))
        super().__init__(
            np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), shape, (0, 0)), inner.name, 1
        )
        self.block_rows = min(self.block_of, shape[0])

    @property
    @abstractmethod
    def axes(self) -> Axes:
        """The axes."""

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint of the rows themselves, and of how they are projected: no axes are found."""
        return {
            **self.inner.identity(),
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "axes": self._which(),
            **({"labels": self._label_digest()} if self.labels else {}),
        }

    @abstractmethod
    def _which(self) -> list[Any]:
        """Return what tells these axes from others of the same rows."""

    def read_bytes(self, rows: int) -> int:
        """Return the bytes of the rows, and of a block before it is projected."""
        return rows * self.shape[1] * 4 + self.block_bytes()

    def block_bytes(self) -> int:
        """Return the bytes of a block before it is projected."""
        block = min(self.block_of, self.shape[0])
        return self.inner.read_bytes(block) + 8 * block * self.taken

    def count_missing(self) -> int | None:
        """Return how many chunks of the rows are not stored."""
        return self.inner.count_missing()

    def blocks(self) -> Iterator[Array]:
        """Return all rows as blocks."""
        self.axes  # noqa: B018, found in passes of their own, before the one that projects
        yield from (block for (block,) in self._each(lambda block: (self._project(block),), "input.rows"))

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

    def _each(
        self, function: Callable[[Any], tuple[Array, ...]], called: str = "input.axes"
    ) -> Iterator[tuple[Array, ...]]:
        """Apply a function to each block, in threads; yield what it returns in the order of the blocks."""
        waiting: deque[Future[tuple[Array, ...]]] = deque()
        starts = range(0, self.shape[0], self.block_of)
        with self._watched(called, len(starts)) as watched, ThreadPoolExecutor(threads()) as pool:
            for start in starts:
                stop = min(start + self.block_of, self.shape[0])
                waiting.append(pool.submit(lambda a, b: function(self._block(a, b)), start, stop))
                if len(waiting) > threads():
                    yield watched(waiting.popleft().result())
            while waiting:
                yield watched(waiting.popleft().result())

    @contextlib.contextmanager
    def _watched(self, called: str, blocks: int) -> Iterator[Callable[[Any], Any]]:
        """Say that a pass starts and ends, and of each block that it is done."""
        done = 0

        def watched(found: Any) -> Any:
            nonlocal done
            done += 1
            if self.progress is not None:
                self.progress.advance(done)
            return found

        if self.progress is not None:
            self.progress.start(called, blocks, 0)
        yield watched
        if self.progress is not None:
            self.progress.finish()

    def _block(self, start: int, stop: int) -> Any:
        """Return rows in float64, sparse where they are stored so."""
        if isinstance(self.inner, CsrSource | SparseSource):
            block = self.inner.entries(start, stop, np.float64)
        else:
            block = self.inner.read_stored(start, stop).astype(np.float64)
        return block if self.columns is None else self._chosen(block)

    def _chosen(self, block: Any) -> Any:
        chosen = block[:, self.columns]
        if not isinstance(chosen, np.ndarray):
            chosen.sort_indices()  # The order of columns is that of the axes, and sums follow it.
        return chosen


class AxesSource(OnAxes):
    """Rows of another source, less their mean, on their main axes: PCA, as scanpy and scikit-learn do it.

    The axes are found when a row is first read.

    Parameters
    ----------
    genes
        Names of the inner columns; None where they have none.
    """

    def __init__(
        self, inner: Source, count: int, columns: Array | None = None, genes: Column | None = None
    ) -> None:
        taken = inner.shape[1] if columns is None else len(columns)
        most = min(inner.shape[0], taken) - 1
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= most:
            raise ParameterError(
                f"pca is {count!r}; of {inner.shape[0]:,} rows and {taken:,} columns it must be an integer "
                f"from 1 to {most}."
            )
        super().__init__(inner, count, columns)
        self.genes = genes

    def _which(self) -> list[Any]:
        chosen = None if self.columns is None else self.columns.tolist()
        return [self.shape[1], self.taken, _digest(chosen)]

    def find_passes(self) -> int:
        """Return in how many passes over the rows the axes are found, at most."""
        from daskumap.sources.principal import COVARIANCE_COLUMNS, PASSES

        return 1 if self.taken <= COVARIANCE_COLUMNS else PASSES

    def find_flops(self) -> float:
        """Return how many floating-point operations a row takes in these passes, as if it was dense."""
        from daskumap.sources.principal import SPARE

        if self.find_passes() == 1:
            return 2.0 * self.taken * self.taken
        return 4.0 * self.find_passes() * self.taken * (self.shape[1] + SPARE)

    def find_memory(self) -> dict[str, int]:
        """Return what it takes to find the axes, as named terms in bytes."""
        from daskumap.sources.principal import bytes_of_sums

        return {
            "blocks": (threads() + 1) * self.block_bytes(),
            "sums": bytes_of_sums(self.taken, self.shape[1], threads()),
        }

    @cached_property
    def axes(self) -> Axes:
        """The axes; found in one pass, or in a few where columns are many."""
        from threadpoolctl import threadpool_limits

        from daskumap.sources.principal import COVARIANCE_COLUMNS, PASSES, main_axes  # compiled: by Numba

        rows, count = self.shape
        passes = "one pass" if self.taken <= COVARIANCE_COLUMNS else f"up to {PASSES} passes"
        log.info(
            "%d main axes of %s rows and %s columns of %s are found in %s.",
            count,
            f"{rows:,}",
            f"{self.taken:,}",
            self.name,
            passes,
        )
        with threadpool_limits(1, user_api="blas"):
            found = Axes(*main_axes(self.taken, count, rows, self._each))
        if not np.isfinite(found.mean).all():
            bad = int(np.flatnonzero(~np.isfinite(found.mean))[0])
            raise SourceError(
                f"{self.name} has values that are not finite, in column "
                f"{bad if self.columns is None else self.columns[bad]}; main axes need finite ones. Replace "
                "them first."
            )
        return found


def threads() -> int:
    """Return how many blocks are read at a time."""
    return min(MOST_THREADS, os.cpu_count() or 1)


def without_part(source: Source) -> Source:
    """Return the source of which another one may be a part of the rows."""
    return source.source if isinstance(source, Part) else source


def refuse_own_axes(source: Source) -> None:
    """Refuse new rows on main axes of their own, which are not those of the rows that were fitted."""
    if isinstance(without_part(source), AxesSource):
        raise SourceError(
            f"Main axes of the new rows in {source.name} would be other ones than those of the fitted rows, "
            "and the run does not have those. Put the new rows on the axes that were fitted, such as "
            'obsm["X_pca"] by varm["PCs"]; or fit and transform the columns themselves, by use_rep="X".'
        )


def _digest(chosen: list[int] | None) -> str | None:
    """Return a name for a choice of columns."""
    return None if chosen is None else hashlib.sha256(str(chosen).encode()).hexdigest()[:16]
