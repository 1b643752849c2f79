"""What a caller of a training asks for: a finished run, a network, and what is known of its rows."""

from __future__ import annotations

import dataclasses
from typing import Any

from daskumap.encoder_params import EncoderParams, make_encoder_params
from daskumap.errors import ParameterError
from daskumap.kernels.encoder.backend import Perceptron
from daskumap.kernels.encoder.network import pack
from daskumap.params import PRECOMPUTED, Params
from daskumap.planning.training import LEAST_SHARE, RUN_ROWS
from daskumap.request import Request, make_again_request
from daskumap.runtime.context import Context
from daskumap.runtime.networks import check_network
from daskumap.sources.known import Known, open_labels, open_landmarks
from daskumap.store import schema
from daskumap.store.model import Model

# Of a fit's parameters those that a training may have others of than its run: what is to become of the graph.
OF_FIT = (
    "n_components",
    "min_dist",
    "spread",
    "a",
    "b",
    "repulsion_strength",
    "alpha",
    "negative_sample_rate",
    "random_state",
    "report",
    "keep",
)
# Of a layout, of which there is none.
NO_LAYOUT = {"init": "pca", "optimizer": "adam", "n_epochs": None, "transform_mode": "embedding"}


def make_train_request(
    model: Context, values: dict[str, Any], labels: Any, landmarks: Any, start: Model | None = None
) -> Request:
    """Check what a training is asked to be against the run whose graph it is trained on.

    Parameters
    ----------
    values
        Parameters of `EncoderParams`, and those of a fit that `OF_FIT` names.
    labels, landmarks
        As of `daskumap.train`.
    start
        What another training learnt, from which this one goes on.

    Raises
    ------
    ParameterError
        Saying what does not suit the run.
    """
    refuse_run(model)
    of_fit = {name: value for name, value in values.items() if name in OF_FIT}
    own = {name: value for name, value in values.items() if name not in OF_FIT}
    request = make_again_request(model, {"report": True, **of_fit, **NO_LAYOUT}, None)
    rows, components = model.sizes.rows, request.params.n_components
    classes, places = open_labels(labels, rows), open_landmarks(landmarks, rows, components)
    encoder = make_encoder_params({**own, **_about("labels", classes), **_about("landmarks", places)})
    check_encoder(encoder, request.params, model)
    check_network(dataclasses.replace(request.params, encoder=encoder), model.sizes.columns)
    begun = None if start is None else open_start(start, encoder, request.params, model.sizes.columns)
    encoder = dataclasses.replace(encoder, **_about("start", begun))
    known = {schema.LABELS.name: classes, schema.LANDMARKS.name: places, schema.START.name: begun}
    return dataclasses.replace(
        request,
        params=dataclasses.replace(request.params, encoder=encoder),
        anew=(),
        brought={name: one.values for name, one in known.items() if one is not None},
    )


def open_start(start: Model, encoder: EncoderParams, params: Params, columns: int) -> Known:
    """Return what a model learnt of the parts that a training has.

    Raises
    ------
    ParameterError
        If its encoder has other layers; of modules, if it has other parts.
    """
    names = encoder.labels["classes"] if encoder.labels else []
    if not encoder.built_in:
        return _open_modules(start, encoder, list(names))
    d, decodes = params.n_components, bool(encoder.decoder)
    wanted = Perceptron.of(columns, encoder.hidden, d, decodes, len(names)).widths
    if start.widths.get("encoder") != wanted["encoder"]:
        raise ParameterError(
            f"The model to go on from has an encoder of {start.widths.get('encoder')} units, and that of "
            f"this training has {wanted['encoder']}. Give the columns, hidden and n_components of that model."
        )
    same = [part for part, units in wanted.items() if start.widths.get(part) == units]
    if list(start.classes or ()) != names:
        same = [part for part in same if part != "head"]  # It tells other classes apart.
    widths = {part: list(wanted[part]) for part in same}
    vector = pack({part: start.layers(part) for part in same})
    return Known(vector, {"digest": start.digest(), "widths": widths})


def _open_modules(start: Model, encoder: EncoderParams, names: list[Any]) -> Known:
    """Return what a model of modules learnt: all of it, since its vector has no parts."""
    from daskumap.torch_backend.modules import of_model

    backend, vector = of_model(start, encoder.encoder, encoder.decoder)
    if ("decoder" in backend.parts, list(start.classes or ())) != (bool(encoder.decoder), names):
        has = "a" if "decoder" in backend.parts else "no"
        raise ParameterError(
            f"The model to go on from has {has} decoder and the classes {list(start.classes or ())}, and this "
            f"training has decoder={bool(encoder.decoder)} and the classes {names}. Of modules all goes on: give the same decoder, and labels of the same classes."
        )
    return Known(vector, {"digest": start.digest(), "widths": None})


def _about(name: str, known: Any) -> dict[str, Any]:
    return {} if known is None else {name: known.about}


def refuse_run(model: Context) -> None:
    """Refuse a run that has no rows to encode, or whose map a network does not make.

    Raises
    ------
    ParameterError
        Saying which.
    """
    p = model.params
    if p.metric == PRECOMPUTED:
        raise ParameterError(
            f"The run in {model.url} was fitted to distances, and a network maps rows. Fit rows, and train "
            "on that run."
        )
    if model.output_metric is not None:
        raise ParameterError(
            f"The run in {model.url} has output_metric {p.output_metric!r}, and a network is trained to the "
            "Euclidean distances of a plane map. Fit without output_metric."
        )
    if p.ensure_all_finite is not True:
        raise ParameterError(
            f"The run in {model.url} was fitted with ensure_all_finite={p.ensure_all_finite!r}, and a "
            "network maps nothing but finite values. Impute what is missing, and fit again."
        )


def check_encoder(encoder: EncoderParams, params: Params, model: Context) -> None:
    """Refuse parameters of a training that do not suit the run.

    Raises
    ------
    ParameterError
        With what was seen and what is allowed.
    """
    rows = model.sizes.rows
    taken, held = encoder.trained_rows(rows), encoder.held_rows(rows)
    least = min(taken, -(-int(LEAST_SHARE * taken) // RUN_ROWS) * RUN_ROWS)
    if held < least:
        raise ParameterError(
            f"window_rows is {encoder.window_rows:,}, {held / taken:.1%} of the {taken:,} rows that are "
            f"trained on; below {LEAST_SHARE:.0%} a window holds but the shortest edges. Raise it to "
            f"{least:,} at least, or leave it out where memory holds all rows."
        )
    if not encoder.warm_steps(rows):
        return
    mapped = model.params.transform_mode == "embedding"
    if mapped and model.params.n_components == params.n_components:
        return
    why = "ends with its graph" if not mapped else f"has a map of {model.params.n_components} columns"
    windowed = "" if encoder.warm_start is not None else " (as it is by default where not all rows are held)"
    raise ParameterError(
        f"warm_start is above 0{windowed}, which regresses to the map of the run, and the run in {model.url} "
        f"{why}. Fit a map of {params.n_components} columns, or give warm_start=0."
    )
