"""The terms of the encoder's loss against NumPy formulas, and their gradients against central differences."""

import numpy as np
import pytest

from daskumap.kernels.encoder import losses
from daskumap.kernels.encoder.backend import Perceptron
from daskumap.kernels.encoder.batch import Batch, Settings

B, P, D, CLASSES = 6, 5, 2, 3
LABELLED, LANDMARKS = 4, 3
A_, B_ = 1.58, 0.9
RNG = np.random.default_rng(7)
ROWS = RNG.normal(size=(2 * B + LABELLED + LANDMARKS, P))
PUSHED = np.stack([np.repeat(np.arange(B), 2), B + RNG.integers(0, B, 2 * B)], 1).astype(np.int32)
FAR = RNG.integers(0, 2 * B, (2 * B, 2)).astype(np.int32)
NONE = Batch(
    ROWS[: 2 * B], 2 * B, 0, PUSHED[:0], FAR[:0], np.empty(0, np.int32), np.empty((0, D)), np.empty((0, D))
)
BATCHES = {
    "pairs": NONE._replace(edges=B, pushed=PUSHED),
    "map": NONE._replace(places=3 * RNG.normal(size=(2 * B, D))),
    "global": NONE._replace(far=FAR),
    "labels": NONE._replace(rows=ROWS[: 2 * B + LABELLED], labels=np.array([0, 2, 1, 2], np.int32)),
    "landmarks": NONE._replace(rows=ROWS[: 2 * B + LANDMARKS], targets=RNG.normal(size=(LANDMARKS, D))),
    "all": Batch(
        ROWS,
        2 * B,
        B,
        PUSHED,
        FAR,
        np.array([0, 2, 1, 2], np.int32),
        RNG.normal(size=(LANDMARKS, D)),
        3 * RNG.normal(size=(2 * B, D)),
    ),
}
WEIGHTS = {"global_weight": 0.7, "label_weight": 1.3, "landmark_weight": 0.6, "repulsion": 1.2}


def settings(**changed):
    return Settings(A_, B_, 100, **{**WEIGHTS, **changed})


def network(decoder=False, classes=0):
    net = Perceptron.of(P, (6, 4), D, decoder, classes)
    # Biases away from zero, and all rectifiers away from their kinks.
    return net, net.initial(3).astype(np.float64) + 0.1 * np.random.default_rng(1).normal(size=net.size)


def differences(net, vector, batch, given, step=1e-6):
    def loss(v):
        return sum(net.gradient(v, batch, given)[1].values())

    moves = np.eye(len(vector)) * step
    return np.array([(loss(vector + move) - loss(vector - move)) / (2 * step) for move in moves])


def narrow_batch(batch):
    return batch._replace(
        **{name: getattr(batch, name).astype(np.float32) for name in ("rows", "targets", "places")}
    )


CASES = [
    ("pairs", {}),
    ("pairs", {"loss": "exact"}),
    ("map", {}),
    ("global", {}),
    ("landmarks", {}),
    ("labels", {}),
    ("all", {"autoencoder_weight": 0.8}),
    ("all", {"autoencoder_weight": 0.8, "reconstruction": "bce"}),
]


@pytest.mark.parametrize(("name", "changed"), CASES)
def test_gradients_are_those_of_central_differences(name, changed):
    batch, given = BATCHES[name], settings(**changed)
    if given.reconstruction == "bce":
        batch = batch._replace(rows=1 / (1 + np.exp(-batch.rows)))
    net, vector = network(decoder=name == "all", classes=CLASSES if len(batch.labels) else 0)
    found = net.gradient(vector, batch, given)[0].copy()
    assert np.abs(found).max() > 1e-3
    np.testing.assert_allclose(found, differences(net, vector, batch, given), atol=1e-6)


@pytest.mark.parametrize("given", [settings(), settings(loss="exact")], ids=["logistic", "exact"])
def test_float32_agrees_with_float64(given):
    net, vector = network(True, CLASSES)
    given, batch = given._replace(autoencoder_weight=0.5), BATCHES["all"]
    wide, terms = net.gradient(vector, batch, given)
    wide = wide.copy()
    narrow, narrow_terms = net.gradient(vector.astype(np.float32), narrow_batch(batch), given)
    np.testing.assert_allclose(narrow, wide, atol=2e-5)
    assert narrow_terms == pytest.approx(terms, rel=1e-4)


