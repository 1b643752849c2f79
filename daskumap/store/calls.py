"""Calls of a Zarr store, without an event loop where there is nothing to wait for.

zarr runs each call in a thread of its own, and each on a file in one more: a tenth of a millisecond for what
takes a hundredth. A small fit makes hundreds of them.
"""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, WrapperStore

T = TypeVar("T")

# Stores whose coroutines end without having waited; a class of somebody else's that derives from one may not.
AT_ONCE: set[type[Store]] = {MemoryStore}


def call(store: Store, coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine of a store returns."""
    if type(_innermost(store)) not in AT_ONCE:
        return sync(coroutine)
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise RuntimeError(f"A coroutine of {store} waits.")


def read(store: Store, key: str) -> bytes | None:
    """Return what lies under a key, None where nothing does."""
    inner = _innermost(store)
    if type(inner) is LocalStore:
        try:
            return Path(inner.root, key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
    found = call(store, store.get(key, default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def _innermost(store: Store) -> Store:
    while isinstance(store, WrapperStore):
        store = store._store
    return store
