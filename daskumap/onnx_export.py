"""Writes a trained perceptron as ONNX, for programs that know nothing of ours.

The layers become Gemm and ReLU, the last one linear. The encoder's file also has the classifier, whose input lies
inside of it; the decoder is a file of its own, since its input is places of the map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import DependencyError
from daskumap.sources.move import Move

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
        return x if move.centre is None else self.add("Add", [x, self.constant(move.centre.astype(np.float64))])

    def save(self, path: Path, given: Any, made: Mapping[str, Any], known: Mapping[str, Any]) -> Path:
        """Check the graph and write it.

        Parameters
        ----------
        given
            The input.
        made
            By the name of a node's output, what the file calls it.
        known
            What the file says of itself, as JSON types.
        """
        for name, end in made.items():
            self.nodes.append(helper.make_node("Identity", [name], [end.name]))
        graph = helper.make_graph(self.nodes, "daskumap", [given], list(made.values()), self.constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="daskumap")
        helper.set_model_props(model, {name: json.dumps(value) for name, value in known.items()})
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())
        return path


def export(model: Any, path: str | Path) -> list[Path]:
    """Write a trained perceptron.

    The encoder's file takes "rows" (n, D) and gives "embedding" (n, d) and, where there is a classifier,
    "probabilities" (n, classes), whose labels stand in the file's metadata under "classes" as JSON. The decoder takes
    "embedding" and gives "rows". All are float32, but rows of values that float32 cannot tell, such as large ones
    with small differences: those are float64.

    Parameters
    ----------
    model
        A `store.model.Model` of the built-in backend.
    path
        Of the encoder's file, X.onnx; that of the decoder is X.decoder.onnx.

    Returns
    -------
    paths
        What was written.
    """
    path = Path(path)
    written = [_export_encoder(model, path)]
    if model.layers("decoder"):
        written.append(_export_decoder(model, path.with_suffix(f".decoder{path.suffix}")))
    return written


def _export_encoder(model: Any, path: Path) -> Path:
    graph, head = Graph(), model.layers("head")
    hidden, places = graph.perceptron(model.layers("encoder"), graph.apply(_move(model), "rows"))
    made = {places: _table("embedding", model.components)}
    if head:
        scores = graph.linear(head[0], hidden)
        made[graph.add("Softmax", [scores], axis=1)] = _table("probabilities", len(model.classes))
    known = {} if model.classes is None else {"classes": list(model.classes)}
    return graph.save(path, _rows(model), made, known)


def _export_decoder(model: Any, path: Path) -> Path:
    graph = Graph()
    _, rows = graph.perceptron(model.layers("decoder"), "embedding")
    return graph.save(
        path,
        _table("embedding", model.components),
        {graph.undo(_move(model), rows): _rows(model)},
        {},
    )


def _move(model: Any) -> Move:
    return Move.from_dict(model.cast, np.dtype(model.dtype))


def _rows(model: Any) -> Any:
    return _table("rows", model.columns, TensorProto.FLOAT if _move(model).is_still else TensorProto.DOUBLE)


def _table(name: str, columns: int, dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, [ROWS, columns])
