"""The run store: one Zarr group that holds everything one run made, and its ledger.

Arrays are uncompressed with a crc32c per chunk: their size on disk is known before the run, they are read at
the speed of memory, and a flipped bit is an error. Zarr's default zstd has no checksum. Floats are filled
with NaN and integers with their largest value, so that a missing chunk cannot pass for data. Nor is a chunk
of zeros left out, as Zarr does with what equals the filling.
"""

from __future__ import annotations

import json
import logging
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import GroupMetadata
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, NodeNotFoundError
from zarr.storage import FsspecStore, LocalStore

from daskumap.errors import RunMismatchError, StoreError
from daskumap.planning.sizes import Sizes
from daskumap.planning.stage import Output
from daskumap.store.trouble import is_url, local_path, speaking

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
            with speaking(url):
                group = _open_group(url, mode)
                about = group.attrs.get(KEY)
        except StoreError as error:
            raise _not_opened(url, error) from error
        if not isinstance(about, dict) or "schema" not in about:
            raise StoreError(f"{url} is a Zarr group but not a run store. Name another place for the run.")
        if about["schema"] != SCHEMA:
            raise StoreError(
                f"{url} is a run store of schema {about['schema']!r}; this daskumap reads schema {SCHEMA}. "
                "Read it with the version that wrote it, or fit again into another store."
            )
        _check_about(url, about)
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
            # One write makes the group and says what it is: a run that dies here leaves nothing half-made. It
            # is exclusive: of two that start here at a time, one finds the other's.
            attributes = {KEY: {"schema": SCHEMA, **about, "crc32": zlib.crc32(_text(about))}}
            content = GroupMetadata(attributes=attributes).to_buffer_dict(default_buffer_prototype())
            with speaking(url):
                sync(_create(_store(url), "zarr.json", content["zarr.json"].to_bytes()))
        run = cls.open(url)
        known = run.about
        if known["id"] != about["id"]:
            check_same(
                url, {part: known[part] for part in COMPARED}, {part: about[part] for part in COMPARED}
            )
        return run

    @classmethod
    def open_to_delete(cls, url: str | Path) -> RunStore:
        """Open a run store of whatever version, whole or not.

        Raises
        ------
        StoreError
            If it is none, or cannot be told to be one: what is there stays.
        """
        with speaking(url):
            group = _open_group(url, "r+")
            if KEY not in group.attrs:
                raise StoreError(
                    f"{url} is no run store, and stays as it is. Name another place, or delete it yourself."
                )
        return cls(group)

    @property
    def about(self) -> dict[str, Any]:
        """What the run was started with: parameters, source, sizes."""
        return dict(self.group.attrs[KEY])  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        """Where the run store is, for messages."""
        return str(self.group.store_path)

    @property
    def is_local(self) -> bool:
        """Whether this machine's file system holds it."""
        return isinstance(self.group.store, LocalStore)

    def create(self, output: Output) -> None:
        """Create an array unless it is there already, as it is when a run goes on."""
        if not self._has(output.name) or self.array(output.name).shape != output.shape:
            create_array(self.group, output.name, output.shape, output.chunks, output.dtype)

    def create_group(self, name: str) -> None:
        """Create a group unless it is there already."""
        if not self._has(name):
            with speaking(f"{name} in {self.url}"):
                self.group.create_group(name, overwrite=True)

    def _has(self, name: str) -> bool:
        """Return whether a node is there; one whose metadata are damaged is none."""
        try:
            with speaking(f"{name} in {self.url}"):
                return name in self.group
        except StoreError as error:
            if isinstance(error.__cause__, OSError):  # out of reach is not damaged
                raise
            log.warning("%s It is made again.", error)
            return False

    def put(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Write a whole small array, in place of what an earlier attempt may have left."""
        rows = max(1, min(len(values), (1 << 22) // max(1, values[:1].nbytes)))
        array = create_array(self.group, name, values.shape, (rows, *values.shape[1:]), str(values.dtype))
        with speaking(f"{name} in {self.url}"):
            array[...] = values

    def array(self, name: str) -> zarr.Array[Any]:
        """Return the array called `name`."""
        try:
            with speaking(f"{name} in {self.url}"):
                array = self.group[name]
        except StoreError as error:
            if not isinstance(error.__cause__, KeyError):
                raise
            raise StoreError(
                f"{name} is missing in {self.url}. Run `daskumap verify --repair`, then `daskumap resume`."
            ) from error
        if not isinstance(array, zarr.Array):
            raise StoreError(
                f"{name} in {self.url} is a group where an array should be. Start over in another place."
            )
        return array

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray[Any, Any]:
        """Read rows start to stop of the array called `name`."""
        return read_rows(self.array(name), start, stop)

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
        """Delete the run store and leave its place free.

        What says that it is a run store goes last, so that a deletion that was cut short can be repeated.
        """
        store, root = self.group.store, self.group.path
        for name in self._sync(_list(store, root), "the run store"):
            if name not in ("zarr.json", "lock"):
                if not self.is_local:  # where what looks like a folder is but a common beginning
                    self._sync(store.delete_dir(self._key(name)), name)
                self._sync(store.delete(self._key(name)), name)
        self._sync(store.delete_dir(root), "the run store")

    def sweep(self) -> None:
        """Delete what writes that were cut short have left beside their targets."""
        if isinstance(self.group.store, LocalStore):
            with speaking(self.url):
                for path in (self.group.store.root / self.group.path).rglob("*.partial"):
                    path.unlink(missing_ok=True)

    def check_identity(self) -> None:
        """Refuse to go on if another run has been put in this one's place since it was opened."""
        reading = self.group.store.get(self._key("zarr.json"), default_buffer_prototype())
        document = self._sync(reading, "zarr.json")
        about = json.loads(document.to_bytes())["attributes"][KEY] if document is not None else {}
        if about.get("id") != self.about["id"]:
            raise StoreError(f"Another run was started in {self.url} at the same time. Name another place.")

    def forget(self, stage: str) -> None:
        """Delete the records of a stage's tasks, so that they run again."""
        for name in self.names(f"ledger/{stage}"):
            self.delete(f"ledger/{stage}/{name}")

    def names(self, folder: str) -> list[str]:
        """Return the names of the documents in a folder, sorted."""
        found = self._sync(_list(self.group.store, self._key(folder)), folder)
        return sorted(name for name in found if _is_numbered(name))

    def delete(self, name: str) -> None:
        """Delete a file that may be there."""
        self._sync(self.group.store.delete(self._key(name)), name)

    def save_json(self, name: str, value: Any) -> None:
        """Write a small document beside the arrays, atomically, with a checksum."""
        self.save_bytes(f"{name}.json", _sealed(value))

    def create_json(self, name: str, value: Any) -> None:
        """Write a document unless there is one: of several who try, the first one's stays."""
        self._sync(_create(self.group.store, self._key(f"{name}.json"), _sealed(value)), name)

    def save_bytes(self, name: str, value: bytes) -> None:
        """Write a small file beside the arrays, atomically."""
        buffer = default_buffer_prototype().buffer.from_bytes(value)
        self._sync(self.group.store.set(self._key(name), buffer), name)

    def load_json(self, name: str) -> Any:
        """Read what `save_json` wrote; None if it was not written."""
        return self._load(f"{name}.json")

    def damage(self, name: str, read: bool) -> list[str]:
        """Return what is wrong with an array, or with all arrays of a group: chunks missing or unreadable.

        With `read` every chunk is read and its checksum compared; without, chunks are only counted.
        """
        try:
            with speaking(f"{name} in {self.url}"):
                if name not in self.group:
                    return [f"{name} is missing"]
                node = self.group[name]
                nodes = [node] if isinstance(node, zarr.Array) else [part for _, part in node.members(None)]
                arrays = [node for node in nodes if isinstance(node, zarr.Array)]
                return [text for array in arrays for text in _array_damage(array, read)]
        except StoreError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return [f"the metadata of {name} are damaged ({error.__cause__})"]

    def _load(self, name: str) -> Any:
        """Return a document's content; None where there is none, or where its checksum says it is damaged."""
        buffer = self._sync(self.group.store.get(self._key(name), default_buffer_prototype()), name)
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

    def _sync(self, coroutine: Any, name: str) -> Any:
        with speaking(f"{name} in {self.url}"):
            return sync(coroutine)

    def _key(self, name: str) -> str:
        return f"{self.group.path}/{name}" if self.group.path else name


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str
) -> zarr.Array[Any]:
    """Create an array with the run store's codecs, in place of one that a failed attempt may have left."""
    with speaking(f"{name} in {group.store_path}"):
        return group.create_array(
            name,
            shape=shape,
            # Chunks are stored whole: one that is larger than the array would be mostly padding.
            chunks=tuple(max(1, min(pair)) for pair in zip(chunks, shape, strict=True)),
            dtype=dtype,
            compressors=[Crc32cCodec()],
            fill_value=np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max,
            overwrite=True,
            config={"write_empty_chunks": True},
        )


