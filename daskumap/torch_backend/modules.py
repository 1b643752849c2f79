"""Modules of torch's as the network that is trained: flat float32 vectors in and out."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from daskumap.errors import ParameterError
from daskumap.kernels.encoder import losses, network
from daskumap.kernels.encoder.batch import Batch, Settings
from daskumap.torch_backend.steady import STEADY, drawing

Array = np.ndarray[Any, Any]
Terms = dict[str, float]
# Rows that go through a module at a time to be encoded: always as many, by which libraries choose their code.
BLOCK_ROWS = 256
# Each part that daskumap makes starts from a stream of its own, as those of the built-in network do.
PARTS = ("encoder", "decoder", "head")


class TorchBackend:
    """Modules whose trainable parameters are one flat float32 vector, in the order in which torch names them.

    What is no module is refused with a ParameterError.

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
        _refuse_others("encoder", encoder, "'mlp' or a torch.nn.Module")
        self.columns, self.d, self.classes, self.device = columns, d, classes, device
        # Of the parts that daskumap makes.
        self.widths: dict[str, tuple[int, ...]] = {}
        parts = {"encoder": encoder}
        if decoder is True:
            self.widths["decoder"] = d, *reversed(hidden), columns
        elif decoder is not False:
            _refuse_others("decoder", decoder, "True, False or a torch.nn.Module")
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
        """Return the parameters at the start: the module's values; of daskumap's parts a hash of the key."""
        parts = copy.deepcopy(self.parts)
        for name, units in self.widths.items():
            layers = network.initial(units, key + PARTS.index(name))
            linears = (one for one in parts[name] if isinstance(one, nn.Linear))
            for linear, (weights, bias) in zip(linears, layers, strict=True):
                linear.weight.data = torch.tensor(weights.T)
                linear.bias.data = torch.tensor(bias)
        return flat(parts)

    def gradient(self, vector: Array, batch: Batch, settings: Settings) -> tuple[Array, Terms]:
        """Return the gradient and the terms of the loss by name."""
        with drawing(batch.key), STEADY:
            parts = self._loaded(vector).train()
            places, hidden = run_encoder(parts, self._tensor(batch.rows))
            made = [Made(places)]
            terms = losses.of_places(made[0].values, batch, settings, made[0].gradient)
            if "decoder" in parts:
                ends = places[: batch.ends]
                made.append(
                    Made(parts["decoder"](ends if settings.autoencoder_weight > 0 else ends.detach()))
                )
                terms["reconstruction"] = losses.of_reconstruction(
                    made[-1].values, batch, settings, made[-1].gradient
                )
            if hidden is not None:
                made.append(Made(parts["head"](hidden[batch.ends : batch.ends + len(batch.labels)])))
                terms["labels"] = losses.softmax(
                    made[-1].values, batch.labels, settings.label_weight, made[-1].gradient
                )
            return flat_gradient(trainable(parts), made), terms

    def encode(self, vector: Array, X: Array) -> Array:
        """Return the places of rows, (m, d) float32."""
        return self._blocks(vector, X, lambda parts, rows: parts["encoder"](rows))

    def decode(self, vector: Array, Z: Array) -> Array:
        """Return the rows of places, (m, D) float32; logits where the reconstruction is by cross-entropy."""
        return self._blocks(vector, Z, lambda parts, places: parts["decoder"](places))

    def scores(self, vector: Array, X: Array) -> Array:
        """Return the logit of each class for rows, (m, classes) float32."""
        return self._blocks(vector, X, lambda parts, rows: parts["head"](run_encoder(parts, rows)[1]))

    def _blocks(self, vector: Array, X: Array, function: Any) -> Array:
        """Map rows, as many at a time as ever: a row's bits do not depend on how many come with it."""
        rows = np.zeros((BLOCK_ROWS, X.shape[1]), np.float32)
        made = []
        with torch.no_grad(), STEADY:
            parts = self._loaded(vector).eval()
            for start in range(0, max(len(X), 1), BLOCK_ROWS):
                part = X[start : start + BLOCK_ROWS]
                rows[: len(part)] = part
                made.append(function(parts, self._tensor(rows)).cpu().numpy()[: len(part)])
        return np.concatenate(made)

    def _tensor(self, values: Array) -> torch.Tensor:
        """Return values on the device, copied: bits may depend on how memory is aligned, as torch's is."""
        return torch.tensor(values, device=self.device)

    def _loaded(self, vector: Array) -> nn.ModuleDict:
        """Return this thread's copy of the parts with the parameters of a vector."""
        if not hasattr(self._local, "parts"):
            self._local.parts = self.fresh(self.device)
        parts: nn.ModuleDict = self._local.parts
        fill(trainable(parts), vector)
        return parts

    def fresh(self, device: str) -> nn.ModuleDict:
        """Return a copy of the parts on a device."""
        return copy.deepcopy(self.parts).to(device)

    def weights(self, vector: Array) -> dict[str, Array]:
        """Return what a model keeps, by name: the parameters, and the rest of the modules' state."""
        parts = copy.deepcopy(self.parts)
        fill(trainable(parts), vector)
        return {name: values.numpy() for name, values in parts.state_dict().items()}

    def restore(self, weights: Mapping[str, Array]) -> Array:
        """Take what a model kept, and return its vector.

        Raises
        ------
        ParameterError
            If the modules have other names or shapes.
        """
        there = {name: tuple(values.shape) for name, values in self.parts.state_dict().items()}
        known = {name: values.shape for name, values in weights.items()}
        for name in sorted(there.keys() | known):
            here, kept = (one.get(name, "missing") for one in (there, known))
            if here != kept:
                raise ParameterError(
                    f"The model was trained with another module: {name} is {kept} in the model and {here} in "
                    "the one that is given. Give a module with the layers of that one."
                )
        self.parts.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
        return flat(self.parts)


