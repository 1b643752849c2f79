"""Small documents beside the arrays of a run store, each written at once and with a checksum."""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Coroutine
from errno import ENOENT, ENOTEMPTY
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from daskumap.errors import StoreError
from daskumap.store.calls import call, read
from daskumap.store.trouble import speaking

log = logging.getLogger(__name__)

# A folder in which files come and go, as those of a driver that was taken for dead, is deleted again after
# these pauses: 4 s in all, and whoever writes late writes what one task makes.
PAUSES = tuple(0.001 * 2**attempt for attempt in range(12))


class Documents:
    """Reads and writes documents below one place of a Zarr store."""

    def __init__(self, store: Store, root: str, url: str) -> None:
        self.store, self.root, self.url = store, root, url

    def save(self, name: str, value: Any) -> None:
        """Write JSON types, at once, with a checksum."""
        self.save_bytes(f"{name}.json", sealed(value))

    def create(self, name: str, value: Any) -> None:
        """Write a document unless there is one: of several who try, the first one's stays."""
        self._call(create_object(self.store, self._key(f"{name}.json"), sealed(value)), name)

    def load(self, name: str) -> Any:
        """Return a document's content; None where there is none, or where its checksum says it is damaged."""
        content = self.load_bytes(f"{name}.json")
        if content is None:
            return None
        try:
            document = json.loads(content)
            intact = document["crc32"] == zlib.crc32(as_text(document["content"]))
        except (ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            log.warning("%s in %s is damaged and counts as missing.", name, self.url)
            return None
        return document["content"]

    def save_bytes(self, name: str, value: bytes) -> None:
        """Write a small file, at once."""
        buffer = default_buffer_prototype().buffer.from_bytes(value)
        self._call(self.store.set(self._key(name), buffer), name)

    def load_bytes(self, name: str) -> bytes | None:
        """Return a small file; None where there is none."""
        with speaking(f"{name} in {self.url}"):
            return read(self.store, self._key(name))

    def numbers(self, folder: str) -> list[int]:
        """Return the numbers that name the documents of a folder, ascending."""
        names = (name.removesuffix(".json") for name in self.members(folder) if name.endswith(".json"))
        return sorted(int(name) for name in names if name.isdigit())

    def members(self, folder: str) -> list[str]:
        """Return what a folder holds."""
        found: list[str] = self._call(_list(self.store, self._key(folder)), folder)
        return found

    def below(self, folder: str) -> list[str]:
        """Return the names of all files below a folder."""
        found: list[str] = self._call(_list_below(self.store, f"{self._key(folder)}/"), folder)
        return found

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file below this place, by name."""
        with speaking(self.url):
            return sync(_sizes(self.store, self._key("")))

    def delete(self, name: str) -> None:
        """Delete a file that may be there."""
        self._call(self.store.delete(self._key(name)), name)

    def delete_folder(self, name: str) -> None:
        """Delete a folder that may be there, with all that it holds; late tasks may write there meanwhile."""
        for pause in (*PAUSES, None):
            try:
                self._call(self.store.delete_dir(self._key(name)), name)
                break
            except StoreError as error:
                if pause is None or getattr(error.__cause__, "errno", None) not in (ENOENT, ENOTEMPTY):
                    raise
                time.sleep(pause)

    def _call(self, coroutine: Coroutine[Any, Any, Any], name: str) -> Any:
        with speaking(f"{name} in {self.url}"):
            return call(self.store, coroutine)

    def _key(self, name: str) -> str:
        return f"{self.root}/{name}" if self.root and name else name or self.root


def as_text(value: Any) -> bytes:
    """Return JSON types as the text that checksums are made of."""
    return json.dumps(value, sort_keys=True).encode()


def sealed(value: Any) -> bytes:
    """Return a document with its checksum."""
    document = {"content": value, "crc32": zlib.crc32(as_text(value))}
    # An item a line. With an indent, Python's own encoder would take as long as all else about a document.
    return json.dumps(document, separators=(",\n", ": ")).encode()


async def _list(store: Store, prefix: str) -> list[str]:
    return [name async for name in store.list_dir(prefix)]


async def _list_below(store: Store, prefix: str) -> list[str]:
    return [name async for name in store.list_prefix(prefix)]


async def _sizes(store: Store, root: str) -> dict[str, int]:
    prefix = f"{root}/" if root else ""
    if isinstance(store, FsspecStore):  # One listing says all; zarr asks for each object.
        base = f"{store.path}/{prefix}"
        found = await store.fs._find(base.rstrip("/"), detail=True)
        return {name.removeprefix(base): int(about["size"]) for name, about in found.items()}
    names = [name async for name in store.list_prefix(prefix)]
    return {name.removeprefix(prefix): await store.getsize(name) for name in names}


async def create_object(store: Store, key: str, value: bytes) -> None:
    """Write an object unless there is one, in one step where the store can: zarr's own looks first."""
    if isinstance(store, FsspecStore):
        try:
            await store.fs._pipe_file(f"{store.path}/{key}", value, mode="create")
        except FileExistsError:
            return
        except (NotImplementedError, TypeError):  # Some file systems know no mode.
            pass
        else:
            return
    await store.set_if_not_exists(key, default_buffer_prototype().buffer.from_bytes(value))
