"""One driver at a time: a lock in the run store with a heartbeat, made by exclusive creation.

Not flock: it does not work on object stores, nor between the hosts of many network file systems. Each lock
has a generation; who finds a dead one makes the next generation, which only one can, and a holder that wakes
up late finds it and stops.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from daskumap.errors import StoreError
from daskumap.store.places import Folder
from daskumap.store.run import RunStore

log = logging.getLogger(__name__)

# A holder says that it lives every so many seconds, and counts as dead when it has not for so many.
HEARTBEAT_SECONDS = 10.0
DEAD_AFTER_SECONDS = 60.0
# Not every object store knows exclusive creation. There the last of several who write at a time wins, and
# each looks again when all of them have surely written.
SETTLE_SECONDS = 2.0


class RunLock:
    """Held while a driver works on a run store.

    Raises
    ------
    StoreError
        On entry, if somebody alive holds it; the message says who and what to do.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.id = uuid.uuid4().hex
        self.generation = 0
        self._stop = threading.Event()
        self._lost = False

    def __enter__(self) -> RunLock:
        seen = self._generations()  # once: a lock made after this look must not pass for one looked at
        for generation in seen:
            self._refuse_if_alive(generation)
        self.generation = max(seen, default=-1) + 1
        self.store.documents.create(self._name(self.generation), self._about())
        if not isinstance(self.store.place, Folder):
            time.sleep(SETTLE_SECONDS)
        now = self.store.documents.load(self._name(self.generation))
        if now is None or now["id"] != self.id:
            raise self._refusal(now or self._unknown())
        try:
            self._displace_others()
        except StoreError:
            self.store.documents.delete(f"{self._name(self.generation)}.json")
            raise
        self._thread = threading.Thread(target=self._beat, name="daskumap-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost:
            try:
                self.store.documents.delete(f"{self._name(self.generation)}.json")
            except StoreError as failure:  # what ended the run matters more, and this goes stale by itself
                log.warning("The lock could not be given back: %s", failure)

    def check(self) -> None:
        """Raise if somebody took the lock over, believing this process dead."""
        if self._lost:
            raise StoreError(
                f"{self.store.url} was taken over by another process, since this one said "
                f"nothing for {DEAD_AFTER_SECONDS:.0f} s. Let that one finish, or stop it and fit again."
            )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if max(self._generations(), default=self.generation) > self.generation:
                    self._lost = True
                    return
                self.store.documents.save(self._name(self.generation), self._about())
            except (StoreError, OSError) as error:  # a store that is full or away for a while
                log.warning("The lock could not be renewed: %s", error)

    def _about(self) -> dict[str, Any]:
        return {"id": self.id, "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}

    def _name(self, generation: int) -> str:
        return f"lock/{generation:08d}"

    def _generations(self) -> list[int]:
        return self.store.documents.numbers("lock")

    def _displace_others(self) -> None:
        """Delete the locks of the dead; give way to one newer, or alive after all."""
        for generation in self._generations():
            if generation > self.generation:
                raise self._refusal(self.store.documents.load(self._name(generation)) or self._unknown())
            if generation < self.generation:
                self._refuse_if_alive(generation)
                self.store.documents.delete(f"{self._name(generation)}.json")

    def _refuse_if_alive(self, generation: int) -> None:
        about = self.store.documents.load(self._name(generation))
        if not isinstance(about, dict) or not about.keys() >= {"host", "pid", "time"}:
            return  # a damaged one says nothing
        silent = time.time() - about["time"] > DEAD_AFTER_SECONDS
        if not silent and not _is_dead(about["host"], about["pid"]):
            raise self._refusal(about)

    def _unknown(self) -> dict[str, Any]:
        return {"host": "another host", "pid": 0, "time": time.time()}

    def _refusal(self, about: dict[str, Any]) -> StoreError:
        return StoreError(
            f"{self.store.url} is in use by process {about['pid']} on {about['host']}, which "
            f"was alive {max(0.0, time.time() - about['time']):.0f} s ago. Wait for it or stop it; the "
            f"run store of one that died is free after {DEAD_AFTER_SECONDS:.0f} s."
        )


@contextmanager
def alone(store: RunStore) -> Iterator[Callable[[], None]]:
    """Hold a run store; yield what raises if somebody took it over. A store of this process needs no lock."""
    if not store.place.shared:
        yield lambda: None
        return
    with RunLock(store) as lock:
        yield lock.check


def _is_dead(host: str, pid: int) -> bool:
    """Return whether a process of this host is surely gone; another host's cannot be asked."""
    if host != socket.gethostname() or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
