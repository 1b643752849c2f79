"""A module that goes on: from what it learnt, on other rows; and on the kind of device that it began on."""

import types

import numpy as np
import pytest

import daskumap
from daskumap import ParametricUMAP
from daskumap.encoder_params import make_encoder_params
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import ParameterError, RunMismatchError
from daskumap.params import Params
from daskumap.runtime.networks import kind_of_device
from daskumap.testing.faults import FailingEngine, Fault
from daskumap.torch_backend import check

pytestmark = pytest.mark.torch

WORDS = {"steps": 40, "hidden": (16,), "batch_edges": 40, "random_state": 1, "decoder": True}
STILL = {"steps": 1, "encoder_learning_rate": 1e-9}
CLASSES = np.where(np.arange(300) < 40, np.arange(300) % 3, -1)


@pytest.fixture
def model(images, convolutional):
    return ParametricUMAP(encoder=convolutional(), **WORDS).fit(images, CLASSES)


def test_refit_goes_on_from_what_was_learnt(model, images, convolutional, tmp_path):
    """All parts do: here, and where the model was saved."""
    model.save(tmp_path / "model.zarr")
    places, rows = model.transform(images[40:]), model.inverse_transform(model.embedding_[:9])
    chances, points = model.predict_proba(images[:9]), model.embedding_[:9]
    loaded = ParametricUMAP.load(tmp_path / "model.zarr", encoder=convolutional(seed=3))
    for again in (model, loaded):
        again.set_params(**STILL).refit(images[::-1], CLASSES[::-1])
        np.testing.assert_allclose(again.transform(images[40:]), places, atol=1e-4)
        np.testing.assert_allclose(again.inverse_transform(points), rows, atol=1e-4)
        np.testing.assert_allclose(again.predict_proba(images[:9]), chances, atol=1e-4)
        np.testing.assert_array_equal(again.embedding_[::-1], again.transform(images))


def test_refit_refuses_other_parts_and_rows_that_lie_elsewhere(model, images, convolutional):
    with pytest.raises(ParameterError, match=r"has a decoder and the classes \[0, 1, 2\]; this training has"):
        model.refit(images)
    with pytest.raises(ParameterError, match="no module can be told"):
        model.refit(images.astype(np.float64) + 1e9, CLASSES)
    model.set_params(encoder=daskumap.ParametricUMAP().encoder)
    with pytest.raises(ParameterError, match="has an encoder of None units"):
        model.refit(images, CLASSES)


def test_a_training_goes_on_on_one_kind_of_device(images, convolutional, tmp_path, monkeypatch):
    graph = daskumap.fit(images, client="sequential", progress=False, report=False, transform_mode="graph")
    words = {"steps": 40, "checkpoint_steps": 10, "report": False, "progress": False}
    stopped = FailingEngine(SequentialEngine(4 * 10**9), tmp_path / "w", stop_at="encoder.weights")
    with pytest.raises(Fault):
        daskumap.train(graph, tmp_path / "out.zarr", encoder=convolutional(), client=stopped, **words)
    monkeypatch.setattr(check, "look_at", lambda device: ("", "another kind"))
    with pytest.raises(RunMismatchError, match="device was 'cpu' and is now 'another kind'"):
        daskumap.train(graph, tmp_path / "out.zarr", encoder=convolutional(), client="sequential", **words)
    monkeypatch.undo()
    out = daskumap.train(graph, tmp_path / "out.zarr", encoder=convolutional(), client="sequential", **words)
    assert out.store.about["versions"]["device"] == "cpu"


def test_workers_of_two_kinds_are_refused(convolutional):
    """A segment goes to any of them."""
    params = Params(encoder=make_encoder_params({"encoder": convolutional(), "device": "cuda"}))

    def kind(*seen):
        return kind_of_device(types.SimpleNamespace(ask=lambda question: list(seen)), params)

    assert kind(("", "H100"), ("", "H100")) == "H100"
    with pytest.raises(ParameterError, match="of several kinds: A100, H100"):
        kind(("", "H100"), ("", "A100"))
    with pytest.raises(ParameterError, match="which torch cannot use there: none here"):
        kind(("", "H100"), ("none here", "cuda"))
    assert kind_of_device(None, Params()) is None


def test_a_plan_counts_what_a_module_holds_of_a_block(model, images, tmp_path):
    model.run_.encoder.save(tmp_path / "model.zarr")
    (stage,) = daskumap.plan(images, run=model.run_, calibrate=False).stages
    # 4 channels of 8 x 8 in each of 256 rows, before and after the rectifier.
    assert stage.memory["network"] > 256 * 2 * 4 * 64 * 4
