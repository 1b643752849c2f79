"""Where a run store lies: in a folder, at a URL, or in a Zarr store that the caller holds.

What only makes sense for one of them belongs here: locks, free space, what dead writers left.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from zarr.abc.store import Store
from zarr.core.buffer import Buffer, cpu
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from daskumap.errors import ParameterError, StoreError
from daskumap.secrets import has_secrets
from daskumap.store.trouble import is_url, local_path, refuse_without_asserts, speaking

# What another process wrote has to be seen, so listings are not kept.
URL_OPTIONS = {"use_listings_cache": False}
# s3fs would ask for the size of each object before it reads it, to read a large one in parts at once.
S3_OPTIONS = {"max_concurrency": 1}
# What makes a folder a node of Zarr, v3 or v2.
METADATA = ("zarr.json", ".zgroup", ".zarray")


class Place(Protocol):
    """Where a run store is or will be.

    Attributes
    ----------
    url
        Path, URL or description, for messages and for other processes.
    shared
        Whether other processes reach it.
    storage_options
        What the caller gave to reach it, passwords too; they stay in memory.
    """

    url: str
    shared: bool
    storage_options: Mapping[str, Any]

    def store(self) -> Store:
        """Return the Zarr store that begins here."""
        ...

    def is_occupied(self) -> bool:
        """Return whether anything is here, a run store or not."""
        ...

    def free_bytes(self) -> int | None:
        """Return the bytes that are free here, None where that has no meaning."""
        ...

    def sweep(self) -> None:
        """Delete what writes that were cut short have left beside their targets."""
        ...


class Folder:
    """A folder of this machine."""

    shared = True
    storage_options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def store(self) -> Store:
        """Return the Zarr store that begins here."""
        return LocalStore(self.path)

    def is_occupied(self) -> bool:
        """Return whether anything is here.

        Raises
        ------
        StoreError
            If it is no folder.
        """
        with speaking(self.url):
            if (self.path.exists() or self.path.is_symlink()) and not self.path.is_dir():
                raise StoreError(
                    f"{self.url} is a file or a link to nowhere. Name a folder that does not exist yet for "
                    "the run."
                )
            return self.path.exists() and any(self.path.iterdir())

    def free_bytes(self) -> int | None:
        """Return the bytes that are free on the disk of the folder."""
        folder = self.path
        with speaking(self.url):
            while not folder.exists():
                folder = folder.parent
        return shutil.disk_usage(folder).free

    def sweep(self) -> None:
        """Delete the temporary files of writes that were cut short."""
        with speaking(self.url):
            for path in self.path.rglob("*.partial"):
                path.unlink(missing_ok=True)


class Url:
    """What fsspec reaches. A pickle of it has no options: whoever opens it has credentials of their own."""

    shared = True

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.url = url
        self.storage_options: Mapping[str, Any] = dict(storage_options or {})

    def __repr__(self) -> str:
        return f"<place {self.url}>"

    def __reduce__(self) -> tuple[type[Url], tuple[str]]:
        return Url, (self.url,)

    def store(self) -> Store:
        """Return the Zarr store that begins here."""
        return self.below("")

    def below(self, end: str, read_only: bool = False) -> Store:
        """Return the Zarr store that begins at another URL of the same file system, or here."""
        own = S3_OPTIONS if self.url.startswith(("s3://", "s3a://")) else {}
        options = {**URL_OPTIONS, **own, **self.storage_options}
        return FsspecStore.from_url(end or self.url, storage_options=options, read_only=read_only)

    def is_occupied(self) -> bool:
        """Return whether anything is here."""
        with speaking(self.url):
            return _has_members(self.store())

    def free_bytes(self) -> int | None:
        """Return None: buckets have no end."""
        return None

    def sweep(self) -> None:
        """Do nothing: an object is there whole or not at all."""


class Held:
    """A Zarr store that only this process has, such as one in memory."""

    shared = False
    storage_options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, store: Store) -> None:
        self._store, self.url = store, str(store)

    def store(self) -> Store:
        """Return the store."""
        return self._store

    def is_occupied(self) -> bool:
        """Return whether anything is here."""
        with speaking(self.url):
            return _has_members(self._store)

    def free_bytes(self) -> int | None:
        """Return None: what it can hold is the caller's knowledge."""
        return None

    def sweep(self) -> None:
        """Do nothing."""


