"""A user's own torch module as the encoder, and as the decoder: what the training asks of a network.

The losses are those of the built-in network; torch maps rows, and takes gradients back through the module. All random
numbers of a step, such as those of dropout, follow from its batch.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from daskumap.errors import DependencyError, StoreError
from daskumap.kernels.encoder import losses, network
from daskumap.kernels.encoder.batch import Batch, Settings

try:
    import torch
    from torch import nn
except ImportError as error:
    raise DependencyError(
        "A module of torch's is trained by torch, which is not installed. Install it: "
        "pip install 'daskumap[torch]'"
    ) from error

Array = np.ndarray[Any, Any]
Terms = dict[str, float]
# Rows that go through a module at a time to be encoded: always as many, since libraries choose their code by them.
BLOCK_ROWS = 256
# Each part that daskumap makes starts from a stream of its own, as those of the built-in network do.
PARTS = ("encoder", "decoder", "head")


class TorchBackend:
    """Modules whose trainable parameters are one flat float32 vector, in the order in which torch names them.

    Parameters
    ----------
    encoder
        Takes (m, columns) float32 and gives (m, d).
    hidden
        Units of the hidden layers of a decoder that daskumap makes, in reversed order.
    decoder
        True for a perceptron; or a module that takes (m, d) and gives (m, columns).
    classes
        Classes of a linear classifier, which reads what the encoder's last linear layer reads; 0 for none.
    device
        Where torch computes, such as "cpu", "cuda" or "mps".
    """

    def __init__(
        self,
        encoder: nn.Module,
        columns: int,
        hidden: tuple[int, ...],
        d: int,
        decoder: bool | nn.Module = False,
        classes: int = 0,
        device: str = "cpu",
    ) -> None:
        self.columns, self.d, self.classes, self.device = columns, d, classes, device
        # Of the parts that daskumap makes.
        self.widths: dict[str, tuple[int, ...]] = {}
        parts = {"encoder": encoder}
        if decoder is True:
            self.widths["decoder"] = d, *reversed(hidden), columns
        elif decoder is not False:
            parts["decoder"] = decoder
        if classes:
            self.widths["head"] = last_linear(encoder).in_features, classes
        parts |= {name: perceptron(units) for name, units in self.widths.items()}
        # A copy: what the caller does with the module later changes nothing here.
        self.parts = copy.deepcopy(nn.ModuleDict(parts)).cpu()
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the copies that threads compute with."""
        return {name: value for name, value in vars(self).items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin without them."""
        vars(self).update(state, _local=threading.local())

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return sum(one.numel() for one in trainable(self.parts))

    def initial(self, key: int) -> Array:
        """Return the parameters at the start: the module's own values, and of parts of daskumap's a hash of the key."""
        parts = copy.deepcopy(self.parts)
        for name, units in self.widths.items():
            layers = network.initial(units, key + PARTS.index(name))
            linears = (one for one in parts[name] if isinstance(one, nn.Linear))
            for linear, (weights, bias) in zip(linears, layers, strict=True):
                linear.weight.data = torch.tensor(weights.T)
                linear.bias.data = torch.tensor(bias)
        return np.concatenate([one.detach().numpy().ravel() for one in trainable(parts)])

    def gradient(self, vector: Array, batch: Batch, settings: Settings) -> tuple[Array, Terms]:
        """Return the gradient and the terms of the loss by name."""
        with drawing(batch.key), steady(self.device):
            parts = self._loaded(vector).train()
            places, hidden = run_encoder(parts, self._tensor(batch.rows))
            made = [Made(places)]
            terms = losses.of_places(made[0].values, batch, settings, made[0].gradient)
            if "decoder" in parts:
                ends = places[: batch.ends]
                made.append(Made(parts["decoder"](ends if settings.autoencoder_weight > 0 else ends.detach())))
                terms["reconstruction"] = losses.of_reconstruction(
                    made[-1].values, batch, settings, made[-1].gradient
                )
            if hidden is not None and len(batch.labels):
                made.append(Made(parts["head"](hidden[batch.ends : batch.ends + len(batch.labels)])))
                terms["labels"] = losses.softmax(
                    made[-1].values, batch.labels, settings.label_weight, made[-1].gradient
                )
            return flat_gradient(trainable(parts), made), terms

    def encode(self, vector: Array, X: Array) -> Array:
        """Return the places of rows, (m, d) float32."""
        return self._blocks(vector, X, lambda parts, rows: parts["encoder"](rows))

    def decode(self, vector: Array, Z: Array) -> Array:
        """Return the rows of places, (m, D) float32; their logits where the reconstruction is by cross-entropy."""
        return self._blocks(vector, Z, lambda parts, places: parts["decoder"](places))

    def scores(self, vector: Array, X: Array) -> Array:
        """Return the logit of each class for rows, (m, classes) float32."""
        return self._blocks(vector, X, lambda parts, rows: parts["head"](run_encoder(parts, rows)[1]))

    def _blocks(self, vector: Array, X: Array, function: Any) -> Array:
        """Map rows, a block of a fixed height at a time: a row's bits do not depend on how many come with it."""
        rows = np.zeros((BLOCK_ROWS, X.shape[1]), np.float32)
        made = []
        with torch.inference_mode(), steady(self.device):
            parts = self._loaded(vector).eval()
            for start in range(0, max(len(X), 1), BLOCK_ROWS):
                part = X[start : start + BLOCK_ROWS]
                rows[: len(part)] = part
                made.append(function(parts, self._tensor(rows)).cpu().numpy()[: len(part)])
        return np.concatenate(made)

    def _tensor(self, values: Array) -> torch.Tensor:
        """Return a copy of values on the device: how memory is aligned may change the bits, and torch's own always is."""
        return torch.tensor(values, device=self.device)

    def _loaded(self, vector: Array) -> nn.ModuleDict:
        """Return this thread's copy of the parts with the parameters of a vector."""
        if not hasattr(self._local, "parts"):
            self._local.parts = copy.deepcopy(self.parts).to(self.device)
        parts: nn.ModuleDict = self._local.parts
        fill(trainable(parts), vector)
        return parts

    def weights(self, vector: Array) -> dict[str, Array]:
        """Return what a model keeps, by name: the parameters, and what else belongs to the state of the modules."""
        parts = copy.deepcopy(self.parts)
        fill(trainable(parts), vector)
        return {name: values.numpy() for name, values in parts.state_dict().items()}

    def restore(self, weights: Mapping[str, Array]) -> Array:
        """Take what a model kept, and return its vector.

        Raises
        ------
        StoreError
            If the modules have other names or shapes.
        """
        there = {name: tuple(values.shape) for name, values in self.parts.state_dict().items()}
        known = {name: values.shape for name, values in weights.items()}
        odd = sorted(name for name in there.keys() | known if there.get(name) != known.get(name))
        if odd:
            listed = "; ".join(
                f"{name} is {there.get(name, 'missing')} here and {known.get(name, 'missing')} in the model"
                for name in odd
            )
            raise StoreError(f"The model was trained with another module: {listed}. Give a module like that one.")
        self.parts.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
        return self.initial_of_modules()


class Made:
    """What a part made of a batch: a tensor, its values, and the gradient by them that a loss writes."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.values = np.ascontiguousarray(tensor.detach().cpu().numpy())
        self.gradient = np.zeros_like(self.values)
