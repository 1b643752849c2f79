"""What the training asks of a network, and the network that is built in."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.encoder import losses, network
from daskumap.kernels.encoder.batch import Batch, Settings
from daskumap.kernels.encoder.network import Layers, Passes

Array = NDArray[Any]
Terms = dict[str, float]


class Backend(Protocol):
    """A network whose parameters are one flat float32 vector. One thread trains it at a time."""

    @property
    def size(self) -> int:
        """How many parameters there are."""

    def initial(self, key: int) -> Array:
        """Return the parameters at the start, a hash of the 64-bit key."""

    def gradient(self, vector: Array, batch: Batch, settings: Settings) -> tuple[Array, Terms]:
        """Return the gradient, which lasts until the next call, and the terms of the loss by name."""

    def encode(self, vector: Array, X: Array) -> Array:
        """Return the places of rows, (m, d) float32."""

    def decode(self, vector: Array, Z: Array) -> Array:
        """Return the rows of places, (m, p) float32."""

    def scores(self, vector: Array, X: Array) -> Array:
        """Return the logit of each class for rows, (m, classes) float32."""


class Perceptron:
    """The built-in network: an encoder, and where they are asked for a decoder and a head for classes.

    Parameters
    ----------
    widths
        Units of each layer by part, inputs first: `encoder`, `decoder`, `head`. The head reads the last
        hidden layer of the encoder.
    """

    def __init__(self, widths: dict[str, tuple[int, ...]]) -> None:
        self.widths = widths
        self._rooms: dict[tuple[Any, ...], _Room] = {}

    @classmethod
    def of(
        cls, p: int, hidden: tuple[int, ...], d: int, decoder: bool = False, classes: int = 0
    ) -> "Perceptron":
        """Return the network of so many columns and components, with a head if there are classes."""
        widths = {"encoder": (p, *hidden, d)}
        if decoder:
            widths["decoder"] = (d, *reversed(hidden), p)
        if classes:
            widths["head"] = ((p, *hidden)[-1], classes)
        return cls(widths)

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return sum(network.count(units) for units in self.widths.values())

    def initial(self, key: int) -> Array:
        """Return the parameters at the start."""
        # A stream for each part: the encoder starts alike with and without the others.
        names = ("encoder", "decoder", "head")
        return network.pack(
            {name: network.initial(w, key + names.index(name)) for name, w in self.widths.items()}
        )

    def encode(self, vector: Array, X: Array) -> Array:
        """Return the places of rows."""
        return network.apply(self._parts(vector)["encoder"], X)

    def decode(self, vector: Array, Z: Array) -> Array:
        """Return the rows of places; their logits where the reconstruction is by cross-entropy."""
        return network.apply(self._parts(vector)["decoder"], Z)

    def scores(self, vector: Array, X: Array) -> Array:
        """Return the logit of each class."""
        parts = self._parts(vector)
        return network.apply((*parts["encoder"][:-1], *parts["head"]), X)

    def _parts(self, vector: Array) -> dict[str, Layers]:
        return network.unpack(vector, self.widths)

    def gradient(self, vector: Array, batch: Batch, settings: Settings) -> tuple[Array, Terms]:
        """Return the gradient and the terms of the loss."""
        room = self._room(len(batch.rows), batch.ends, len(batch.labels), vector.dtype)
        parts, into = self._parts(vector), room.into
        activations = network.forward(parts["encoder"], batch.rows, room.encoder)
        Z, by_Z = activations[-1], room.by_Z
        terms = losses.of_places(Z, batch, settings, by_Z)
        if "decoder" in parts:
            terms["reconstruction"] = _decode(parts, into, room, Z, batch, settings)
        hidden = None
        if "head" in parts:
            terms["labels"], hidden = _classify(parts, into, room, activations[-2], batch, settings)
        network.backward(parts["encoder"], activations, by_Z, into["encoder"], room.encoder, hidden)
        return room.gradient, terms

    def _room(self, *shape: Any) -> "_Room":
        if shape not in self._rooms:
            self._rooms = {shape: _Room(self.widths, self.size, *shape)}
        return self._rooms[shape]


class _Room:
    """The room of one step, which the next step with as many rows uses again."""

    def __init__(
        self, widths: dict[str, tuple[int, ...]], size: int, rows: int, ends: int, labelled: int, dtype: Any
    ) -> None:
        self.gradient = np.zeros(size, dtype)
        self.into = network.unpack(self.gradient, widths)
        self.encoder = Passes(widths["encoder"], rows, dtype)
        self.by_Z = np.empty((rows, widths["encoder"][-1]), dtype)
        if "decoder" in widths:
            self.decoder = Passes(widths["decoder"], ends, dtype)
            self.by_rows = np.empty((ends, widths["decoder"][-1]), dtype)
        if "head" in widths:
            self.head = Passes(widths["head"], labelled, dtype)
            self.by_logits = np.empty((labelled, widths["head"][-1]), dtype)


def _decode(
    parts: dict[str, Layers], into: dict[str, Layers], room: _Room, Z: Array, batch: Batch, settings: Settings
) -> float:
    """Write the decoder's gradient; the encoder's gets its share if it is trained for the reconstruction."""
    joint = settings.autoencoder_weight > 0
    activations = network.forward(parts["decoder"], Z[: batch.ends], room.decoder)
    loss = losses.of_reconstruction(activations[-1], batch, settings, room.by_rows)
    gradient = network.backward(parts["decoder"], activations, room.by_rows, into["decoder"], room.decoder)
    if joint:
        room.by_Z[: batch.ends] += network.by_rows(parts["decoder"], gradient)
    return loss


def _classify(
    parts: dict[str, Layers],
    into: dict[str, Layers],
    room: _Room,
    hidden: Array,
    batch: Batch,
    settings: Settings,
) -> tuple[float, tuple[slice, Array]]:
    """Write the head's gradient; return its loss, and what the last hidden layer of which rows gets."""
    labelled = slice(batch.ends, batch.ends + len(batch.labels))
    activations = network.forward(parts["head"], hidden[labelled], room.head)
    loss = losses.softmax(activations[-1], batch.labels, settings.label_weight, room.by_logits)
    gradient = network.backward(parts["head"], activations, room.by_logits, into["head"], room.head)
    return loss, (labelled, network.by_rows(parts["head"], gradient))
