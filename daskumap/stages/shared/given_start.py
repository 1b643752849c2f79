"""Where a training starts that goes on from what another one learnt."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.encoder.network import Layer, Layers, pack, unpack
from daskumap.runtime.context import Context
from daskumap.stages.shared.encoding import has_axes
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def with_given(context: Context, weights: Array) -> Array:
    """Return the parameters at the start, with those of the parts that the user's model has.

    Parameters
    ----------
    weights
        (P,) float32: those of a training that starts afresh.
    """
    start = context.params.encoder.start
    if start is None:
        return weights
    given = context.read(schema.START)
    if start["widths"] is None:  # of modules, which see rows as they are
        return given
    network: Any = context.network
    widths = {part: tuple(units) for part, units in start["widths"].items()}
    parts = unpack(given, widths)
    if has_axes(context):
        parts = _on_axes(context, parts)
    return pack({**unpack(weights, network.widths), **parts})


def _on_axes(context: Context, parts: dict[str, Layers]) -> dict[str, Layers]:
    """Return layers that take and give what the network sees, (x - mean) / scale @ axes, from those of rows.

    What of a row is off the axes, which other data had, is not seen any more.
    """
    axes = context.read(schema.ENCODER_AXES).astype(np.float64)
    mean = context.read(schema.ENCODER_MEAN).astype(np.float64)
    scale = context.fact(schema.ENCODER_SCALE)["scale"]
    first, found = parts["encoder"][0], dict(parts)
    weights = scale * axes.T @ first.weights
    bias = first.bias + mean @ first.weights.astype(np.float64)
    found["encoder"] = (_layer(weights, bias), *parts["encoder"][1:])
    if "decoder" in parts:
        last, back = parts["decoder"][-1], axes / scale
        found["decoder"] = (
            *parts["decoder"][:-1],
            _layer(last.weights @ back, (last.bias - mean) @ back),
        )
    return found


def _layer(weights: Array, bias: Array) -> Layer:
    return Layer(weights.astype(np.float32), bias.astype(np.float32))
