"""What a caller asks for: the input, and parameters that suit it; and the plan of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from daskumap.driver import make_plan
from daskumap.errors import ParameterError, SourceError
from daskumap.kernels.metrics import metric as metrics
from daskumap.params import PRECOMPUTED, Params, make_params
from daskumap.pipeline import kind_of, steps_of
from daskumap.planning.job import Job
from daskumap.planning.plan import Plan
from daskumap.planning.sizes import Resources, Sizes, make_distance_sizes, make_sizes, make_transform_sizes
from daskumap.runtime.context import Context, make_context
from daskumap.sources.base import Source
from daskumap.sources.distances import SparseDistances, find_distances
from daskumap.sources.find import find
from daskumap.sources.ingest import as_stored


@dataclasses.dataclass(frozen=True)
class Request:
    """What a caller asks for: the input, the parameters as checked against it, and how the layout is cut.

    Attributes
    ----------
    adjust
        Changes sizes that may not matter, as tests do.
    model
        The finished run into whose map the input's rows are placed; None for a fit.
    """

    source: Source
    params: Params
    partitions: int | None = None
    adjust: Callable[[Sizes], Sizes] = lambda sizes: sizes
    model: Context | None = None

    def plan(self, resources: Resources, ingested: bool) -> Plan:
        """Return the plan, with the input where it is or as it lies in the run store; starts nothing."""
        stored = ingested and not isinstance(self.source, SparseDistances)  # which are copied as they are
        source = as_stored(self.source.shape, self.source.dtype) if stored else self.source
        sizes = self.adjust(self._sizes(source, resources))
        context = make_context(
            Job("", "", source.spec(), self.params, sizes, resources), source, model=self.model
        )
        return make_plan(context, steps_of(kind_of(self.model, self.params).pipeline, self.params))

    def _sizes(self, source: Source, resources: Resources) -> Sizes:
        if self.params.metric == PRECOMPUTED:
            return plan_distance_sizes(source, self.params, resources, self.partitions, self.model)
        if self.model is None:
            return plan_sizes(source, self.params, resources, self.partitions)
        return make_transform_sizes(
            *source.shape,
            self.params.n_neighbors,
            self.params.n_components,
            resources,
            model_rows=self.model.sizes.rows,
            source_block_rows=source.block_rows,
            source_item_bytes=source.dtype.itemsize,
        )


def make_request(data: Any, values: dict[str, Any], partitions: int | None) -> Request:
    """Find the source and check the parameters, alone and against the shape of the data."""
    source = find_input(data, values.get("metric"))
    whole = isinstance(partitions, int) and not isinstance(partitions, bool)
    if partitions is not None and not (whole and 1 <= partitions <= source.shape[0]):
        raise ParameterError(
            f"partitions is {partitions!r}; it must be an integer from 1 to the number of rows."
        )
    params = make_params(values)
    check_params(params, source)
    return Request(source, params, partitions)


def find_input(data: Any, metric: Any) -> Source:
    """Return the source of rows, or of distances, which may be sparse."""
    return find_distances(data) if isinstance(metric, str) and metric == PRECOMPUTED else find(data)


def make_transform_request(data: Any, model: Context) -> Request:
    """Find the source of new rows and check it against the rows that were fitted.

    Raises
    ------
    SourceError
        If they have another number of columns.
    """
    source = find_input(data, model.params.metric)
    if source.shape[1] != model.sizes.columns:
        raise SourceError(
            f"The new rows have {source.shape[1]} columns, and the run in {model.url} was fitted to rows of "
            f"{model.sizes.columns}. Give the same columns in the same order."
        )
    # What a transform leaves is its result; its start is none of the fit's.
    params = dataclasses.replace(model.params, init="pca", report=False, unique=False)
    keep = "all" if params.keep == "all" else "embedding"
    return Request(source, dataclasses.replace(params, keep=keep), model=model)


def check_params(params: Params, source: Source) -> None:
    """Refuse parameters that do not suit the shape of the data."""
    rows, columns = source.shape
    if rows <= params.n_neighbors:
        raise SourceError(
            f"n_neighbors is {params.n_neighbors} and the input has {rows} rows; it needs more rows "
            f"than n_neighbors. Lower n_neighbors to at most {rows - 1}."
            if rows > 2
            else f"The input has {rows} rows; at least 3 are needed."
        )
    if params.metric == PRECOMPUTED and rows != columns:
        raise SourceError(
            f"metric is 'precomputed' and the input has {rows} rows and {columns} columns; it must be the "
            "distances between all rows, as many rows as columns."
        )
    try:
        metrics.check_shape(metrics.resolve(params.metric, params.metric_kwds), columns)
    except ValueError as error:
        raise ParameterError(str(error)) from error
    if isinstance(params.init, np.ndarray):
        wanted, init = (rows, params.n_components), params.init
        numbers = init.dtype.kind in "fiu" and not isinstance(init, np.ma.MaskedArray)
        with np.errstate(over="ignore"):
            good = init.shape == wanted and numbers and np.isfinite(init.astype(np.float32)).all()
        if not good:
            raise ParameterError(
                f"init is an array of shape {init.shape} and type {init.dtype}; it must be {wanted}, "
                "numeric, without a mask, and finite in float32."
            )


def plan_distance_sizes(
    source: Source, params: Params, resources: Resources, partitions: int | None, model: Context | None
) -> Sizes:
    """Fix the sizes of a run whose input is distances."""
    rows, columns = source.shape
    row_bytes = columns * (4 + source.dtype.itemsize)
    if isinstance(source, SparseDistances):
        row_bytes = -(-source.csr_bytes(rows) // rows)
    return make_distance_sizes(
        rows,
        columns,
        params.n_neighbors,
        params.n_components,
        resources,
        row_bytes=row_bytes,
        source_block_rows=source.block_rows,
        partitions=partitions,
        held_bytes=columns * (8 * params.n_components + 9) if model else 0,
    )


def plan_sizes(source: Source, params: Params, resources: Resources, partitions: int | None) -> Sizes:
    """Fix the sizes of a run."""
    return make_sizes(
        *source.shape,
        params.n_neighbors,
        params.n_components,
        resources,
        matrix_product=not metrics.resolve(params.metric, params.metric_kwds).uses_descent,
        source_block_rows=source.block_rows,
        source_item_bytes=source.dtype.itemsize,
        max_cell_rows=params.max_cell_rows,
        partitions=partitions,
    )
