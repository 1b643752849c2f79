"""A module as the network that is trained: its gradients, its draws, its blocks, and what is refused."""

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

from daskumap.errors import ParameterError
from daskumap.functions import digest_of_module
from daskumap.kernels.encoder import network
from daskumap.kernels.encoder.backend import Perceptron
from daskumap.kernels.encoder.batch import Batch, Settings
from daskumap.store.model import Model
from daskumap.torch_backend.check import check_modules, find_fault, held_bytes
from daskumap.torch_backend.modules import TorchBackend, of_model, perceptron

pytestmark = pytest.mark.torch

COLUMNS, HIDDEN, D, CLASSES = 20, (16, 12), 2, 4
EDGES, LABELLED, WANTED = 50, 10, 5
CURVE = {"a": 1.6, "b": 0.9, "steps": 100}


def batch(columns=COLUMNS, key=0, places=False):
    """Return a batch with all that there may be in one: pairs, labels, landmarks."""
    rng = np.random.default_rng(0)
    ends = 2 * EDGES
    heads, tails = np.repeat(np.arange(EDGES), 5), rng.integers(EDGES, ends, 5 * EDGES)
    return Batch(
        rng.random((ends + LABELLED + WANTED, columns), dtype=np.float32),
        ends,
        EDGES,
        np.stack([heads, tails], 1).astype(np.int32),
        rng.integers(0, ends, (60, 2)).astype(np.int32),
        rng.integers(0, CLASSES, LABELLED).astype(np.int32),
        rng.normal(size=(WANTED, D)).astype(np.float32),
        rng.normal(size=(ends if places else 0, D)).astype(np.float32),
        key,
    )


def as_torch_has_it(parts):
    """Return the vector of a perceptron in the order of torch, whose weights are (out, in)."""
    layers = (layer for part in parts.values() for layer in part)
    return np.concatenate([array.ravel() for layer in layers for array in (layer.weights.T, layer.bias)])


@pytest.fixture
def both():
    """The built-in network and the same one as modules, each with its vector."""
    ours = Perceptron.of(COLUMNS, HIDDEN, D, True, CLASSES)
    vector = ours.initial(7)
    theirs = TorchBackend(perceptron((COLUMNS, *HIDDEN, D)), COLUMNS, HIDDEN, D, True, CLASSES)
    return ours, vector, theirs, as_torch_has_it(network.unpack(vector, ours.widths))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(**CURVE, global_weight=0.3),
        Settings(**CURVE, loss="exact", autoencoder_weight=2.0, reconstruction="bce", landmark_weight=0.5),
        Settings(**CURVE, autoencoder_weight=0.5, repulsion=0.1, label_weight=3.0),
    ],
)
@pytest.mark.parametrize("places", [False, True])
def test_gradients_are_those_of_the_built_in_network(both, settings, places):
    ours, vector, theirs, same = both
    expected, terms = ours.gradient(vector, batch(places=places), settings)
    found, found_terms = theirs.gradient(same, batch(places=places), settings)
    expected = as_torch_has_it(network.unpack(expected, ours.widths))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert found_terms == pytest.approx(terms, rel=1e-5, abs=1e-7)


def test_places_rows_and_scores_are_those_of_the_built_in_network(both):
    ours, vector, theirs, same = both
    rows, places = batch().rows, batch().targets
    np.testing.assert_allclose(theirs.encode(same, rows), ours.encode(vector, rows), atol=1e-5)
    np.testing.assert_allclose(theirs.scores(same, rows), ours.scores(vector, rows), atol=1e-5)
    np.testing.assert_allclose(theirs.decode(same, places), ours.decode(vector, places), atol=1e-5)


def test_parts_of_ours_start_as_those_of_the_built_in_network(both):
    _, _, theirs, same = both
    encoder = sum(one.numel() for one in theirs.parts["encoder"].parameters())
    np.testing.assert_array_equal(theirs.initial(7)[encoder:], same[encoder:])