def read_rows(array: zarr.Array[Any], start: int, stop: int | None) -> np.ndarray[Any, Any]:
    """Read rows start to stop of one of the run store's arrays."""
    with speaking(f"{array.store_path}, rows {start} to {'the last' if stop is None else stop - 1},"):
        return np.asarray(array[start:stop])


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


def _is_numbered(name: str) -> bool:
    return name.endswith(".json") and name.removesuffix(".json").isdigit()


async def _create(store: Any, key: str, value: bytes) -> None:
    """Write an object unless there is one, in one step where the store can: zarr's own looks first."""
    if isinstance(store, FsspecStore):
        try:
            await store.fs._pipe_file(f"{store.path}/{key}", value, mode="create")
        except FileExistsError:
            return
        except (NotImplementedError, TypeError):  # of file systems that know no mode
            pass
        else:
            return
    await store.set_if_not_exists(key, default_buffer_prototype().buffer.from_bytes(value))


def _open_group(url: str | Path, mode: Any) -> zarr.Group:
    return zarr.open_group(str(url), mode=mode, storage_options=_options(url), use_consolidated=False)


def _store(url: str | Path) -> Any:
    if is_url(url):
        return FsspecStore.from_url(str(url), storage_options=_options(url))
    return LocalStore(local_path(url))


