"""What a caller asks for: the input, and parameters that suit it; and the plan of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.driver import make_plan
from daskumap.encoder_params import make_encoder_params
from daskumap.errors import ParameterError, SourceError, StoreError
from daskumap.kernels.graph import chosen
from daskumap.kernels.layout import output_metrics
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.metrics.gradients import gradient_of
from daskumap.params import MOST_REPULSION, PRECOMPUTED, Params, check_finite, make_params
from daskumap.pipeline import Kind, kind_of, purpose_of, steps_of
from daskumap.planning.job import Job
from daskumap.planning.plan import Plan
from daskumap.planning.sizes import (
    OF_DATA,
    Resources,
    Sizes,
    make_distance_sizes,
    make_encode_sizes,
    make_inverse_sizes,
    make_sizes,
    make_transform_sizes,
)
from daskumap.runtime.context import Context, make_context
from daskumap.sources.axes import refuse_own_axes
from daskumap.sources.axes_plan import axes_stage
from daskumap.sources.base import Source
from daskumap.sources.distances import SparseDistances, find_distances
from daskumap.sources.find import find
from daskumap.sources.given import Given, open_given
from daskumap.sources.ingest import as_stored
from daskumap.sources.projected import like_fitted, read_axes
from daskumap.sources.specs import public_spec
from daskumap.stages.shared import micro
from daskumap.store import schema
from daskumap.store.labels import Labels, read_labels
from daskumap.store.model import Model
from daskumap.store.run import is_run_store

# On these depends which neighbours are found, and from which rows.
SEARCH = (
    "metric",
    "metric_kwds",
    "unique",
    "target_recall",
    "max_overlap",
    "max_cell_rows",
    "missing",
    "undefined",
    "ensure_all_finite",
)
# What may be another one in a fit of an adopted map, without a layout.
NO_LAYOUT = {"keep", "report", "checkpoint_every"}


@dataclasses.dataclass(frozen=True)
class Request:
    """What a caller asks for: the input, the parameters as checked against it, and how the layout is cut.

    Attributes
    ----------
    adjust
        Changes sizes that may not matter, as tests do.
    model
        The finished run into whose map the input's rows are placed, from whose map they are points, or whose
        neighbours are fitted again; None for any other fit.
    anew
        What a fit of the model's neighbours does not have from it; None for anything else.
    inverse
        Whether the input is points of the model's map, which become rows.
    given
        Neighbours that the user has; None where they are searched.
    encoder, encodes
        The trained network that the input goes through, and what it does: "encode", "decode" or "predict";
        None for anything else.
    brought
        Arrays of the user's that lie in the run store beside the input, by name.
    device
        What kind of device a module of torch's works on; None without one.
    """

    source: Source
    params: Params
    partitions: int | None = None
    adjust: Callable[[Sizes], Sizes] = lambda sizes: sizes
    model: Context | None = None
    anew: tuple[str, ...] | None = None
    inverse: bool = False
    given: Given | None = None
    encoder: Model | None = None
    encodes: str | None = None
    brought: Mapping[str, np.ndarray[Any, Any]] = dataclasses.field(default_factory=dict)
    device: str | None = None

    @property
    def kind(self) -> Kind:
        """Which kind of run it asks for."""
        purpose = purpose_of(self.model, self.anew, self.inverse, self.encodes)
        return kind_of(purpose, self.params, self.anew)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the input is known by, which reads some rows of it; of a model's rows, as that knows them."""
        if self.model is not None and self.anew is not None:
            about = self.model.store.about
            if about["spec"] == public_spec(self.source.spec()):
                return dict(about["source"])
        return self.source.identity()

    @property
    def reads(self) -> dict[str, Any] | None:
        """Which numbers of an AnnData are read, as JSON types; None for all else."""
        if self.model is not None and self.anew is not None:
            known: dict[str, Any] | None = self.model.store.about.get("reads")
            return known
        origin = self.source.origin
        return None if origin is None else dict(origin.about(self.source))

    @property
    def labels(self) -> Labels:
        """What rows are called: by the input, or by the run of which these are the rows."""
        if self.source.labels or self.model is None or self.anew is None:
            return self.source.labels
        return read_labels(self.model.store)

    def plan(self, resources: Resources, ingested: bool) -> Plan:
        """Return the plan, with the input where it is or as it lies in the run store; starts nothing."""
        stored = ingested and not isinstance(self.source, SparseDistances)  # which are copied as they are
        source = as_stored(self.source.shape, self.source.dtype) if stored else self.source
        sizes = self.adjust(self._sizes(source, resources))
        job = Job(
            "",
            "",
            source.spec(),
            self.params,
            sizes,
            resources,
            anew=self.anew,
            inverse=self.inverse,
            encodes=self.encodes,
        )
        context = make_context(job, source, model=self.model, encoder=self.encoder)
        made = make_plan(context, steps_of(self.kind.pipeline, self.params))
        first = axes_stage(self.source) if ingested else None
        return made if first is None else made.after(first)

    def _sizes(self, source: Source, resources: Resources) -> Sizes:
        if self.encoder is not None:
            return make_encode_sizes(
                *source.shape,
                resources,
                made_bytes=made_bytes(self.encoder, str(self.encodes)),
                source_block_rows=source.block_rows,
                source_item_bytes=source.dtype.itemsize,
            )
        if self.params.metric == PRECOMPUTED:
            return plan_distance_sizes(source, self.params, resources, self.partitions, self.model)
        if self.model is None or self.anew is not None:
            made = plan_sizes(source, self.params, resources, self.partitions)
            return made if self.model is None else self._like_the_model(made, self.model.sizes)
        if self.inverse:
            return make_inverse_sizes(
                *source.shape,
                self.params.n_neighbors,
                resources,
                model_rows=self.model.sizes.rows,
                model_columns=self.model.sizes.columns,
            )
        return make_transform_sizes(
            *source.shape,
            self.params.n_neighbors,
            self.params.n_components,
            resources,
            model_rows=self.model.sizes.rows,
            source_block_rows=source.block_rows,
            source_item_bytes=source.dtype.itemsize,
            source_gathers=source.gathers,
        )

    def _like_the_model(self, made: Sizes, known: Sizes) -> Sizes:
        """Return sizes with those on which the result depends as the model has them, and its row blocks."""
        same = {name: getattr(known, name) for name in OF_DATA}
        if self.params.reconcile_every > 1 and self.partitions is None:
            same["layout_rows"] = known.layout_rows
        if self.params.encoder is not None:
            same["cache_bytes"] = 0  # What it would keep, the training needs.
        return dataclasses.replace(made, **same, row_block=known.row_block)