def test_a_row_has_the_same_bits_in_any_block(images, convolutional):
    backend = TorchBackend(convolutional(), 64, HIDDEN, D)
    vector = backend.initial(1)
    whole = backend.encode(vector, np.concatenate([images, images]))
    for cut in (1, 7, 129, 255, 300, 511):
        parts = np.split(np.concatenate([images, images]), [cut])
        np.testing.assert_array_equal(np.concatenate([backend.encode(vector, part) for part in parts]), whole)
    assert backend.encode(vector, images[:0]).shape == (0, D)


def test_what_a_step_draws_follows_from_its_key(images, convolutional):
    backend = TorchBackend(convolutional(dropout=0.5), 64, HIDDEN, D)
    vector, settings = backend.initial(1), Settings(**CURVE)
    state = torch.random.get_rng_state()
    first, again, other = (backend.gradient(vector, batch(64, key), settings)[0] for key in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # What is the caller's stays as it was, and so does the module while rows are encoded.
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    np.testing.assert_array_equal(backend.encode(vector, images), backend.encode(vector, images))


def test_torch_has_its_threads_back(convolutional):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    backend = TorchBackend(convolutional(), 64, HIDDEN, D)
    backend.gradient(backend.initial(0), batch(64), Settings(**CURVE))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_the_callers_module_is_left_alone(convolutional):
    module = convolutional()
    before = digest_of_module(module)
    backend = TorchBackend(module, 64, HIDDEN, D)
    backend.encode(backend.initial(0) + 1, batch(64).rows)
    check_modules(backend)
    assert digest_of_module(module) == before


def test_frozen_weights_stay_and_are_kept(convolutional):
    module = convolutional()
    module[1].requires_grad_(False)
    backend = TorchBackend(module, 64, HIDDEN, D)
    kept = backend.weights(backend.initial(0) + 1)
    np.testing.assert_array_equal(kept["encoder.1.weight"], module[1].weight.numpy())
    np.testing.assert_allclose(kept["encoder.6.weight"], module[6].weight.detach().numpy() + 1)
    assert backend.size == TorchBackend(convolutional(), 64, HIDDEN, D).size - 4 * 9 - 4


def test_weights_come_back_by_name_and_shape(convolutional):
    backend = TorchBackend(convolutional(), 64, HIDDEN, D, True, CLASSES)
    vector = backend.initial(0) + np.float32(0.5)
    kept = backend.weights(vector)
    other = TorchBackend(convolutional(seed=1), 64, HIDDEN, D, True, CLASSES)
    np.testing.assert_array_equal(other.restore(kept), vector)
    np.testing.assert_array_equal(
        other.scores(vector, batch(64).rows), backend.scores(vector, batch(64).rows)
    )
    wider = TorchBackend(convolutional(components=3), 64, HIDDEN, 3, True, CLASSES)
    with pytest.raises(
        ParameterError, match=r"decoder\.0\.weight is \(12, 2\) in the model and \(12, 3\) in"
    ):
        wider.restore(kept)
    with pytest.raises(ParameterError, match=r"head\.0\.bias is \(4,\) in the model and missing in the one"):
        TorchBackend(convolutional(), 64, HIDDEN, D, True).restore(kept)


def test_a_model_takes_modules_like_those_that_were_trained(convolutional):
    decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 64))
    backend = TorchBackend(convolutional(), 64, HIDDEN, D, decoder)
    vector, known = backend.initial(0), {"hidden": list(HIDDEN), "decoder": "module:torch.nn.Sequential:x"}
    model = Model(
        backend.weights(vector), {}, "torch", 64, "float32", D, (1.6, 0.9), {}, {"encoder": known}, "id"
    )
    opened, values = of_model(model, convolutional(seed=3), decoder)
    np.testing.assert_array_equal(values, vector)
    np.testing.assert_array_equal(
        opened.decode(values, batch().targets), backend.decode(vector, batch().targets)
    )
    with pytest.raises(ParameterError, match=r"trained with module:torch\.nn\.Sequential:x as decoder"):
        of_model(model, convolutional())


