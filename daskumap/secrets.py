"""Passwords and tokens in URLs: never stored, and in no message."""

from __future__ import annotations

import re

# In these, what stands before the @ is a container and no user.
CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
USER = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*)://(?P<user>[^\s/?#'\"]*)@")
QUERY = re.compile(r"(?P<url>[A-Za-z][\w+.-]*://[^\s?#'\"]*)[?#][^\s'\"]*")


def hide_secrets(text: str) -> str:
    """Return text in which URLs have no user, no password, and nothing from the question mark on.

    >>> hide_secrets("nothing at https://me:pw@host/x.zarr?sig=abc.")
    'nothing at https://host/x.zarr'
    >>> hide_secrets("abfs://container@account.host/x.zarr")
    'abfs://container@account.host/x.zarr'
    """
    return QUERY.sub(lambda found: found["url"], USER.sub(_without_user, text))


def has_secrets(text: str) -> bool:
    """Return whether text has a URL with something that is hidden."""
    return hide_secrets(text) != text


def printable(error: BaseException) -> BaseException | None:
    """Return an error as a cause to be shown, None where it, or what led to it, tells a secret."""
    cause: BaseException | None = error
    while cause is not None:
        if has_secrets(f"{cause} {cause!r}"):
            return None
        cause = cause.__cause__ or cause.__context__
    return error


def _without_user(found: re.Match[str]) -> str:
    is_container = found["scheme"].lower() in CONTAINERS and ":" not in found["user"]
    return found[0] if is_container else f"{found['scheme']}://"
