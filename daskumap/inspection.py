"""What lies at a path, as a fit would take it."""

from __future__ import annotations

from typing import Any

from daskumap import api
from daskumap.encoder import Encoder
from daskumap.errors import DaskumapError
from daskumap.secrets import has_secrets, hide_secrets
from daskumap.sources.base import Source
from daskumap.sources.find import trace
from daskumap.store.model import find_model
from daskumap.store.places import find_place
from daskumap.store.run import is_run_store


def inspect(data: Any, **options: Any) -> dict[str, Any]:
    """Return what a path, a URL or an object is; reads metadata only.

    Parameters
    ----------
    options
        As of `daskumap.source`.

    Returns
    -------
    dict
        Of a run store what it holds and how far it is. Of an input its `kind`, `shape`, `dtype`, `chunks`,
        `labels` of its rows, `options` that its kind has, and what a `fit` of it takes; values of JSON.

    Raises
    ------
    SourceError, SourceNotFoundError
        As `daskumap.fit`; of a group with several arrays the message lists them.
    """
    if isinstance(data, str) and not options and _is_made(data):
        return _of_run(data)
    source, openers = trace(data, options)
    rows, columns = source.shape
    taken = sorted({"kind", *(name for opener in openers for name in opener.options)})
    return {
        "path": hide_secrets(str(data)) if isinstance(data, str) else source.name,
        "kind": " > ".join(opener.kind for opener in openers),
        "shape": [rows, columns],
        "dtype": str(source.dtype),
        "bytes": rows * columns * source.dtype.itemsize,
        "chunks": _chunks(source),
        "missing_chunks": source.count_missing(),
        "labels": sorted(source.labels),
        "options": taken,
        "fit": _fit_of(source),
    }


def _is_made(path: str) -> bool:
    """Return whether a run store or a saved network lies there."""
    if has_secrets(path):
        return False
    return is_run_store(path) or find_model(find_place(path)) is not None


def _of_run(path: str) -> dict[str, Any]:
    found = api.open(path)
    if isinstance(found, Encoder):
        return {"path": path, "kind": "saved network", "is": repr(found)}
    about = found.store.about
    return {
        "path": path,
        "kind": "run store",
        "of": type(found).__name__,
        "finished": found.finished,
        "shape": about["source"]["shape"],
        "input": about["source"]["path"],
        "params": {name: value for name, value in about["params"].items() if name in SHOWN},
    }


# Of all parameters of a run, those by which people know their maps.
SHOWN = ("n_neighbors", "n_components", "metric", "min_dist", "n_epochs", "init", "random_state", "keep")


def _chunks(source: Source) -> dict[str, Any]:
    """Return how the rows lie: whole chunks or shards, the pieces of these, and the rows that read well."""
    names = {"chunks": "outer", "inner_chunks": "inner"}
    found = {called: list(getattr(source, name)) for name, called in names.items() if hasattr(source, name)}
    if found.get("inner") == found.get("outer"):
        found.pop("inner", None)
    return {**found, "rows": source.block_rows}


def _fit_of(source: Source) -> dict[str, Any]:
    """Return what a fit with the defaults takes on this machine, or why it is refused."""
    try:
        plan = api.plan(source, calibrate=False, random_state=0)
    except DaskumapError as error:
        return {"refused": str(error)}
    return {
        "peak_bytes": max(map(plan.peak_bytes, plan.stages)),
        "disk_bytes": plan.disk_bytes,
        "kept_bytes": plan.kept_bytes,
        "seconds": sum(map(plan.seconds, plan.stages)),
    }
