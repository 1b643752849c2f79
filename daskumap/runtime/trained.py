"""A trained network at work: what it does with rows, places and classes, whichever backend it is of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.encoder.backend import Backend, Perceptron
from daskumap.kernels.encoder.network import BLOCK_ROWS, pack
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.metrics.metric import Metric
from daskumap.params import Params
from daskumap.sources.move import Move
from daskumap.store.model import Model

Array = np.ndarray[Any, Any]


class Trained(NamedTuple):
    """A network and what it learnt.

    Attributes
    ----------
    model
        What is known of it.
    backend, vector
        The network, for rows as they are, and its parameters.
    isolates
        The metric, where rows on which it is not defined are left out of the map; None for all others.
    """

    model: Model
    backend: Backend
    vector: Array
    isolates: Metric | None = None

    @classmethod
    def of(cls, model: Model, params: Params) -> Trained:
        """Return the network of a model; `params` has the user's module where it is one."""
        isolates = metric_of(model) if isolating(model) else None
        if model.backend == "torch":
            from daskumap.torch_backend.modules import of_model

            e = params.encoder
            return cls(model, *of_model(model, e.encoder, e.decoder, e.device), isolates)
        parts = {name: model.layers(name) for name in model.widths}
        return cls(model, Perceptron(dict(model.widths)), pack(parts), isolates)

    def encode(self, X: Array) -> Array:
        """Return the places of rows, (m, d) float32; NaN for those that are left out of the map."""
        places = self.backend.encode(self.vector, X)
        if self.isolates is not None:
            places[metrics.invalid_rows(X, self.isolates)] = np.nan
        return places

    def decode(self, Z: Array) -> Array:
        """Return the rows of places, (m, D): float32, or float64 where float32 does not tell rows apart."""
        rows = self.backend.decode(self.vector, Z)
        if self.model.params["encoder"]["reconstruction"] == "bce":
            rows = _sigmoid(rows)  # It was trained on logits.
        return self.move.undo(rows)

    def probabilities(self, X: Array) -> Array:
        """Return the probability of each class, (m, classes) float32; they sum to 1."""
        scores = self.backend.scores(self.vector, X).astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        return np.asarray(scores / scores.sum(axis=1, keepdims=True), np.float32)

    def through(self, encodes: str, X: Array) -> Array:
        """Return places of rows for "encode", rows of places for "decode", probabilities for "predict"."""
        return {"encode": self.encode, "decode": self.decode, "predict": self.probabilities}[encodes](X)

    @property
    def block_bytes(self) -> int:
        """What a thread takes to map rows, beside these: the units of a block, and weights in even shapes."""
        if self.model.backend == "torch":
            from daskumap.torch_backend import check, modules

            backend: Any = self.backend
            return modules.BLOCK_ROWS * int(check.held_bytes(backend))
        units = sum(sum(widths) for widths in self.model.widths.values())
        return BLOCK_ROWS * 4 * units + self.model.nbytes

    def width(self, encodes: str) -> int:
        """Return how many values a row becomes."""
        model = self.model
        return {"encode": model.components, "decode": model.columns}.get(encodes, len(model.classes or ()))

    def dtype(self, encodes: str) -> type[np.floating[Any]]:
        """Return the type of what a row becomes."""
        return np.float32 if encodes != "decode" or self.move.is_still else np.float64

    @property
    def move(self) -> Move:
        """How rows are moved before they are float32, as those were that it was trained on."""
        return Move.from_dict(dict(self.model.cast), np.dtype(self.model.dtype))

    def move_of(self, encodes: str) -> Move:
        """Return how what goes through is moved: points of a map are not."""
        return Move() if encodes == "decode" else self.move

    def labels(self, probabilities: Array) -> Array:
        """Return the label of the most probable class of each row, (m,) int64; of a name its number."""
        best: Array = probabilities.argmax(axis=1)
        classes = self.model.classes or ()
        if any(isinstance(label, str) for label in classes):
            return best
        labels: Array = np.array(classes, np.int64)
        return np.asarray(labels[best])


def isolating(model: Model) -> bool:
    """Return whether rows on which the metric is not defined are left out of the map of a model."""
    return bool(model.params.get("undefined") == "isolate")


def metric_of(model: Model) -> Metric | None:
    """Return the metric of the graph that a model was trained on, to see which rows it is not defined on.

    None for a function, and for one with arrays, which a model does not keep: they are defined on all rows.
    """
    known = model.params
    try:
        return metrics.resolve(known["metric"], known["metric_kwds"], apart=known["undefined"] == "apart")
    except (KeyError, TypeError, ValueError):
        return None


def _sigmoid(logits: Array) -> Array:
    with np.errstate(over="ignore"):
        values: Array = 1.0 / (1.0 + np.exp(-logits))
    return values
