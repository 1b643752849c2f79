"""SciPy's sparse matrices and arrays in memory: rows become dense as they are read, never all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.sources.base import Array, Source, check_array


class SparseSource(Source):
    """The values of a sparse matrix by rows, which this process alone can read.

    Dense rows have the bits of those of `toarray()`. Scattered rows cost no more than consecutive ones, so
    that nobody has to keep dense rows for later.

    Parameters
    ----------
    matrix
        In any of SciPy's formats. A CSR matrix without repeated entries is not copied; others are once.
    """

    gathers = True

    def __init__(self, matrix: Any) -> None:
        check_array(matrix, f"The {type(matrix).__name__}")
        super().__init__(matrix, f"the {type(matrix).__name__} in memory", block_rows=1)
        self._values, self._columns, self._starts = _by_rows(matrix)
        self._most = int(np.diff(self._starts).max())

    def read_bytes(self, rows: int) -> int:
        """Return the bytes of the dense rows, and of copies of as many entries as they may have."""
        entries = min(rows * self._most, len(self._values))
        return rows * (self.shape[1] * 4 + 24) + entries * (self.dtype.itemsize + 20)

    def entries(self, start: int, stop: int, dtype: Any) -> Any:
        """Return rows start to stop as a sparse array."""
        from scipy.sparse import csr_array

        starts = self._starts[start : stop + 1]
        here = slice(starts[0], starts[-1])
        shape = (stop - start, self.shape[1])
        return csr_array(
            (self._values[here].astype(dtype), self._columns[here], starts - starts[0]), shape=shape
        )

    def take(self, rows: Array, dtype: np.dtype[Any]) -> Array:
        """Return scattered rows in the order asked for."""
        first = self._starts[rows]
        counts = self._starts[rows + 1] - first
        starts = np.append(0, np.cumsum(counts))
        places = np.arange(starts[-1]) + np.repeat(first - starts[:-1], counts)
        return self._dense(self._values[places], self._columns[places], starts, dtype, rows)

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        starts = self._starts[start : stop + 1]
        here = slice(starts[0], starts[-1])
        return self._dense(self._values[here], self._columns[here], starts - starts[0], dtype, start)

    def _dense(self, values: Array, columns: Array, starts: Array, dtype: np.dtype[Any], rows: Any) -> Array:
        """Return a block of rows of which entries are given; `rows` tells which ones they are."""
        from scipy.sparse import csr_array

        cast = np.empty(len(values), dtype)
        self._cast(values, cast, int(np.min(rows, initial=self.shape[0])), len(starts) - 1)
        block: Array = csr_array((cast, columns, starts), shape=(len(starts) - 1, self.shape[1])).toarray()
        return block


def _by_rows(matrix: Any) -> tuple[Array, Array, Array]:
    """Return values, columns and where each row starts, each place once."""
    if matrix.format in ("csr", "csc") and matrix.has_canonical_format:
        by_rows = matrix.tocsr()
        return (
            by_rows.data.astype(by_rows.dtype.newbyteorder("="), copy=False),
            by_rows.indices,
            by_rows.indptr,
        )
    entries = matrix.tocoo()
    rows, columns = entries.coords
    return _summed(entries.data, rows, columns, matrix.shape[0])


def _summed(values: Array, rows: Array, columns: Array, count: int) -> tuple[Array, Array, Array]:
    """Return the same with entries of one place added up in the order in which they are stored.

    SciPy's own sums have another order, and so other bits, than those of `toarray()`.
    """
    order = np.lexsort((columns, rows))  # It is stable.
    values, rows, columns = values[order], rows[order], columns[order]
    fresh = np.ones(len(values), bool)
    fresh[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    sums = np.zeros(np.count_nonzero(fresh), values.dtype.newbyteorder("="))
    np.add.at(sums, np.cumsum(fresh) - 1, values)
    return sums, columns[fresh], np.searchsorted(rows[fresh], np.arange(count + 1))
