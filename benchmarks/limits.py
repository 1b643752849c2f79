"""Limits of memory that the operating system enforces, for worker processes of a benchmark.

A process enters its limit before it becomes the worker:

    python limits.py --cgroup DIR COMMAND...    # joins a cgroup, then executes COMMAND
    python limits.py --data BYTES COMMAND...    # limits its data segment, then executes COMMAND

A cgroup counts all resident memory and the page cache of what is read and written; the kernel drops cache
when the limit is near, and kills the process when its own memory does not fit. Where no cgroup can be made,
RLIMIT_DATA bounds the private writable memory that a process may map: allocations fail above it.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol


class Limit(Protocol):
    """One process' limit."""

    kind: str

    def command(self) -> list[str]:
        """Return what to put before the command that is to run under the limit."""

    def readings(self) -> dict[str, int]:
        """Return what the system counted: bytes at the most, times the limit was hit, processes killed."""

    def close(self) -> None:
        """Remove the limit; its process has ended."""


def wrapper(option: str, value: Any) -> list[str]:
    """Return the command that starts this file as a wrapper."""
    return [sys.executable, str(Path(__file__).resolve()), option, str(value)]


class Cgroup:
    """A control group of version 1 or 2.

    Parameters
    ----------
    parent
        Folder of the hierarchy in which a group can be made.
    version
        1 or 2.
    """

    def __init__(self, parent: Path, version: int, name: str, size: int) -> None:
        self.kind, self.version = f"cgroup v{version}", version
        self.path = parent / f"daskumap-{os.getpid()}-{name}"
        self.path.mkdir()
        limit, swap = (
            ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", size))
            if version == 1
            else ("memory.max", ("memory.swap.max", 0))
        )
        try:
            (self.path / limit).write_text(str(size))
            # Without a limit on swap as well, pages would go there instead of hitting the limit.
            if (self.path / swap[0]).exists():
                (self.path / swap[0]).write_text(str(swap[1]))
        except OSError:
            self.path.rmdir()
            raise

    def command(self) -> list[str]:
        """Return what to put before the command that is to run under the limit."""
        return wrapper("--cgroup", self.path)

    def readings(self) -> dict[str, int]:
        """Return what the kernel counted; "rss" is the processes' own memory now, without page cache."""
        if self.version == 1:
            stat, events = self._table("memory.stat"), self._table("memory.oom_control")
            return {
                "peak": self._number("memory.max_usage_in_bytes"),
                "hits": self._number("memory.failcnt"),
                "killed": events.get("oom_kill", 0),
                "rss": stat["rss"],
                "cache": stat["cache"],
            }
        stat, events = self._table("memory.stat"), self._table("memory.events")
        return {
            "peak": self._number("memory.peak") if (self.path / "memory.peak").exists() else 0,
            "hits": events["max"],
            "killed": events["oom_kill"],
            "rss": stat["anon"],
            "cache": stat["file"],
        }

    def close(self) -> None:
        """Remove the group; its process has ended."""
        self.path.rmdir()

    def _number(self, name: str) -> int:
        return int((self.path / name).read_text())

    def _table(self, name: str) -> dict[str, int]:
        lines = (self.path / name).read_text().splitlines()
        return {key: int(value) for key, value in (line.split() for line in lines)}


class DataLimit:
    """RLIMIT_DATA of the process: no more private writable memory than so many bytes."""

    kind = "RLIMIT_DATA"

    def __init__(self, size: int) -> None:
        self.size = size

    def command(self) -> list[str]:
        """Return what to put before the command that is to run under the limit."""
        return wrapper("--data", self.size)

    def readings(self) -> dict[str, int]:
        """Return nothing: the system does not count."""
        return {}

    def close(self) -> None:
        """Do nothing: the limit went with its process."""


def make_limit(name: str, size: int) -> Limit:
    """Return the strongest limit that this system lets us set: cgroup v2, v1, or RLIMIT_DATA."""
    for parent, version in _hierarchies():
        try:
            return Cgroup(parent, version, name, size)
        except OSError:
            continue
    return DataLimit(size)


def _hierarchies() -> list[tuple[Path, int]]:
    """Return the memory hierarchies that we may write to; mounts one of version 1 if there is none."""
    found = [(Path(place), version) for place, version in _mounts() if os.access(place, os.W_OK)]
    if found:
        return found
    place = tempfile.mkdtemp(prefix="cgroup-")
    mounted = subprocess.run(
        ["mount", "-t", "cgroup", "-o", "memory", "none", place], capture_output=True, check=False
    )
    if mounted.returncode:
        os.rmdir(place)
        return []
    return [(Path(place), 1)]


def _mounts() -> list[tuple[str, int]]:
    """Return (place, version) of each mounted hierarchy that controls memory."""
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup2" and _controls_memory(Path(place)):
            found.append((place, 2))
        if kind == "cgroup" and "memory" in options.split(","):
            found.append((place, 1))
    return found


def _controls_memory(place: Path) -> bool:
    """Return whether groups made in a version 2 hierarchy can limit memory."""
    file = place / "cgroup.subtree_control"
    return file.exists() and "memory" in file.read_text().split()


def main(option: str, value: str, command: list[str]) -> None:
    """Enter the limit and become the command."""
    if option == "--cgroup":
        (Path(value) / "cgroup.procs").write_text(str(os.getpid()))
    elif option == "--data":
        resource.setrlimit(resource.RLIMIT_DATA, (int(value), int(value)))
    else:
        sys.exit(f"{option} is unknown; use --cgroup DIR or --data BYTES")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
