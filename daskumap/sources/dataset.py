"""A data set of HDF5, of which rows are read where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.sources.base import Array, Source, check_array

# What HDF5 holds of chunks that it decodes: its cache, of 1 MB a data set, and one chunk twice.
CACHE_BYTES = 1 << 20


class DatasetSource(Source):
    """An h5py data set.

    Parameters
    ----------
    spec
        What opens the same in another process; None where none can.
    """

    def __init__(self, dataset: Any, name: str, spec: dict[str, Any] | None) -> None:
        check_array(dataset, name)
        super().__init__(dataset, name, block_rows=dataset.chunks[0] if dataset.chunks else 1)
        self._dataset, self._found = dataset, spec

    def _spec(self) -> dict[str, Any] | None:
        return self._found

    def read_bytes(self, rows: int) -> int:
        """Return the bytes of the rows as float32 and as stored, and of what HDF5 holds."""
        chunk = int(np.prod(self._dataset.chunks or (1, 1))) * self.dtype.itemsize
        return rows * self.shape[1] * (4 + self.dtype.itemsize) + 2 * chunk + CACHE_BYTES

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        try:
            block = np.asarray(self._dataset[start:stop])
        except MemoryError:
            raise
        except Exception as error:
            raise SourceError(
                f"Rows {start} to {stop} of {self.name} cannot be read ({type(error).__name__}: {error}). "
                "Restore the file from a copy, or write it again."
            ) from error
        if block.dtype == dtype and block.flags.carray:
            return block
        out = np.empty(block.shape, dtype)
        self._cast(block, out, start)
        return out
