"""One driver at a time: a lock with a heartbeat says who works, and a generation fences all others.

Every driver that takes a run store creates the next *generation*, a document which only one can create, and
which stays: no number comes twice. Who has the lock may seem dead and be alive, stopped for a while, or on a
host with another clock. So the lock is a courtesy, and what counts is the generation: a driver looks for a
newer one before it deletes or records anything, and nobody reads what an older one wrote since
(`store/ledger`). It is no flock, which works neither on object stores nor on many network file systems.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from daskumap.errors import LockedError, StoreError
from daskumap.store.documents import Documents
from daskumap.store.places import Folder, Place
from daskumap.store.run import RunStore

log = logging.getLogger(__name__)

# A holder says that it lives every so many seconds, and counts as dead when it has not for so many.
HEARTBEAT_SECONDS = 10.0
DEAD_AFTER_SECONDS = 60.0
# Not every object store knows exclusive creation. There the last of several who write at a time wins, and
# each looks again when all of them have surely written.
SETTLE_SECONDS = 2.0


class Turn(Protocol):
    """A driver's right to write.

    Attributes
    ----------
    generation
        One more than that of the driver before.
    """

    generation: int

    def check(self) -> None:
        """Raise if another driver took over, or the run store is gone."""
        ...


class Lockable(Protocol):
    """What can be held: a run store, or the place of a job.

    Attributes
    ----------
    documents
        What holds the lock and the generations.
    """

    place: Place
    documents: Documents

    @property
    def url(self) -> str:
        """What it is called in messages."""
        ...


class RunLock:
    """Held while a driver works on a run store.

    Parameters
    ----------
    take_over
        Whether to take it from somebody who may be alive, and is fenced then.

    Raises
    ------
    StoreError
        On entry, if somebody alive holds it; the message says who and what to do.
    """

    def __init__(self, store: Lockable, take_over: bool = False) -> None:
        self.store, self.take_over = store, take_over
        self.id = uuid.uuid4().hex
        self.generation, self._lock = -1, f"lock/{self.id}"
        self._stop = threading.Event()

    def __enter__(self) -> RunLock:
        # In this order: who takes over meanwhile makes the generation that this one is about to make.
        self.generation = max(self.store.documents.numbers("generations"), default=-1) + 1
        others = self._others()
        if not self.take_over:
            for other in others:
                self._refuse_if_held(other)
        self.store.documents.save(self._lock, self._about())
        try:
            self._claim()
        except BaseException:
            self._give_back()
            raise
        for other in others:
            self.store.documents.delete(f"lock/{other}")
        self._thread = threading.Thread(target=self._beat, name="daskumap-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._give_back()

    def _claim(self) -> None:
        """Make the next generation, or give way to who made it."""
        self.store.documents.create(_name(self.generation), self._about())
        if not isinstance(self.store.place, Folder):
            time.sleep(SETTLE_SECONDS)
        if not self._is_own():
            raise self._refusal(self.store.documents.load(_name(self.generation)) or self._unknown())

    def _give_back(self) -> None:
        """Delete the lock, which takes no space on a disk."""
        try:
            self.store.documents.delete(f"{self._lock}.json")
        except (StoreError, OSError) as failure:  # what ended the run matters more, and this goes stale
            log.warning("The lock could not be given back: %s", failure)

    def check(self) -> None:
        """Raise if another driver took over, believing this one dead, or if the run store is gone."""
        if self._is_own() and not self._is_followed():
            return
        newest = max(self.store.documents.numbers("generations"), default=-1)
        if newest <= self.generation and self.store.documents.load_bytes("zarr.json") is None:
            raise StoreError(
                f"{self.store.url} is gone: it was deleted or moved while this process worked on it. Delete "
                "what is left there and fit again; or move it back there, and resume."
            )
        now = self.store.documents.load(_name(newest)) or self._unknown()
        raise StoreError(
            f"{self.store.url} was taken over by another process ({now['pid']} on {now['host']}), since this "
            f"one said nothing for {DEAD_AFTER_SECONDS:.0f} s or was told to make way. What this one did "
            "since does not count. Let that one finish, or stop it and resume."
        )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if not self._is_own() or self._is_followed():
                    return
                self.store.documents.save(self._lock, self._about())
            except (StoreError, OSError) as error:  # a store that is full or away for a while
                log.warning("The lock could not be renewed: %s", error)

    def _about(self) -> dict[str, Any]:
        return {"id": self.id, **this_process(), "time": time.time()}

    def _others(self) -> list[str]:
        return [name for name in self.store.documents.members("lock") if name != f"{self.id}.json"]

    def _is_own(self) -> bool:
        """Return whether the generation is this driver's: a store that was made anew has others."""
        now = self.store.documents.load(_name(self.generation))
        return now is not None and now["id"] == self.id

    def _is_followed(self) -> bool:
        return self.store.documents.load_bytes(f"{_name(self.generation + 1)}.json") is not None

    def _refuse_if_held(self, name: str) -> None:
        about = self.store.documents.load(f"lock/{name.removesuffix('.json')}")
        if not isinstance(about, dict) or not about.keys() >= {"host", "system", "pid", "time"}:
            return  # a damaged one says nothing
        if _is_dead(about["system"], about["pid"]):
            return
        silent = _seconds_since(about["time"])
        if silent is None or silent < -DEAD_AFTER_SECONDS:
            raise self._undated(about, silent)
        if silent <= DEAD_AFTER_SECONDS:
            raise self._refusal(about)

    def _unknown(self) -> dict[str, Any]:
        return {"host": "another host", "pid": 0, "time": time.time()}

    def _refusal(self, about: dict[str, Any]) -> StoreError:
        return LockedError(
            f"{self.store.url} is in use by process {about['pid']} on {about['host']}, which "
            f"was alive {max(0.0, time.time() - about['time']):.0f} s ago. Wait for it or stop it; the "
            f"lock of one that died is free after {DEAD_AFTER_SECONDS:.0f} s, or at once with take_over "
            "(--take-over)."
        )

    def _undated(self, about: dict[str, Any], silent: float | None) -> StoreError:
        dated = f"{about['time']!r}, which is no time" if silent is None else f"{-silent:.0f} s ahead of now"
        return LockedError(
            f"{self.store.url} is locked by process {about['pid']} on {about['host']}, and the lock is dated "
            f"{dated}: it cannot be told whether that one is alive. Set the clocks of both hosts, stop that "
            "process, and go on with take_over (--take-over)."
        )


