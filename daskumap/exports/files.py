"""Files that appear under their name once they are whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daskumap.errors import NO_SPACE, ParameterError, StoreError
from daskumap.secrets import has_secrets, hide_secrets
from daskumap.store.trouble import is_url, speaking


@contextlib.contextmanager
def whole_file(target: Any, overwrite: bool) -> Iterator[Path]:
    """Give a path to write to; what is there takes the place of the target if nothing is raised.

    Raises
    ------
    ParameterError
        If something is there, unless that may be overwritten; or it is a folder.
    StoreError
        If it cannot be written.
    """
    refuse_what_is_there(target, overwrite)
    with (_at_url if is_url(target) else _in_folder)(target) as made:
        yield made


@contextlib.contextmanager
def _in_folder(target: Any) -> Iterator[Path]:
    path = Path(target).expanduser()
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


@contextlib.contextmanager
def _at_url(target: Any) -> Iterator[Path]:
    """Make an object in the folder for temporary files; it is there once all of it was sent."""
    url = str(target)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / url.rpartition("/")[2]
        yield made
        with speaking(url):
            system, path = file_system(url)
            system.makedirs(system._parent(path), exist_ok=True)
            system.put_file(str(made), path)


def is_there(target: Any) -> bool:
    """Return whether anything is at the path or URL of a file.

    Raises
    ------
    StoreError
        If it cannot be looked at.
    """
    if not is_url(target):
        return os.path.lexists(Path(target).expanduser())
    with speaking(target):
        system, path = file_system(str(target))
        return bool(system.exists(path))


def refuse_what_is_there(target: Any, overwrite: bool) -> None:
    """Refuse a file that may not be written.

    Raises
    ------
    ParameterError
        If something is there, unless that may be overwritten; or it is a folder, or a URL with a password.
    """
    text = os.fspath(target)
    if has_secrets(text):
        raise ParameterError(
            f"The URL {hide_secrets(text)} has a password or a token. Leave it out, and give it by the "
            "environment or fsspec's configuration."
        )
    if not is_url(text) and Path(text).expanduser().is_dir():
        raise ParameterError(f"{text} is a folder. Name a file in it.")
    if not overwrite and is_there(text):
        raise ParameterError(f"{text} is there already. Name another file, or pass overwrite (--overwrite).")


def file_system(url: str) -> tuple[Any, str]:
    """Return what fsspec reaches a URL by, as it is now, and the path there."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url, use_listings_cache=False)
    return system, path


def _put_on_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
