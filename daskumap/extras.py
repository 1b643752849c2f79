"""Libraries that come with an extra: imported where they are needed, and missed in our words."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from daskumap.errors import DependencyError


def load(module: str, extra: str, what: str) -> Any:
    """Import a module of a library that may not be installed.

    Parameters
    ----------
    extra
        The extra of daskumap that brings it.
    what
        What needs it, for the message.

    Raises
    ------
    DependencyError
        Saying what needs it and how it is installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise DependencyError(
            f"{what} needs {module.partition('.')[0]} ({error}). Install it: pip install 'daskumap[{extra}]'"
        ) from error


# What reads and writes a protocol: the package, and the extra that brings it.
PROTOCOLS = {
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "remote")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gs")),
    **dict.fromkeys(("az", "abfs", "abfss"), ("adlfs", "az")),
    **dict.fromkeys(("http", "https"), ("aiohttp", "remote")),
}


def missing_protocol(where: str, error: ImportError) -> DependencyError:
    """Return the error that says what a URL needs, and how it is installed."""
    protocol = where.partition("://")[0].rpartition("::")[2].lower()
    package, extra = PROTOCOLS.get(protocol, (f"fsspec's file system for {protocol}://", "remote"))
    return DependencyError(
        f"{where} cannot be opened without {package}, which is missing ({error}). Install it: "
        f"pip install 'daskumap[{extra}]'."
    )
