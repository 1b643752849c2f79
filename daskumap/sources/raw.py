"""Files of plain numbers that the system maps: .npy, memory maps, .fvecs and its like, and raw binary."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.sources.base import Array, check_array
from daskumap.sources.files import ends_in, expanded, local_file, version_of
from daskumap.sources.memory import MemorySource

# Files of vectors as benchmarks of nearest neighbours have them: each row begins with its length.
VECTORS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
# Rows of such a file whose lengths are compared when it is opened, evenly spread.
LOOKED_AT = 1000


class RawSource(MemorySource):
    """Rows in a file, as they lie there: this process maps it, and another one can."""

    def __init__(self, array: Array, path: Path, spec: dict[str, Any]) -> None:
        check_array(array, str(path))
        super().__init__(array)
        self.name = str(path)
        self._path, self._known = path, spec
        # Who maps a file may write to it; who names its path has it read.
        self._version = version_of(path)[: 1 if isinstance(array, np.memmap) and array.mode != "r" else 2]

    def _spec(self) -> dict[str, Any]:
        return {**self._known, "path": str(self._path)}

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        try:
            same = version_of(self._path)[: len(self._version)] == self._version
        except OSError:
            same = False
        if not same:  # A file that was cut short ends a process that reads beyond its end.
            raise SourceError(
                f"{self.name} was written anew, or is gone, since it was opened. Start again, with a file "
                "that stays."
            )
        return super()._read(start, stop, dtype)


# -- .npy and .npz


def is_npy(data: Any) -> bool:
    """Return whether it is a path of an array, or of several, that NumPy saved."""
    return ends_in(data, ".npy", ".npz") and not expanded(data).is_dir()


def open_npy(where: Any, array: str | None = None) -> Any:
    """Return the source of a .npy file, mapped; or an array of an .npz file, in memory."""
    path = local_file(where, "a NumPy file")
    try:
        if path.suffix.lower() == ".npz":
            return _of_archive(path, array)
        if array is not None:
            raise SourceError(f"{path} holds one array, without a name. Leave the option array out.")
        return RawSource(np.load(path, mmap_mode="r", allow_pickle=False), path, {"kind": "npy"})
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # of NumPy, or of the zip format
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise SourceError(
                f"{path} holds objects of Python, which are not loaded. Save numbers: "
                "numpy.save(path, numpy.stack(list_of_rows))."
            ) from error
        raise SourceError(
            f"{path} is no whole NumPy file ({type(error).__name__}: {error}). Save it again, or restore it "
            "from a copy."
        ) from error


def _of_archive(path: Path, name: str | None) -> Array:
    with np.load(path, allow_pickle=False) as archive:
        names = [name] if name is not None else archive.files
        if name is not None and name not in archive.files:
            raise SourceError(f"{path} has no array {name!r}. It has {', '.join(archive.files)}.")
        found = {one: archive[one] for one in names}
    if name is None:
        found = {one: values for one, values in found.items() if values.ndim == 2}
    if len(found) != 1:
        listed = ", ".join(f"{one} {values.shape}" for one, values in found.items()) or "none"
        raise SourceError(
            f"{path} has {len(found)} arrays of two dimensions: {listed}. Name one with array "
            "(--source-option array=NAME)."
        )
    return next(iter(found.values()))


# -- vectors with their lengths


def is_vectors(data: Any) -> bool:
    """Return whether it is a path of an .fvecs, .bvecs or .ivecs file."""
    return ends_in(data, *VECTORS)


def open_vectors(where: Any) -> RawSource:
    """Return the source of a file in which each row begins with its length, as 32 bits."""
    path = local_file(where, "a file of vectors")
    dtype, size = np.dtype(VECTORS[path.suffix.lower()]), path.stat().st_size
    if size < 4:
        raise SourceError(f"{path} is empty. At least one row is needed.")
    width = int(np.fromfile(path, "<i4", 1)[0])
    step = 4 + width * dtype.itemsize
    if width < 1 or size % step:
        raise SourceError(
            f"{path} says that its rows have {width} values, and its {size:,} bytes are not whole rows of "
            f"{step:,}. It is cut short, or no {path.suffix} file."
        )
    rows, file = size // step, np.memmap(path, np.uint8, "r")
    lengths = np.ndarray((rows,), "<i4", file, 0, (step,))
    looked = np.linspace(0, rows - 1, min(rows, LOOKED_AT)).astype(np.int64)
    other = looked[lengths[looked] != width]
    if len(other):
        raise SourceError(
            f"Row {other[0]} of {path} has {lengths[other[0]]} values, and row 0 has {width}. All rows need "
            "the same number."
        )
    return RawSource(_view(file, dtype, (rows, width), 4, (step, dtype.itemsize)), path, {"kind": "vectors"})


# -- raw binary, and memory maps of it


def is_memmap(data: Any) -> bool:
    """Return whether it is an array that NumPy maps from a file, which others can map too."""
    if not isinstance(data, np.memmap) or data.ndim != 2 or data.dtype.hasobject:
        return False
    return data.mode in ("r", "r+", "w+") and _place_of(data) is not None


def open_memmap(data: Any) -> RawSource:
    """Return the source of an array that is mapped, where it lies in its file."""
    place = _place_of(data)
    assert place is not None
    path, offset = place
    options = {
        "dtype": data.dtype.str,
        "shape": [int(size) for size in data.shape],
        "offset": offset,
        "strides": [int(stride) for stride in data.strides],
    }
    return RawSource(data, path, {"kind": "raw", "options": options})


def is_raw(data: Any) -> bool:
    """Return whether it is a path of binary numbers: never, unless its kind is told."""
    return False


def open_raw(
    where: Any,
    dtype: Any = None,
    shape: Any = None,
    offset: int = 0,
    strides: Any = None,
) -> RawSource:
    """Return the source of numbers that lie in a file as they do in memory.

    Parameters
    ----------
    dtype, shape
        Type, such as "<f4", and rows and columns; -1 rows are as many as the file has.
    offset
        Bytes before the first.
    strides
        Bytes from row to row and from column to column; None where nothing lies between.
    """
    path = local_file(where, "a file of binary numbers")
    if dtype is None or shape is None:
        raise SourceError(
            f"{path} is read as binary numbers. Say which, such as dtype='<f4', shape=[-1, 128]."
        )
    kind, size = _dtype(path, dtype), path.stat().st_size
    rows, columns = (int(number) for number in shape)
    if rows == -1:
        rows = (size - offset) // (columns * kind.itemsize)
    steps = [columns * kind.itemsize, kind.itemsize] if strides is None else [int(step) for step in strides]
    needed = offset + (rows - 1) * steps[0] + (columns - 1) * steps[1] + kind.itemsize
    if min(rows, columns, offset + 1, *(step + 1 for step in steps)) < 1 or needed > size:
        raise SourceError(
            f"{path} has {size:,} bytes; {rows} x {columns} {kind} from byte {offset} on need {needed:,}. "
            "Give shape, dtype and offset as the file was written."
        )
    options = {"dtype": kind.str, "shape": [rows, columns], "offset": int(offset), "strides": steps}
    array = _view(np.memmap(path, np.uint8, "r"), kind, (rows, columns), int(offset), (steps[0], steps[1]))
    return RawSource(array, path, {"kind": "raw", "options": options})


def _dtype(path: Path, dtype: Any) -> np.dtype[Any]:
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
        return kind
    except TypeError as error:
        raise SourceError(
            f"{path}: dtype is {dtype!r}; it must be a type such as '<f4' or 'uint8'."
        ) from error


def _view(
    file: Array, dtype: np.dtype[Any], shape: tuple[int, int], offset: int, strides: tuple[int, int]
) -> Array:
    """Return an array that lies in a mapped file; it keeps the mapping."""
    found: Array = np.ndarray(shape, dtype, file, offset, strides)
    return found


def _place_of(data: Any) -> tuple[Path, int] | None:
    """Return the file that an array is mapped from, and where in it the first value lies."""
    held: Any = data
    while held is not None and not isinstance(held, mmap.mmap):
        held = held.obj if isinstance(held, memoryview) else getattr(held, "base", None)
    name = getattr(data, "filename", None)
    if held is None or name is None or min(data.strides, default=0) < 0 or not Path(name).is_file():
        return None
    begins = data.offset - data.offset % mmap.ALLOCATIONGRANULARITY
    address = np.frombuffer(held, np.uint8).ctypes.data
    offset = begins + data.__array_interface__["data"][0] - address
    within = offset >= 0 and len(held) + begins <= Path(name).stat().st_size
    return (Path(name), int(offset)) if within else None
