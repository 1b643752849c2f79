"""A module through the pipeline of a training: same bits, resumed by `train` alone, refused early."""

import numpy as np
import pytest

import daskumap
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import ParameterError, RunMismatchError, StoreError
from daskumap.onnx_export import export
from daskumap.store.model import Model, in_run
from daskumap.testing.faults import FailingEngine
from daskumap.torch_backend.modules import of_model

pytestmark = pytest.mark.torch

STEPS = {"steps": 60, "checkpoint_steps": 20, "hidden": (16,), "decoder": True, "report": False}


@pytest.fixture(scope="module")
def graph(images, tmp_path_factory):
    """The graph of the images, on disk."""
    return daskumap.fit(
        images,
        tmp_path_factory.mktemp("graph") / "run.zarr",
        client="sequential",
        progress=False,
        random_state=1,
        report=False,
        transform_mode="graph",
    )


@pytest.fixture
def train(graph, convolutional, request):
    """`daskumap.train` of a convolutional module."""
    labels = np.where(np.arange(300) < 40, np.arange(300) % 3, -1)

    def train_(out=None, module=None, client="sequential", **options):
        options = {"labels": labels, "client": client, "progress": False, **STEPS, **options}
        return daskumap.train(graph, out, encoder=module or convolutional(), **options)

    return train_


def test_any_engine_gives_the_same_bits(train, client_processes, tmp_path):
    once = train().embedding[...]
    np.testing.assert_array_equal(train(client="threads", threads=2).embedding[...], once)
    there = train(tmp_path / "out.zarr", client=client_processes)
    np.testing.assert_array_equal(there.embedding[...], once)
    assert "torch" in there.store.about["versions"]


def test_replicas_on_workers_give_the_same_bits(train, client_processes, tmp_path):
    options = {"replicas": 2, "average_every": 5, "steps": 20}
    here = train(tmp_path / "here.zarr", **options).embedding[...]
    there = train(tmp_path / "there.zarr", client=client_processes, **options).embedding[...]
    np.testing.assert_array_equal(here, there)


def test_stopped_and_gone_on_with_by_train_alone(train, convolutional, tmp_path):
    once = train().embedding[...]
    place = tmp_path / "out.zarr"
    faults = {("encoder.train", 2): [OSError("lightning")] * 9}
    with pytest.raises(daskumap.errors.DaskumapError, match="lightning"):
        train(place, client=FailingEngine(SequentialEngine(4 * 10**9), tmp_path / "witnesses", faults))
    with pytest.raises(StoreError, match=r"started with a module .* Call daskumap\.train again"):
        daskumap.resume(place)
    with pytest.raises(RunMismatchError, match="encoder"):
        train(place, module=convolutional(seed=1))
    np.testing.assert_array_equal(train(place).embedding[...], once)


def test_refused_before_anything_is_written(train, convolutional, client_processes, tmp_path):
    place = tmp_path / "out.zarr"
    with pytest.raises(ParameterError, match=r"makes \(4, 3\) torch\.float32 of 4 rows of 64 columns"):
        train(place, module=convolutional(components=3))
    with pytest.raises(
        ParameterError, match=r"encoder is of type int; it must be 'mlp' or a torch\.nn\.Module"
    ):
        train(place, module=3)
    with pytest.raises(ParameterError, match=r"device is 'gpu', which torch cannot use there: .* are cpu"):
        train(place, device="gpu")
    with pytest.raises(ParameterError, match="device is 'gpu'"):
        train(place, device="gpu", client=client_processes)
    assert not place.exists()


def test_a_trained_module_as_model_and_as_onnx(train, convolutional, images, tmp_path):
    import onnxruntime

    run = train()
    model = Model.read(in_run(run.store.documents))
    backend, vector = of_model(model, convolutional(seed=1))
    np.testing.assert_array_equal(backend.encode(vector, images), run.embedding[...])
    encoder, decoder = (
        onnxruntime.InferenceSession(path) for path in export(model, tmp_path / "e.onnx", convolutional())
    )
    places, probabilities = encoder.run(None, {"rows": images})
    np.testing.assert_allclose(places, run.embedding[...], atol=1e-5)
    scores = np.exp(backend.scores(vector, images))
    np.testing.assert_allclose(probabilities, scores / scores.sum(1, keepdims=True), atol=1e-5)
    (rows,) = decoder.run(None, {"embedding": places})
    np.testing.assert_allclose(rows, backend.decode(vector, places), atol=1e-5)