class Unshared:
    """The turn of the one process that reaches a run store."""

    def __init__(self, store: RunStore) -> None:
        self.generation = store.ledger.generation() + 1

    def check(self) -> None:
        """Do nothing: there is nobody else."""


@contextmanager
def alone(store: RunStore, take_over: bool = False) -> Iterator[Turn]:
    """Hold a run store; yield this driver's turn. A store of this process needs no lock."""
    if not store.place.shared:
        yield Unshared(store)
        return
    with RunLock(store, take_over) as lock:
        yield lock


def holder_of(store: Lockable) -> dict[str, Any] | None:
    """Return who has the lock of a run store or a job: host, pid, whether alive, and for how long silent.

    Whether it is alive is None where neither the process can be asked nor the clock believed.
    """
    found = None
    for name in store.documents.members("lock"):
        about = store.documents.load(f"lock/{name.removesuffix('.json')}")
        if not isinstance(about, dict) or not about.keys() >= {"host", "system", "pid", "time"}:
            continue
        silent = _seconds_since(about["time"])
        dead = _is_dead(about["system"], about["pid"])
        alive = None if silent is None or silent < -DEAD_AFTER_SECONDS else silent <= DEAD_AFTER_SECONDS
        known = {"host": about["host"], "pid": about["pid"], "alive": False if dead else alive}
        if found is None or known["alive"]:
            found = {**known, "seconds_silent": None if silent is None else round(max(0.0, silent), 1)}
    return found


def turn_of(store: Lockable) -> float | None:
    """Return when the newest driver's turn began, by its clock."""
    newest = max(store.documents.numbers("generations"), default=None)
    about = store.documents.load(_name(newest)) if newest is not None else None
    began = about.get("time") if isinstance(about, dict) else None
    return None if _seconds_since(began) is None else began


def _name(generation: int) -> str:
    return f"generations/{generation:08d}"


def _seconds_since(moment: Any) -> float | None:
    """Return the seconds since a time of some clock, None for what is no time."""
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not math.isfinite(moment):
        return None
    return time.time() - moment


def this_process() -> dict[str, Any]:
    """Return what tells this process from all others."""
    return {"host": socket.gethostname(), "system": _system(), "pid": os.getpid()}


def is_gone(process: dict[str, Any]) -> bool:
    """Return whether a process is surely gone: it ended, or its machine was started anew since."""
    boot, now = str(process["system"]).partition(" ")[0], _system().partition(" ")[0]
    restarted = process["host"] == socket.gethostname() and boot != now
    return restarted or _is_dead(process["system"], process["pid"])


def _system() -> str:
    """Return what numbers of processes mean something in: a boot of a machine, and a namespace of it.

    A host name does not say: containers may share one, and not see one another's processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _is_dead(system: str, pid: Any) -> bool:
    """Return whether a process of this system is surely gone; another one's cannot be asked."""
    if system != _system() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Return whether a process has ended and nobody asked for its exit code yet, as in many containers."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # not Linux, or gone by now
        return False