def test_networks_travel(convolutional):
    backend = TorchBackend(convolutional(), 64, HIDDEN, D)
    vector = backend.initial(0)
    there = backend.encode(vector, batch(64).rows)
    arrived = cloudpickle.loads(cloudpickle.dumps(backend))
    np.testing.assert_array_equal(arrived.encode(vector, batch(64).rows), there)


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.layer, self.factor = nn.Linear(4, 2, bias=False), factor
        nn.init.ones_(self.layer.weight)

    def forward(self, rows):
        return self.layer(rows) * self.factor


class Shifted(Scaled):
    def forward(self, rows):
        return self.layer(rows) + self.factor


def test_modules_are_told_apart():
    digests = {digest_of_module(module) for module in (Scaled(2.0), Scaled(3.0), Shifted(2.0))}
    changed = Scaled(2.0)
    assert digest_of_module(changed.eval()) in digests
    changed.layer.weight.data[0, 0] += 1
    assert len(digests) == 3
    assert digest_of_module(changed) not in digests
    assert digest_of_module(nn.Sequential(nn.Dropout(0.1))) != digest_of_module(
        nn.Sequential(nn.Dropout(0.2))
    )


REFUSED = {
    "is no batch of places": (
        lambda: nn.Linear(64, 3),
        r"makes \(4, 3\) torch\.float32 of 4 rows of 64 columns",
    ),
    "gives a tuple": (lambda: nn.LSTM(64, 2), r"makes tuple of 4 rows of 64 columns; it must make \(4, 2\)"),
    "wants images": (lambda: nn.Conv2d(1, 2, 8), r"The encoder fails on 4 rows of 64 columns.*nn\.Unflatten"),
    "has running statistics": (
        lambda: nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 2)),
        r"changes 0\.running_mean, .*as of BatchNorm.*Use GroupNorm or LayerNorm",
    ),
    "mixes rows": (
        lambda: nn.Sequential(nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 2)),
        r"depends on the rows beside it, as with BatchNorm.*GroupNorm or LayerNorm",
    ),
    "is of float64": (
        lambda: nn.Linear(64, 2).double(),
        r"weight of the encoder is torch\.float64.*\.float\(\)",
    ),
    "is lazy": (lambda: nn.LazyLinear(2), r"has lazy layers, whose weight has no shape yet"),
    "has nothing to train": (lambda: nn.Linear(64, 2).requires_grad_(False), r"no parameters that require"),
    "keeps integers": (
        lambda: _with_buffer(nn.Linear(64, 2)),
        r"keeps order, which is no float32.*persistent=False",
    ),
}


def _with_buffer(module):
    module.register_buffer("order", torch.arange(3))
    return module


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(ParameterError, match=message):
        check_modules(TorchBackend(make(), 64, HIDDEN, D))


def test_labels_need_a_linear_layer_that_reads_features():
    pooled = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 2, 8), nn.Flatten())
    with pytest.raises(ParameterError, match=r"There are labels, and the encoder has no torch\.nn\.Linear"):
        TorchBackend(pooled, 64, HIDDEN, D, classes=3)
    inside = nn.Sequential(nn.Unflatten(1, (8, 8)), nn.Linear(8, 2), nn.Flatten(), nn.Unflatten(1, (2, 8)))
    inside = nn.Sequential(inside, nn.AvgPool1d(8), nn.Flatten())
    with pytest.raises(ParameterError, match=r"last torch\.nn\.Linear does not read one row of features"):
        check_modules(TorchBackend(inside, 64, HIDDEN, D, classes=3))


def test_decoders_are_checked_too(convolutional):
    with pytest.raises(ParameterError, match=r"The decoder makes \(4, 63\) .* of 4 rows of 2 columns"):
        check_modules(TorchBackend(convolutional(), 64, HIDDEN, D, nn.Linear(2, 63)))


def test_devices():
    assert find_fault("cpu") == ""
    assert "there are cpu" in find_fault("gpu")


def test_what_a_step_holds_is_measured():
    # Its input, the units of two hidden layers, and each of them once more on the way back.
    backend = TorchBackend(perceptron((COLUMNS, *HIDDEN, D)), COLUMNS, HIDDEN, D)
    assert held_bytes(backend) == 2 * 4 * (COLUMNS + sum(HIDDEN))
