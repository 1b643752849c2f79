"""Reads job files: YAML or JSON, with names of the environment, and paths as seen from the file's folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from daskumap.errors import ParameterError
from daskumap.hints import nearest
from daskumap.jobs.apart import refuse_meeting
from daskumap.jobs.files import Environment, hide_used, load
from daskumap.jobs.schema import CLUSTER_FILES, Job, Rows
from daskumap.params import INITS, Params, make_params
from daskumap.secrets import hide_secrets

# Parameters that are read when the run begins, or cannot be checked without the rows.
OPENED = ("init", "precomputed_knn")


def read_job(job: Any, replaced: Mapping[str, str] | None = None) -> Job:
    """Return what a job file, or a mapping of the same keys, says.

    Parameters
    ----------
    job
        Path of a YAML or JSON file, whose paths are as seen from its folder; a mapping, as seen from here; or
        a `Job`, which is returned as it is.
    replaced
        What stands in the place of a text, such as {partition}, wherever the job has it.

    Raises
    ------
    ParameterError
        Naming each key that is unknown or has a wrong value.
    """
    if isinstance(job, Job):
        return job
    if isinstance(job, dict):
        return _checked(dict(job), Environment("the job", replaced), Path.cwd(), "job")
    path = Path(job)
    # That of the file as it is named: a ConfigMap of Kubernetes is a link to another folder.
    folder = path.absolute().parent.resolve()
    return _checked(load(path), Environment(str(path), replaced), folder, path.stem)


def _checked(content: dict[str, Any], environment: Environment, folder: Path, name: str) -> Job:
    found, called = environment.fill(content), environment.called
    try:
        job = Job.model_validate(found)
    except ValidationError as error:
        lines = hide_used("\n  ".join(_in_words(one) for one in error.errors()), environment.used)
        raise ParameterError(
            f"{called} is no job file:\n  {lines}\n`daskumap run --schema` prints what may stand in one."
        ) from None
    make_params({key: value for key, value in job.parameters.items() if key not in OPENED})
    job = seen_from(job, folder)
    job.name = job.name or name
    job.about_file(folder, environment.used)
    refuse_meeting(job, called)
    return job


def _in_words(error: Any) -> str:
    """Return one mistake with where it stands, what was seen and what is allowed."""
    where, kind = ".".join(map(str, error["loc"])), error["type"]
    if kind == "extra_forbidden":
        known = _known_at(error["loc"][:-1])
        meant = _meant(str(error["loc"][-1]), known, top=len(error["loc"]) == 1)
        return f"{where}: no such key; {meant}known are {', '.join(known)}"
    text = error["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return f"{where}: missing; write it down"
    seen = error.get("input")
    secret = {"webhook", "command"} & set(error["loc"])
    shown = "" if secret or isinstance(seen, dict | list) else f" (seen: {hide_secrets(repr(seen))})"
    return f"{where}: {text}{shown}" if where else text


def _meant(word: str, known: list[str], top: bool) -> str:
    """Return which key was meant; at the top of a job a parameter of the fit may have been."""
    fields = [] if not top else [field.name for field in dataclasses.fields(Params)]
    if word in fields or not (near := nearest(word, known)):
        named = nearest(word, fields)
        return f"did you mean {named[0]!r} under parameters? " if named else ""
    return f"did you mean {near[0]!r}? "


def _known_at(place: Iterable[Any]) -> list[str]:
    """Return the keys that a part of a job file may have."""
    kind: type[BaseModel] = Job
    for name in place:
        if isinstance(name, str) and name in kind.model_fields:
            kind = _model_in(kind.model_fields[name].annotation) or kind
    return list(kind.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, getattr(annotation, "__args__", ()))), None)


def seen_from(job: Job, folder: Path) -> Job:
    """Return the job with all paths whole, so that it means the same wherever it is run."""
    job = job.model_copy(deep=True)

    def whole(path: str) -> str:
        if "://" in path:
            return path
        at = folder / Path(path).expanduser()
        # What follows a link is as the system follows it.
        return os.path.normpath(at.parent.resolve() / at.name if at.name != ".." else at.resolve())

    for rows in (job.source, *(one.source for one in job.transform)):
        rows.path = whole(rows.path)
        _whole_options(rows, whole)
    job.run = whole(job.run)
    job.labels = whole(job.labels) if job.labels else None
    if isinstance(job.cluster, str) and job.cluster.endswith((*CLUSTER_FILES, ".json")):
        job.cluster = whole(job.cluster)
    for name in OPENED:
        path = job.parameters.get(name)
        if isinstance(path, str) and path not in INITS:
            job.parameters[name] = whole(path)
    for transform in job.transform:
        transform.out = whole(transform.out)
    for result in job.all_results:
        result.path = whole(result.path)
    return job


def _whole_options(rows: Rows, whole: Callable[[str], str]) -> None:
    """Complete those options of a source that are paths: labels in a file beside it."""
    labels = rows.options.get("labels")
    if isinstance(labels, str) and ("/" in labels or labels.endswith((".npy", ".zarr"))):
        setattr(rows, "labels", whole(labels))  # noqa: B010, an option, which the class does not name