def test_losses_are_their_formulas():
    Z, batch = RNG.normal(size=(len(ROWS), D)), BATCHES["all"]
    q = lambda i, j: 1 / (1 + A_ * ((Z[i] - Z[j]) ** 2).sum(1) ** B_)  # noqa: E731
    pulled, pushed = q(np.arange(B), B + np.arange(B)), q(*PUSHED.T)
    pairs = B + len(PUSHED)
    exact = losses.of_places(Z, batch, settings(loss="exact"), np.empty_like(Z))
    assert exact["attraction"] == pytest.approx(-np.log(pulled).sum() / pairs)
    assert exact["repulsion"] == pytest.approx(-1.2 * np.log(np.maximum(1 - pushed, 1e-300)).sum() / pairs)
    found = losses.of_places(Z, batch, settings(), np.empty_like(Z))
    s = [value / (1 + value) for value in (pulled, pushed)]
    assert found["attraction"] == pytest.approx(-np.log(s[0]).sum() / pairs)
    assert found["repulsion"] == pytest.approx(-1.2 * np.log(1 - s[1]).sum() / pairs)
    i, j = FAR.T
    r = np.corrcoef(np.linalg.norm(ROWS[i] - ROWS[j], axis=1), np.linalg.norm(Z[i] - Z[j], axis=1))[0, 1]
    assert found["global"] == pytest.approx(-0.7 * r)
    wanted = ((Z[-LANDMARKS:] - batch.targets) ** 2).sum(1).mean()
    assert found["landmarks"] == pytest.approx(0.6 * wanted)
    distance = np.linalg.norm(Z[: 2 * B] - batch.places, axis=1)
    huber = np.where(distance < 1, distance**2 / 2, distance - 0.5)
    assert found["map"] == pytest.approx(huber.mean())


def test_losses_of_values_are_their_formulas():
    logits, targets = RNG.normal(size=(5, 3)), RNG.random((5, 3))
    batch = NONE._replace(rows=targets, ends=5)
    room = np.empty_like(logits)
    mse = losses.of_reconstruction(logits, batch, settings(autoencoder_weight=0.3), room)
    assert mse == pytest.approx(0.3 * ((logits - targets) ** 2).mean())
    p = 1 / (1 + np.exp(-logits))
    bce = losses.of_reconstruction(logits, batch, settings(reconstruction="bce"), room)
    assert bce == pytest.approx(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())
    labels = np.array([0, 2, 1, 1, 0], np.int32)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -1.3 * np.log(shares[np.arange(5), labels]).mean()
    assert losses.softmax(logits, labels, 1.3, room) == pytest.approx(expected)


def test_repulsion_of_one_place_is_bounded_by_the_logistic_loss():
    Z = np.zeros((2 * B, D), np.float32)
    gradient = np.empty_like(Z)
    found = losses.of_places(Z, BATCHES["pairs"], settings(repulsion=1.0), gradient)
    assert found["repulsion"] == pytest.approx(np.log(2) * len(PUSHED) / (B + len(PUSHED)), rel=1e-5)
    assert not gradient.any()


def test_a_decoder_alone_does_not_move_the_encoder():
    net, vector = network()
    both = Perceptron.of(P, (6, 4), D, decoder=True)
    whole = np.concatenate([vector, both.initial(3)[net.size :]])
    alone = net.gradient(vector, BATCHES["pairs"], settings())[0]
    found, terms = both.gradient(whole, BATCHES["pairs"], settings())
    np.testing.assert_array_equal(found[: net.size], alone)
    assert np.abs(found[net.size :]).max() > 0
    assert terms["reconstruction"] > 0
    joint = both.gradient(whole, BATCHES["pairs"], settings(autoencoder_weight=1.0))[0]
    assert np.abs(joint[: net.size] - alone).max() > 1e-6


@pytest.mark.parametrize("loss", ["logistic", "exact"])
@pytest.mark.parametrize("rows", ["equal", "constant column", "huge"])
def test_degenerate_rows_have_finite_gradients(rows, loss):
    given = settings(loss=loss, autoencoder_weight=1.0)
    X = ROWS.astype(np.float32)
    X = {"equal": np.ones_like(X), "constant column": X * [0, 1, 1, 1, 1], "huge": X * 1e12}[rows]
    net, vector = network(decoder=True, classes=CLASSES)
    batch = narrow_batch(BATCHES["all"])._replace(rows=X.astype(np.float32))
    found, terms = net.gradient(vector.astype(np.float32), batch, given)
    assert np.isfinite(found).all()
    assert np.isfinite(list(terms.values())).all()
    if rows == "equal":
        assert terms["global"] == 0


def test_what_a_batch_has_none_of_adds_nothing():
    net, vector = network(classes=CLASSES)
    found, terms = net.gradient(vector, NONE, settings())
    assert set(terms.values()) == {0.0}
    assert not found.any()
