"""Any input as Zarr: written once, for inputs of which a few rows cost as much as many."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import zarr

from daskumap.errors import NO_SPACE, ParameterError, SourceError, StoreError
from daskumap.secrets import hide_secrets, printable
from daskumap.sources.base import Source
from daskumap.sources.converted import is_converted, write_converted
from daskumap.sources.files import as_path
from daskumap.sources.find import find
from daskumap.store.trouble import is_url


def convert(data: Any, out: Any, *, overwrite: bool = False, **options: Any) -> Source:
    """Write the rows of any input, and their labels, as a Zarr group, which is an input of a fit.

    Rows stream through memory once. They keep their type and order, so that a map of the group is that of the
    input, bit for bit. It pays where a few rows cost as much as many: compressed files, large row groups of
    parquet, text.

    Parameters
    ----------
    data
        As of `daskumap.fit`.
    out
        Path or URL of the group. A folder appears under its name once it is whole.
    overwrite
        Replace the group that is there, if a conversion wrote it.
    **options
        As of `daskumap.source`.

    Returns
    -------
    Source
        The rows as they lie in the group.

    Raises
    ------
    ParameterError
        If something is there.
    SourceError
        As of `daskumap.fit`.
    StoreError
        If it cannot be written.
    """
    if not isinstance(overwrite, bool):
        raise ParameterError(f"overwrite is {overwrite!r}; it must be True or False.")
    source, where = find(data, options), as_path(out)
    _refuse_inside(source, where)
    _refuse_what_is_there(where, overwrite)
    try:
        if is_url(where):
            write_converted(source, zarr.open_group(where, mode="w"))
        else:
            _write_folder(source, Path(where))
    except (SourceError, StoreError, MemoryError):
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in NO_SPACE
        what = "the disk is full" if full else f"{type(error).__name__}: {error}"
        raise StoreError(f"{hide_secrets(where)} cannot be written ({what}).") from printable(error)
    return find(where)


def _write_folder(source: Source, path: Path) -> None:
    """Write beside the place, and move there what is whole."""
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        write_converted(source, zarr.open_group(str(made), mode="w"))
        if path.exists():
            os.replace(path, Path(folder) / "before")
        os.replace(made, path)
        shutil.rmtree(Path(folder) / "before", ignore_errors=True)


def _refuse_inside(source: Source, where: str) -> None:
    spec = source.spec()
    if spec is not None and (
        f"{spec['path']}/".startswith(f"{where}/") or where.startswith(f"{spec['path']}/")
    ):
        raise ParameterError(f"{where} holds the input, which is never written. Name a place beside it.")


def _refuse_what_is_there(where: str, overwrite: bool) -> None:
    """Refuse a place that is taken: by anything else than a conversion in any case."""
    try:
        there: Any = zarr.open_group(where, mode="r")
    except Exception:
        there = None
    shown = hide_secrets(where)
    if there is None and not is_url(where) and Path(where).exists():
        raise ParameterError(f"{shown} is there, and no conversion wrote it. Name another place.")
    if there is not None and not is_converted(there):
        raise ParameterError(f"{shown} is a Zarr group that no conversion wrote. Name another place.")
    if there is not None and not overwrite:
        raise ParameterError(
            f"{shown} is there already. Name another place, or pass overwrite (--overwrite)."
        )
