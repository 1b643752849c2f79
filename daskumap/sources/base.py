"""What every source answers for itself: its rows, what they cost to read, and which input they are."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from daskumap.errors import ParameterError, SourceError
from daskumap.secrets import hide_secrets
from daskumap.store.labels import Labels

Array = npt.NDArray[Any]

FINGERPRINT_ROWS = 16
# Several dask blocks are computed at once, so that small ones keep all threads busy.
BLOCK_BYTES = 64 << 20
FLOATS_AND_MORE = "float16, float32, float64, integers and bool"
# How values become numbers, by the kind of their type.
REMEDIES = {
    "M": "Pass (data - data.min()) / numpy.timedelta64(1, 's')",
    "m": "Pass data / numpy.timedelta64(1, 's')",
    "V": "Pass numpy.lib.recfunctions.structured_to_unstructured(data)",
    "c": "Pass numpy.concatenate([data.real, data.imag], axis=1)",
}


class Labelled(NamedTuple):
    """What an opener found on the way to the rows, and what rows are called."""

    data: Any
    labels: Labels


class Source(ABC):
    """A two-dimensional numeric array of which rows can be read, by any number of threads.

    A source holds the user's array and nothing else does, so that the array goes when the source does.

    Attributes
    ----------
    name
        What it is, or where the rows lie, for messages.
    shape, dtype
        As stored; `dtype` in native byte order.
    block_rows
        Rows of the smallest piece that reads well. Where it spans many rows, blocks should be multiples of
        it: nothing is cached between reads.
    in_place
        Whether this process reads rows at no more cost than from a store. Where it does not, a run writes
        the rows into its store first.
    gathers
        Whether scattered rows, as `take` returns them, cost no more than consecutive ones.
    labels
        What rows are called, by name: ids, an index, coordinates. Empty where they have no names.
    storage_options
        What the caller gave to reach the place, passwords too; they stay in memory.
    origin
        Of an AnnData, which of its numbers the rows are (`sources.cells.Origin`); None for all else.
    """

    in_place: ClassVar[bool] = True
    gathers: ClassVar[bool] = False

    def __init__(self, array: Any, name: str, block_rows: int) -> None:
        self.name = hide_secrets(name)
        self.shape: tuple[int, int] = (int(array.shape[0]), int(array.shape[1]))
        self.dtype: np.dtype[Any] = array.dtype.newbyteorder("=")
        self.block_rows = block_rows
        self.labels: Labels = {}
        self.storage_options: dict[str, Any] = {}
        self.origin: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.shape[0]} x {self.shape[1]} {self.dtype}>"

    def read(self, start: int, stop: int, dtype: npt.DTypeLike = np.float32) -> Array:
        """Return rows start to stop, C-contiguous; the caller must not change them.

        Parameters
        ----------
        start, stop
            0 <= start <= stop <= rows; nothing wraps and nothing is clipped.
        dtype
            float32: all types are cast, and what is too large becomes inf. uint8, for bit metrics: values
            that uint8 cannot hold are an error.

        Raises
        ------
        SourceError
            If a chunk is damaged or out of reach; it names the chunk and the rows.
        """
        wanted = np.dtype(dtype)
        if wanted not in (np.float32, np.uint8):
            raise ParameterError(f"Rows are read as float32 or uint8, not as {wanted}.")
        if not 0 <= start <= stop <= self.shape[0]:
            raise ParameterError(
                f"Rows {start} to {stop} were asked for; {self.name} has {self.shape[0]} rows."
            )
        return self._read(start, stop, wanted)

    @abstractmethod
    def read_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what `read` of that many rows holds at its peak.

        Each thread that reads at the same time needs as much.
        """

    @abstractmethod
    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        """Return rows, C-contiguous, in a type that `read` allows or in `self.dtype`."""

    def take(self, rows: Array, dtype: np.dtype[Any]) -> Array:
        """Return scattered rows in the order asked for, in a type that `read` allows or in `self.dtype`."""
        raise NotImplementedError(f"{type(self).__name__} reads consecutive rows alone.")

    def read_stored(self, start: int, stop: int) -> Array:
        """Return rows start to stop in `self.dtype`, C-contiguous; the caller must not change them."""
        return self._read(start, stop, self.dtype)

    def blocks(self) -> Iterator[Array]:
        """Return all rows in `self.dtype` as consecutive blocks, each in memory only once it is asked for."""
        rows, columns = self.shape
        step = max(1, BLOCK_BYTES // (columns * self.dtype.itemsize) // self.block_rows) * self.block_rows
        for start in range(0, rows, step):
            yield self._read(start, min(start + step, rows), self.dtype)

    def spec(self) -> dict[str, Any] | None:
        """Return what `open_spec` needs to open the same array in another process, as JSON types.

        None where no other process can open it: it then has to be written into the run store for them.
        It may hold passwords among its `storage_options`: a run store holds `specs.public_spec` of it.
        """
        spec = self._spec()
        if spec is None or not self.storage_options:
            return spec
        return {**spec, "storage_options": {**spec.get("storage_options", {}), **self.storage_options}}

    def _spec(self) -> dict[str, Any] | None:
        """Return kind, path, and options of the kind, if another process can open it."""
        return None

    def identity(self) -> dict[str, Any]:
        """Return a cheap fingerprint, as JSON types, that tells whether a resumed run has the same input.

        `rows` depends on the values and the type only: data in memory has the same one after its ingestion.
        """
        spec = self.spec()
        return {
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "chunks": list(self.shape),
            "path": hide_secrets(spec["path"]) if spec else None,
            "metadata": None,
            "rows": self._row_digest(),
            **({"options": spec["options"]} if spec and spec.get("options") else {}),
            **({"labels": self._label_digest()} if self.labels else {}),
        }

    def count_missing(self) -> int | None:
        """Return how many chunks are not stored, so that reads make up their values; None if unknown."""
        return 0

    def digest(self) -> str:
        """Return the SHA-256 of all values in native byte order, whatever the chunks; reads all rows."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block.data)
        return digest.hexdigest()

    def _row_digest(self) -> str:
        """Hash rows spread evenly over the array."""
        digest = hashlib.sha256(f"{self.shape} {self.dtype.str}".encode())
        rows = np.linspace(0, self.shape[0] - 1, self.fingerprint_rows())
        for row in rows.astype(np.int64).tolist():
            digest.update(self._read(row, row + 1, self.dtype).data)
        return digest.hexdigest()

    def _label_digest(self) -> str:
        """Hash the labels of the same rows."""
        digest, rows = hashlib.sha256(), np.linspace(0, self.shape[0] - 1, self.fingerprint_rows())
        for name, column in self.labels.items():
            values = [str(column.read(row, row + 1)[0]) for row in rows.astype(np.int64).tolist()]
            digest.update(json.dumps([name, column.dtype, values]).encode())
        return digest.hexdigest()[:16]

    def fingerprint_rows(self) -> int:
        """Return how many scattered rows can be read at little cost: as many as a fingerprint reads."""
        return min(self.shape[0], FINGERPRINT_ROWS)

    def _cast(self, block: Array, out: Array, start: int, rows: int | None = None) -> None:
        """Copy values of rows from `start` on into the type of `out`; refuse bits that uint8 would change."""
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, block, casting="unsafe")
        exact = block.dtype in (np.bool_, np.uint8) or out.dtype != np.uint8
        if not exact and (out != block).any():
            raise SourceError(
                f"Rows {start} to {start + (rows or len(block))} of {self.name} hold {self.dtype} values "
                "other than integers in 0 to 255. A metric on bits needs 0 and 1: threshold the data first, "
                "or choose another metric."
            )


def check_array(array: Any, called: str) -> None:
    """Refuse what is no two-dimensional numeric array of known size.

    Parameters
    ----------
    called
        What the message calls it, at its start.
    """
    shape = tuple(array.shape)
    if len(shape) != 2:
        raise SourceError(
            f"{called} has {len(shape)} dimensions {shape}; 2 are needed. Reshape it to rows x features "
            "first."
        )
    if any(math.isnan(size) for size in shape):
        raise SourceError(f"{called} has chunks of unknown size. Call compute_chunk_sizes() on it first.")
    if 0 in shape:
        raise SourceError(
            f"{called} is empty: its shape is {shape}. At least one row and one column are needed."
        )
    if not is_numeric(array.dtype):
        remedy = REMEDIES.get(getattr(array.dtype, "kind", ""), "Convert it with astype first")
        raise SourceError(f"{called} holds {array.dtype}; allowed are {FLOATS_AND_MORE}. {remedy}.")


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Return whether values of a type can be read as float32."""
    kind = getattr(dtype, "kind", "")
    return kind in ("b", "u", "i") or (kind == "f" and dtype.itemsize <= 8)
