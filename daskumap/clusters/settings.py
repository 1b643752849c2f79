"""What Dask is told on a cluster: of memory, profiler, deaths and BLAS, as configuration and variables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("settings.yaml")
# A task has one thread; that of BLAS decides bits, and more than one would share its core with other tasks.
# Numba's own are left alone: a nanny sets variables in the process that started it too, where another number
# ends all later compilation once Numba has started its threads.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SPAWN = "distributed.nanny.pre-spawn-environ"


@cache
def shipped() -> Mapping[str, Any]:
    """Return the settings of `settings.yaml` by their dotted names."""
    import yaml

    return dict(_leaves(yaml.safe_load(FILE.read_text())))


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def as_variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings of Dask as variables of an environment, from which Dask reads them.

    >>> as_variables({"distributed.scheduler.allowed-failures": 3})
    {'DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES': '3'}
    """
    return {
        "DASK_" + name.replace(".", "__").replace("-", "_").upper(): str(value)
        for name, value in settings.items()
    }


@contextlib.contextmanager
def in_force(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[None]:
    """Let this process, and what it starts, have settings; nannies give the variables to workers."""
    import dask

    spawn = {**dask.config.get(SPAWN, {}), **environment}
    with dask.config.set({**settings, SPAWN: spawn}):
        yield


def differing(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return which of a worker's settings are others than those that are shipped."""
    return {
        name: found.get(name)
        for name, value in shipped().items()
        if name.startswith("distributed.worker.") and found.get(name) != value
    }


def of_this_process() -> dict[str, Any]:
    """Return the settings of this process by the names of those that are shipped: what a worker is asked."""
    import dask
    import distributed  # noqa: F401, its defaults are read then

    return {name: dask.config.get(name, None) for name in shipped()}