def make_request(data: Any, values: dict[str, Any], partitions: int | None) -> Request:
    """Find the source and check the parameters, alone and against the shape of the data."""
    source = find_input(data, values.get("metric"))
    check_partitions(partitions, source.shape[0])
    params = make_params(values)
    check_params(params, source)
    if params.precomputed_knn is None:
        return Request(source, params, partitions)
    if params.unique:
        raise ParameterError(
            "unique=True and precomputed_knn exclude each other: the neighbours of distinct rows would be "
            "needed. Leave one of them out."
        )
    given = open_given(params.precomputed_knn, source.shape[0], params.n_neighbors)
    params = dataclasses.replace(params, precomputed_knn=given.identity())
    return Request(source, params, partitions, given=given)


def make_again_request(model: Context, values: dict[str, Any], partitions: int | None) -> Request:
    """Check the parameters of a fit of a finished run's neighbours: those that are not given are that run's.

    Raises
    ------
    ParameterError
        Naming parameters of the search that are not those of the run.
    StoreError
        If an earlier version made the run.
    """
    known, source = model.params, model.source
    if known.metric == PRECOMPUTED:
        raise ParameterError(
            f"The run in {model.url} was fitted to distances, whose neighbours are taken in one pass. Fit "
            "them again: daskumap.fit(distances, out, metric='precomputed', ...)."
        )
    if not model.store.has(schema.DOUBTED.name):
        raise StoreError(
            f"The run in {model.url} keeps less than another fit of its neighbours needs: it was saved, "
            "fitted with keep='model', or made by an earlier version. Fit the data again."
        )
    check_partitions(partitions, source.shape[0])
    if isinstance(known.init, np.ndarray):
        known = dataclasses.replace(known, init=without_gaps(model.store.read(schema.INIT.name)))
    fields = {field.name: getattr(known, field.name) for field in dataclasses.fields(Params)}
    fields["encoder"] = None  # Of a trained run the neighbours, too, are there for a layout.
    if known.optimizer == "none" and values.keys() - NO_LAYOUT:
        fields["optimizer"] = Params().optimizer  # An adopted map is the start of another layout.
    if values.keys() & {"min_dist", "spread"}:
        fields |= {"a": None, "b": None}  # or the curve would not be what is asked for
    if values.get("simplices") == 1:
        fields["vr_delta"] = Params.vr_delta  # or that of the run would be left without effect
    for one, other in (("alpha", "repulsion_strength"), ("repulsion_strength", "alpha")):
        if values.get(one) is not None:
            fields[other] = getattr(Params(), other)
    params = make_params({**fields, **values})
    refuse_another_search(model, params)
    check_params(params, source)
    return Request(source, params, partitions, model=model, anew=what_is_anew(model, params))


