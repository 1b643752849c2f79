"""What went wrong with a store, in our words: full, out of reach, or damaged."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.core.group import GroupMetadata

from daskumap.errors import (
    NO_SPACE,
    DaskumapError,
    ParameterError,
    ProcessError,
    StoreError,
)
from daskumap.extras import missing_protocol

# Libraries whose errors of the network are no OSErrors.
REMOTE = (
    "adlfs",
    "aiohttp",
    "aiobotocore",
    "asyncio",
    "azure",
    "botocore",
    "fsspec",
    "gcsfs",
    "google",
    "s3fs",
)


@contextmanager
def speaking(where: Any) -> Iterator[None]:
    """Turn whatever a store raises into an error that says what to do.

    A full disk passes as it is: who knows what the run writes says how much is needed.
    """
    try:
        yield
    except (DaskumapError, MemoryError):
        raise
    except Exception as error:
        if getattr(error, "errno", None) in NO_SPACE:
            raise
        raise trouble(where, error) from error


@contextmanager
def counting_space(url: str, advice: str) -> Iterator[None]:
    """Say what to do where the disk is full, by whoever knows what is written."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE or isinstance(error, StoreError):
            raise
        text = f"There is no space left for {url} ({errno.errorcode[error.errno]}); {advice}"
        raise StoreError(error.errno, text) from error


def refuse_without_asserts() -> None:
    """Refuse a Python that runs no asserts, where zarr does not read its groups.

    It takes a key out of a group's metadata inside of one (3.1.6), so that a whole run store looks damaged.

    Raises
    ------
    ProcessError
        Naming what to leave out.
    """
    try:
        if not __debug__:
            GroupMetadata.from_dict({"node_type": "group", "zarr_format": 3, "attributes": {}})
    except TypeError as error:
        raise ProcessError(
            f"Python runs with -O or PYTHONOPTIMIZE, and zarr {zarr.__version__} does not read its groups "
            "without asserts. Run it without."
        ) from error


def trouble(where: Any, error: Exception) -> DaskumapError:
    """Return the error that says what is wrong with what lies at `where`."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError):
        return missing_protocol(str(where), error)
    if is_refusal(error):
        told = (
            " Credentials come from the environment, or from daskumap.place(url, storage_options=...)."
            if "://" in str(where)
            else ""
        )
        return StoreError(
            f"{where} may not be read or written ({reason}). Change its permissions or credentials, or name "
            f"another place.{told}"
        )
    if isinstance(error, FileNotFoundError) and "bucket" in str(error).lower():
        return StoreError(
            f"{where} is in no bucket that is there ({reason}). Make the bucket, or name another."
        )
    if is_unreachable(error):
        return StoreError(
            f"{where} is out of reach ({reason}). Check the path, the permissions and the network; what is "
            "finished is kept, and `daskumap resume` goes on from there."
        )
    return StoreError(
        f"{where} is damaged ({reason}). Run `daskumap verify --repair`, then `daskumap resume`; where the "
        "run's own zarr.json is what is damaged, restore it or start over in another place."
    )


def is_refusal(error: BaseException) -> bool:
    """Return whether a file system knows whoever asks not, or not well enough."""
    return isinstance(error, PermissionError) or "Credentials" in type(error).__name__


def is_unreachable(error: BaseException) -> bool:
    """Return whether an error is of a network or a file system, and none of what lies there."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError | TimeoutError) or library in REMOTE


def is_out_of_reach(error: StoreError) -> bool:
    """Return whether a store did not answer, which is no damage. Errors of ours are OSErrors too."""
    return isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, StoreError)


def is_url(where: Any) -> bool:
    """Return whether text is a URL; what has "://" in it is no path in any case.

    Raises
    ------
    ParameterError
        For one without a scheme or an address.
    """
    scheme, separator, address = str(where).partition("://")
    named = address.strip("/") or scheme == "reference"  # whose file is an option
    if separator and not (re.fullmatch(r"[A-Za-z][\w+.:-]*", scheme) and named):
        raise ParameterError(
            f"{str(where)!r} is no URL. Write scheme://address, such as s3://bucket/run.zarr."
        )
    return bool(separator)


def local_path(where: str | Path) -> Path:
    """Return a path of this machine, absolute, as written but for `~`.

    Raises
    ------
    ParameterError
        For text that is no path here.
    """
    try:
        path = Path(where).expanduser().absolute()
        path.resolve()  # links in a circle
        with suppress(PermissionError):
            path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # an unknown ~user, a zero byte, a name too long
        raise ParameterError(f"{str(where)!r} is no path here ({error}). Name another one.") from error
    return path
