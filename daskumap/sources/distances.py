"""Sparse matrices of distances: rows of which no distance is stored are no neighbours."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from daskumap.errors import SourceError
from daskumap.kernels.neighbors.distances import Distances
from daskumap.sources.base import Source, check_array
from daskumap.sources.find import find
from daskumap.sources.move import Move
from daskumap.sources.objects import is_sparse
from daskumap.store.arrays import ArrayStore, create_array
from daskumap.store.run import RunStore

Array = npt.NDArray[Any]

# What a matrix is made of, in memory and in a run store.
PARTS = ("indptr", "columns", "values")
CHUNK_BYTES = 4 << 20


def find_distances(data: Any) -> Source:
    """Return the source of a matrix of distances: sparse ones too.

    Raises
    ------
    SourceError
        As `find`; also for a sparse matrix that SciPy does not make.
    """
    if not is_sparse(data):
        return find(data)
    if not hasattr(data, "tocsr"):
        raise SourceError(
            f"The distances are sparse ({type(data).__name__}); SciPy's matrices and arrays are read. Pass "
            "scipy.sparse.csr_matrix(data)."
        )
    matrix = data.tocsr()
    check_array(matrix, f"The {type(data).__name__}")
    if not matrix.has_canonical_format:
        matrix = matrix.copy()  # the user's stays as it is
        matrix.sum_duplicates()
    parts = {"indptr": matrix.indptr.astype(np.int64), "columns": matrix.indices, "values": matrix.data}
    return SparseDistances(parts, matrix.shape)


class SparseDistances(Source):
    """A CSR matrix of distances, of NumPy arrays or of arrays in a run store."""

    def __init__(self, parts: dict[str, Any], shape: tuple[int, int]) -> None:
        super().__init__(_Shaped(shape, parts["values"].dtype), "the sparse distances in memory", 1)
        self._parts, self._indptr = parts, np.asarray(parts["indptr"][:])

    def csr(self, start: int, stop: int, move: Move) -> Distances:
        """Return rows start to stop, moved, as they are stored."""
        indptr, columns, values = self._csr(start, stop)
        return Distances(indptr, columns, move.apply(values))

    def csr_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what reading that many rows as they are stored holds."""
        rows = min(rows, self.shape[0])
        most = (self._indptr[rows:] - self._indptr[: len(self._indptr) - rows]).max()
        return rows * 8 + int(most) * (self.dtype.itemsize + 32)

    def read_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what whole rows hold."""
        return rows * self.shape[1] * max(4, self.dtype.itemsize) + self.csr_bytes(rows)

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        """Return whole rows, inf where nothing is stored."""
        indptr, columns, values = self._csr(start, stop)
        out = np.full((stop - start, self.shape[1]), np.inf, dtype if dtype.kind == "f" else np.float64)
        with np.errstate(over="ignore"):
            out[np.repeat(np.arange(stop - start), np.diff(indptr)), columns] = values
        return out

    def _csr(self, start: int, stop: int) -> tuple[Array, Array, Array]:
        """Return rows start to stop as they are stored: indptr from 0, columns and values."""
        indptr = self._indptr[start : stop + 1]
        columns, values = (self._parts[name][indptr[0] : indptr[-1]] for name in PARTS[1:])
        return indptr - indptr[0], np.asarray(columns, np.int64), np.asarray(values)

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint of a dense source, and how many distances are stored."""
        return {**super().identity(), "stored": int(self._indptr[-1])}

    def digest(self) -> str:
        """Return the SHA-256 of what is stored; reads all of it."""
        digest = hashlib.sha256(self._indptr.tobytes())
        for name, dtype in (("columns", np.dtype(np.int64)), ("values", self.dtype)):
            for start in range(0, int(self._indptr[-1]), CHUNK_BYTES):
                part = self._parts[name][start : start + CHUNK_BYTES]
                digest.update(np.ascontiguousarray(part, dtype).data)
        return digest.hexdigest()

    @classmethod
    def stored(cls, store: RunStore, name: str) -> SparseDistances:
        """Return the matrix that `write` wrote into a run store."""
        shape = store.about["source"]["shape"]
        return cls({part: store.array(f"{name}/{part}") for part in PARTS}, (int(shape[0]), int(shape[1])))

    def write(self, store: ArrayStore, name: str) -> None:
        """Write the matrix into a group of a run store."""
        for part, dtype in zip(PARTS, (np.dtype(np.int64), np.dtype(np.int64), self.dtype), strict=True):
            values = self._parts[part]
            step = CHUNK_BYTES // dtype.itemsize
            array = create_array(store, f"{name}/{part}", values.shape, (step,), dtype.name)
            for start in range(0, len(values), step):
                array[start : start + step] = values[start : start + step].astype(dtype)


class _Shaped:
    """A shape and a type, as a source takes them of its array."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
