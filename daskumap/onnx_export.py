"""Writes a trained encoder as ONNX, for programs that know nothing of ours.

Layers of the perceptron become Gemm and ReLU, the last one linear; modules go through torch's own exporter.
The encoder's file also has the classifier, whose input lies inside of it; the decoder is a file of its own,
since its input is places of the map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import DependencyError, StoreError
from daskumap.sources.move import Move
from daskumap.store.model import Model

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise DependencyError(
        "ONNX files are written by onnx, which is not installed. Install it: pip install 'daskumap[onnx]'"
    ) from error

Array = np.ndarray[Any, Any]
# Of 2022, so that runtimes of all years since read it; it has all that is needed.
OPSET = 17
# The version of the file format that came with that opset.
IR_VERSION = 8
# What the file calls the number of rows, which is free.
ROWS = "n"


class Graph:
    """A graph as it grows: each method adds nodes and returns the name of their output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add one node."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, values: Any) -> str:
        """Add values that the file holds."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def perceptron(self, layers: Any, x: str) -> tuple[str, str]:
        """Add layers with a ReLU between two; return the input of the last one, and its output."""
        for layer in layers[:-1]:
            x = self.add("Relu", [self.linear(layer, x)])
        return x, self.linear(layers[-1], x)

    def linear(self, layer: Any, x: str) -> str:
        """Add one layer, x @ weights + bias."""
        weights, bias = layer
        return self.add("Gemm", [x, self.constant(weights), self.constant(bias)])

    def apply(self, move: Move, x: str) -> str:
        """Add how rows are moved before they become float32, if they are."""
        if move.is_still:
            return x
        if move.centre is not None:
            x = self.add("Sub", [x, self.constant(move.centre.astype(np.float64))])
        x = self.add("Mul", [x, self.constant(np.ldexp(1.0, move.exponent))])
        return self.add("Cast", [x], to=TensorProto.FLOAT)

    def undo(self, move: Move, x: str) -> str:
        """Add how moved rows become the user's again, if they were moved."""
        if move.is_still:
            return x
        x = self.add("Cast", [x], to=TensorProto.DOUBLE)
        x = self.add("Mul", [x, self.constant(np.ldexp(1.0, -move.exponent))])
        return (
            x if move.centre is None else self.add("Add", [x, self.constant(move.centre.astype(np.float64))])
        )

    def model(self, given: Any, made: Mapping[str, Any]) -> Any:
        """Return the graph as a file.

        Parameters
        ----------
        given
            The input.
        made
            By the name of a node's output, what the file calls it.
        """
        for name, end in made.items():
            self.nodes.append(helper.make_node("Identity", [name], [end.name]))
        graph = helper.make_graph(self.nodes, "daskumap", [given], list(made.values()), self.constants)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def export(model: Model, path: str | Path, encoder: Any = None, decoder: Any = None) -> list[Path]:
    """Write a trained encoder, and its decoder if it has one, as ONNX.

    The encoder's file takes "rows" (n, D) and gives "embedding" (n, d) and, where there is a classifier,
    "probabilities" (n, classes), whose labels stand in the file's metadata under "classes" as JSON. The
    decoder's takes "embedding" and gives "rows". All are float32; but rows that float32 cannot tell from each
    other as they are, such as large values with small differences, are float64.

    Parameters
    ----------
    path
        Of the encoder's file, X.onnx; that of the decoder is X.decoder.onnx.
    encoder, decoder
        The modules, where the model was trained with some.

    Returns
    -------
    paths
        What was written.
    """
    path = Path(path)
    files = _of_modules(model, encoder, decoder) if model.backend == "torch" else _of_perceptron(model)
    paths = [path, path.with_suffix(f".decoder{path.suffix}")][: len(files)]
    for file in files:
        file.producer_name = "daskumap"
        onnx.checker.check_model(file, full_check=True)
    for one, file in zip(paths, files, strict=True):
        _write(one, file.SerializeToString())
    return paths


def _write(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there."""
    part = path.with_name(f"{path.name}.partial")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise StoreError(
            f"{path} cannot be written ({error}). Name a file in a folder that is there and may be written, "
            "with room for it."
        ) from error


def _of_perceptron(model: Model) -> list[Any]:
    graph, move = Graph(), _move(model)
    hidden, places = graph.perceptron(model.layers("encoder"), graph.apply(move, "rows"))
    made = {places: _table("embedding", model.components)}
    if model.classes is not None:
        scores = graph.linear(model.layers("head")[0], hidden)
        made[graph.add("Softmax", [scores], axis=1)] = _table("probabilities", len(model.classes))
    files = [_told(model, graph.model(_rows(model), made))]
    if model.layers("decoder"):
        graph = Graph()
        _, rows = graph.perceptron(model.layers("decoder"), "embedding")
        rows = graph.add("Sigmoid", [rows]) if _is_bounded(model) else rows
        given = _table("embedding", model.components)
        files.append(graph.model(given, {graph.undo(move, rows): _rows(model)}))
    return files


def _of_modules(model: Model, encoder: Any, decoder: Any) -> list[Any]:
    from daskumap.torch_backend import export as torch_export
    from daskumap.torch_backend.modules import of_model

    backend, _ = of_model(model, encoder, decoder)
    parts, move = backend.fresh("cpu"), _move(model)
    made = ["embedding", *(["probabilities"] if "head" in parts else [])]
    rows = np.zeros((2, model.columns), np.float32 if move.is_still else np.float64)
    file = torch_export.as_onnx(torch_export.Encode(parts, move), rows, (["rows"], made), ROWS, OPSET)
    files = [_told(model, onnx.load_from_string(file))]
    if "decoder" in parts:
        decode = torch_export.Decode(parts["decoder"], move, _is_bounded(model))
        places = np.zeros((2, model.components), np.float32)
        file = torch_export.as_onnx(decode, places, (["embedding"], ["rows"]), ROWS, OPSET)
        files.append(onnx.load_from_string(file))
    return files


def _told(model: Model, file: Any) -> Any:
    """Let a file say what its probabilities are of."""
    if model.classes is not None:
        helper.set_model_props(file, {"classes": json.dumps(list(model.classes))})
    return file


def _is_bounded(model: Model) -> bool:
    """Tell whether the decoder gives logits of values in [0, 1]."""
    return bool(model.params["encoder"]["reconstruction"] == "bce")


def _move(model: Model) -> Move:
    return Move.from_dict(dict(model.cast), np.dtype(model.dtype))


def _rows(model: Model) -> Any:
    return _table("rows", model.columns, TensorProto.FLOAT if _move(model).is_still else TensorProto.DOUBLE)


def _table(name: str, columns: int, dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, [ROWS, columns])
