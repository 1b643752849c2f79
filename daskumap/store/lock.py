"""One driver at a time: a lock in the run store with a heartbeat, made by exclusive creation.

Not flock: it does not work on object stores, nor between the hosts of many network file systems. Each lock
has a generation; who finds a dead one makes the next generation, which only one can, and a holder that wakes
up late finds it and stops.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any

from daskumap.errors import StoreError
from daskumap.store.run import RunStore

# A holder says that it lives every so many seconds, and counts as dead when it has not for so many.
HEARTBEAT_SECONDS = 10.0
DEAD_AFTER_SECONDS = 60.0


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
        held = self._newest()
        if held is not None:
            self._refuse_if_alive(held[1])
            self.generation = held[0] + 1
        self.store.create_json(self._name(self.generation), self._about())
        now = self.store.load_json(self._name(self.generation))
        if now is None or now["id"] != self.id:
            self._refuse_if_alive(now or {"host": "another process", "pid": 0, "time": time.time()})
        for generation in self._generations():
            if generation < self.generation:
                self.store.delete(f"{self._name(generation)}.json")
        self._thread = threading.Thread(target=self._beat, name="daskumap-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost:
            self.store.delete(f"{self._name(self.generation)}.json")

    def check(self) -> None:
        """Raise if somebody took the lock over, believing this process dead."""
        if self._lost:
            raise StoreError(
                f"{self.store.group.store_path} was taken over by another process, since this one said "
                f"nothing for {DEAD_AFTER_SECONDS:.0f} s. Let that one finish, or stop it and fit again."
            )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if max(self._generations(), default=self.generation) > self.generation:
                self._lost = True
                return
            self.store.save_json(self._name(self.generation), self._about())

    def _about(self) -> dict[str, Any]:
        return {"id": self.id, "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}

    def _name(self, generation: int) -> str:
        return f"lock/{generation:08d}"

    def _generations(self) -> list[int]:
        return sorted(int(name.removesuffix(".json")) for name in self.store.names("lock"))

    def _newest(self) -> tuple[int, dict[str, Any]] | None:
        for generation in reversed(self._generations()):
            about = self.store.load_json(self._name(generation))
            if about is not None:
                return generation, about
        return None

    def _refuse_if_alive(self, about: dict[str, Any]) -> None:
        silent = time.time() - about["time"]
        if silent > DEAD_AFTER_SECONDS or _is_dead(about["host"], about["pid"]):
            return
        raise StoreError(
            f"{self.store.group.store_path} is in use by process {about['pid']} on {about['host']}, which "
            f"was alive {max(0.0, silent):.0f} s ago. Wait for it, or stop it; the lock of a dead process is "
            f"taken over after {DEAD_AFTER_SECONDS:.0f} s."
        )


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
