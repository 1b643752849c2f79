"""ONNX files of a trained perceptron, run by another program."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from daskumap.errors import DependencyError
from daskumap.kernels.encoder import network
from daskumap.kernels.encoder.backend import Perceptron
from daskumap.onnx_export import export
from daskumap.sources.move import Move
from daskumap.store.model import Model

COLUMNS = 7
MOVES = {
    "still": (Move(), "float32", 0.0),
    "scaled": (Move(-2), "float64", 0.0),
    "centred": (Move(3, np.full(COLUMNS, 1e9)), "float64", 1e9),
}


def trained(move, dtype, reconstruction="mse", classes=("a", "b", 3)):
    """Return a network with all parts, its vector and its model."""
    backend = Perceptron.of(COLUMNS, (10, 12), 2, True, len(classes))
    vector = backend.initial(5)
    model = Model.of_parts(
        network.unpack(vector, backend.widths),
        columns=COLUMNS,
        dtype=dtype,
        components=2,
        curve=(1.6, 0.9),
        cast=move.as_dict(),
        params={"encoder": {"reconstruction": reconstruction}},
        run="id",
        classes=classes or None,
    )
    return backend, vector, model


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("reconstruction", ["mse", "bce"])
def test_files_give_what_the_network_gives(name, reconstruction, tmp_path):
    move, dtype, offset = MOVES[name]
    backend, vector, model = trained(move, dtype, reconstruction)
    rows = (np.random.default_rng(0).normal(size=(13, COLUMNS)) + offset).astype(dtype)
    paths = export(model, tmp_path / "encoder.onnx")
    assert [path.name for path in paths] == ["encoder.onnx", "encoder.decoder.onnx"]
    encoder, decoder = map(onnxruntime.InferenceSession, map(str, paths))
    places, probabilities = encoder.run(None, {"rows": rows})
    seen = move.apply(rows)
    np.testing.assert_allclose(places, backend.encode(vector, seen), atol=1e-5)
    scores = np.exp(backend.scores(vector, seen))
    np.testing.assert_allclose(probabilities, scores / scores.sum(1, keepdims=True), atol=1e-5)
    decoded = backend.decode(vector, places)
    expected = move.undo(1 / (1 + np.exp(-decoded)) if reconstruction == "bce" else decoded)
    np.testing.assert_allclose(
        decoder.run(None, {"embedding": places})[0] - offset, expected - offset, atol=1e-5
    )
    assert json.loads(encoder.get_modelmeta().custom_metadata_map["classes"]) == ["a", "b", 3]


def test_the_last_layer_is_linear(tmp_path):
    _, _, model = trained(Move(), "float32", classes=())
    (path, _) = export(model, tmp_path / "encoder.onnx")
    file = onnx.load(path)
    assert [node.op_type for node in file.graph.node] == [*["Gemm", "Relu"] * 2, "Gemm", "Identity"]
    assert [one.name for one in file.graph.output] == ["embedding"]
    assert file.opset_import[0].version == 17


@pytest.mark.parametrize(("package", "module"), [("onnx", "onnx_export"), ("torch", "torch_backend")])
def test_a_missing_extra_is_named(package, module, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith(f"daskumap.{module}")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DependencyError, match=rf"pip install 'daskumap\[{package}\]'"):
        __import__(f"daskumap.{module}")
