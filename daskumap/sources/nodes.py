"""Which Zarr array or group a path, a URL or a store stands for, and how another process finds it again."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.errors import NodeNotFoundError
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from daskumap.errors import DaskumapError, SourceError, SourceNotFoundError
from daskumap.extras import missing_protocol
from daskumap.secrets import has_secrets, printable
from daskumap.sources.archives import find_archive, named, open_archive, open_chain
from daskumap.sources.base import is_numeric
from daskumap.sources.objects import comes_from
from daskumap.sources.specs import SHARED_OPTIONS
from daskumap.store.trouble import is_refusal, is_unreachable, is_url, refuse_without_asserts

LISTED = 12
# What people pass instead of Zarr, and how it becomes Zarr.
FOREIGN = {
    ".csv": ("a table of text", "Pass pandas.read_csv(path).to_numpy() instead of the path"),
    ".zip": ("a damaged zip file, or none", "Write it again, or pass the folder of a Zarr array"),
    ".nc": ("a netCDF file", "Convert it: xarray.open_dataset(path).to_zarr('data.zarr')"),
    ".pt": ("a file of torch", "Pass torch.load(path).numpy() instead of the path"),
    ".mat": ("a MATLAB file", "Pass scipy.io.loadmat(path)['name'] instead of the path"),
    ".feather": ("a Feather file", "Pass pandas.read_feather(path).to_numpy() instead of the path"),
}
FOREIGN |= dict.fromkeys(
    (".bin", ".raw", ".dat", ".f32"),
    (
        "a file",
        "If it holds plain numbers, say how: kind=raw, dtype and shape, as options of daskumap.source or "
        "--source-option",
    ),
)
FOREIGN |= {".tsv": FOREIGN[".csv"], ".arrow": FOREIGN[".feather"]}
# Files that are read as they are, with nothing inside them that a path could name.
READ = (".npy", ".npz", ".parquet", ".pq", ".h5", ".hdf5", ".fvecs", ".bvecs", ".ivecs")
FOREIGN |= dict.fromkeys(READ, ("a file of its own", "Pass the path of the file, with nothing after it"))


def is_place(data: Any) -> bool:
    """Return whether it is a path, a URL, a store of Zarr's or of obstore's, or a session of Icechunk's."""
    return isinstance(data, str | os.PathLike | Store) or _is_obstore(data) or _is_session(data)


def _is_obstore(data: Any) -> bool:
    return comes_from(data, "obstore") and hasattr(data, "get_range_async")


def _is_session(data: Any) -> bool:
    return comes_from(data, "icechunk", "Session")


def is_group(data: Any) -> bool:
    """Return whether it is a Zarr group."""
    return isinstance(data, zarr.Group)


def open_node(where: Any, storage_options: dict[str, Any] | None = None) -> zarr.Array[Any] | zarr.Group:
    """Open a path, a URL or a store read-only, as the array or group that lies there.

    Stores of obstore's and sessions of Icechunk's have their credentials; this process alone reads them, and
    a run copies their rows into its store.
    """
    if _is_session(where):
        where = where.store
    if _is_obstore(where):
        where = ObjectStore(where, read_only=True)
    if isinstance(where, Store):
        return _open(where, str(where), None)
    text = os.fspath(where)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    named = (storage_options or {}).get("fo") if text.rstrip("/") == "reference:" else None
    if isinstance(named, str):
        return open_node(named, storage_options)
    try:
        archive = find_archive(text)
        if archive is not None:
            with _saying(archive.where):
                store = open_archive(archive, storage_options or {})
            return _open(store, text, None, archive.inside)
        if is_url(text):
            if "::" in text:
                with _saying(text):
                    store = open_chain(text, storage_options or {})
                return _open(store, text, None)
            return _open(text.rstrip("/"), text, storage_options)
        path = Path(text).expanduser().resolve()
        if not path.exists():
            raise _not_found(path)
        return _open(path, str(path), None)
    except DaskumapError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, what may not be read, no path
        raise SourceError(
            f"{text!r} cannot be followed ({type(error).__name__}: {error}). Check the links and permissions "
            "on the way, or give another path."
        ) from error


def only_array(group: zarr.Group) -> zarr.Array[Any]:
    """Return the one two-dimensional numeric array of a group."""
    found, listing = list_matrices(group)
    if len(found) != 1:
        raise refuse_choice(group, len(found), listing)
    return found[0]


def list_matrices(group: zarr.Group) -> tuple[list[zarr.Array[Any]], str]:
    """Return the two-dimensional numeric arrays of a group, at any depth, and a list of them for messages."""
    refuse_without_asserts()
    try:
        # A web server lists nothing: there, only consolidated metadata knows the members.
        listed = group if group.store.supports_listing else zarr.open_group(group.store_path, mode="r")
        members = sorted(listed.members(max_depth=None), key=lambda item: item[0])
    except Exception as error:
        raise SourceError(
            f"The group {group.store_path} cannot be listed ({type(error).__name__}: {error}). "
            "Append the name of an array to the path."
        ) from printable(error)
    arrays = [(path, node) for path, node in members if isinstance(node, zarr.Array)]
    found = [(path, array) for path, array in arrays if array.ndim == 2 and is_numeric(array.dtype)]
    listing = "; ".join(f"{path} {a.shape[0]} x {a.shape[1]} {a.dtype}" for path, a in found[:LISTED])
    return [array for _, array in found], listing


