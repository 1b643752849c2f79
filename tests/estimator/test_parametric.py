"""`ParametricUMAP`: what it learns counts, what it saves is read, and it goes on from there."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import validation

import daskumap
from daskumap import ParametricUMAP
from daskumap.errors import ParameterError, SourceError
from daskumap.parametric import graph_place

SHORT = {"steps": 150, "hidden": (16, 16), "batch_edges": 80, "random_state": 1}


def fitted(X, y=None, landmarks=None, **options):
    return ParametricUMAP(**{**SHORT, **options}).fit(X, y, landmarks=landmarks)


@pytest.fixture(scope="module")
def model(small):
    return fitted(small, decoder=True, autoencoder_weight=1.0)


@pytest.fixture(scope="module")
def parity(small):
    """Classes that lie across the clusters: which side of its column's median a value is on."""
    return (small[:, 0] > np.median(small[:, 0])).astype(int)


def purity(places, labels):
    """Return the share of rows whose nearest other row has their class."""
    apart = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    return (labels[apart.argmin(axis=1)] == labels).mean()


def test_the_map_is_what_the_network_makes_of_the_rows(model, small):
    assert model.embedding_.shape == (400, 2)
    np.testing.assert_array_equal(model.transform(small), model.embedding_)
    np.testing.assert_array_equal(model.transform(small[5:6]), model.embedding_[5:6])
    np.testing.assert_array_equal(model.transform(csr_matrix(small)), model.embedding_)
    assert list(model.get_feature_names_out()) == ["parametricumap0", "parametricumap1"]
    assert model.history_[-1]["last"] == 150
    assert model.run_.status()["encoder.train"] == 1


def test_a_seed_gives_one_model(small, model):
    again = clone(model).fit(small, client="threads", threads=2)
    np.testing.assert_array_equal(again.embedding_, model.embedding_)
    other = clone(model).set_params(random_state=2).fit(small)
    assert not np.array_equal(other.embedding_, model.embedding_)


def test_labels_count_on_the_map_and_for_new_rows(small, parity):
    labels = np.where(np.arange(400) % 4, -1, parity)
    options = {"steps": 400, "label_weight": 10.0}
    told = fitted(small, labels, **options)
    assert list(told.classes_) == [0, 1]
    unknown = labels < 0
    assert (told.predict(small)[unknown] == parity[unknown]).mean() > 0.8
    assert told.predict_proba(small).argmax(axis=1).tolist() == told.predict(small).tolist()
    untold = fitted(small, labels, **{**options, "label_weight": 0.0})
    assert not hasattr(untold, "classes_")
    assert purity(told.embedding_, parity) > purity(untold.embedding_, parity) + 0.05


def test_names_of_classes_are_kept(small, parity, tmp_path, write):
    names = np.array(["low", "high"], object)[parity]
    names[::3] = None
    named = fitted(small, names)
    assert list(named.classes_) == ["high", "low"]
    assert set(named.predict(small)) <= {"high", "low"}
    named.save(tmp_path / "model.zarr")
    loaded = ParametricUMAP.load(tmp_path / "model.zarr")
    assert list(loaded.predict(small)) == list(named.predict(small))
    numbers = loaded.predict(write(small))
    assert list(loaded.classes_[numbers[:]]) == list(named.predict(small))


def test_all_unlabelled_is_as_without_labels(small, model):
    alone = clone(model).fit(small, np.full(400, -1))
    np.testing.assert_array_equal(alone.embedding_, model.embedding_)
    with pytest.raises(ParameterError, match="without labels"):
        alone.predict(small)


def test_landmarks_hold_places(small, model):
    places = np.full((400, 2), np.nan)
    places[:40] = model.embedding_[:40] + 30.0
    held = fitted(small, landmarks=places, steps=600, landmark_weight=10.0)
    moved = np.linalg.norm(held.embedding_[:40] - places[:40], axis=1).mean()
    assert moved < np.linalg.norm(model.embedding_[:40] - places[:40], axis=1).mean() / 10


def test_the_decoder_is_a_way_back(small, model):
    back = model.inverse_transform(model.embedding_)
    assert back.shape == small.shape
    error = ((back - small) ** 2).mean()
    assert error < 0.6 * small.var(axis=0).mean()
    with pytest.raises(ParameterError, match=r"without a decoder.* Train with decoder=True"):
        fitted(small, steps=2).inverse_transform(model.embedding_)


def test_refit_goes_on_from_what_was_learnt(small, model):
    still = clone(model).set_params(steps=1, encoder_learning_rate=1e-9)
    afresh = clone(still).fit(small)
    still._take_encoder(model.encoder_)
    still.refit(small)
    np.testing.assert_allclose(still.embedding_, model.embedding_, atol=1e-4)
    rows = model.inverse_transform(model.embedding_)
    np.testing.assert_allclose(still.inverse_transform(model.embedding_), rows, atol=1e-3)
    assert abs(afresh.embedding_ - model.embedding_).max() > 0.1


def test_refit_with_landmarks_keeps_the_map_where_it_was(small, model):
    old, new = small[:200], small[150:]
    first = clone(model).fit(old)
    places = np.full((250, 2), np.nan, np.float32)
    places[:50] = first.embedding_[150:]
    moved = pickle.loads(pickle.dumps(first)).refit(new)
    held = first.set_params(landmark_weight=10.0).refit(new, landmarks=places)
    assert held.embedding_.shape == (250, 2)

    def drift(one):
        return np.linalg.norm(one.embedding_[:50] - places[:50], axis=1).mean()

    assert drift(held) < drift(moved)


