"""Arrays in HDF5 files, read where they are: each process opens the file itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.extras import load
from daskumap.sources.base import Array, Source, check_array, is_numeric
from daskumap.sources.files import ends_in, local_file, version_of
from daskumap.sources.objects import comes_from
from daskumap.store.labels import Read, as_labels, dtype_of

ENDINGS = (".h5", ".hdf5", ".hdf", ".he5")
LISTED = 12
# What HDF5 keeps of chunks, and works with.
LIBRARY_BYTES = 16 << 20


class Hdf5Source(Source):
    """A dataset of two dimensions in an HDF5 file.

    Parameters
    ----------
    dataset
        Of h5py, of a file that is open for reading.
    labels
        Names of datasets in the file with one value a row, which become labels.
    openable
        Whether another process can open the file: it is on disk, and nobody writes to it.
    """

    def __init__(self, dataset: Any, labels: Any = None, openable: bool = True) -> None:
        self._path, self._inside = Path(dataset.file.filename), str(dataset.name)
        called = f"{self._path}:{self._inside}"
        check_array(dataset, called)
        super().__init__(dataset, called, block_rows=int((dataset.chunks or (1, 1))[0]))
        self._dataset, self._openable = dataset, openable
        self._version = version_of(self._path) if openable else None
        self._chunk_bytes = int(np.prod(dataset.chunks or (1, 1))) * self.dtype.itemsize
        self._labels = [labels] if isinstance(labels, str) else list(labels or ())
        self.labels = {name.strip("/"): self._column(name) for name in self._labels}

    def read_bytes(self, rows: int) -> int:
        """Return the bytes of the rows, as stored and cast, and of a chunk encoded and decoded."""
        values = rows * self.shape[1]
        return values * (4 + self.dtype.itemsize) + 2 * self._chunk_bytes + LIBRARY_BYTES

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        if self._version is not None and self._version != version_of(self._path):
            raise SourceError(
                f"{self.name} was written anew since it was opened. Start again, with a file that stays."
            )
        try:
            block = np.asarray(self._dataset[start:stop])
        except MemoryError:
            raise
        except Exception as error:  # of HDF5, or of a filter
            raise SourceError(
                f"Rows {start} to {stop} of {self.name} cannot be read ({type(error).__name__}: {error}). "
                "Restore the file from a copy, write it again, or install the filter that it needs "
                "(hdf5plugin)."
            ) from error
        if block.dtype == dtype and block.flags.carray:
            return block
        out = np.empty(block.shape, dtype)
        self._cast(block, out, start)
        return out

    def _spec(self) -> dict[str, Any] | None:
        if not self._openable:
            return None
        labels = {"labels": self._labels} if self._labels else {}
        return {
            "kind": "hdf5",
            "path": str(self._path.resolve()),
            "options": {"dataset": self._inside, **labels},
        }

    def _column(self, name: str) -> Read:
        file = self._dataset.file
        if name not in file or not hasattr(file[name], "shape") or file[name].shape != (self.shape[0],):
            raise SourceError(
                f"{self._path} has no dataset {name!r} with {self.shape[0]} values, one a row. Name another "
                "in labels, or none."
            )
        return Read(self.shape[0], dtype_of(as_labels(file[name][:1])), partial(_texts, file[name]))


def _texts(dataset: Any, start: int, stop: int) -> Array:
    return np.asarray(dataset[start:stop])


def is_file(data: Any) -> bool:
    """Return whether it is a path of an HDF5 file."""
    return ends_in(data, *ENDINGS)


def open_file(where: Any, dataset: str | None = None, labels: Any = None) -> Hdf5Source:
    """Return the source of a dataset in a file: of the one matrix, unless one is named."""
    h5py = load("h5py", "hdf5", "An HDF5 file")
    path = local_file(where, "an HDF5 file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise SourceError(
            f"{path} cannot be opened as HDF5 ({error}). It is damaged, cut short, or open for writing "
            "elsewhere. Close it there, or restore it from a copy."
        ) from error
    if dataset is None:
        return Hdf5Source(_only_matrix(file), labels)
    try:
        found = file[dataset]
    except KeyError as error:
        raise SourceError(f"{path} has no {dataset!r}. {_listing(file)}") from error
    return Hdf5Source(found if hasattr(found, "shape") else _only_matrix(found), labels)


def is_dataset(data: Any) -> bool:
    """Return whether it is a dataset, a group or a file of h5py."""
    return comes_from(data, "h5py")


def open_dataset(data: Any, labels: Any = None) -> Hdf5Source:
    """Return the source of an object of h5py: that of the file, if nobody writes to it."""
    if not data or not hasattr(data, "file"):
        raise SourceError("The HDF5 file is closed. Pass its path, or open it again.")
    found = data if hasattr(data, "shape") else _only_matrix(data)
    path = Path(str(data.file.filename))
    return Hdf5Source(found, labels, openable=data.file.mode == "r" and path.is_file())


def _only_matrix(group: Any) -> Any:
    found = _matrices(group)
    if len(found) != 1:
        raise SourceError(
            f"{group.file.filename}:{group.name} has {len(found)} datasets of two dimensions. Name one with "
            f"dataset (--source-option dataset=NAME). {_listing(group.file)}"
        )
    return found[0]


def _matrices(group: Any) -> list[Any]:
    found: list[Any] = []

    def look(name: str, item: Any) -> None:
        if getattr(item, "ndim", 0) == 2 and is_numeric(item.dtype):
            found.append(item)

    group.visititems(look)
    return found


def _listing(file: Any) -> str:
    listed = "; ".join(
        f"{one.name} {one.shape[0]} x {one.shape[1]} {one.dtype}" for one in _matrices(file)[:LISTED]
    )
    return f"It has {listed}." if listed else "It has no matrix of numbers."