class Memory(Held):
    """Memory of this process; a pickle has the bytes of what lies there, under their names."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self._buffers: dict[str, Buffer] = {
            key: cpu.Buffer.from_bytes(value) for key, value in (contents or {}).items()
        }
        super().__init__(MemoryStore(self._buffers))

    def __reduce__(self) -> tuple[type[Memory], tuple[dict[str, bytes]]]:
        return Memory, ({key: value.to_bytes() for key, value in self._buffers.items()},)


class Temporary(Folder):
    """A folder that goes with its run, so that nothing may refer to it that lives longer."""

    def __reduce__(self) -> Any:
        raise StoreError(
            f"The run in {self.url} is in a temporary folder, which a pickle of it would outlive. Fit with a "
            "place of your own: run='run.zarr'."
        )


def find_place(run: Any, storage_options: Mapping[str, Any] | None = None) -> Place:
    """Return the place that a path, a URL or a Zarr store means; memory for None.

    Parameters
    ----------
    storage_options
        Of a URL.

    Raises
    ------
    ParameterError
        If it is none of these.
    ProcessError
        If this process cannot read a run store anywhere.
    """
    refuse_without_asserts()
    if isinstance(run, Folder | Url | Held):
        return run
    if run is None:
        return Memory()
    if isinstance(run, LocalStore):
        return Folder(Path(run.root).absolute())
    if isinstance(run, Store):
        return Held(run)
    if hasattr(run, "shape") or isinstance(run, list | tuple):
        raise ParameterError(
            f"run is a {type(run).__name__}; it must be the place of a run store, such as 'run.zarr'. Labels "
            "are not taken, and rows come first: daskumap.fit(data, 'run.zarr')."
        )
    if not isinstance(run, str | Path):
        known = " Pass its run_." if hasattr(run, "run_") else ""
        raise ParameterError(
            f"run is a {type(run).__name__}; it must be the path or URL of a run store, or a Zarr store."
            f"{known}"
        )
    if has_secrets(str(run)):
        raise ParameterError(
            f"The URL {run} of the run store has a password or a token, which would be told to whoever sees "
            "where the run is. Leave it out, and give it by the environment or fsspec's configuration."
        )
    return Url(str(run).rstrip("/"), storage_options) if is_url(run) else Folder(local_path(run))


def place(url: str, storage_options: Mapping[str, Any] | None = None) -> Place:
    """Return the place of a run store in a bucket, with what its file system is told.

    It is taken wherever a run store is named: by `fit`, `train`, `transform`, `open`, `resume`, `verify` and
    `save`. Without options there is no need for it: credentials come from the environment then, or from
    fsspec's configuration, of each process.

    Parameters
    ----------
    url
        Such as "s3://bucket/run.zarr".
    storage_options
        Those of fsspec's file system for the protocol, such as `key`, `secret` and `endpoint_url` of s3fs.
        They go to the workers of a cluster with the tasks, and into no store, log, message or pickle.

    Raises
    ------
    ParameterError
        If it is no URL, or has a password.
    """
    found = find_place(url, storage_options)
    if not isinstance(found, Url):
        raise ParameterError(f"{url!r} is no URL, which alone has storage_options. Pass the path as it is.")
    return found


def find_enclosing(place: Place) -> str | None:
    """Return the outermost Zarr array or group that a place lies in; None if it lies in none."""
    if isinstance(place, Folder):
        parents = [str(path) for path in place.path.resolve().parents]
    elif isinstance(place, Url):
        scheme, _, address = place.url.partition("://")
        parts = address.split("/")
        parents = [f"{scheme}://{'/'.join(parts[:end])}" for end in range(len(parts) - 1, 0, -1)]
    else:
        parents = []
    return next((parent for parent in reversed(parents) if _is_node(parent, place)), None)


def holds_anndata(place: Place) -> bool:
    """Return whether an AnnData lies at a place; what may not be looked at is none."""
    if not isinstance(place, Folder | Url):
        return False
    with suppress(Exception):  # whoever writes there is told what is wrong
        store = place.store().with_read_only(True)
        for name in ("zarr.json", ".zattrs"):
            found = sync(store.get(name, prototype=cpu.buffer_prototype))
            known = {} if found is None else json.loads(found.to_bytes())
            # A run of one names it too, elsewhere in its document.
            attributes = known.get("attributes", {}) if name == "zarr.json" else known
            if attributes.get("encoding-type") == "anndata":
                return True
    return False


def _is_node(where: str, place: Place) -> bool:
    """Return whether a Zarr array or group begins at a path or URL; what may not be looked at is none."""
    with suppress(Exception):  # whoever writes there is told what is wrong
        if not isinstance(place, Url):
            return any(Path(where, name).exists() for name in METADATA)
        store = place.below(where, read_only=True)
        return any(sync(store.exists(name)) for name in METADATA)
    return False


def _has_members(store: Store) -> bool:
    async def first() -> bool:
        async for _ in store.list_dir(""):
            return True
        return False

    return sync(first())