def refuse_choice(group: zarr.Group, count: int, listing: str) -> SourceError:
    """Return the error for a group that does not tell which of its arrays is meant."""
    name = str(group.store_path)
    if not count:
        return SourceError(
            f"{name} is a group without a two-dimensional numeric array. Pass the path of one."
        )
    return SourceError(
        f"{name} is a group with {count} two-dimensional arrays. Append one to the path: {listing}."
    )


def node_spec(array: zarr.Array[Any] | zarr.Group) -> dict[str, Any] | None:
    """Return path or URL, and options, with which `open_node` finds an array or a group again.

    None for stores that neither describes in full, such as one in memory.
    """
    store = array.store
    inside = named(store, array.path)
    if inside is not None:
        return {"kind": "zarr", "path": inside}
    if isinstance(store, LocalStore):
        return {"kind": "zarr", "path": str((store.root / array.path).resolve())}
    if isinstance(store, FsspecStore):
        fs = getattr(store.fs, "sync_fs", store.fs)  # zarr wraps what is not asynchronous
        options = {k: v for k, v in fs.storage_options.items() if k in SHARED_OPTIONS}
        url = "/".join(part for part in (fs.unstrip_protocol(store.path), array.path) if part)
        return {"kind": "zarr", "path": url, "storage_options": options}
    return None


def _open(
    where: Any, name: str, storage_options: dict[str, Any] | None, inside: str = ""
) -> zarr.Array[Any] | zarr.Group:
    """Open with zarr, and say in our words what went wrong."""
    with _saying(name):
        try:
            # What was added after the last consolidation is invisible through consolidated metadata.
            options: Any = {"storage_options": storage_options, "use_consolidated": False}
            return zarr.open(where, mode="r", path=inside or None, **options)
        except NodeNotFoundError as error:
            raise _not_zarr(where, name, inside) from printable(error)


@contextmanager
def _saying(name: str) -> Iterator[None]:
    """Say in our words what went wrong; zarr's own warnings tell all of a URL."""
    try:
        with warnings.catch_warnings(action="ignore") if has_secrets(name) else nullcontext():
            yield
    except (DaskumapError, MemoryError):
        raise
    except ImportError as error:
        raise missing_protocol(name, error) from printable(error)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is nothing at {name}. Check the address.") from printable(error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if is_refusal(error):
            raise SourceError(
                f"{name} cannot be opened: it may not be read ({reason}). Credentials come from the "
                "environment, or from daskumap.source(url, storage_options=...)."
            ) from printable(error)
        if is_unreachable(error):
            raise SourceError(
                f"{name} cannot be opened: it is out of reach ({reason}). Check the address and the network."
            ) from printable(error)
        raise SourceError(
            f"{name} cannot be opened as Zarr ({reason}). Its metadata is damaged, it holds objects, "
            "or it needs a codec that is not installed. Check the address, or write it as plain numbers."
        ) from printable(error)


def _not_found(path: Path) -> SourceError:
    """Say what lies near a path that does not exist."""
    parent = next(folder for folder in path.parents if folder.exists())
    if parent.is_file():
        return _not_zarr(parent, str(parent))
    names = [entry.name for entry in sorted(parent.iterdir()) if not _is_plumbing(entry.name)]
    near = difflib.get_close_matches(path.relative_to(parent).parts[0], names, LISTED, 0.3) or names[:LISTED]
    listed = f"Near it, in {parent}: {', '.join(near)}." if near else f"{parent} is empty."
    return SourceNotFoundError(f"There is nothing at {path}. {listed} Check the path.")


def _not_zarr(where: Any, name: str, inside: str = "") -> SourceError:
    """Say what it looks like, and how it becomes Zarr."""
    if isinstance(where, Store) and where.supports_listing:
        there = sync(_listed(where, inside))[:LISTED]
        return SourceNotFoundError(
            f"There is no Zarr array or group at {name}. There is {', '.join(there) or 'nothing'}. Append "
            "the name of one to the path."
        )
    if not isinstance(where, Path):
        return SourceNotFoundError(f"There is no Zarr array or group at {name}. Check the address.")
    if where.is_file():
        kind, remedy = FOREIGN.get(where.suffix.lower(), ("a file", "Pass the folder of a Zarr array"))
        return SourceError(f"{name} is {kind}, not a Zarr array. {remedy}.")
    names = [entry.name for entry in sorted(where.iterdir()) if not _is_plumbing(entry.name)][:LISTED]
    return SourceError(
        f"{name} is a folder, but no Zarr array or group: it holds {', '.join(names) or 'nothing'}. "
        "Pass the folder that has a zarr.json, .zarray or .zgroup."
    )


async def _listed(store: Store, folder: str) -> list[str]:
    return sorted([name async for name in store.list_dir(folder) if not _is_plumbing(name)])


def _is_plumbing(name: str) -> bool:
    return name.startswith(".") or name in ("zarr.json", "c")
