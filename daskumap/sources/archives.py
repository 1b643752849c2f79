"""Zarr inside of something else: a zip file, references of kerchunk's, a chain of fsspec's file systems.

A node in one of them has a path of its own, with which any process finds it again: `cube.zarr.zip/X`,
`cube.json/t2m`, `zip://X::s3://bucket/cube.zarr.zip`.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from zarr.abc.store import Store
from zarr.storage import FsspecStore, ZipStore

from daskumap.errors import SourceError
from daskumap.extras import load
from daskumap.secrets import printable
from daskumap.sources.files import expanded
from daskumap.store.places import METADATA
from daskumap.store.trouble import is_url

ZIP, REFERENCES = "zip", "references"
# What a URL ends in, or a folder above a node in it, that is no folder.
IN_URL = re.compile(r"(?P<file>.+?\.(?:zip|json|parq))(?:/(?P<inside>.*))?")
# The same as fsspec writes it.
REFERENCE = re.compile(r"reference(?:://(?P<inside>[^:]*))?::(?P<where>.+)")
# File systems that pass on the path of the one behind them.
PASSING = ("blockcache", "filecache", "simplecache")
# Metadata of a folder of references in parquet, which has them beside how many rows a file holds.
LAZY = ".zmetadata"


class Archive(NamedTuple):
    """Where it is, of which kind, and the path of the node inside."""

    where: str
    kind: str
    inside: str


class Inside(FsspecStore):
    """A store behind fsspec whose own address does not say where it is.

    Attributes
    ----------
    where
        What the caller calls it.
    """

    where: str = ""

    def __str__(self) -> str:
        return self.where


class References(Inside):
    """What references describe; fsspec lists them as files of a folder that zarr does not find."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return what is referred to. Those in parquet fail at names that Zarr 2 does not have."""
        if key.endswith("zarr.json") and not (self.supports_listing and key in self.fs.references):
            return None
        return await super().get(key, prototype, byte_range)

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names that are referred to."""
        for name in list(self.fs.references):
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield what is referred to in a folder."""
        folder, seen = f"{prefix.strip('/')}/".lstrip("/"), set[str]()
        async for name in self.list_prefix(folder):
            seen.add(name[len(folder) :].partition("/")[0])
        for name in seen:
            yield name


def find_archive(text: str) -> Archive | None:
    """Return the archive that a path or a URL leads into; None for all else, such as a chain."""
    if is_url(text) or "::" in text:
        chain = REFERENCE.fullmatch(text)
        if chain is not None:
            return Archive(chain["where"], REFERENCES, (chain["inside"] or "").strip("/"))
        address, _, query = text.partition("?")
        found = None if "::" in text else IN_URL.fullmatch(address.rstrip("/"))
        if found is None or found["file"].endswith("/zarr.json"):
            return None
        kind = ZIP if found["file"].endswith(".zip") else REFERENCES
        return Archive(found["file"] + (query and f"?{query}"), kind, found["inside"] or "")
    path = expanded(text).resolve()
    for outer in (path, *path.parents):
        inner = _kind_of(outer)
        if inner is not None:
            inside = path.relative_to(outer).as_posix()
            return Archive(str(outer), inner, "" if inside == "." else inside)
    return None


def is_references(data: Any) -> bool:
    """Return whether a path is that of references in a folder of parquet."""
    return _kind_of(expanded(data)) == REFERENCES


def _kind_of(path: Path) -> str | None:
    try:
        if path.is_dir():
            lazy = (path / LAZY).is_file() and "record_size" in json.loads((path / LAZY).read_bytes())
            return REFERENCES if lazy else None
        if path.suffix == ".json" and path.is_file():
            return REFERENCES if path.name != "zarr.json" else None
        return ZIP if path.suffix == ".zip" and zipfile.is_zipfile(path) else None
    except (OSError, ValueError, TypeError):  # whoever opens it says what is wrong
        return None


def open_archive(archive: Archive, options: dict[str, Any]) -> Store:
    """Return the store in an archive, read-only.

    Parameters
    ----------
    options
        Of references those of fsspec's reference file system, such as `remote_protocol`, `remote_options` and
        `target_options`; of a zip file behind a URL those of that URL's file system.

    Raises
    ------
    SourceError
        If it is none.
    DependencyError
        If a package is missing.
    """
    if archive.kind == ZIP:
        if is_url(archive.where):
            protocol = archive.where.partition("://")[0]
            return _chain(f"zip://::{archive.where}", archive.where, {protocol: options} if options else {})
        return ZipStore(archive.where, mode="r")
    return _references(archive.where, options)


