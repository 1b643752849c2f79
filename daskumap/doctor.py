"""What this machine and environment have for a fit, and what is wrong with them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from daskumap.engine.machine import available_cores, available_memory

# Extras of those who work on daskumap itself.
INTERNAL = ("test", "benchmark")
# A worker takes about 0.3 GB before it holds any data, and its tasks need some.
LEAST_MEMORY = 1_000_000_000
# Scratch files of a fit in memory, sockets and what libraries leave.
LEAST_TEMPORARY = 500_000_000
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

State = Literal["ok", "note", "wrong"]


class Finding(NamedTuple):
    """One thing that was looked at: how it is, and what to do where it is not as it should be."""

    name: str
    state: State
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at versions, threads, memory, folders, the cache of kernels, extras and Dask's settings.

    What cannot be looked at is wrong.
    """
    found = []
    for name, check in CHECKS.items():
        try:
            found += [Finding(name, *rest) for rest in check()]
        except Exception as error:  # whatever a broken installation raises
            found.append(Finding(name, "wrong", f"{type(error).__name__}: {error}", "Install daskumap anew."))
    return found


Rest = Iterator[tuple[State, str] | tuple[State, str, str]]


def _python() -> Rest:
    yield "ok", f"{platform.python_version()} at {sys.executable}, {platform.platform()}"
    if not __debug__:
        yield "wrong", "Python runs without asserts (-O), which zarr needs.", "Unset PYTHONOPTIMIZE."


def _versions() -> Rest:
    """Compare what is installed with what daskumap says it needs."""
    good = []
    for need in _needs(None):
        version, fits = _installed(need)
        if version is None:
            yield "wrong", f"{need.name} is missing.", f"pip install '{need}'"
        elif not fits:
            yield "wrong", f"{need.name} {version} is not {need.specifier}.", f"pip install '{need}'"
        else:
            good.append(f"{need.name} {version}")
    yield "ok", ", ".join([f"daskumap {importlib.metadata.version('daskumap')}", *good])
    both = [importlib.metadata.version(name) for name in ("dask", "distributed")]
    if both[0] != both[1]:
        remedy = f"pip install dask=={both[1]} distributed=={both[1]}"
        yield "wrong", f"dask {both[0]} and distributed {both[1]} do not go together.", remedy


def _extras() -> Rest:
    names = importlib.metadata.metadata("daskumap").get_all("Provides-Extra") or []
    for extra in sorted(set(names) - set(INTERNAL)):
        found = [(need, *_installed(need)) for need in _needs(extra)]
        missing = [need.name for need, version, _ in found if version is None]
        old = [f"{need.name} {version} is not {need.specifier}" for need, version, fits in found if not fits]
        remedy = f"pip install 'daskumap[{extra}]'"
        if missing:
            yield "ok", f"{extra}: missing ({', '.join(missing)}); to have it: {remedy}"
        elif old:
            yield "wrong", f"{extra}: {'; '.join(old)}", remedy
        else:
            yield "ok", f"{extra}: {', '.join(f'{need.name} {version}' for need, version, _ in found)}"


def _needs(extra: str | None) -> list[Any]:
    """Return the requirements of daskumap itself, or those that an extra adds."""
    from packaging.requirements import Requirement

    needs = [Requirement(text) for text in importlib.metadata.requires("daskumap") or []]
    plain = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    if extra is None:
        return plain
    added = [need for need in needs if need.marker is not None and need not in plain]
    return [need for need in added if need.marker is None or need.marker.evaluate({"extra": extra})]


def _installed(need: Any) -> tuple[str | None, bool]:
    try:
        version = importlib.metadata.version(need.name)
    except importlib.metadata.PackageNotFoundError:
        return None, True
    return version, need.specifier.contains(version, prereleases=True)


def _threads() -> Rest:
    cores = available_cores()
    set_ = [f"{name}={os.environ[name]}" for name in THREADS if name in os.environ]
    yield "ok", ", ".join([f"{cores} cores for this process", *set_])
    quota = _cpu_quota()
    if quota is not None and quota < cores:
        whole = max(1, int(quota))
        yield "note", f"The container may use {quota:g} of them.", f"Give --threads {whole}."


def _cpu_quota() -> float | None:
    with suppress(OSError, ValueError):  # no such group, or it says "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def _memory() -> Rest:
    planned, free = available_memory(), _free_memory()
    said = f"a fit plans with {planned / 1e9:.1f} GB, 60 % of this machine or container"
    if planned < LEAST_MEMORY:
        yield "wrong", f"{said}; it needs {LEAST_MEMORY / 1e9:.0f} GB at least.", "Give it more memory."
    elif free is not None and free < planned:
        remedy = f"Give --memory {free * 0.8 / 1e9:.1f}GB, or end what uses it."
        yield "note", f"{said}; {free / 1e9:.1f} GB are free now.", remedy
    else:
        yield "ok", said


def _free_memory() -> int | None:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return None


def _temporary() -> Rest:
    try:
        folder = tempfile.gettempdir()
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        yield "wrong", f"No temporary folder can be written: {error}", "Set TMPDIR to one that can."
        return
    free = shutil.disk_usage(folder).free
    said = f"{folder}, {free / 1e9:.1f} GB free"
    if free < LEAST_TEMPORARY:
        yield "wrong", said, "Free some, or set TMPDIR to another folder."
    elif _in_memory(folder):
        yield "note", f"{said}, in memory: what lies there counts as used.", "Set TMPDIR to a folder on disk."
    else:
        yield "ok", said


def _in_memory(folder: str) -> bool:
    """Return whether a folder lies in memory, by the longest mount point above it."""
    with suppress(OSError):
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
        above = [(len(point), kind) for point, kind in mounts if Path(folder).is_relative_to(point)]
        return max(above)[1] == "tmpfs"
    return False


def _kernels() -> Rest:
    from daskumap.kernels.cache import cache_folder
    from daskumap.kernels.jit import is_compiled

    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        yield "wrong", "NUMBA_DISABLE_JIT is set: kernels run as Python, 1,000 times slower.", "Unset it."
        return
    folder = cache_folder()
    if folder is None:
        yield (
            "wrong",
            "No folder for compiled kernels can be written: each process takes half a minute.",
            "Set NUMBA_CACHE_DIR to a folder that can be written.",
        )
    else:
        state = "compiled" if is_compiled() else "the first fit compiles them, half a minute"
        yield "ok", f"{folder} ({state})"


def _dask() -> Rest:
    from daskumap.engine.settings import problems

    found = problems()
    for text, remedy in found:
        yield "wrong", text, remedy
    if not found:
        yield "ok", "settings as they should be"


CHECKS: dict[str, Callable[[], Rest]] = {
    "python": _python,
    "versions": _versions,
    "threads": _threads,
    "memory": _memory,
    "temporary folder": _temporary,
    "compiled kernels": _kernels,
    "dask": _dask,
    "extras": _extras,
}
