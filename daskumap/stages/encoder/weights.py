"""Weights: the trained network as a model that takes rows as they are, and gives such rows back."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.encoder.network import Layer, Layers, unpack
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.encoding import has_axes
from daskumap.stages.shared.replicas import mean_of
from daskumap.store import schema
from daskumap.store.model import Model, in_run

Array = np.ndarray[Any, Any]


def plan_weights(context: Context) -> Stage:
    """Plan the one task."""
    s, e = context.sizes, context.params.encoder
    size = context.network.size * 4 + 2 * s.columns * e.hidden[0] * 4
    return Stage(
        task=weights_task,
        tasks=1,
        memory={"weights": (e.replicas + 3) * context.network.size * 8 + 6 * size + s.columns * 4 * 64},
        read_bytes=e.replicas * context.network.size * 4,
        made=(schema.ENCODER.name,),
        made_bytes=size,
    )


def weights_task(context: Context, number: int) -> Receipt:
    """Write the model."""
    about = context.store.about
    labels = context.params.encoder.labels
    model = model_of(
        context,
        columns=context.sizes.columns,
        dtype=str(context.source.dtype),
        components=context.params.n_components,
        curve=context.params.curve(),
        cast=context.fact(schema.CAST),
        params=context.params.fingerprint(),
        run=about["id"],
        classes=tuple(labels["classes"]) if labels else None,
        history=tuple(context.fact(schema.HISTORY)),
    )
    model.write(in_run(context.store.documents))
    return Receipt(1)


def model_of(context: Context, **about: Any) -> Model:
    """Return the model of the trained network."""
    e = context.params.encoder
    last = context.checkpoint(schema.TRAINING, len(e.segments(context.sizes.rows)) - 1)
    vector = mean_of([last.read("weights", replica, replica + 1)[0] for replica in range(e.replicas)])
    network: Any = context.network
    if e.built_in:
        return Model.of_parts(trained_parts(context, unpack(vector, network.widths)), **about)
    return Model(weights=network.weights(vector), widths={}, backend="torch", **about)


def trained_parts(context: Context, parts: dict[str, Layers]) -> dict[str, Layers]:
    """Return the layers of the trained perceptron by part, for rows as they are."""
    if not has_axes(context):
        return parts
    axes = Axes(
        context.read(schema.ENCODER_AXES).astype(np.float64),
        context.read(schema.ENCODER_MEAN).astype(np.float64),
        context.fact(schema.ENCODER_SCALE)["scale"],
    )
    parts["encoder"] = (axes.before(parts["encoder"][0]), *parts["encoder"][1:])
    if "decoder" in parts:
        parts["decoder"] = (*parts["decoder"][:-1], axes.after(parts["decoder"][-1]))
    return parts


class Axes:
    """The way from rows to what the network sees, (x - mean) / scale @ axes, and back."""

    def __init__(self, axes: Array, mean: Array, scale: float) -> None:
        self.axes, self.mean, self.scale = axes, mean, scale

    def before(self, layer: Layer) -> Layer:
        """Return a layer that takes rows, from one that takes what the network sees."""
        weights = self.axes @ layer.weights.astype(np.float64) / self.scale
        bias = layer.bias - self.mean @ weights
        return Layer(weights.astype(np.float32), bias.astype(np.float32))

    def after(self, layer: Layer) -> Layer:
        """Return a layer that gives rows, from one that gives what the network sees."""
        back = self.scale * self.axes.T
        weights, bias = layer.weights @ back, layer.bias @ back + self.mean
        return Layer(weights.astype(np.float32), bias.astype(np.float32))


WEIGHTS = Step(
    "encoder.weights",
    plan_weights,
    reads=(
        schema.TRAINING,
        schema.HISTORY,
        schema.CAST,
        schema.ENCODER_AXES,
        schema.ENCODER_MEAN,
        schema.ENCODER_SCALE,
    ),
    writes=(schema.ENCODER,),
)
