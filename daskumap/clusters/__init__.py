"""Cluster files: one schema for all the places where tasks can run. Nothing heavy is imported too early."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from daskumap.engine.machine import parse_memory, plan_resources
from daskumap.errors import ParameterError
from daskumap.planning.sizes import Resources


def choose(client: Any, cluster: Any) -> Any:
    """Return where tasks run: what `client=` names, or the cluster that `cluster=` describes.

    Parameters
    ----------
    client
        As of `daskumap.fit`, or None.
    cluster
        A cluster file, its content as a dict, what `read` returned, or None.

    Raises
    ------
    ParameterError
        If both are given, or the file is none.
    """
    if cluster is None:
        return client
    if client is not None:
        raise ParameterError(
            f"client is {client!r} and cluster is given too. Give one of them: a cluster that runs already "
            "is a client, and one that a file describes is started and closed with the run."
        )
    from daskumap.clusters.files import read

    return read(cluster)


def resources_of(
    cluster: Any, memory: str | int | None = None, workers: int | None = None, threads: int | None = None
) -> Resources:
    """Return what a run on a cluster is planned for, as far as that is known before it is started.

    Parameters
    ----------
    cluster
        As of `choose`. One that runs already is asked.
    memory
        What a worker may use: at most what the cluster gives it.
    workers, threads
        Where the cluster does not say them, as that of a site or of an allocation.

    Raises
    ------
    ParameterError
        If something is missing, or said twice.
    ClusterError
        If a cluster that runs already does not answer.
    """
    from daskumap.clusters.files import read

    found = read(cluster)
    sizes, given = found.sizes(), {"workers": workers, "threads": threads}
    for name, value in given.items():
        if value is not None and name in sizes:
            raise ParameterError(
                f"{name} is {value}, and the cluster of kind {found.kind} has {sizes[name]}. Leave it out."
            )
    limit = parse_memory(memory)
    known = {name: value for name, value in given.items() if value is not None} | sizes
    if limit is not None:  # as of a run
        known["memory"] = min(limit, known.get("memory", limit))
    missing = [name for name in ("workers", "threads", "memory") if name not in known]
    if missing:
        raise ParameterError(
            f"A cluster of kind {found.kind} does not say before its start how large it is. Plan with "
            f"{' and '.join(missing)} too (--{' ... --'.join(missing)} ...), as its workers will have."
        )
    return plan_resources(**known)


@contextlib.contextmanager
def start_cluster(cluster: Any) -> Iterator[Any]:
    """Start what a cluster file describes, for several calls, and close it in the end.

    >>> with start_cluster("slurm.yaml") as client:  # doctest: +SKIP
    ...     run = daskumap.fit("data.zarr/X", "run.zarr", client=client)
    ...     run.transform("more.zarr/X", "more-map.zarr", client=client)

    Parameters
    ----------
    cluster
        A cluster file, or its content as a dict.

    Raises
    ------
    ParameterError, ClusterError, DependencyError
        If the file is wrong, the cluster cannot be started, or a package is missing.
    """
    from daskumap.clusters.files import read

    with read(cluster).started() as client:
        yield client
