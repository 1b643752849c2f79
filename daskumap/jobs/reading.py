"""Reads job files: YAML or JSON, with names of the environment, and paths as seen from the file's folder."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from daskumap.errors import ParameterError
from daskumap.hints import nearest
from daskumap.jobs.schema import CLUSTER_FILES, Job, Rows
from daskumap.params import Params, make_params
from daskumap.secrets import hide_secrets

NAMED = re.compile(r"\$\{([A-Za-z_]\w*)\}")
# YAML 1.1 reads 1e-3 as a text, since it has no point; whoever writes it means a number.
NUMBER = re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)$")
# Parameters that are read when the run begins, or cannot be checked without the rows.
OPENED = ("init", "precomputed_knn")


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML without the two surprises: 1e-3 is a number, and a key that stands twice is refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, in which each key stands once."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} stands twice in one mapping", key.start_mark
                )
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))


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
        return _checked(_with_environment(job, "the job", replaced), "the job", Path.cwd(), "job")
    path = Path(job)
    found = _with_environment(_load(path), str(path), replaced)
    return _checked(found, str(path), path.absolute().parent, path.stem)


def _load(path: Path) -> dict[str, Any]:
    try:
        found = yaml.load(path.read_text(), Loader)
    except OSError as error:
        raise ParameterError(
            f"The job file {path} cannot be read: {error.strerror}. Name another."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is no YAML: {error}. See docs/nightly.md for job files.") from error
    if not isinstance(found, dict):
        raise ParameterError(
            f"{path} holds a {type(found).__name__}; a job file is a mapping with at least source and run."
        )
    return found


def _with_environment(
    found: dict[str, Any], called: str, replaced: Mapping[str, str] | None
) -> dict[str, Any]:
    """Put values of the environment in the place of ${NAME}, in all texts."""

    def value(name: re.Match[str]) -> str:
        if name[1] not in os.environ:
            raise ParameterError(
                f"{called} names {name[0]}, and the environment has no {name[1]}. Set it where the job is "
                "started, as by Environment= of systemd or a line of the crontab."
            )
        return os.environ[name[1]]

    def filled(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: filled(one) for key, one in item.items()}
        if isinstance(item, list):
            return [filled(one) for one in item]
        if not isinstance(item, str):
            return item
        for text, other in (replaced or {}).items():
            item = item.replace(text, other)
        return NAMED.sub(value, item)

    return {key: filled(item) for key, item in found.items()}


def _checked(found: dict[str, Any], called: str, folder: Path, name: str) -> Job:
    try:
        job = Job.model_validate(found)
    except ValidationError as error:
        lines = "\n  ".join(_in_words(one) for one in error.errors())
        raise ParameterError(
            f"{called} is no job file:\n  {lines}\n`daskumap run --schema` prints what may stand in one."
        ) from None
    make_params({key: value for key, value in job.parameters.items() if key not in OPENED})
    job.name = job.name or name
    return seen_from(job, folder)


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
    shown = "" if isinstance(seen, dict | list) else f" (seen: {hide_secrets(repr(seen))})"
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
        return path if "://" in path else os.path.normpath(folder / Path(path).expanduser())

    for rows in (job.source, *(one.source for one in job.transform)):
        rows.path = whole(rows.path)
        _whole_options(rows, whole)
    job.run = whole(job.run)
    job.labels = whole(job.labels) if job.labels else None
    if isinstance(job.cluster, str) and job.cluster.endswith((*CLUSTER_FILES, ".json")):
        job.cluster = whole(job.cluster)
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
