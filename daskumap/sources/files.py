"""Files on this machine or behind a URL: what a path ends in, what lies below it, and opening it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from daskumap.errors import SourceError, SourceNotFoundError
from daskumap.extras import missing_protocol
from daskumap.secrets import printable
from daskumap.store.trouble import is_url


def ends_in(data: Any, *endings: str) -> bool:
    """Return whether data are a path or URL of a file with one of these endings."""
    if not isinstance(data, str | os.PathLike):
        return False
    text = os.fspath(data)
    name = urlsplit(text).path if isinstance(text, str) and is_url(text) else text
    return isinstance(name, str) and name.rstrip("/").lower().endswith(endings)


def expanded(where: Any) -> Path:
    """Return a path with the home that its ~ stands for; as it is where nobody has that name."""
    try:
        return Path(str(where)).expanduser()
    except RuntimeError:
        return Path(str(where))


def as_path(where: Any) -> str:
    """Return a path made absolute, or a URL as it is."""
    text = str(os.fspath(where))
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    return text if is_url(text) else str(expanded(text).resolve())


def local_file(where: Any, what: str) -> Path:
    """Return the path of a file on this machine.

    Raises
    ------
    SourceError
        If it is a URL; `what` says what kind of file is read on this machine only.
    SourceNotFoundError
        If there is none.
    """
    text = as_path(where)
    if is_url(text):
        raise SourceError(
            f"{text} is {what} behind a URL, and such files are read on this machine. Copy it here, or "
            "convert it where it is: daskumap convert FILE OUT.zarr."
        )
    path = Path(text)
    if not path.is_file():
        from daskumap.sources.nodes import open_node

        open_node(path)  # It says what is near.
        raise SourceError(f"{path} is a folder, and not {what}. Name the file.")
    return path


def version_of(path: Path) -> tuple[int, int]:
    """Return what tells whether a file was written anew: its size, and when."""
    known = path.stat()
    return known.st_size, known.st_mtime_ns


class Files:
    """A file or a folder, on this machine or behind a URL.

    Attributes
    ----------
    path
        Absolute path, or the URL.
    """

    def __init__(self, where: Any, storage_options: dict[str, Any] | None = None) -> None:
        self.path = as_path(where)
        self._fs = self._inside = None
        if is_url(self.path):
            self._fs, self._inside = _file_system(self.path, storage_options or {})

    def below(self, *endings: str) -> list[str]:
        """Return the files that it is, or that lie below it, in the order of their names.

        Those whose names, or folders, begin with . or _ are left out.
        """
        if self._fs is not None:
            if not self._fs.isdir(self._inside):
                return [str(self._inside)]
            found = [str(name) for name in self._fs.find(self._inside)]
            root = str(self._inside)
        else:
            if not Path(self.path).is_dir():
                return [self.path]
            found = [str(name) for name in Path(self.path).rglob("*") if name.is_file()]
            root = self.path
        kept = [name for name in found if name.lower().endswith(endings)]
        return sorted(name for name in kept if not _is_hidden(name[len(root) :]))

    def open(self, name: str) -> Any:
        """Open one of these files."""
        return open(name, "rb") if self._fs is None else self._fs.open(name, "rb")

    def readable(self, name: str) -> Any:
        """Return what libraries read one of these files from: its path where it has one."""
        return name if self._fs is None else self._fs.open(name, "rb")

    def version(self, name: str) -> list[Any]:
        """Return what tells whether a file was written anew."""
        if self._fs is None:
            return list(version_of(Path(name)))
        known = self._fs.info(name)
        return [known.get("size"), str(known.get("ETag") or known.get("LastModified") or "")]


def _is_hidden(below: str) -> bool:
    return any(part.startswith((".", "_")) for part in below.split("/") if part)


def _file_system(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    try:
        import fsspec

        fs, inside = fsspec.core.url_to_fs(url, **options)
        if not fs.exists(inside):
            raise SourceNotFoundError(f"There is nothing at {url}. Check the address.")
    except ImportError as error:
        raise missing_protocol(url, error) from printable(error)
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # of a file system, whatever it raises
        raise SourceError(
            f"{url} cannot be opened ({type(error).__name__}: {error}). Check the address, the credentials "
            "and the network."
        ) from printable(error)
    return fs, str(inside)
