"""transform_mode="graph": a fit ends with its graph, and new rows become edges to those that were fitted."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import daskumap
from daskumap import UMAP
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import ParameterError, StoreError
from daskumap.testing.faults import FailingEngine, Fault

GRAPH = {"transform_mode": "graph"}
QUIET = {"client": "sequential", "progress": False}


def same(first, second):
    return first.shape == second.shape and (first != second).nnz == 0


def test_a_fit_ends_with_the_graph(fit, small):
    run, whole = fit(small, report=True, **GRAPH), fit(small)
    assert same(run.graph(), whole.graph())
    assert list(run.status())[-1] == "symmetrize"
    assert run.finished
    assert run.report["verdict"] is None
    with pytest.raises(StoreError, match="no map: its transform_mode is 'graph'"):
        run.embedding  # noqa: B018, a property that raises
    assert fit(small, keep="graph", **GRAPH).graph().nnz == whole.graph().nnz
    with pytest.raises(ParameterError, match="keep is 'embedding' and transform_mode is 'graph'"):
        fit(small, keep="embedding", **GRAPH)
    with pytest.raises(ParameterError, match="allowed are embedding, graph"):
        fit(small, transform_mode="map")


def test_new_rows_have_umap_learns_edges(fit, small, umap_learn_graphs):
    run = fit(small[:120], n_neighbors=10, **GRAPH)
    assert abs(run.graph() - umap_learn_graphs["graph"]).max() < 1e-5
    found = run.transform(small[120:160], **QUIET).graph()
    assert (found.shape, found.dtype, found.has_canonical_format) == ((40, 120), np.float32, True)
    assert abs(found - umap_learn_graphs["new"]).max() < 1e-5


def test_edges_of_a_row_do_not_depend_on_others(fit, small, write, tmp_path):
    run = fit(small[:350], tmp_path / "run.zarr", **GRAPH)
    whole = run.transform(small[350:], **QUIET)
    order = np.random.default_rng(0).permutation(50)
    assert same(run.transform(small[350:][order], **QUIET).graph(), whole.graph()[order])
    assert same(run.transform(small[357:358], **QUIET).graph(), whole.graph()[7:8])
    out = daskumap.transform(run.path, write(small[350:], chunks=(7, 3)), tmp_path / "out.zarr", **QUIET)
    assert same(out.graph(), whole.graph())
    assert same(daskumap.open(tmp_path / "out.zarr").graph(), whole.graph())
    assert np.array_equal(
        out.fit_distance[:], fit(small[:350]).transform(small[350:], **QUIET).fit_distance[:]
    )
    with pytest.raises(StoreError, match="no map"):
        out.embedding  # noqa: B018, a property that raises
    assert "50 rows joined to 350 fitted ones" in str(out)


def test_edges_are_those_that_place_rows(fit, small):
    """A fit with a map and one without differ in the end alone."""
    placed = fit(small[:350]).transform(small[350:], **QUIET)
    with pytest.raises(StoreError, match="holds places on a map and no graph"):
        placed.graph()


def test_edges_of_several_cells(fit, clustered):
    run = fit(clustered[:5000], **GRAPH)
    found = run.transform(clustered[5000:5200], client="threads", progress=False).graph()
    nearest = np.argsort(cdist(clustered[5000:5200], clustered[:5000]), axis=1)[:, :15]
    kept = [len(np.intersect1d(found[i].indices, nearest[i])) for i in range(200)]
    assert np.mean(kept) / 15 > 0.95
    assert (np.diff(found.indptr) <= 15).all()


def test_a_fitted_row_is_its_own_nearest(fit, small):
    run = fit(small, **GRAPH)
    found = run.transform(small[:20], **QUIET).graph()
    assert (found[np.arange(20), np.arange(20)] == 1).all()


def test_copies_are_joined_by_the_first(fit, small):
    rows = np.concatenate([small[:100], small[:100]])[np.random.default_rng(0).permutation(200)]
    first = np.unique(rows, axis=0, return_index=True)[1]
    run = fit(rows, unique=True, **GRAPH)
    assert run.graph().shape == (100, 100)
    found = run.transform(small[100:130], **QUIET).graph()
    assert found.shape == (30, 200)
    assert np.isin(found.indices, first).all()


def test_rows_beyond_the_cutoff_have_no_edges(fit, small):
    run = fit(small[:350], disconnection_distance=5.0, **GRAPH)
    found = run.transform(np.concatenate([small[350:352], small[350:351] + 100]), **QUIET).graph()
    assert (np.diff(found.indptr) > 0).tolist() == [True, True, False]


def test_an_interrupted_graph_goes_on(fit, small, tmp_path):
    expected = fit(small[:350], **GRAPH).transform(small[350:], **QUIET).graph()
    place, out = tmp_path / "run.zarr", tmp_path / "out.zarr"
    with pytest.raises(Fault):
        fit(
            small[:350],
            place,
            client=FailingEngine(SequentialEngine(4 * 10**9), tmp_path, stop_at="symmetrize"),
            **GRAPH,
        )
    run = daskumap.resume(place, **QUIET)
    engine = FailingEngine(SequentialEngine(4 * 10**9), tmp_path, stop_at="transform.join")
    with pytest.raises(Fault):
        run.transform(small[350:], out, client=engine, progress=False)
    assert not daskumap.open(out).finished
    with pytest.raises(StoreError, match="no graph yet"):
        daskumap.open(out).graph()
    assert same(daskumap.resume(out, **QUIET).graph(), expected)
    assert daskumap.verify(place) == daskumap.verify(out) == {}


def test_an_estimator_of_graphs(small):
    model = UMAP(random_state=1, n_epochs=3).fit(small[:350])
    expected = model.graph_
    model.set_params(transform_mode="graph")
    assert same(model.fit_transform(small[:350]), expected)
    assert not hasattr(model, "embedding_")
    assert model._n_features_out == 350
    assert model.transform(small[350:]).shape == (50, 350)
    assert model.set_params(transform_mode="embedding").fit(small[:350]).embedding_.shape == (350, 2)