def _refuse_others(name: str, given: Any, allowed: str) -> None:
    if not isinstance(given, nn.Module):
        raise ParameterError(f"{name} is of type {type(given).__name__}; it must be {allowed}.")


def of_model(
    model: Any, encoder: nn.Module, decoder: bool | nn.Module | None = None, device: str = "cpu"
) -> tuple[TorchBackend, Array]:
    """Return a trained model's network and its vector, from the caller's modules: a model holds no code.

    Parameters
    ----------
    model
        A `store.model.Model`.
    encoder, decoder
        Modules like those that were trained; a copy gets the model's values. A decoder that daskumap made
        needs none.

    Raises
    ------
    ParameterError
        If they are other ones, by the names and shapes of their weights.
    """
    known = model.params["encoder"]
    made = known["decoder"] if isinstance(known["decoder"], bool) else decoder
    if not isinstance(made, bool | nn.Module) or (made is False and known["decoder"]):
        raise ParameterError(
            f"The model was trained with {known['decoder']} as decoder. Give such a module too."
        )
    classes = len(model.classes or ())
    backend = TorchBackend(
        encoder, model.columns, tuple(known["hidden"]), model.components, made, classes, device
    )
    return backend, backend.restore(model.weights)


class Made:
    """What a part made of a batch: a tensor, its values, and the gradient by them that a loss writes."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.values = np.ascontiguousarray(tensor.detach().cpu().numpy())
        self.gradient = np.zeros_like(self.values)


def flat_gradient(parameters: list[nn.Parameter], made: list[Made]) -> Array:
    """Return the gradient by all parameters; zero by those that a step does not use."""
    found = torch.autograd.grad(
        [one.tensor for one in made],
        parameters,
        [torch.tensor(one.gradient, device=one.tensor.device) for one in made],
        allow_unused=True,
    )
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    gradient: Array = torch.cat([one.reshape(-1) for one in filled]).cpu().numpy()
    return gradient


def trainable(parts: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained, each once; frozen ones are not."""
    return [one for one in parts.parameters() if one.requires_grad]


def flat(parts: nn.Module) -> Array:
    """Return the parameters that are trained as one vector."""
    return np.concatenate([one.detach().numpy().ravel() for one in trainable(parts)])


def fill(parameters: list[nn.Parameter], vector: Array) -> None:
    """Give parameters the values of a vector."""
    pieces = torch.split(torch.from_numpy(vector), [one.numel() for one in parameters])
    with torch.no_grad():
        for parameter, values in zip(parameters, pieces, strict=True):
            parameter.copy_(values.view_as(parameter))


def perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    """Return the built-in network as a module, its values not set: no random number is drawn."""
    layers: list[nn.Module] = []
    for rows, columns in pairwise(widths):
        layers += [nn.utils.skip_init(nn.Linear, rows, columns), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def last_linear(encoder: nn.Module) -> nn.Linear:
    """Return the last linear layer of an encoder, whose input a classifier reads.

    Raises
    ------
    ParameterError
        If it has none.
    """
    linears = [one for one in encoder.modules() if isinstance(one, nn.Linear)]
    if not linears:
        raise ParameterError(
            "There are labels, and the encoder has no torch.nn.Linear, the last of which reads what a "
            "classifier reads. End the module with one, or leave labels out."
        )
    return linears[-1]


def run_encoder(parts: nn.ModuleDict, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the places of rows, and what the classifier reads, if there is one."""
    if "head" not in parts:
        return parts["encoder"](rows), None
    seen: list[torch.Tensor] = []
    hook = last_linear(parts["encoder"]).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        places = parts["encoder"](rows)
    finally:
        hook.remove()
    return places, seen[-1] if seen else None
