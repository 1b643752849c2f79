"""The run store: one Zarr group that holds everything one run made.

Arrays are uncompressed with a crc32c per chunk: their size on disk is known before the run, they are read at
the speed of memory, and a flipped bit is an error. Zarr's default zstd has no checksum. `store.arrays` makes
and opens them.
"""

from __future__ import annotations

import json
import logging
import uuid
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import zarr
from zarr.core.sync import sync
from zarr.storage import LocalStore

from daskumap.errors import DaskumapError, RunMismatchError, StoreError
from daskumap.planning.stage import Output
from daskumap.secrets import has_secrets
from daskumap.store.arrays import GROUP, KEY, ArrayStore, create_array, open_array, read_json
from daskumap.store.chunks import read_rows, write_rows
from daskumap.store.documents import Documents, as_text, create_object
from daskumap.store.formats import LACKING, SCHEMA, as_now
from daskumap.store.ledger import Ledger
from daskumap.store.places import Place, find_place
from daskumap.store.schema import Fact, Item
from daskumap.store.trouble import speaking

log = logging.getLogger(__name__)

# What stays where another run begins: what makes it a run store, and who has it.
KEPT = ("zarr.json", "generations", "lock")
# In place of all else where a copy is not whole: what it is a copy of.
COPY_OF = "copy_of"
# Bytes of a chunk of an array that a task creates itself.
PUT_BYTES = 1 << 22


