"""Features that meet: each works with the others, or says that it does not."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

import daskumap
from daskumap import UMAP
from daskumap.cli.main import main
from daskumap.errors import ParameterError, SourceError, StoreError

ALONE = {"client": "sequential", "progress": False}


@pytest.fixture(scope="module")
def distances(small):
    return cdist(small, small).astype(np.float32)


@pytest.fixture(scope="module")
def with_zeros(small):
    rows = small.copy()
    rows[[5, 77]] = 0
    return rows


def test_a_transform_that_ends_with_edges_is_verified_and_saved_by_none(fit, small, tmp_path, capsys):
    fit(small, tmp_path / "run", transform_mode="graph", keep="graph")
    out = tmp_path / "edges"
    edges = daskumap.transform(tmp_path / "run", small[:9] + 1, out, **ALONE).graph()
    assert daskumap.verify(out) == {}
    assert (daskumap.resume(out, **ALONE).graph() != edges).nnz == 0
    assert main(["save", str(out), str(tmp_path / "copy")]) == 5
    assert "was made by a run" in capsys.readouterr().err
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.rstrip().endswith("/graph")


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix], ids=["dense", "sparse"])
def test_a_model_of_distances_needs_no_distances(fit, distances, tmp_path, kind):
    run = fit(kind(distances), tmp_path / "run", metric="precomputed", keep="graph")
    saved = run.save(tmp_path / "model", rows=True)
    assert daskumap.verify(tmp_path / "model") == {}
    new = kind(distances[:5] + 1)
    np.testing.assert_array_equal(
        daskumap.transform(tmp_path / "model", new, **ALONE).embedding[:],
        run.transform(new, **ALONE).embedding[:],
    )
    np.testing.assert_array_equal(saved.embedding[:], run.embedding[:])


@pytest.mark.parametrize(("was", "now"), [("isolate", "apart"), ("apart", "isolate")])
def test_rows_without_a_direction_are_of_the_search(fit, with_zeros, was, now):
    run = fit(with_zeros, metric="cosine", undefined=was)
    with pytest.raises(ParameterError, match=f"undefined was '{was}' and is now '{now}'"):
        daskumap.fit(run, undefined=now, **ALONE)


def test_an_adopted_map_is_the_start_of_another_layout(fit, small):
    map_ = np.random.default_rng(0).normal(size=(len(small), 2)).astype(np.float32)
    run = fit(small, optimizer="none", init=map_)
    np.testing.assert_array_equal(daskumap.fit(run, **ALONE).embedding[:], map_)
    moved = daskumap.fit(run, min_dist=0.5, n_epochs=10, **ALONE)
    assert moved.params["optimizer"] == "adam"
    assert not np.array_equal(moved.embedding[:], map_)
    with pytest.raises(ParameterError, match="n_epochs is a list and optimizer is 'none'"):
        fit(small, optimizer="none", init=map_, n_epochs=[1, 5])


def test_rows_that_are_left_out_stay_so_on_an_adopted_map(fit, with_zeros):
    run = fit(with_zeros, metric="cosine", undefined="isolate")
    adopted = daskumap.fit(run, optimizer="none", init=run, **ALONE).embedding[:]
    np.testing.assert_array_equal(adopted, run.embedding[:])
    assert np.isnan(adopted[[5, 77]]).all()


def test_what_umap_learn_cannot_have(fit, small, distances):
    for options, name in (
        ({"output_metric": "torus"}, "output_metric='torus'"),
        ({"transform_mode": "graph"}, "transform_mode='graph'"),
    ):
        with pytest.raises(ParameterError, match=name):
            fit(small, **options).to_umap()
    with pytest.raises(ParameterError, match="metric='precomputed'"):
        fit(distances, metric="precomputed").to_umap()
    assert UMAP(n_epochs=[2, 5]).fit(small).to_umap().n_epochs == 5


def test_what_keeps_too_little_or_holds_no_rows(fit, small, distances, tmp_path):
    with pytest.raises(StoreError, match="keep='model', or made by an earlier version"):
        daskumap.fit(fit(small, keep="model"), **ALONE)
    run = fit(distances, tmp_path / "run", metric="precomputed", keep="graph")
    with pytest.raises(ParameterError, match="fitted to distances"):
        daskumap.fit(run, **ALONE)
    with pytest.raises(ParameterError, match="fitted to distances, and rows are found by rows"):
        run.inverse_transform(run.embedding[:3], **ALONE)
    with pytest.raises(SourceError, match="is a run store and holds no input"):
        run.transform(str(tmp_path / "run"), **ALONE)


def test_points_of_a_sphere_have_no_rows(fit, small):
    run = fit(small, output_metric="haversine")
    with pytest.raises(ParameterError, match="metric is not the Euclidean one"):
        run.inverse_transform(run.embedding[:3], **ALONE)


def test_an_estimator_of_distances_has_a_report(distances):
    """Its rule for rows without a direction is none for distances."""
    model = UMAP(metric="precomputed", report=True, n_epochs=5, random_state=1).fit(distances)
    assert 0 < model.run_.report["measures"]["trustworthiness"] <= 1
