"""Cluster files: one schema for all the places where tasks can run. Nothing heavy is imported too early."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from daskumap.errors import ParameterError


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
