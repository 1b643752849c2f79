"""Functions of the user's that are compiled into kernels: their keywords, and what numba says of them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

# What numba says of a function stands at the beginning; the rest is where it looked for it.
NUMBA_CHARACTERS = 400


def bind(called: str, source: Any, given: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return the keywords of a function of two rows in its own order: numba binds arguments by position.

    Parameters
    ----------
    called
        What messages call the function, at their start.

    Raises
    ------
    ValueError
        For a keyword that it does not take, or one that is missing before another.
    """
    words = list(inspect.signature(source).parameters)[2:]
    unknown = [word for word in given if word not in words]
    if unknown:
        allowed = ", ".join(words) or "none"
        raise ValueError(
            f"{called} does not take {', '.join(map(repr, unknown))}. Allowed keywords: {allowed}."
        )
    bound = words[: max((words.index(word) + 1 for word in given), default=0)]
    missing = [word for word in bound if word not in given]
    if missing:
        raise ValueError(f"{called} needs the keyword {missing[0]!r} because a later one is given.")
    return tuple(
        (word, given[word] if np.ndim(given[word]) == 0 else np.ascontiguousarray(given[word]))
        for word in bound
    )


def shortened(error: Exception) -> str:
    """Return the beginning of numba's page of text, as one line."""
    return " ".join(str(error).split())[:NUMBA_CHARACTERS].rstrip(". ")