def without_gaps(places: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return places of a map as a start: rows that are not on it start in its middle."""
    gone = np.isnan(places[:, 0])
    filled = np.array(places)
    filled[gone] = 0.0 if gone.all() else places[~gone].mean(axis=0)
    return filled


def refuse_another_search(model: Context, params: Params) -> None:
    """Refuse parameters with which other neighbours would have been found.

    Raises
    ------
    ParameterError
        Naming each, with its value there and here.
    """
    known, now = model.params.fingerprint(), params.fingerprint()
    wrong = [name for name in SEARCH if (known[name] or None) != (now[name] or None)]
    if params.n_neighbors > model.params.n_neighbors:
        wrong.append("n_neighbors")
    if params.cutoff() > model.params.cutoff():
        wrong.append("disconnection_distance")
    if wrong:
        listed = "; ".join(f"{name} was {known[name]!r} and is now {now[name]!r}" for name in wrong)
        raise ParameterError(
            f"The neighbours in {model.url} are those of another search: {listed}. Leave these out (fewer "
            "neighbours and a lower disconnection_distance are possible), or fit the data itself."
        )


def what_is_anew(model: Context, params: Params) -> tuple[str, ...]:
    """Return what a fit of the model's neighbours does not have from it: "graph", "start"."""
    known = model.params
    names = (
        "n_neighbors",
        "set_op_mix_ratio",
        "local_connectivity",
        "membership",
        "calibration",
        "simplices",
        "vr_delta",
    )
    other = params.cutoff() != known.cutoff() or any(getattr(params, n) != getattr(known, n) for n in names)
    return (*(("graph",) if other else ()), *(("start",) if lacks_start(model, params) else ()))


def lacks_start(model: Context, params: Params) -> bool:
    """Return whether a run does not know where its rows start: it had another start or dimension."""
    start = params.init if isinstance(params.init, str) else "array"
    if start == "pca":
        there = model.store.has(schema.ON_AXES.name)
        return not there or params.n_components != model.params.n_components
    return (
        start == "spectral"
        and model.sizes.rows > micro.EXACT_ROWS
        and not model.store.has(schema.IN_MICRO.name)
    )


def check_partitions(partitions: int | None, rows: int) -> None:
    """Refuse what is no number of vertex partitions."""
    whole = isinstance(partitions, int) and not isinstance(partitions, bool)
    if partitions is not None and not (whole and 1 <= partitions <= rows):
        raise ParameterError(
            f"partitions is {partitions!r}; it must be an integer from 1 to the number of rows."
        )


def find_input(data: Any, metric: Any) -> Source:
    """Return the source of rows, or of distances, which may be sparse."""
    return find_distances(data) if isinstance(metric, str) and metric == PRECOMPUTED else find(data)


def make_transform_request(data: Any, model: Context, ensure_all_finite: bool | str | None = None) -> Request:
    """Find the source of new rows and check it against the rows that were fitted.

    Parameters
    ----------
    ensure_all_finite
        Which values that are not finite may come; None for those of the fit.

    Raises
    ------
    SourceError
        If they have another number of columns, or a run store is named, which holds no rows of its own.
    """
    refuse_run_store(data)
    source = find_input(data, model.params.metric)
    source = like_fitted(source, model.store.about.get("reads"), read_axes(model.store))
    if source.shape[1] != model.sizes.columns:
        raise SourceError(
            f"The new rows have {source.shape[1]} columns, and the run in {model.url} was fitted to rows of "
            f"{model.sizes.columns}. Give the same columns in the same order."
        )
    params = params_by(model)
    if ensure_all_finite is not None:
        params = dataclasses.replace(params, ensure_all_finite=ensure_all_finite)
        check_finite(params)
    return Request(source, params, model=model)


def refuse_run_store(data: Any) -> None:
    """Refuse a run store where rows are asked for.

    Raises
    ------
    SourceError
        Saying where its map is.
    """
    if isinstance(data, str | Path) and is_run_store(data):
        raise SourceError(
            f"{data} is a run store and holds no input. Give the rows; the map of a run is "
            f"daskumap.open({str(data)!r}).embedding."
        )


def make_inverse_request(points: Any, model: Context) -> Request:
    """Find the source of points of a map and check it against the map, and the metric of the run.

    Raises
    ------
    SourceError
        If they have another number of columns.
    ParameterError
        If there is no plane map of rows, or the metric has no gradient.
    """
    refuse_no_way_back(model)
    source, columns = find(points), model.params.n_components
    if source.shape[1] != columns:
        raise SourceError(
            f"The points have {source.shape[1]} columns, and the map in {model.url} has {columns}. Give "
            "points of that map."
        )
    try:
        gradient_of(model.metric, model.sizes.columns)
    except ValueError as error:
        raise ParameterError(f"{error} Rows are found by it; fit with another metric for them.") from error
    return Request(source, params_by(model), model=model, inverse=True)


def make_encode_request(data: Any, encoder: Model, params: Params, encodes: str) -> Request:
    """Find the source of rows, or of points for "decode", and check it against a trained network.

    Raises
    ------
    SourceError
        If they have another number of columns.
    ParameterError
        If the network lacks the part that it takes.
    """
    refuse_lacking(encoder, encodes)
    refuse_run_store(data)
    source = find(data)
    refuse_own_axes(source)
    refuse_other_columns(source, encoder, encodes)
    return Request(source, params, encoder=encoder, encodes=encodes)


def encode_params(encoder: Model, modules: dict[str, Any] | None = None) -> Params:
    """Return the parameters of a run whose input goes through a trained network.

    Parameters
    ----------
    modules
        The user's, by "encoder", "decoder" and "device"; None for the built-in network.

    Raises
    ------
    ParameterError
        If the network is of modules and none is given, or the other way round.
    """
    if (modules is None) == (encoder.backend == "torch"):
        known = encoder.params["encoder"]["encoder"]
        raise ParameterError(
            f"The network is {known!r}, and encoder is {'left out' if modules is None else 'given'}. A model "
            "has no code: give such a module where it is one, as daskumap.Encoder.open(path, encoder=module),"
            " and none where it is 'mlp'."
        )
    a, b = encoder.curve
    fixed = {"random_state": 0, "report": False, "keep": "embedding"}
    params = make_params({**fixed, "n_components": encoder.components, "a": a, "b": b})
    return params if modules is None else dataclasses.replace(params, encoder=make_encoder_params(modules))


def refuse_lacking(encoder: Model, encodes: str) -> None:
    """Refuse what a network was not trained to do.

    Raises
    ------
    ParameterError
        Saying how to train one that does it.
    """
    if encodes == "decode" and not encoder.has("decoder"):
        raise ParameterError(
            "The encoder was trained without a decoder, and none gives rows for places. Train with "
            "decoder=True."
        )
    if encodes == "predict" and encoder.classes is None:
        raise ParameterError(
            "The encoder was trained without labels, and tells no classes apart. Train with labels of some "
            "rows, -1 for the others."
        )


def refuse_other_columns(source: Source, encoder: Model, encodes: str) -> None:
    """Refuse rows of another number of columns than those that a network was trained on.

    Raises
    ------
    SourceError
        With both numbers.
    """
    points = encodes == "decode"
    wanted = encoder.components if points else encoder.columns
    if source.shape[1] != wanted:
        what = "points" if points else "new rows"
        of = f"the encoder's map has {wanted}" if points else f"the encoder was trained on rows of {wanted}"
        raise SourceError(
            f"The {what} have {source.shape[1]} columns, and {of}. Give the same columns in the same order."
        )


def made_bytes(encoder: Model, encodes: str) -> int:
    """Return what a row becomes in a trained network, in bytes, with all that is made on the way."""
    values = {"encode": encoder.components, "decode": encoder.columns}
    return 24 * values.get(encodes, len(encoder.classes or ()) + 1)


def refuse_no_way_back(model: Context) -> None:
    """Refuse a run that has no rows or no plane map.

    Raises
    ------
    ParameterError
        Saying which.
    """
    p, reason = model.params, ""
    if p.metric == PRECOMPUTED:
        reason = "was fitted to distances, and rows are found by rows"
    elif p.transform_mode == "graph":
        reason = "ended with its graph, and rows are found for points of a map"
    elif model.output_metric is not None:
        reason = "has a map whose metric is not the Euclidean one, by which rows are found"
    if reason:
        raise ParameterError(f"The run in {model.url} {reason}.")


def params_by(model: Context) -> Params:
    """Return the parameters of what is made by a model: it leaves its result, and its start is no fit's."""
    keep = "all" if model.params.keep == "all" else "embedding"
    return dataclasses.replace(model.params, init="pca", report=False, unique=False, keep=keep)


def refuse_simplices(params: Params) -> None:
    """Refuse to weigh by simplices what is no probability, and a limit of simplices where there are none.

    Raises
    ------
    ParameterError
        Saying what to do.
    """
    if params.simplices == 1 and params.vr_delta != Params.vr_delta:
        raise ParameterError(
            f"vr_delta is {params.vr_delta:g} and simplices is 1, with which no edge is weighed by simplices "
            "that it could leave out. Leave vr_delta out, or give simplices=2 or 3."
        )
    if params.simplices > 1 and not chosen.resolve(params.membership, params.calibration).weights.bounded:
        raise ParameterError(
            f"simplices is {params.simplices}, and memberships by {chosen.name_of(params.membership)} may be "
            "above 1: no probabilities, of which the weight of a simplex is made. Leave simplices at 1, or "
            "take memberships in [0, 1]."
        )


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
    if params.transform_mode == "graph" and params.keep == "embedding":
        raise ParameterError(
            "keep is 'embedding' and transform_mode is 'graph', which makes none. Keep 'graph', 'model' or "
            "'all'."
        )
    if params.optimizer == "none" and params.listed_epochs:
        raise ParameterError(
            "n_epochs is a list and optimizer is 'none', which leaves the map as init has it. Leave one out."
        )
    if params.metric == PRECOMPUTED and rows != columns:
        raise SourceError(
            f"metric is 'precomputed' and the input has {rows} rows and {columns} columns; it must be the "
            "distances between all rows, as many rows as columns."
        )
    try:
        metrics.check_shape(metrics.resolve(params.metric, params.metric_kwds), columns)
        output_metrics.resolve(params.output_metric, params.output_metric_kwds, params.n_components)
        chosen.resolve(params.membership, params.calibration)
    except ValueError as error:
        raise ParameterError(str(error)) from error
    refuse_simplices(params)
    refuse_alpha(params, rows)
    if params.optimizer == "none" and not isinstance(params.init, np.ndarray):
        raise ParameterError(
            "optimizer is 'none', which leaves the map as init has it, and init is no array. Give the map as "
            "init, or another optimizer."
        )
    if isinstance(params.init, np.ndarray):
        wanted, init = (rows, params.n_components), params.init
        numbers = init.dtype.kind in "fiu" and not isinstance(init, np.ma.MaskedArray)
        with np.errstate(over="ignore"):
            good = init.shape == wanted and numbers and _are_places(init, params)
        if not good:
            raise ParameterError(
                f"init is an array of shape {init.shape} and type {init.dtype}; it must be {wanted}, "
                "numeric, without a mask, and finite in float32."
            )


def refuse_alpha(params: Params, rows: int) -> None:
    """Refuse an alpha that no graph of so many rows takes; when the graph is there it is looked at again.

    Where all rows are on the map and no weight is above 1, a row's weights sum to 2 (n_neighbors - 1) at
    most, on average.
    """
    bounded = chosen.resolve(params.membership, params.calibration).weights.bounded
    if params.alpha is None or not bounded or params.unique or params.undefined == "isolate":
        return
    most = MOST_REPULSION * params.negative_sample_rate * (params.n_neighbors - 1) / rows
    if params.alpha > most:
        raise ParameterError(
            f"alpha is {params.alpha:g}, and {rows:,} rows take less than {most:.3g}: above it "
            f"repulsion_strength would be more than {MOST_REPULSION:g}, which clipped forces do not show. "
            "Lower alpha, or raise negative_sample_rate."
        )


def _are_places(init: np.ndarray[Any, Any], params: Params) -> bool:
    """Return whether all values are finite in float32; of a map that stays as it is rows may be NaN."""
    values = init.astype(np.float32)
    lost = np.isnan(values).all(axis=1) & (params.optimizer == "none")
    return bool(np.isfinite(values[~lost]).all())


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
        source_gathers=source.gathers,
        max_cell_rows=params.max_cell_rows,
        partitions=partitions,
    )
