"""The run store: one Zarr group that holds everything one run made.

Arrays are uncompressed with a crc32c per chunk: their size on disk is known before the run, they are read at
the speed of memory, and a flipped bit is an error. Zarr's default zstd has no checksum. Floats are filled
with NaN and integers with their largest value, so that a missing chunk cannot pass for data. Nor is a chunk
of zeros left out, as Zarr does with what equals the filling.
"""

from __future__ import annotations

import json
import logging
import uuid
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.array import AsyncArray
from zarr.core.array_spec import parse_array_config
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import GroupMetadata
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, NodeNotFoundError
from zarr.storage import LocalStore, MemoryStore

from daskumap.errors import RunMismatchError, StoreError
from daskumap.planning.sizes import Sizes
from daskumap.planning.stage import Output
from daskumap.store.documents import Documents, as_text, create_object
from daskumap.store.ledger import Ledger
from daskumap.store.places import Place
from daskumap.store.schema import Fact, Item
from daskumap.store.trouble import speaking

log = logging.getLogger(__name__)

SCHEMA = 3
KEY = "daskumap"
# What a run store has to say of its run, and as what.
ABOUT = {
    "id": str,
    "params": dict,
    "source": dict,
    "spec": dict | None,
    "sizes": dict,
    "versions": dict,
    "crc32": int,
}
# What stays where another run begins: what makes it a run store, and who has it.
KEPT = ("zarr.json", "generations", "lock")
# Bytes of a chunk of an array that a task creates itself.
PUT_BYTES = 1 << 22


class RunStore:
    """Reads and writes one run's arrays. Cheap to open; holds no data.

    Attributes
    ----------
    place
        Where it lies.
    documents, ledger
        What it holds beside arrays.
    """

    def __init__(self, place: Place, group: zarr.Group) -> None:
        self.place, self.group = place, group
        self.documents = Documents(group.store, group.path, place.url)
        about = group.attrs.get(KEY)
        self.ledger = Ledger(self.documents, str(about.get("id")) if isinstance(about, dict) else "")

    @classmethod
    def open(cls, place: Place, mode: str = "r+") -> RunStore:
        """Open the run store at a place.

        Raises
        ------
        StoreError
            If nothing is there, it is not a run store, or another version of daskumap wrote it.
        """
        try:
            with speaking(place.url):
                group = _open_group(place, mode)
                about = group.attrs.get(KEY)
        except StoreError as error:
            raise _not_opened(place.url, error) from error
        if not isinstance(about, dict) or "schema" not in about:
            raise StoreError(
                f"{place.url} is a Zarr group but not a run store. Name another place for the run."
            )
        if about["schema"] != SCHEMA:
            raise StoreError(
                f"{place.url} is a run store of schema {about['schema']!r}; this daskumap reads schema "
                f"{SCHEMA}. Read it with the version that wrote it, or fit again into another store."
            )
        _check_about(place.url, about)
        return cls(place, group)

    @classmethod
    def open_or_create(cls, place: Place, about: dict[str, Any]) -> RunStore:
        """Open the run at a place, or start it there if the place is free."""
        if not place.is_occupied():
            # One write makes the group and says what it is: a run that dies here leaves nothing half-made. It
            # is exclusive: of two that start here at a time, one finds the other's.
            with speaking(place.url):
                sync(create_object(place.store(), "zarr.json", _description(about)))
        return cls.open(place)

    @classmethod
    def open_to_replace(cls, place: Place) -> RunStore:
        """Open a run store of whatever version, whole or not.

        Raises
        ------
        StoreError
            If it is none, or cannot be told to be one: what is there stays.
        """
        with speaking(place.url):
            group = _open_group(place, "r+")
            if KEY not in group.attrs:
                raise StoreError(
                    f"{place.url} is no run store, and stays as it is. Name another place, or delete it "
                    "yourself."
                )
        return cls(place, group)

    @property
    def about(self) -> dict[str, Any]:
        """What the run was started with: parameters, source, sizes, versions."""
        return dict(self.group.attrs[KEY])  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        """Where the run store is, for messages."""
        return self.place.url

    def create(self, output: Output) -> zarr.Array[Any]:
        """Create an array unless it is there, and return it."""
        return create_array(self.group, output.name, output.shape, output.chunks, output.dtype)

    def put(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Write a whole small array."""
        rows = max(1, min(len(values), PUT_BYTES // max(1, values[:1].nbytes)))
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
        return _with_empty_chunks(array)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray[Any, Any]:
        """Read the places start to stop of the array called `name`."""
        return read_range(self.array(name), start, stop)

    def free(self, items: Iterable[Item]) -> None:
        """Delete items of the schema, and remember that they are gone on purpose."""
        names = {item.name for item in items}
        if not names:
            return
        freed = self.ledger.freed()
        if names - freed:
            self.ledger.set_freed(freed | names)
        for item in items:
            if isinstance(item, Fact):
                self.documents.delete(f"{item.name}.json")
            else:
                self.documents.delete_folder(item.name)

    def replace(self, about: dict[str, Any]) -> None:
        """Let another run begin here: one write, after which nothing of the run that was here is read."""
        self.documents.save_bytes("zarr.json", _description(about))

    def clear(self) -> None:
        """Delete what other runs left here, and all else but what says that this is a run store."""
        for name in self.documents.members(""):
            if name not in KEPT:
                self._delete(name)

    def discard(self) -> None:
        """Delete the run and leave its place free.

        What says that it is a run store goes last, so that a deletion that was cut short can be repeated; and
        it is another run's first, so that what is left of this one is not read.
        """
        about = {name: value for name, value in self.about.items() if name not in ("schema", "crc32")}
        self.replace({**about, "id": uuid.uuid4().hex})
        self.clear()
        for name in reversed(KEPT):
            self._delete(name)
        with suppress(StoreError):  # a link to a folder stays, with nothing in it
            self.documents.delete_folder("")

    def _delete(self, name: str) -> None:
        if not isinstance(self.group.store, LocalStore):
            # What looks like a folder is but a common beginning there.
            self.documents.delete_folder(name)
        self.documents.delete(name)

    def check_identity(self) -> None:
        """Refuse to go on if another run has been put in this one's place since it was opened."""
        document = self.documents.load_bytes("zarr.json")
        about = json.loads(document)["attributes"][KEY] if document is not None else {}
        if about.get("id") != self.about["id"]:
            raise StoreError(f"Another run was started in {self.url} at the same time. Name another place.")


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str
) -> zarr.Array[Any]:
    """Create an array with the run store's codecs, or take the one that is there if it is this very one.

    Nothing is deleted then: another attempt at the same task may be under way, or have written all of it, as
    of a worker that was thought dead. All attempts write the same.
    """
    options: dict[str, Any] = {
        "shape": shape,
        # Chunks are stored whole: one that is larger than the array would be mostly padding.
        "chunks": tuple(max(1, min(pair)) for pair in zip(chunks, shape, strict=True)),
        "dtype": dtype,
        "compressors": [Crc32cCodec()],
        "fill_value": np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max,
    }
    with speaking(f"{name} in {group.store_path}"):
        wanted = zarr.create_array(MemoryStore(), **options).metadata
        prototype = default_buffer_prototype()
        there = sync((group.store_path / name / "zarr.json").get())
        if there is None or there.to_bytes() != wanted.to_buffer_dict(prototype)["zarr.json"].to_bytes():
            with suppress(ContainsArrayError):  # another attempt was faster
                group.create_array(name, **options, overwrite=there is not None)
        return _with_empty_chunks(group[name])


