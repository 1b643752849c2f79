"""Writes trained modules as ONNX, by torch's own exporter."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from daskumap.sources.move import Move
from daskumap.torch_backend.modules import run_encoder

Array = np.ndarray[Any, Any]


class Encode(nn.Module):  # type: ignore[misc]  # torch is not looked into
    """Rows as they are, to their places and, where there is a classifier, probabilities of classes."""

    def __init__(self, parts: nn.ModuleDict, move: Move) -> None:
        super().__init__()
        self.parts, self.move, self.centre = parts, move, _centre(move)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map rows."""
        if not self.move.is_still:
            rows = ((rows - self.centre) * 2.0**self.move.exponent).float()
        places, hidden = run_encoder(self.parts, rows)
        return (places,) if hidden is None else (places, self.parts["head"](hidden).softmax(1))


class Decode(nn.Module):  # type: ignore[misc]
    """Places, to rows as they are."""

    def __init__(self, decoder: nn.Module, move: Move, logits: bool) -> None:
        super().__init__()
        self.decoder, self.move, self.logits, self.centre = decoder, move, logits, _centre(move)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """Map places."""
        rows = self.decoder(places)
        if self.logits:
            rows = rows.sigmoid()
        if self.move.is_still:
            return rows
        return rows.double() * 2.0**-self.move.exponent + self.centre


def _centre(move: Move) -> torch.Tensor:
    return torch.tensor(0.0 if move.centre is None else move.centre.astype(np.float64))


def as_onnx(
    module: nn.Module, example: Array, names: tuple[list[str], list[str]], rows: str, opset: int
) -> bytes:
    """Return a module as an ONNX file.

    Parameters
    ----------
    example
        An input: its number of rows is free, and called `rows` in the file.
    names
        What the file calls inputs and outputs.
    """
    given, made = names
    out = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that follows this one needs another package, and no opset below 18.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module.eval(),
            (torch.tensor(example),),
            out,
            input_names=given,
            output_names=made,
            dynamic_axes={name: {0: rows} for name in (*given, *made)},
            opset_version=opset,
            dynamo=False,
        )
    return out.getvalue()
