"""What a user gives to be measured: data and a map, or a run, which has both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.kernels.metrics.metric import Metric, resolve
from daskumap.params import make_params
from daskumap.run import Run, view
from daskumap.sources.base import Source
from daskumap.sources.cells import of_rows
from daskumap.sources.find import find
from daskumap.store.labels import Labels
from daskumap.store.places import find_place
from daskumap.store.run import RunStore, is_run_store
from daskumap.views import Beside, Mapped


@dataclass(frozen=True)
class Given:
    """Data and a map.

    Attributes
    ----------
    run
        That the map is of, if it is one of a run.
    labels
        Columns of labels by name, those of the run and of the data; and columns of obs of an AnnData.
    """

    source: Source
    embedding: Any
    metric: Metric
    run: Mapped | None
    labels: Labels


def read_given(data: Any, embedding: Any, metric: Any, metric_kwds: dict[str, Any] | None) -> Given:
    """Return what is to be measured, as the arguments of `daskumap.evaluate` say."""
    alone = embedding is None
    run = as_run(data if alone else embedding)
    if alone and run is None:
        raise ParameterError(
            "embedding is missing, and data is no run. Give the places of the rows on the map, or a run "
            "alone."
        )
    source = run.input() if alone and run is not None else find(data)
    if run is not None:
        embedding = run.embedding
    labels = Beside({**source.labels, **(run.labels if run is not None else {})}, lambda: _more(source, run))
    return Given(source, embedding, _metric(metric, metric_kwds, run), run, labels)


def _more(source: Source, run: Mapped | None) -> Labels:
    """Return columns of the cells of an AnnData: as the data have them, else as the run's input does."""
    if source.origin is not None:
        return of_rows(source)
    return run.columns.more if run is not None else {}


def as_run(value: Any) -> Mapped | None:
    """Return the run that is given, or that is at a path; None for anything else.

    Raises
    ------
    ParameterError
        If it is a run that has no map, such as one of predictions.
    """
    if isinstance(value, str | os.PathLike) and is_run_store(value):
        found = view(RunStore.open(find_place(value), mode="r"))
        if not isinstance(found, Mapped):
            raise ParameterError(f"{found!r} has no map. Give the run of a fit or of a transform.")
        return found
    return value if isinstance(value, Mapped) else None


def _metric(metric: Any, metric_kwds: dict[str, Any] | None, run: Mapped | None) -> Metric:
    if metric is None and run is not None:
        return _metric_of(run)
    params = make_params({"metric": metric or "euclidean", "metric_kwds": metric_kwds})
    try:
        return resolve(params.metric, params.metric_kwds)
    except ValueError as error:
        raise ParameterError(str(error)) from error


def _metric_of(run: Mapped) -> Metric:
    apart = run.params.get("undefined") == "apart"
    if isinstance(run, Run) and (held := run.held_params) is not None:
        return resolve(held.metric, held.metric_kwds, apart)
    known: dict[str, Any] = {
        name: run.params[name] for name in ("metric", "metric_kwds") if name in run.params
    }
    if str(known.get("metric")).startswith("callable:") or "array(" in str(known.get("metric_kwds")):
        raise ParameterError(
            f"The run in {run.path} was fitted with a metric that it does not hold: {known['metric']}. Pass "
            "metric and metric_kwds."
        )
    params = make_params(known)
    return resolve(params.metric, params.metric_kwds, apart)


def check_counts(rows: int, **counts: int) -> None:
    """Refuse counts that are no counts, and too few rows for `n_neighbors` of them."""
    for name, value in counts.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ParameterError(f"{name} is {value!r}; it must be an integer of 1 or more.")
    # Where trustworthiness is defined.
    k = counts["n_neighbors"]
    if 2 * rows <= 3 * k + 1:
        remedy = f"Lower n_neighbors to {(2 * rows - 2) // 3}." if rows > 2 else "Give more rows."
        raise ParameterError(
            f"The map has {rows:,} rows with a place, too few for n_neighbors={k}: at least "
            f"{(3 * k + 1) // 2 + 1:,} are needed. {remedy}"
        )
