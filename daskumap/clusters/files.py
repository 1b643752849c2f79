"""Reading a cluster file: which kind it is of, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from daskumap.clusters.base import Cluster
from daskumap.clusters.gateway import Gateway
from daskumap.clusters.given import Address, SchedulerFile
from daskumap.clusters.jobqueue import Lsf, Pbs, Sge, Slurm
from daskumap.clusters.kubernetes import Kubernetes
from daskumap.clusters.local import Local
from daskumap.clusters.runners import Mpi, SlurmAllocation
from daskumap.clusters.ssh import Ssh
from daskumap.errors import ParameterError
from daskumap.hints import nearest

KINDS: dict[str, type[Cluster]] = {
    "local": Local,
    "address": Address,
    "scheduler-file": SchedulerFile,
    "ssh": Ssh,
    "slurm": Slurm,
    "slurm-runner": SlurmAllocation,
    "pbs": Pbs,
    "lsf": Lsf,
    "sge": Sge,
    "kubernetes": Kubernetes,
    "gateway": Gateway,
    "mpi": Mpi,
}
ADAPTIVE = (
    "adapt",
    "adaptive",
    "minimum",
    "maximum",
    "min_workers",
    "max_workers",
    "minimum_jobs",
    "maximum_jobs",
)


def read(cluster: Any) -> Cluster:
    """Return the cluster that a file describes.

    Parameters
    ----------
    cluster
        Path of a YAML file, its content as a dict, or what this returned.

    Raises
    ------
    ParameterError
        If there is no such file, or a key is unknown, missing or wrong: all that is wrong, in one message.
    """
    if isinstance(cluster, Cluster):
        return cluster
    if isinstance(cluster, Mapping):
        return parse(dict(cluster), "cluster")
    if not isinstance(cluster, str | Path):
        raise ParameterError(
            f"cluster is {cluster!r}; give the path of a cluster file, or its content as a dict."
        )
    return parse(load(Path(cluster)), str(cluster))


def load(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises
    ------
    ParameterError
        If it cannot be read.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise ParameterError(
            f"The cluster file {path} cannot be read ({error.strerror or error})."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"The cluster file {path} is no YAML ({error}).") from error


def parse(content: Any, name: str) -> Cluster:
    """Return the cluster that the content of a file describes."""
    if not isinstance(content, Mapping) or "kind" not in content:
        raise ParameterError(f"{name} says no kind of cluster. Write `kind:` with one of {', '.join(KINDS)}.")
    kind = content["kind"]
    if kind not in KINDS:
        raise ParameterError(
            f"{name}: kind is {kind!r}{_did_you_mean(kind, KINDS)}; it is one of {', '.join(KINDS)}."
        )
    model = KINDS[kind]
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        wrong = "; ".join(_in_our_words(one, model, kind) for one in error.errors())
        raise ParameterError(f"{name}: {wrong}.") from None


def _in_our_words(error: Any, model: type[Cluster], kind: str) -> str:
    """Say one thing that is wrong: the key, what was seen, what is allowed."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        if path[-1] in ADAPTIVE:
            return (
                f"{key} is refused: a cluster that adapts ends workers between stages, with the part of the "
                "layout that they hold; write workers, a number that stays"
            )
        known = list(model.model_fields) if len(path) == 1 else ["ca", "cert", "key"]
        return f"unknown key {key}{_did_you_mean(path[-1], known)}; kind {kind} has {', '.join(known)}"
    if error["type"] == "missing":
        field = model.model_fields.get(path[0])
        says = f" ({field.description})" if field is not None and len(path) == 1 else ""
        return f"kind {kind} needs {key}{says}"
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    message = message.replace("Input should", "it should", 1)
    # What has parts is not shown: there may be what nobody is to see.
    shown = key and isinstance(error["input"], str | int | float)
    return f"{key} is {error['input']!r}: {message}" if shown else ": ".join(filter(None, [key, message]))


def _did_you_mean(word: Any, known: Any) -> str:
    near = nearest(str(word), map(str, known))
    return f", did you mean {near[0]}?" if near else ""
