"""What a caller of a training asks for: a finished run, a network, and what is known of its rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from daskumap.encoder_params import EncoderParams, make_encoder_params
from daskumap.errors import ParameterError
from daskumap.kernels.encoder.backend import Perceptron
from daskumap.kernels.encoder.network import Layer, Layers, pack
from daskumap.params import PRECOMPUTED, Params
from daskumap.planning.stage import Receipt
from daskumap.planning.training import LEAST_SHARE, RUN_ROWS
from daskumap.request import Request, make_again_request
from daskumap.runtime.context import Context
from daskumap.runtime.networks import check_network
from daskumap.sources.base import Source
from daskumap.sources.known import Known, open_labels, open_landmarks
from daskumap.sources.move import Move
from daskumap.stages.shared.checks import find_beyond, refuse_beyond
from daskumap.store import schema
from daskumap.store.model import Model

Array = np.ndarray[Any, Any]

# Of a fit's parameters those that a training may have others of than its run: what map the graph becomes ...
OF_MAP = (
    "n_components",
    "min_dist",
    "spread",
    "a",
    "b",
    "repulsion_strength",
    "alpha",
    "negative_sample_rate",
    "random_state",
)
# ... and what is left behind.
OF_FIT = (*OF_MAP, "report", "keep")
# Rows that are looked at before anything is done; the others are when they are read.
LOOKED_ROWS = 256
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
    encoder, known = check_training(model.source, request.params, make_encoder_params(own), labels, landmarks)
    check_warm_start(encoder, request.params, model)
    begun = None if start is None else open_start(start, encoder, request.params, model)
    encoder = dataclasses.replace(encoder, **_about("start", begun))
    known |= {schema.START.name: begun}
    return dataclasses.replace(
        request,
        params=dataclasses.replace(request.params, encoder=encoder),
        anew=(),
        brought={name: one.values for name, one in known.items() if one is not None},
    )


def check_training(
    source: Source,
    params: Params,
    encoder: EncoderParams,
    labels: Any,
    landmarks: Any,
    start: Model | None = None,
) -> tuple[EncoderParams, dict[str, Known | None]]:
    """Check all that can be checked before there is a graph.

    Returns
    -------
    encoder, known
        The parameters with what is known of rows in them; and that itself, by where it lies in a run store.

    Raises
    ------
    ParameterError, SourceError
        With what was seen and what is allowed.
    """
    rows, columns = source.shape
    # What weighs nothing is not looked at.
    classes = open_labels(labels, rows) if encoder.label_weight else None
    places = open_landmarks(landmarks, rows, params.n_components) if encoder.landmark_weight else None
    encoder = dataclasses.replace(encoder, **_about("labels", classes), **_about("landmarks", places))
    check_window(encoder, rows)
    check_network(dataclasses.replace(params, encoder=encoder), columns)
    refuse_beyond_at_first(source, encoder)
    if start is not None and encoder.built_in:
        widths_of(start, encoder, params, columns)
    return encoder, {schema.LABELS.name: classes, schema.LANDMARKS.name: places}


def widths_of(start: Model, encoder: EncoderParams, params: Params, columns: int) -> dict[str, Any]:
    """Return the widths of the parts of the built-in network that a model has as a training has them.

    Raises
    ------
    ParameterError
        If its encoder has other layers.
    """
    names = encoder.classes()
    d, decodes = params.n_components, bool(encoder.decoder)
    wanted = Perceptron.of(columns, encoder.hidden, d, decodes, len(names)).widths
    if start.widths.get("encoder") != wanted["encoder"]:
        raise ParameterError(
            f"The model to go on from has an encoder of {start.widths.get('encoder')} units, and that of "
            f"this training has {wanted['encoder']}. Give the columns, hidden and n_components of that model."
        )
    same = {part: list(units) for part, units in wanted.items() if start.widths.get(part) == units}
    if list(start.classes or ()) != names:
        same.pop("head", None)  # It tells other classes apart.
    return same


def open_start(start: Model, encoder: EncoderParams, params: Params, model: Context) -> Known:
    """Return what a model learnt of the parts that a training has, for rows as this training sees them.

    Raises
    ------
    ParameterError
        If its encoder has other layers; of modules, if it has other parts, or saw rows elsewhere.
    """
    before = Move.from_dict(dict(start.cast), np.dtype(start.dtype))
    now = Move.from_dict(model.fact(schema.CAST), model.source.dtype)
    if not encoder.built_in:
        _refuse_moved(before, now)
        return _open_modules(start, encoder)
    widths = widths_of(start, encoder, params, model.sizes.columns)
    vector = pack(_moved({part: start.layers(part) for part in widths}, before, now))
    return Known(vector, {"digest": start.digest(), "widths": widths})


def _moved(parts: dict[str, Layers], before: Move, now: Move) -> dict[str, Layers]:
    """Return layers that take and give rows where float32 resolves them now, from those of another place."""
    if now.as_dict() == before.as_dict():
        return parts
    scale, shift = now.to(before)
    first, found = parts["encoder"][0], dict(parts)
    bias = first.bias + np.broadcast_to(shift, len(first.weights)) @ first.weights.astype(np.float64)
    found["encoder"] = (_layer(first.weights * scale, bias), *parts["encoder"][1:])
    if "decoder" in parts:
        last = parts["decoder"][-1]
        found["decoder"] = (*parts["decoder"][:-1], _layer(last.weights / scale, (last.bias - shift) / scale))
    return found


def _layer(weights: Array, bias: Array) -> Layer:
    return Layer(np.asarray(weights, np.float32), np.asarray(bias, np.float32))


def _refuse_moved(before: Move, now: Move) -> None:
    if now.as_dict() != before.as_dict():
        raise ParameterError(
            "The model to go on from was trained on rows that were moved to another place or scale than "
            "these before they became float32, which no module can be told. Subtract what all rows share, "
            "the earlier ones and these, and train both again; or leave start out."
        )


def _open_modules(start: Model, encoder: EncoderParams) -> Known:
    """Return what a model of modules learnt: all of it, since its vector has no parts."""
    from daskumap.torch_backend.modules import of_model

    names = encoder.classes()
    backend, vector = of_model(start, encoder.encoder, encoder.decoder)
    if ("decoder" in backend.parts, list(start.classes or ())) != (bool(encoder.decoder), names):
        has = "a" if "decoder" in backend.parts else "no"
        raise ParameterError(
            f"The model to go on from has {has} decoder and the classes {list(start.classes or ())}; this "
            f"training has decoder={bool(encoder.decoder)} and the classes {names}. Of modules all goes on: "
            "give the same decoder, and labels of the same classes."
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


def refuse_beyond_at_first(source: Source, encoder: EncoderParams) -> None:
    """Refuse rows that a decoder cannot be trained on by cross-entropy, by the first ones: before all work.

    Raises
    ------
    SourceError
        Naming some.
    """
    if encoder.reconstruction == "bce":
        looked = find_beyond(source.read(0, min(source.shape[0], LOOKED_ROWS)), 0)
        refuse_beyond({0: Receipt(0, looked)})


def check_window(encoder: EncoderParams, rows: int) -> None:
    """Refuse windows that hold too few of the rows.

    Raises
    ------
    ParameterError
        Saying how many there have to be.
    """
    taken, held = encoder.trained_rows(rows), encoder.held_rows(rows)
    least = min(taken, -(-int(LEAST_SHARE * taken) // RUN_ROWS) * RUN_ROWS)
    if held < least:
        raise ParameterError(
            f"window_rows is {encoder.window_rows:,}, {held / taken:.1%} of the {taken:,} rows that are "
            f"trained on; below {LEAST_SHARE:.0%} a window holds but the shortest edges. Raise it to "
            f"{least:,} at least, or leave it out where memory holds all rows."
        )


def check_warm_start(encoder: EncoderParams, params: Params, model: Context) -> None:
    """Refuse to begin with a map that the run has not.

    Raises
    ------
    ParameterError
        Saying what map would do.
    """
    if not encoder.warm_steps(model.sizes.rows):
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
