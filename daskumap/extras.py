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