def open_chain(url: str, options: dict[str, Any]) -> Store:
    """Return the store that a chain such as "simplecache::https://host/x.zarr" leads to, read-only."""
    return _chain(url, url, options)


def _references(where: str, options: dict[str, Any]) -> Store:
    """Return the store that references describe: those of a JSON file at once, those in parquet as needed."""
    fsspec = load("fsspec", "remote", "Reading references of kerchunk's")
    # The file system of what is referred to has to wait as this one does, or fsspec refuses both.
    given = {**options, "remote_options": {"asynchronous": True, **options.get("remote_options", {})}}
    given.pop("fo", None)
    try:
        if _is_lazy(where):
            fs = fsspec.filesystem("reference", fo={}, asynchronous=True, **_protocol(where, given))
            fs.references = _lazy(where, given)
        else:
            fs = fsspec.filesystem("reference", fo=where, asynchronous=True, **given)
        if not any(name.endswith(METADATA) for name in fs.references):
            raise ValueError("no array or group is among them")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{where} holds no references of kerchunk's ({type(error).__name__}: {error}). Pass the file "
            "that kerchunk wrote, or the folder of a Zarr array."
        ) from printable(error)
    store = References(fs=fs, path="", read_only=True)
    store.where = where
    # References in parquet name all chunks there could be.
    store.supports_listing = not _is_lazy(where)
    return store


def _is_lazy(where: str) -> bool:
    return where.rstrip("/").endswith(".parq") if is_url(where) else Path(where).is_dir()


def _lazy(where: str, options: dict[str, Any]) -> Any:
    """Return references in parquet, read by the library that the extra has: fsspec's default is another."""
    load("pandas", "tables", "Reading references in parquet")
    load("pyarrow", "tables", "Reading references in parquet")
    fsspec = load("fsspec", "remote", "Reading references of kerchunk's")
    from fsspec.implementations.reference import LazyReferenceMapper

    fs, path = fsspec.core.url_to_fs(where, **options.get("target_options", {}))
    return LazyReferenceMapper(path, fs=fs, engine="pyarrow")


def _protocol(where: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the protocol of what is referred to: as given, or that of the first place."""
    if options.get("remote_protocol"):
        return options
    protocol, separator, _ = _first_place(_lazy(where, options)).partition("://")
    return {**options, "remote_protocol": protocol if separator else "file"}


def _first_place(references: Any) -> str:
    """Return the first file that is referred to; some names may have no reference."""
    for name in references:
        with suppress(KeyError, FileNotFoundError):
            found = references[name]
            if isinstance(found, list) and found[0]:
                return str(found[0])
    return ""


def _chain(url: str, where: str, options: dict[str, Any]) -> Store:
    """Return the store that a chain leads to; each part waits by itself, as some cannot do otherwise."""
    fsspec = load("fsspec", "remote", "Reading through a chain of file systems")
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    fs, path = fsspec.core.url_to_fs(url, **options)
    store = Inside(fs=AsyncFileSystemWrapper(fs, asynchronous=True), path=path, read_only=True)
    store.where = where
    return store


def named(store: Store, inside: str) -> str | None:
    """Return the path or URL of a node in an archive; None where the store is of none."""
    if isinstance(store, ZipStore):  # The file of one that is written to is not whole.
        return str(Path(store.path).resolve() / inside) if store.read_only else None
    if not isinstance(store, Inside):
        return None
    if "::" in store.where:
        return _in_chain(store.where, inside)
    address, mark, query = store.where.partition("?")
    return "/".join(part for part in (address, inside) if part) + mark + query


def _in_chain(chain: str, inside: str) -> str:
    """Return the chain that leads to a node below where another one leads."""
    parts = chain.split("::")
    place = next((number for number, part in enumerate(parts) if part not in PASSING), 0)
    address = parts[place] if "://" in parts[place] or place == len(parts) - 1 else f"{parts[place]}://"
    if inside:
        parts[place] = f"{address}{'' if address.endswith('/') else '/'}{inside}"
    return "::".join(parts)
