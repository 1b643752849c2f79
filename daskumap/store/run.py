"""The run store: one Zarr group that holds everything one run made, and its ledger.

Arrays are uncompressed with a crc32c per chunk: their size on disk is known before the run, they are read at
the speed of memory, and a flipped bit is an error. Zarr's default zstd has no checksum. Floats are filled
with NaN, so that a missing chunk cannot pass for data.
"""

from __future__ import annotations

import json
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from daskumap.errors import RunMismatchError, StoreError
from daskumap.plan.stage import Output

log = logging.getLogger(__name__)

SCHEMA = 1
KEY = "daskumap"
# What must be the same for a run to go on.
COMPARED = ("params", "source")


class RunStore:
    """Reads and writes one run's arrays and ledger. Cheap to open; holds no data."""

    def __init__(self, group: zarr.Group) -> None:
        self.group = group

    @classmethod
    def open(cls, url: str | Path, mode: str = "r+") -> RunStore:
        """Open the run store at `url`.

        Raises
        ------
        StoreError
            If nothing is there, it is not a run store, or another version of daskumap wrote it.
        """
        try:
            group = zarr.open_group(str(url), mode=mode)  # type: ignore[arg-type]
        except Exception as error:
            raise StoreError(
                f"There is no run store at {url}. Make one with `daskumap fit SOURCE {url}`."
            ) from error
        about = group.attrs.get(KEY)
        if not isinstance(about, dict) or "schema" not in about:
            raise StoreError(f"{url} is a Zarr group but not a run store. Name another place for the run.")
        if about["schema"] != SCHEMA:
            raise StoreError(
                f"{url} is a run store of schema {about['schema']}; this daskumap reads schema {SCHEMA}. "
                "Read it with the version that wrote it, or fit again into another store."
            )
        return cls(group)

    @classmethod
    def open_or_create(cls, url: str | Path, about: dict[str, Any]) -> RunStore:
        """Open the run at `url` if it is the same run, or start it there if the place is free.

        Raises
        ------
        RunMismatchError
            If a run with another input or other parameters is there; the message lists what differs.
        """
        if not is_occupied(url):
            # One write makes the group and says what it is: a run that dies here leaves nothing half-made.
            attributes = {KEY: {"schema": SCHEMA, **about}}
            return cls(zarr.create_group(str(url), zarr_format=3, attributes=attributes))
        run = cls.open(url)
        known = run.about
        check_same(url, {part: known[part] for part in COMPARED}, {part: about[part] for part in COMPARED})
        return run

    @property
    def about(self) -> dict[str, Any]:
        """What the run was started with: parameters, source, sizes."""
        return dict(self.group.attrs[KEY])  # type: ignore[arg-type]

    def create(self, output: Output) -> None:
        """Create an array unless it is there already, as it is when a run goes on."""
        if output.name not in self.group:
            create_array(self.group, output.name, output.shape, output.chunks, output.dtype)

    def put(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Write a whole small array, in place of what an earlier attempt may have left."""
        rows = max(1, min(len(values), (1 << 22) // max(1, values[:1].nbytes)))
        array = create_array(self.group, name, values.shape, (rows, *values.shape[1:]), str(values.dtype))
        array[...] = values

    def array(self, name: str) -> zarr.Array[Any]:
        """Return the array called `name`."""
        array = self.group[name]
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{name} in {self.group.store_path} is a group where an array should be.")
        return array

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray[Any, Any]:
        """Read rows start to stop of the array called `name`."""
        return np.asarray(self.array(name)[start:stop])

    def record(self, stage: str, task: int, receipt: dict[str, Any]) -> None:
        """Write down that a task is done, atomically. Call it after the task's data is written."""
        self.save_json(f"ledger/{stage}/{task:08d}", receipt)

    def records(self, stage: str) -> dict[int, dict[str, Any]]:
        """Return the receipts of a stage's finished tasks by task number."""
        found = {}
        for name in self.names(f"ledger/{stage}"):
            receipt = self._load(f"ledger/{stage}/{name}")
            if receipt is not None:
                found[int(name.removesuffix(".json"))] = receipt
        return dict(sorted(found.items()))

    def discard(self) -> None:
        """Delete the run store and leave its place free."""
        sync(self.group.store.delete_dir(self.group.path))

    def forget(self, stage: str) -> None:
        """Delete the records of a stage's tasks, so that they run again."""
        for name in self.names(f"ledger/{stage}"):
            self.delete(f"ledger/{stage}/{name}")

    def names(self, folder: str) -> list[str]:
        """Return the names of the documents in a folder, sorted."""
        found = sync(_list(self.group.store, self._key(folder)))
        return sorted(name for name in found if name.endswith(".json"))

    def delete(self, name: str) -> None:
        """Delete a file that may be there."""
        sync(self.group.store.delete(self._key(name)))

    def save_json(self, name: str, value: Any) -> None:
        """Write a small document beside the arrays, atomically, with a checksum."""
        self.save_bytes(f"{name}.json", _sealed(value))

    def create_json(self, name: str, value: Any) -> None:
        """Write a document unless there is one: of several who try, the first one's stays."""
        buffer = default_buffer_prototype().buffer.from_bytes(_sealed(value))
        sync(self.group.store.set_if_not_exists(self._key(f"{name}.json"), buffer))

    def save_bytes(self, name: str, value: bytes) -> None:
        """Write a small file beside the arrays, atomically."""
        buffer = default_buffer_prototype().buffer.from_bytes(value)
        sync(self.group.store.set(self._key(name), buffer))

    def load_json(self, name: str) -> Any:
        """Read what `save_json` wrote; None if it was not written."""
        return self._load(f"{name}.json")

    def damage(self, name: str, read: bool) -> list[str]:
        """Return what is wrong with an array, or with all arrays of a group: chunks missing or unreadable.

        With `read` every chunk is read and its checksum compared; without, chunks are only counted.
        """
        if name not in self.group:
            return [f"{name} is missing"]
        node = self.group[name]
        nodes = [node] if isinstance(node, zarr.Array) else [member for _, member in node.members(None)]
        arrays = [node for node in nodes if isinstance(node, zarr.Array)]
        return [text for array in arrays for text in _array_damage(array, read)]

    def _load(self, name: str) -> Any:
        """Return a document's content; None where there is none, or where its checksum says it is damaged."""
        buffer = sync(self.group.store.get(self._key(name), default_buffer_prototype()))
        if buffer is None:
            return None
        try:
            document = json.loads(buffer.to_bytes())
            intact = document["crc32"] == zlib.crc32(_text(document["content"]))
        except (ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            log.warning("%s in %s is damaged and counts as missing.", name, self.group.store_path)
            return None
        return document["content"]

    def _key(self, name: str) -> str:
        return f"{self.group.path}/{name}" if self.group.path else name


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str
) -> zarr.Array[Any]:
    """Create an array with the run store's codecs, in place of one that a failed attempt may have left."""
    return group.create_array(
        name,
        shape=shape,
        # Chunks are stored whole: one that is larger than the array would be mostly padding.
        chunks=tuple(max(1, min(pair)) for pair in zip(chunks, shape, strict=True)),
        dtype=dtype,
        compressors=[Crc32cCodec()],
        fill_value=np.nan if np.dtype(dtype).kind == "f" else 0,
        overwrite=True,
        config={"write_empty_chunks": True},
    )


def _array_damage(array: zarr.Array[Any], read: bool) -> list[str]:
    missing = array.nchunks - array.nchunks_initialized if array.size else 0
    found = [f"{array.path}: {missing} of {array.nchunks} chunks are missing"] if missing else []
    step = array.chunks[0]
    for start in range(0, array.shape[0] if read else 0, step):
        try:
            array[start : start + step]
        except Exception as error:  # whatever a codec raises on bytes that are not its own
            found.append(f"{array.path}, rows {start} to {min(start + step, array.shape[0]) - 1}: {error}")
    return found


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _sealed(value: Any) -> bytes:
    """Return a document with its checksum, as text."""
    document = {"content": value, "crc32": zlib.crc32(_text(value))}
    return json.dumps(document, indent=1, sort_keys=True).encode()


async def _list(store: Any, prefix: str) -> list[str]:
    return [name async for name in store.list_dir(prefix)]


def is_occupied(url: str | Path) -> bool:
    """Return whether anything is at `url`, a run store or not."""
    path = Path(str(url))
    if "://" not in str(url):
        if path.exists() and not path.is_dir():
            raise StoreError(f"{url} is a file. Name a folder that does not exist yet for the run store.")
        return path.exists() and any(path.iterdir())
    try:
        zarr.open_group(str(url), mode="r")
    except Exception:
        return False
    return True


def check_same(url: str | Path, known: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a run that was started with something else.

    Raises
    ------
    RunMismatchError
        Listing each difference.
    """
    differences = []
    for part, before in known.items():
        after = json.loads(json.dumps(now[part]))
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                differences.append(f"{name} was {before.get(name)!r} and is now {after.get(name)!r}")
    if differences:
        raise RunMismatchError(
            f"{url} holds another run: {'; '.join(differences)}. Give the same input and parameters to "
            "continue it, or name another store."
        )