class RunStore:
    """Reads and writes one run's arrays. Cheap to open; holds no data.

    Attributes
    ----------
    place
        Where it lies.
    arrays
        What its arrays are made in and read from.
    documents, ledger
        What it holds beside arrays.
    """

    def __init__(self, place: Place, about: dict[str, Any], read_only: bool = False) -> None:
        self.place, self._about = place, about
        store = place.store().with_read_only(True) if read_only else place.store()
        self.arrays = ArrayStore(store, str(about.get("id", "")))
        self.documents = Documents(store, "", place.url)
        self.ledger = Ledger(self.documents, self.arrays.run)

    @classmethod
    def open(cls, place: Place, mode: str = "r+") -> RunStore:
        """Open the run store at a place.

        Raises
        ------
        StoreError
            If nothing is there, it is not a run store, or another version of daskumap wrote it.
        """
        about = _read_about(place)
        if _is_cut_short(about):
            raise StoreError(
                f"{place.url} is a copy of {about[COPY_OF]} that is not whole: whoever wrote it is at work, "
                f"or was stopped. Save it again: daskumap save {about[COPY_OF]} {place.url}"
            )
        if not isinstance(about, dict) or "schema" not in about:
            raise StoreError(
                f"{place.url} is a Zarr group but not a run store. Name another place for the run."
            )
        return cls(place, as_now(place.url, about), read_only=mode == "r")

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
    def begin_copy(cls, place: Place, about: dict[str, Any], url: str) -> RunStore:
        """Begin a copy of the run at `url`, which nobody takes for whole until `replace` says so.

        Raises
        ------
        StoreError
            If anything else than a copy that is not whole is there.
        """
        if place.is_occupied() and not _holds_cut_copy(place):
            raise StoreError(f"{place.url} holds something already. Name another place for the copy.")
        store = cls(place, about)
        store.documents.save_bytes("zarr.json", _group({COPY_OF: url}))
        return store

    @classmethod
    def open_to_replace(cls, place: Place) -> RunStore:
        """Open a run store of whatever version, whole or not.

        Raises
        ------
        StoreError
            If it is none, or cannot be told to be one: what is there stays.
        """
        about = _read_about(place)
        if about is None:
            raise StoreError(
                f"{place.url} is no run store, and stays as it is. Name another place, or delete it yourself."
            )
        return cls(place, about if isinstance(about, dict) else {})

    @property
    def about(self) -> dict[str, Any]:
        """What the run was started with: parameters, source, sizes, versions."""
        return dict(self._about)

    @property
    def lacking(self) -> frozenset[str]:
        """Names of facts that it lacks, as an earlier version wrote it."""
        return LACKING.get(self._about.get("schema", SCHEMA), frozenset())

    @property
    def url(self) -> str:
        """Where the run store is, for messages."""
        return self.place.url

    def create(self, output: Output) -> zarr.Array[Any]:
        """Create an array unless it is there, and return it."""
        return create_array(self.arrays, output.name, output.shape, output.chunks, output.dtype)

    def put(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Write a whole small array."""
        rows = max(1, min(len(values), PUT_BYTES // max(1, values[:1].nbytes)))
        array = create_array(self.arrays, name, values.shape, (rows, *values.shape[1:]), str(values.dtype))
        with speaking(f"{name} in {self.url}"):
            write_rows(array, (0,), values)

    def has(self, name: str) -> bool:
        """Return whether an array or exchange is there, whole or not."""
        return self.documents.load_bytes(f"{name}/zarr.json") is not None

    def array(self, name: str) -> zarr.Array[Any]:
        """Return the array called `name`."""
        try:
            with speaking(f"{name} in {self.url}"):
                return open_array(self.arrays, name)
        except StoreError as error:
            if not isinstance(error.__cause__, KeyError):
                raise
            raise StoreError(
                f"{name} is missing in {self.url}. Run `daskumap verify --repair`, then `daskumap resume`."
            ) from error

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
        if not isinstance(self.documents.store, LocalStore):
            # What looks like a folder is but a common beginning there.
            self.documents.delete_folder(name)
        self.documents.delete(name)

    def check_identity(self) -> None:
        """Refuse to go on if another run has been put in this one's place since it was opened."""
        document = self.documents.load_bytes("zarr.json")
        about = json.loads(document)["attributes"][KEY] if document is not None else {}
        if about.get("id") != self.about["id"]:
            raise StoreError(f"Another run was started in {self.url} at the same time. Name another place.")


def read_range(array: zarr.Array[Any], start: int, stop: int | None) -> np.ndarray[Any, Any]:
    """Read the places start to stop along the first dimension of one of the run store's arrays."""
    with speaking(f"{array.store_path}, rows {start} to {'the last' if stop is None else stop - 1},"):
        return read_rows(array, start, stop)


def _description(about: dict[str, Any]) -> bytes:
    """Return the document that makes a folder a run store, and says of which run."""
    return _group({"schema": SCHEMA, **about, "crc32": zlib.crc32(as_text(about))})


def _group(about: dict[str, Any]) -> bytes:
    return json.dumps({**GROUP, "attributes": {KEY: about}}, indent=1).encode()


def _holds_cut_copy(place: Place) -> bool:
    try:
        return _is_cut_short(_read_about(place))
    except StoreError:  # Whatever is there, it is none.
        return False


def _is_cut_short(about: Any) -> bool:
    return isinstance(about, dict) and COPY_OF in about


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


def is_run_store(where: Any) -> bool:
    """Return whether a run store lies at a path or URL; what cannot be read is none."""
    if has_secrets(str(where)):
        return False  # That of a run store has none.
    try:
        return _read_about(find_place(where)) is not None
    except DaskumapError:
        return False


def _read_about(place: Place) -> Any:
    """Return what the group at a place says of its run; None if it is no run store.

    Raises
    ------
    StoreError
        If there is no group, or one that cannot be read.
    """
    try:
        with speaking(place.url):
            found = read_json(place.store().with_read_only(True), "")
            if found is not None and found["zarr_format"] == 3 and found["node_type"] == "group":
                return found.get("attributes", {}).get(KEY)
    except StoreError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise
        found = None
    if found is not None:
        raise StoreError(f"{place.url} is a Zarr array, not a run store. Name another place for the run.")
    if place.is_occupied():
        raise StoreError(
            f"{place.url} holds something, and it is no run store. Name another place for the run, or delete "
            "what is there yourself."
        )
    raise StoreError(
        f"There is no run store at {place.url}. Make one with `daskumap fit SOURCE {place.url}`."
    )
