"""Files that appear under their name once they are whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daskumap.errors import NO_SPACE, ParameterError, StoreError
from daskumap.secrets import hide_secrets


@contextlib.contextmanager
def whole_file(target: Any, overwrite: bool) -> Iterator[Path]:
    """Give a path beside the target to write to, which takes its place if nothing is raised.

    Raises
    ------
    ParameterError
        If something is there, unless that may be overwritten; or it is a folder.
    StoreError
        If it cannot be written.
    """
    path = refuse_what_is_there(target, overwrite)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            yield made
            _put_on_disk(made)
            os.replace(made, path)
    except FileNotFoundError as error:
        raise StoreError(f"{path} cannot be written: no folder {path.parent}. Make it first.") from error
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        what = "the disk is full" if error.errno in NO_SPACE else f"{type(error).__name__}: {error}"
        raise StoreError(f"{path} cannot be written ({what}). Nothing of it is there.") from error


def refuse_what_is_there(target: Any, overwrite: bool) -> Path:
    """Return the path of a file that may be written.

    Raises
    ------
    ParameterError
        If something is there, unless that may be overwritten; or it is a folder or a URL.
    """
    text = os.fspath(target)
    if "://" in text:
        raise ParameterError(f"{hide_secrets(text)} is a URL; files are written on this machine.")
    path = Path(text).expanduser()
    if path.is_dir():
        raise ParameterError(f"{path} is a folder. Name a file in it.")
    if path.exists() and not overwrite:
        raise ParameterError(f"{path} is there already. Name another file, or pass overwrite (--overwrite).")
    return path


def _put_on_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
