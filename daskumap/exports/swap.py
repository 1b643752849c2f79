"""New elements of an AnnData in Zarr: made beside it, and put in their places at once.

Whoever kills this at any moment finds of each element the old one or the new one, or none where it has
another shape than the old one had: never a mixture.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import cpu
from zarr.core.sync import sync
from zarr.storage import LocalStore

from daskumap.errors import NO_SPACE, StoreError
from daskumap.extras import load
from daskumap.store.trouble import is_url

# Of a chunk of the map: 1 MB in two dimensions.
CHUNK_ROWS = 1 << 17
# Documents that make a node: they go last, so that no node is there before its chunks.
DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
EXCHANGE = 2  # RENAME_EXCHANGE of Linux


def put_elements(target: Any, elements: dict[str, Any]) -> None:
    """Write elements into an AnnData in Zarr, by path, such as obsm/X_umap; what is there is replaced.

    Metadata are consolidated again where they were.

    Raises
    ------
    StoreError
        If it cannot be written: then what is there is as it was.
    """
    with quiet(), _speaking(target):
        root = zarr.open_group(target, mode="r+", use_consolidated=False)
        local = isinstance(root.store, LocalStore)
        folder = Path(root.store.root, root.path).resolve() if local else None  # type: ignore[attr-defined]
        made = (
            tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent) if folder else tempfile.mkdtemp()
        )
        try:
            _write(Path(made), elements, root.metadata.zarr_format)
            _make_parts(root, elements)
            consolidated = _consolidated(root)
            if consolidated is not None and any(key in root for key in elements):
                _hide(root, list(elements), consolidated)
            for number, key in enumerate(elements):
                if folder is not None:
                    _exchange(Path(made, str(number)), folder / key)
                else:
                    _upload(Path(made, str(number)), root.store, "/".join(filter(None, (root.path, key))))
            if consolidated is not None:
                zarr.consolidate_metadata(root.store, path=root.path or None)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _write(folder: Path, elements: dict[str, Any], zarr_format: Any) -> None:
    """Write elements as anndata does, numbered, in a group of the same version."""
    anndata = load("anndata", "anndata", "An AnnData")
    beside = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    for number, element in enumerate(elements.values()):
        options = {}
        if isinstance(element, np.ndarray):
            options = {"dataset_kwargs": {"chunks": (min(CHUNK_ROWS, len(element)), element.shape[1])}}
        anndata.io.write_elem(beside, str(number), element, **options)


def _make_parts(root: zarr.Group, elements: dict[str, Any]) -> None:
    """Make obsm, obsp and uns where an AnnData lacks them."""
    anndata = load("anndata", "anndata", "An AnnData")
    for part in sorted({key.partition("/")[0] for key in elements}):
        if part not in root:
            anndata.io.write_elem(root, part, {})


def _consolidated(root: zarr.Group) -> dict[str, Any] | None:
    """Return the document with consolidated metadata; None where there are none."""
    found = _load(root, "zarr.json" if root.metadata.zarr_format == 3 else ".zmetadata")
    if found is None or (root.metadata.zarr_format == 3 and not found.get("consolidated_metadata")):
        return None
    return found


def _load(root: zarr.Group, name: str) -> dict[str, Any] | None:
    path = "/".join(filter(None, (root.path, name)))
    found = sync(root.store.get(path, prototype=cpu.buffer_prototype))
    return None if found is None else dict(json.loads(found.to_bytes()))


def _hide(root: zarr.Group, keys: list[str], document: dict[str, Any]) -> None:
    """Take elements out of consolidated metadata, so that no reader takes new chunks by the old metadata."""
    inline = root.metadata.zarr_format == 3
    known = document["consolidated_metadata"]["metadata"] if inline else document["metadata"]
    gone = [name for name in known if any(name == key or name.startswith(f"{key}/") for key in keys)]
    for name in gone:
        del known[name]
    if inline:
        for key in keys:  # zarr lists members of each group once more within it
            part, name = key.split("/")
            within = (known.get(part) or {}).get("consolidated_metadata") or {}
            for inner in list(within.get("metadata", {})):
                if inner == name or inner.startswith(f"{name}/"):
                    del within["metadata"][inner]
    path = "/".join(filter(None, (root.path, "zarr.json" if inline else ".zmetadata")))
    sync(root.store.set(path, cpu.Buffer.from_bytes(json.dumps(document).encode())))


def _exchange(made: Path, place: Path) -> None:
    """Put a folder in its place; what was there goes to where the new one was made."""
    _put_on_disk(made)
    if not place.exists():
        os.rename(made, place)
    elif not _swap(made, place):
        aside = made.with_name(f"{made.name}-old")
        os.rename(place, aside)
        os.rename(made, place)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two folders at once, which Linux can on most file systems; return whether it did."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        here = -100  # AT_FDCWD: paths are what they are
        done = libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), EXCHANGE)
        return bool(done == 0)
    return False


def _put_on_disk(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _upload(made: Path, store: Store, key: str) -> None:
    """Copy a folder to where there are no folders: chunks first, what makes them a node last."""
    sync(store.delete_dir(key))
    files = sorted((path for path in made.rglob("*") if path.is_file()), key=_last)
    for path in files:
        name = f"{key}/{path.relative_to(made).as_posix()}"
        sync(store.set(name, cpu.Buffer.from_bytes(path.read_bytes())))


def _last(path: Path) -> tuple[bool, int]:
    """Sort documents after chunks, and the outermost last."""
    return path.name in DOCUMENTS, -len(path.parts)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let zarr and anndata say nothing of versions to come, which is for those who call them."""
    with warnings.catch_warnings(action="ignore"):
        yield


@contextlib.contextmanager
def _speaking(target: Any) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        what = "the disk is full" if error.errno in NO_SPACE else f"{type(error).__name__}: {error}"
        help_ = "Check the address and the permissions." if is_url(target) else "Check space and permissions."
        raise StoreError(f"The map cannot be written into {target} ({what}). {help_}") from error