def _options(url: str | Path) -> dict[str, Any] | None:
    """Return fsspec's options: what another process wrote has to be seen, so listings are not kept."""
    return {"use_listings_cache": False} if is_url(url) else None


def _not_opened(url: str | Path, error: StoreError) -> StoreError:
    """Tell a place where there is nothing from one that is out of reach or damaged."""
    if isinstance(error.__cause__, FileNotFoundError | NodeNotFoundError | NotADirectoryError):
        return StoreError(f"There is no run store at {url}. Make one with `daskumap fit SOURCE {url}`.")
    if isinstance(error.__cause__, ContainsArrayError):
        return StoreError(f"{url} is a Zarr array, not a run store. Name another place for the run.")
    return error


# What a run store has to say of its run, and as what.
ABOUT = {"id": str, "params": dict, "source": dict, "spec": dict, "sizes": dict, "crc32": int}


def _check_about(url: str | Path, about: dict[str, Any]) -> None:
    """Refuse a description that is not the one that was written.

    Raises
    ------
    StoreError
        Naming what is wrong with it.
    """
    wrong = [name for name, kind in ABOUT.items() if not isinstance(about.get(name), kind)]
    content = {name: value for name, value in about.items() if name not in ("schema", "crc32")}
    if not wrong and about["crc32"] != zlib.crc32(_text(content)):
        wrong = ["its checksum"]
    if not wrong and about["sizes"].keys() != {field.name for field in fields(Sizes)}:
        wrong = ["sizes, as of another version of daskumap"]
    if wrong:
        raise StoreError(
            f"The description in {url}/zarr.json is damaged: wrong are {', '.join(wrong)}. Restore it from a "
            "copy, read it with the version that wrote it, or fit again with restart."
        )


def is_occupied(url: str | Path) -> bool:
    """Return whether anything is at `url`, a run store or not."""
    with speaking(url):
        if is_url(url):
            return bool(sync(_list(_store(url), "")))
        path = local_path(url)
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise StoreError(
                f"{url} is a file or a link to nowhere. Name a folder that does not exist yet for the run."
            )
        return path.exists() and any(path.iterdir())


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
            "continue it, name another store, or start over there with restart (--restart)."
        )
