"""What the stages of a training share: rows as the network sees them, and what it is told beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.encoder.network import Layer, apply
from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def has_axes(context: Context) -> bool:
    """Tell whether the network sees rows on their main axes, and not all columns."""
    return context.params.encoder.axes(context.sizes.columns) is not None


def on_axes(about: Array, axes: Array) -> Array:
    """Return rows about their mean on some axes, (r, p) float32, a row's bits whatever block it is in."""
    return apply((Layer(axes, np.zeros(axes.shape[1], np.float32)),), about)


def regresses(context: Context) -> bool:
    """Tell whether the first steps regress to the map of the run whose graph it is."""
    return bool(context.params.encoder.warm_steps(context.sizes.rows))


def known_items(context: Context) -> dict[str, tuple[schema.Array, schema.Array | None]]:
    """Return what the training is told of rows: by column, the array in vertex order, and the user's by row.

    None stands for the map of the run whose graph it is.
    """
    e = context.params.encoder
    labels = {"labels": (schema.ENCODER_LABELS, schema.LABELS)} if e.labels else {}
    landmarks = {"landmarks": (schema.ENCODER_LANDMARKS, schema.LANDMARKS)} if e.landmarks else {}
    places = {"places": (schema.ENCODER_PLACES, None)} if regresses(context) else {}
    return {**labels, **landmarks, **places}


def known_bytes(context: Context) -> int:
    """Return the bytes a row of what the training is told."""
    e, d = context.params.encoder, context.params.n_components
    return 4 * bool(e.labels) + 4 * d * (bool(e.landmarks) + regresses(context))