def _with_empty_chunks(array: Any) -> zarr.Array[Any]:
    """Return an array whose chunks are written also where they are full of what missing ones read as."""
    config = parse_array_config({"write_empty_chunks": True})
    return zarr.Array(AsyncArray(array.metadata, array.store_path, config))


def read_range(array: zarr.Array[Any], start: int, stop: int | None) -> np.ndarray[Any, Any]:
    """Read the places start to stop along the first dimension of one of the run store's arrays."""
    with speaking(f"{array.store_path}, rows {start} to {'the last' if stop is None else stop - 1},"):
        return np.asarray(array[start:stop])


def _description(about: dict[str, Any]) -> bytes:
    """Return the document that makes a folder a run store, and says of which run."""
    attributes = {KEY: {"schema": SCHEMA, **about, "crc32": zlib.crc32(as_text(about))}}
    content = GroupMetadata(attributes=attributes).to_buffer_dict(default_buffer_prototype())
    return content["zarr.json"].to_bytes()


def check_same(url: str, known: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a run that was started with something else.

    Raises
    ------
    RunMismatchError
        Listing each difference.
    """
    found = differences(known, now)
    if found:
        raise RunMismatchError(
            f"{url} holds another run: {'; '.join(found)}. Give the same input and parameters to "
            "continue it, name another store, or start over there with restart (--restart)."
        )


def differences(known: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return in words what of a run's description, part by part, is not what it was."""
    found = []
    for part, before in known.items():
        after = json.loads(json.dumps(now[part]))
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                found.append(f"{name} was {before.get(name)!r} and is now {after.get(name)!r}")
    return found


def _open_group(place: Place, mode: Any) -> zarr.Group:
    return zarr.open_group(place.store(), mode=mode, use_consolidated=False)


def _not_opened(url: str, error: StoreError) -> StoreError:
    """Tell a place where there is nothing from one that is out of reach or damaged."""
    if isinstance(error.__cause__, FileNotFoundError | NodeNotFoundError | NotADirectoryError):
        return StoreError(f"There is no run store at {url}. Make one with `daskumap fit SOURCE {url}`.")
    if isinstance(error.__cause__, ContainsArrayError):
        return StoreError(f"{url} is a Zarr array, not a run store. Name another place for the run.")
    return error


def _check_about(url: str, about: dict[str, Any]) -> None:
    """Refuse a description that is not the one that was written.

    Raises
    ------
    StoreError
        Naming what is wrong with it.
    """
    wrong = [name for name, kind in ABOUT.items() if not isinstance(about.get(name), kind)]
    content = {name: value for name, value in about.items() if name not in ("schema", "crc32")}
    if not wrong and about["crc32"] != zlib.crc32(as_text(content)):
        wrong = ["its checksum"]
    if not wrong and about["sizes"].keys() != {field.name for field in fields(Sizes)}:
        wrong = ["sizes, as of another version of daskumap"]
    if wrong:
        raise StoreError(
            f"The description in {url}/zarr.json is damaged: wrong are {', '.join(wrong)}. Restore it from a "
            "copy, read it with the version that wrote it, or fit again with restart."
        )
