"""Zarr groups that are at their place once they are whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from daskumap.errors import ParameterError, StoreError
from daskumap.store.places import find_place
from daskumap.store.trouble import is_url, local_path, speaking

# By it a group is known as one of ours.
MARK = "daskumap"
ROOT = "zarr.json"


@contextlib.contextmanager
def whole_group(target: Any, overwrite: bool, name: str) -> Iterator[zarr.Group]:
    """Give an empty group that is at a path or URL, consolidated, once nothing was raised.

    Parameters
    ----------
    name
        Of the array that the group is to hold; what is overwritten must hold it, and be ours.

    Raises
    ------
    ParameterError
        If something is there, unless it is ours and may be overwritten.
    StoreError
        If it cannot be written.
    """
    with (_at_url if is_url(target) else _in_folder)(target, overwrite, name) as group:
        yield group


@contextlib.contextmanager
def _in_folder(target: Any, overwrite: bool, name: str) -> Iterator[zarr.Group]:
    path = local_path(target)
    if path.exists():
        _refuse(path, zarr.storage.LocalStore(path, read_only=True), overwrite, name)
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be written: no folder {path.parent}. Make it first.")
    with speaking(path), tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        yield zarr.create_group(made, zarr_format=3)
        _consolidate(zarr.storage.LocalStore(made))
        if path.exists():
            shutil.move(path, Path(folder) / "replaced")
        os.replace(made, path)


@contextlib.contextmanager
def _at_url(target: Any, overwrite: bool, name: str) -> Iterator[zarr.Group]:
    place = find_place(target)
    with speaking(place.url):
        store = place.store()
        if place.is_occupied():
            _refuse(place.url, store, overwrite, name)
            sync(store.delete_dir(""))
        held = HeldBack(store)
        yield zarr.create_group(held, zarr_format=3)
        _consolidate(held)
        sync(held.let_go())


class HeldBack(WrapperStore[Store]):
    """A store whose root is not there for others before it is let go, so that they find no group."""

    root: Buffer | None = None

    def _with_store(self, store: Store) -> HeldBack:
        made = type(self)(store)
        made.root = self.root
        return made

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what lies under a key."""
        return self.root if key == ROOT else await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value, but keep that of the root."""
        if key == ROOT:
            self.root = value
        else:
            await super().set(key, value)

    async def exists(self, key: str) -> bool:
        """Return whether anything lies under a key."""
        return self.root is not None if key == ROOT else await super().exists(key)

    async def let_go(self) -> None:
        """Write the root."""
        if self.root is not None:
            await self._store.set(ROOT, self.root)


def _refuse(where: Any, store: Store, overwrite: bool, name: str) -> None:
    if not overwrite:
        raise ParameterError(
            f"{where} is there already. Name another place, or pass overwrite (--overwrite)."
        )
    try:
        group = zarr.open_group(store, mode="r")
        ours = MARK in group.attrs and name in group
    except Exception:  # whatever it is, it is not ours
        ours = False
    if not ours:
        raise ParameterError(f"{where} is nothing that daskumap exported, and stays. Name another place.")


def _consolidate(store: Store) -> None:
    with warnings.catch_warnings(action="ignore"):  # of zarr, that other readers may not know it
        zarr.consolidate_metadata(store, zarr_format=3)
