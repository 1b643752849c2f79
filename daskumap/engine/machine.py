"""What this machine, or the container around this process, has to offer."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from daskumap.errors import ParameterError
from daskumap.planning.sizes import Resources

# A run shares the machine with its user, and with what the system caches of files.
MEMORY_SHARE = 0.6
# Where control groups of version 1 and 2 say how much memory a container has.
GROUP_LIMITS = (
    "memory/memory.limit_in_bytes",
    "memory/memory.soft_limit_in_bytes",
    "memory.max",
    "memory.high",
)
# No machine has more cores, and no cluster of ours more machines: what lies beyond is a slip.
MOST_THREADS, MOST_WORKERS = 4_096, 100_000
# Addresses have 64 bits.
MOST_BYTES = 2**63
# The steps of 1000 and of 1024 between units of memory.
PREFIXES = "kmgtp"


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Return 60 % of the memory that the machine or the container has, in bytes."""
    return int(min(_memory_limits()) * MEMORY_SHARE)


def _memory_limits() -> Iterator[int]:
    """Yield what is there and what is allowed; a limit of 0 or below is none."""
    yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in GROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is no such group, or it says "max"
            limit = int(Path("/sys/fs/cgroup", name).read_text())
            if limit > 0:
                yield limit
    allowed = resource.getrlimit(resource.RLIMIT_RSS)[1]
    if allowed > 0:
        yield allowed


def plan_resources(memory: str | int | None, workers: int, threads: int | None) -> Resources:
    """Return what a run is planned for: the memory and the cores of this machine unless others are named."""
    size = parse_memory(memory) or available_memory()
    return Resources(
        size, _check_count("workers", workers, MOST_WORKERS), check_threads(threads) or available_cores()
    )


def check_threads(threads: Any) -> int | None:
    """Return a number of threads, if it is one.

    Raises
    ------
    ParameterError
        If it is neither None nor a number of threads that a process can have.
    """
    return None if threads is None else _check_count("threads", threads, MOST_THREADS)


def _check_count(name: str, value: Any, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise ParameterError(f"{name} is {value!r}; it must be an integer from 1 to {most:,}.")


def parse_memory(text: str | int | float | None) -> int | None:
    """Return a number of bytes from a number or text such as "4GB" or "512MiB".

    >>> parse_memory("1.5 kiB")
    1536

    Raises
    ------
    ParameterError
        If it is neither, or not positive.
    """
    if text is None:
        return None
    if isinstance(text, bool):
        raise ParameterError(f"memory is {text!r}; give bytes, or text such as '4GB'.")
    try:
        size = _bytes(text.replace(" ", "").lower()) if isinstance(text, str) else int(text)
    except (ValueError, TypeError, OverflowError, KeyError) as error:
        raise ParameterError(f"memory is {text!r}; give bytes, or text such as '4GB'.") from error
    if not 0 < size < MOST_BYTES:
        raise ParameterError(f"memory is {text!r}; it must be above 0 and below 2**63 bytes.")
    return size


def _bytes(text: str) -> int:
    """Return the bytes of a number and a unit; one of them is enough, as in Dask's own settings."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(float(number or 1) * _units()[text[len(number) :]])


def _units() -> dict[str, int]:
    units = {"": 1, "b": 1}
    for power, prefix in enumerate(PREFIXES, 1):
        units |= {prefix: 1000**power, f"{prefix}b": 1000**power}
        units |= {f"{prefix}i": 1024**power, f"{prefix}ib": 1024**power}
    return units
