"""How a long task says how far it is: whoever runs the task listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[float], None] | None] = ContextVar("daskumap_progress", default=None)


def tell(share: float) -> None:
    """Say which share of the current task is done, 0 to 1."""
    listener = _listener.get()
    if listener is not None:
        listener(float(share))


@contextmanager
def listening(listener: Callable[[float], None] | None) -> Iterator[None]:
    """Call `listener` with what tasks in this context tell."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
