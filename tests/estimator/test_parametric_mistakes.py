"""`ParametricUMAP` in the hands of somebody who tries: words that do nothing, refusals that come late."""

import numpy as np
import pytest

import daskumap
from daskumap import ParametricUMAP
from daskumap.errors import ParameterError, SourceError
from tests.conftest import QUIET

SHORT = {"steps": 20, "hidden": (6,), "batch_edges": 30, "random_state": 1}


@pytest.fixture(scope="module")
def few(small):
    return small[:100]


@pytest.fixture(scope="module")
def model(few):
    return ParametricUMAP(**SHORT).fit(few, np.arange(100) % 2)


def test_what_is_wrong_is_said_before_the_graph_is_searched(few, model, tmp_path, monkeypatch):
    monkeypatch.setattr(daskumap.api, "fit", lambda *_, **__: pytest.fail("searched"))
    run = tmp_path / "run.zarr"
    with pytest.raises(ParameterError, match="labels have shape"):
        ParametricUMAP(**SHORT).fit(few, np.zeros(7, int), run=run)
    with pytest.raises(ParameterError, match="landmarks have shape"):
        ParametricUMAP(**SHORT).fit(few, landmarks=np.zeros((100, 3)), run=run)
    with pytest.raises(SourceError, match=r"'bce', which compares values in \[0, 1\]"):
        ParametricUMAP(**SHORT, decoder=True, reconstruction="bce").fit(few, run=run)
    with pytest.raises(ParameterError, match=r"window_rows is 5, 5\.0%"):
        ParametricUMAP(**SHORT, window_rows=5).fit(few, run=run)
    other = ParametricUMAP(**{**SHORT, "hidden": (3,)})
    other._take_encoder(model.encoder_)
    with pytest.raises(ParameterError, match="encoder of"):
        other.refit(few, run=run)
    assert not list(tmp_path.iterdir())


def test_words_that_nobody_knows(few, model):
    for call in (model.transform, model.predict, model.predict_proba):
        with pytest.raises(ParameterError, match=r"Unknown parameter 'thread'\. Did you mean 'threads'"):
            call(few, thread=2)
    with pytest.raises(TypeError, match="thread"):
        model.refit(few, thread=2)


def test_the_map_of_a_graph_is_as_the_estimator_says(few):
    """Of a run's graph another map is made than the run's own parameters would make; names are of no fit."""
    graph = daskumap.fit(few, **QUIET, transform_mode="graph", report=False, min_dist=0.3)
    made = ParametricUMAP(**{**SHORT, "random_state": None}, n_components=3, min_dist=0.05)
    made.feature_names_in_ = np.array(list("abcdefgh"), object)
    assert made.fit(graph).embedding_.shape == (100, 3)
    assert made.run_.params["min_dist"] == 0.05
    assert made.run_.params["random_state"] == graph.params["random_state"]
    assert not hasattr(made, "feature_names_in_")
