"""Where a map that forms is shown: a PNG file that is renewed, a page on loopback, or a notebook's cell."""

from __future__ import annotations

import base64
import contextlib
import html
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from daskumap.errors import ParameterError, StoreError
from daskumap.report.cell import InPlace
from daskumap.report.progress import in_notebook
from daskumap.store.places import find_place
from daskumap.store.run import RunStore
from daskumap.watching.serve import Page
from daskumap.watching.sights import Sight, Watcher

log = logging.getLogger(__name__)

Shows = Callable[[Sight], Any]
# Seconds between two looks for a run store that is not there yet, and that a page waits for a last look.
WAIT = 0.5
LINGER = 3.0


def watch(store: RunStore, png: str | Path | None = None, port: int | None = None) -> Sight:
    """Show the map of a run whenever there is a newer one, until the run is over; return the last sight.

    Parameters
    ----------
    store
        Opened to read.
    png
        A file that is renewed; None where `port` is given, or for the cell of a notebook.
    port
        Of a page on loopback; 0 for a free one.

    Raises
    ------
    ParameterError
        If both or none are given, the latter outside a notebook; or the run makes no map.
    """
    with _shower(png, port) as show:
        return _show_all(Watcher(store), show)


@contextlib.contextmanager
def alongside(run: Any, live: str | int) -> Iterator[None]:
    """Show the map of the run that is made meanwhile, from a thread of this process.

    Whatever goes wrong with the picture is logged, and the run goes on.

    Parameters
    ----------
    live
        A file that ends in .png, or the port of a page on loopback.
    """
    png, port = _parse(live)
    over = threading.Event()
    with _shower(png, port) as show:
        thread = threading.Thread(target=_follow, args=(run, show, over), name="daskumap-live", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=60)


def _parse(live: str | int) -> tuple[Path | None, int | None]:
    return (None, int(live)) if str(live).isdigit() else (Path(str(live)), None)


def _follow(run: Any, show: Shows, over: threading.Event) -> None:
    """Show what there is of a run until it is over, and its last sight then."""
    try:
        store = _wait_for(run, over)
        if store is not None:
            _show_all(Watcher(store), show, partial(_rest, over))
    except _OverError:
        pass
    except Exception as error:
        log.warning("The live picture has ended, and the run goes on: %s", error)


class _OverError(Exception):
    """Nobody waits for a picture any more."""


def _rest(over: threading.Event, seconds: float) -> None:
    """Rest until the next look; there is one more after the end, and no other."""
    if over.is_set():
        raise _OverError
    over.wait(seconds)


def _wait_for(run: Any, over: threading.Event) -> RunStore | None:
    """Return the run store once it is there, and a driver works on it."""
    while True:
        ended = over.wait(WAIT)
        with contextlib.suppress(StoreError):
            store = RunStore.open(find_place(run), mode="r")
            if ended or store.documents.members("lock"):
                return store
        if ended:
            return None


def _show_all(watcher: Watcher, show: Shows, rest: Callable[[float], Any] = time.sleep) -> Sight:
    sight = Sight("", None)
    for sight in watcher.sights(rest):
        show(sight)
    return sight


@contextlib.contextmanager
def _shower(png: str | Path | None, port: int | None) -> Iterator[Shows]:
    """Yield what shows a sight."""
    if png is not None and port is not None:
        raise ParameterError(f"png is {str(png)!r} and port is {port}. Name one of them.")
    if port is not None:
        with Page(port) as page:
            log.info("The map as it forms: %s", page.url)
            yield page.show
            page.linger(LINGER)
        return
    if png is not None:
        yield _into(Path(png))
    elif in_notebook():
        yield _in_cell()
    else:
        raise ParameterError(
            "Outside a notebook a map that forms is shown in a file, png='map.png' (--png map.png), or on a "
            "page of this machine, port=8080 (--port 8080). Name one of them."
        )


def _into(path: Path) -> Shows:
    """Return what renews a file, which is whole whenever someone looks."""
    if path.suffix.lower() != ".png":
        raise ParameterError(f"{path} ends in {path.suffix!r}; the picture that is renewed is a .png.")
    if not path.absolute().parent.is_dir():
        raise ParameterError(f"The folder of {path} is not there. Name a file in one that is.")
    partial = path.with_name(f".{path.name}.partial")

    def show(sight: Sight) -> None:
        if sight.png is not None:
            partial.write_bytes(sight.png)
            partial.replace(path)
        log.info("%s: %s", path, sight.text) if sight.png is not None else log.info("%s", sight.text)

    return show


def _in_cell() -> Shows:
    """Return what shows a sight in the place of the one before."""
    place, last = InPlace(), b""

    def show(sight: Sight) -> None:
        nonlocal last
        last = sight.png or last
        place.show(_as_html(sight.text, last), sight.text)

    return show


def _as_html(text: str, png: bytes) -> str:
    shown = base64.b64encode(png).decode()
    image = f'<br><img alt="The map as it forms" src="data:image/png;base64,{shown}">' if png else ""
    return f"<div>{html.escape(text)}{image}</div>"