def test_refit_refuses_a_network_of_other_layers(small, model):
    other = pickle.loads(pickle.dumps(model)).set_params(hidden=(8,))
    with pytest.raises(ParameterError, match=r"encoder of \(8, 16, 16, 2\) units, .* has \(8, 8, 2\)"):
        other.refit(small)
    with pytest.raises(ValueError, match="X has 5 features, but ParametricUMAP is expecting 8"):
        pickle.loads(pickle.dumps(model)).refit(small[:, :5])


def test_what_is_saved_is_loaded(small, model, tmp_path, write):
    model.save(tmp_path / "model.zarr")
    loaded = ParametricUMAP.load(tmp_path / "model.zarr")
    np.testing.assert_array_equal(loaded.transform(small), model.embedding_)
    back = model.inverse_transform(model.embedding_)
    np.testing.assert_array_equal(loaded.inverse_transform(model.embedding_), back)
    assert loaded.get_params() == model.get_params()
    assert loaded.history_ == model.history_
    with pytest.raises(AttributeError, match="the network alone"):
        loaded.run_  # noqa: B018
    with pytest.raises(ParameterError, match="encoder is given"):
        ParametricUMAP.load(tmp_path / "model.zarr", encoder=object())
    found = loaded.transform(write(small), tmp_path / "out.zarr", client="sequential")
    assert isinstance(found, zarr.Array)
    np.testing.assert_array_equal(found[:], model.embedding_)


def test_a_pickle_has_all(small, model):
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.transform(small), model.embedding_)
    assert copied.run_.history == model.run_.history


class Frame(np.ndarray):
    """Stands for a DataFrame, whose libraries the tests do not need."""


def framed(rows, columns):
    frame = rows.view(Frame)
    frame.columns = np.array(list(columns), object)
    return frame


def test_names_of_columns_are_those_of_the_fit(small, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "_get_feature_names", lambda X: getattr(X, "columns", None))
    frame = framed(small, "abcdefgh")
    named = fitted(frame, steps=2)
    named.save(tmp_path / "model.zarr")
    loaded = ParametricUMAP.load(tmp_path / "model.zarr")
    np.testing.assert_array_equal(loaded.transform(frame), named.embedding_)
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.transform(framed(small, "hgfedcba"))


def test_a_fit_on_disk_is_there_and_is_found_again(small, tmp_path, write, model):
    path, run = write(small), tmp_path / "run.zarr"
    here = {"run": run, "client": "sequential"}
    first = clone(model).fit(path, **here)
    assert isinstance(first.embedding_, zarr.Array)
    np.testing.assert_array_equal(first.embedding_[:], model.embedding_)
    assert daskumap.open(tmp_path / "run-graph.zarr").finished
    written = (run / "embedding/c/0/0").stat().st_mtime_ns
    clone(model).fit(path, **here)
    assert (run / "embedding/c/0/0").stat().st_mtime_ns == written
    on_graph = clone(model).fit(tmp_path / "run-graph.zarr", client="sequential")
    np.testing.assert_array_equal(on_graph.embedding_[:], model.embedding_)
    np.testing.assert_array_equal(ParametricUMAP.load(run).transform(small), model.embedding_)


@pytest.mark.parametrize(
    ("run", "graph"),
    [("a.zarr", "a-graph.zarr"), ("s3://bucket/a/", "s3://bucket/a-graph"), (None, None), ({}, None)],
)
def test_the_graph_lies_beside_the_training(run, graph):
    assert graph_place(run) == graph


def test_a_warm_start_has_a_map_to_begin_with(small):
    warm = fitted(small, warm_start=0.5, n_epochs=5)
    assert warm.run_.store.about["params"]["encoder"]["warm_start"] == 0.5
    assert any(one["map"] > 0 for one in warm.history_)


def test_it_stands_in_a_pipeline(small):
    steps = make_pipeline(StandardScaler(), ParametricUMAP(**{**SHORT, "steps": 2}))
    np.testing.assert_array_equal(steps.fit(small).transform(small), steps[-1].embedding_)


def test_bad_input_is_refused_in_words(small):
    with pytest.raises(SourceError, match="n_samples = 2 rows; at least 3"):
        fitted(small[:2])
    with pytest.raises(ParameterError, match="metric is 'precomputed', and a network maps rows"):
        fitted(small[:, :8], metric="precomputed")
    with pytest.raises(ParameterError, match="labels have shape"):
        fitted(small, np.zeros(7, int))
    with pytest.raises(ParameterError, match="autoencoder_weight is 1 and there is no decoder"):
        fitted(small, autoencoder_weight=1)
    with pytest.raises(ParameterError, match="Did you mean 'decoder'"):
        ParametricUMAP(decodr=True)


def test_its_import_is_that_of_scikit_learn_alone():
    body = ast.parse(Path(daskumap.parametric.__file__).read_text()).body
    named = [node.module for node in body if isinstance(node, ast.ImportFrom)]
    ours = {name for name in named if name.startswith("daskumap")}
    light = ("clusters", "encoder_params", "errors", "mixin", "params")
    assert ours == {f"daskumap.{name}" for name in light}
    heavy = ["numba", "zarr", "matplotlib"]
    code = f"import sys; from daskumap import ParametricUMAP; assert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
