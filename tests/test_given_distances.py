"""metric="precomputed": the input is distances, dense or sparse, in memory and out of core."""

import numpy as np
import pytest
import zarr
from conftest import damage_in, forget, sha
from scipy.sparse import csr_array, csr_matrix, lil_matrix
from scipy.spatial.distance import cdist
from sklearn.utils import get_tags

import daskumap
from daskumap import UMAP
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import ParameterError, RunMismatchError, SourceError
from daskumap.kernels.graph.regions import grow
from daskumap.planning.sizes import Resources, make_distance_sizes
from daskumap.testing.faults import FailingEngine, Fault

GIVEN = {"metric": "precomputed", "n_epochs": 3}
LONG = {**GIVEN, "n_epochs": None}
QUIET = {"client": "sequential", "progress": False}


@pytest.fixture(scope="session")
def apart(small):
    """The distances between all rows of `small`."""
    D = cdist(small, small).astype(np.float32)
    return np.maximum(D, D.T)


def stored(D):
    """Return distances as CSR, those of 0 stored too."""
    whole = csr_matrix(np.ones_like(D))
    whole.data = D.ravel().copy()
    return whole


def thinned(D, k=20):
    """Return the distances to the nearest k rows, both ways, inf for the others."""
    near = np.sort(D, axis=1)[:, k : k + 1] >= D
    return np.where(near | near.T, D, np.inf).astype(np.float32)


def as_sparse(D):
    """Return the finite distances as CSR, without the diagonal."""
    held = np.isfinite(D) & ~np.eye(*D.shape, dtype=bool)
    return csr_array((D[held], np.nonzero(held)), shape=D.shape)


# The graph.


@pytest.mark.parametrize("form", [np.asarray, stored], ids=["dense", "sparse"])
def test_the_graph_of_distances_is_that_of_umap_learn(fit, apart, umap_learn_graphs, form):
    run = fit(form(apart[:120, :120]), n_neighbors=10, transform_mode="graph", **GIVEN)
    assert abs(run.graph() - umap_learn_graphs["graph"]).max() < 1e-5
    np.testing.assert_allclose(run.calibration()[0], umap_learn_graphs["rhos"], rtol=1e-6)


@pytest.mark.parametrize("form", [np.asarray, stored], ids=["dense", "sparse"])
def test_edges_of_new_rows_are_those_of_umap_learn(fit, apart, umap_learn_graphs, form):
    run = fit(apart[:120, :120], n_neighbors=10, transform_mode="graph", **GIVEN)
    found = run.transform(form(apart[120:160, :120]), **QUIET).graph()
    assert found.has_canonical_format
    assert abs(found - umap_learn_graphs["new"]).max() < 1e-5


def test_distances_between_rows_give_the_map_of_the_rows(fit, small, apart):
    """Bits differ, as these distances are rounded from float64; the graph says that all else is the same."""
    ours, rows = (fit(data, init="spectral", **more) for data, more in ((apart, GIVEN), (small, {})))
    assert abs(ours.graph() - rows.graph()).max() < 1e-5
    np.testing.assert_array_equal(ours.knn()[0], rows.knn()[0])


def test_pairs_that_are_not_stored_are_no_neighbours(fit, apart, caplog):
    dense = thinned(apart)
    run = fit(dense, **GIVEN)
    assert not caplog.records
    for sparse in (as_sparse(dense), as_sparse(dense).tocoo(), as_sparse(dense).astype(np.float64)):
        assert sha(fit(sparse, **GIVEN).embedding) == sha(run.embedding)
    graph = run.graph()
    assert np.isfinite(dense[graph.nonzero()]).all()
    np.testing.assert_array_equal(run.knn()[0], fit(apart, **GIVEN).knn()[0])


def test_the_diagonal_counts_as_nothing_whether_it_is_stored_or_not(fit, apart):
    """umap-learn takes a neighbour more where it is not, and leaves the nearest one out of the sum."""
    without = csr_matrix(apart)
    assert without.nnz == 400 * 399
    assert abs(fit(without, **GIVEN).graph() - fit(stored(apart), **GIVEN).graph()).max() == 0


def test_rows_with_few_distances_have_few_neighbours(fit, apart, caplog):
    dense = thinned(apart)
    dense[:3], dense[:, :3] = np.inf, np.inf
    dense[1, 2] = dense[2, 1] = 1.0
    dense[0, 0] = dense[1, 1] = dense[2, 2] = 0
    run = fit(as_sparse(dense), **GIVEN)
    assert "finite distances to fewer than 14 other rows" in caplog.text
    graph = run.graph()
    assert graph[0].nnz == 0
    assert graph[1].indices.tolist() == [2]
    assert graph[1, 2] == 1
    assert np.flatnonzero(np.isnan(run.embedding[:, 0])).tolist() == [0]


def test_far_rows_are_not_joined(fit, apart):
    run = fit(apart, disconnection_distance=2.0, **GIVEN)
    assert (apart[run.graph().nonzero()] < 2.0).all()
    cut = np.where(apart >= 2.0, np.float32(np.inf), apart)
    assert sha(run.embedding) == sha(fit(cut, **GIVEN).embedding)


def test_equal_distances_go_to_the_first_row(fit):
    D = np.ones((40, 40)) - np.eye(40)
    expected = [[other for other in range(40) if other != row][:14] for row in range(40)]
    for data in (D, csr_matrix(D)):
        assert fit(data, **GIVEN).knn()[0].tolist() == expected


@pytest.mark.parametrize("power", [-200, 200])
def test_distances_that_float32_cannot_hold(fit, apart, power):
    near = apart / np.float32(10)  # usual ones are about 1.5, so that the factor is undone to the bit
    far = near.astype(np.float64) * 2.0**power
    plain = fit(near, disconnection_distance=0.3, **GIVEN)
    for data in (far, as_sparse(far)):
        run = fit(data, disconnection_distance=0.3 * 2.0**power, **GIVEN)
        assert sha(run.embedding) == sha(plain.embedding)
        np.testing.assert_array_equal(run.knn()[1], plain.knn()[1].astype(np.float64) * 2.0**power)


def test_whole_numbers(fit, apart):
    whole = np.round(apart * 100).astype(np.int16)
    assert sha(fit(whole, **GIVEN).embedding) == sha(fit(whole.astype(np.float32), **GIVEN).embedding)
    assert sha(fit(csr_matrix(whole), **GIVEN).embedding) == sha(fit(whole, **GIVEN).embedding)


# Out of core.


@pytest.mark.parametrize("form", ["whole", "zarr", "sparse"])
def test_distances_give_the_same_bits_anywhere(fit, apart, write, tmp_path, block_sizes, form):
    dense = thinned(apart)
    expected = fit(dense, **GIVEN)
    data = {
        "whole": lambda: dense,
        "zarr": lambda: write(dense, chunks=(70, 130)),
        "sparse": lambda: as_sparse(dense),
    }
    block_sizes(chunks=1, row_block=90, group_rows=90, vertex_chunk=128, layout_rows=200)
    run = fit(data[form](), tmp_path / "run.zarr", client="1x2", **GIVEN)
    assert sha(run.embedding) == sha(expected.embedding)
    assert abs(run.graph() - expected.graph()).max() == 0
    assert run.status()["scan"] == 5
    assert daskumap.verify(run.path) == {}
    placed = run.transform(dense[:9], tmp_path / "out.zarr", **QUIET)
    np.testing.assert_array_equal(placed.embedding[:], run.embedding[:9])


@pytest.mark.parametrize("step", ["scan", "layout"])
def test_a_fit_of_distances_goes_on(fit, apart, held, tmp_path, block_sizes, step):
    data = as_sparse(thinned(apart))
    expected = sha(fit(data, **GIVEN).embedding)
    block_sizes(row_block=90, group_rows=90)
    engine = FailingEngine(SequentialEngine(4 * 10**9), tmp_path, stop_at=step)
    with pytest.raises(Fault):
        fit(data, held, client=engine, **GIVEN)
    assert sha(daskumap.resume(held, **QUIET).embedding) == expected


def test_other_distances_are_another_run(fit, apart, held):
    data = as_sparse(thinned(apart))
    fit(data, held, **GIVEN)
    forget(held, "publish")
    changed = data.copy()
    changed.data[7000] += 1
    with pytest.raises(RunMismatchError, match="its values differ"):
        fit(changed, held, **GIVEN)
    assert fit(data, held, **GIVEN).finished


def test_a_matrix_that_changed_is_found(fit, apart, held, write):
    path = write(apart, chunks=(100, 100))
    fit(path, held, **GIVEN)
    forget(held, "publish")
    zarr.open_array(path)[350, 7] = 9.0
    with pytest.raises(RunMismatchError, match="values differ in 1 of 2 blocks"):
        fit(path, held, **GIVEN)


def test_the_copy_of_sparse_distances_is_verified(fit, apart, held):
    fit(as_sparse(thinned(apart)), held, **GIVEN)
    damage_in(held, "input/rows/values/c/0")
    assert list(daskumap.verify(held)) == ["input"]


def test_rows_of_megabytes_make_small_blocks(tmp_path):
    resources = Resources(2 * 10**9, 2, 4)
    sizes = make_distance_sizes(10**6, 10**6, 15, 2, resources, row_bytes=8 * 10**6)
    assert sizes.row_block * 8 * 10**6 <= 192_000_000
    place = str(tmp_path / "x.zarr")
    zarr.create_array(place, shape=(200_000, 200_000), chunks=(1000, 1000), dtype="float32")
    made = daskumap.plan(place, memory="2GB", threads=1, calibrate=False, **GIVEN)
    made.check()
    assert next(stage for stage in made.stages if stage.name == "scan").tasks > 1000


# New rows.


def test_rows_of_the_matrix_land_on_themselves(fit, apart):
    run = fit(apart, **GIVEN)
    placed = run.transform(apart[17:40], **QUIET)
    np.testing.assert_array_equal(placed.embedding[:], run.embedding[17:40])
    assert placed.report["placed"]["known"] == 23


def test_a_new_row_of_distances_does_not_depend_on_others(fit, apart, write):
    run = fit(apart[:300, :300], n_neighbors=10, **GIVEN)
    new = apart[300:, :300]
    placed = run.transform(new, **QUIET)
    order = np.random.default_rng(0).permutation(100)
    for data, places in (
        (new[order], order),
        (new[7:8], [7]),
        (write(new, chunks=(9, 50)), slice(None)),
        (stored(new), slice(None)),
    ):
        again = run.transform(data, **QUIET)
        np.testing.assert_array_equal(again.embedding[:], placed.embedding[:][places])
        np.testing.assert_array_equal(again.fit_distance[:], placed.fit_distance[:][places])


def test_new_rows_lie_near_their_neighbours(fit, apart, small):
    """As near as by their values."""
    run = fit(apart[:300, :300], **LONG)
    rows = fit(small[:300], n_epochs=None, init="spectral")
    far = []
    for one, data in ((run, apart[300:, :300]), (rows, small[300:])):
        placed, places = one.transform(data, **QUIET).embedding[:], one.embedding[:]
        nearest = places[np.argsort(apart[300:, :300], axis=1)[:, :5]].mean(axis=1)
        far.append(np.median(np.linalg.norm(placed - nearest, axis=1)))
    assert far[0] < 1.3 * far[1]


def test_a_new_row_far_from_all_has_no_place(fit, apart):
    run = fit(apart[:300, :300], disconnection_distance=5.0, **GIVEN)
    new = apart[300:303, :300].copy()
    new[1] += 5.0
    for data in (new, as_sparse(np.where(new < 5.0, new, np.inf))):
        placed = run.transform(data, **QUIET)
        assert np.isnan(placed.embedding[:]).any(axis=1).tolist() == [False, True, False]
        assert placed.report["placed"]["alone"] == 1


def test_the_matrix_is_not_needed_for_new_rows(fit, apart, write, tmp_path):
    path = write(apart[:300, :300], chunks=(100, 100))
    run = fit(path, tmp_path / "run.zarr", **GIVEN)
    expected = run.transform(apart[300:, :300], **QUIET).embedding[:]
    path.rename(tmp_path / "elsewhere")
    new = write(apart[300:, :300], "new.zarr", chunks=(30, 30))
    found = daskumap.transform(
        tmp_path / "run.zarr", new, tmp_path / "out.zarr", client="sequential", progress=False
    )
    np.testing.assert_array_equal(found.embedding[:], expected)


@pytest.mark.parametrize("step", ["transform.scan", "transform.place"])
def test_a_transform_of_distances_goes_on(fit, apart, write, tmp_path, step):
    run = fit(apart[:300, :300], tmp_path / "run.zarr", **GIVEN)
    new, out = write(apart[300:, :300], chunks=(20, 300)), tmp_path / "out.zarr"
    expected = run.transform(new, **QUIET).embedding[:]
    engine = FailingEngine(SequentialEngine(4 * 10**9), tmp_path, stop_at=step)
    with pytest.raises(Fault):
        run.transform(new, out, client=engine, progress=False)
    np.testing.assert_array_equal(daskumap.resume(out, **QUIET).embedding[:], expected)


def test_new_rows_have_distances_to_all_fitted_ones(fit, apart):
    run = fit(apart[:300, :300], **GIVEN)
    with pytest.raises(SourceError, match="The new rows have 299 columns"):
        run.transform(apart[300:, :299], **QUIET)
    with pytest.raises(SourceError, match=r"1 of 2 rows of distances hold a negative number.*first: 1\."):
        run.transform(apart[300:302, :300] * [[1], [-1]], **QUIET)


# What is no matrix of distances.


def changed(D, row, column, value):
    D = D.copy()
    D[row, column] = value
    return D


FAULTS = {
    "nan": (lambda D: changed(D, 7, 9, np.nan), r"1 of 400 rows of distances hold NaN.* first: 7\."),
    "negative": (lambda D: changed(D, 3, 2, -0.1), "hold a negative number"),
    "similarities": (
        lambda D: np.exp(-D),
        r"400 of 400 rows .* far from themselves.* first: 0, 1, 2, 3, 4\.",
    ),
    "diagonal": (lambda D: changed(D, 5, 5, 0.5), "far from themselves: the diagonal is 0"),
    "rows": (lambda D: D[:300], "300 rows and 400 columns; it must be the distances between all rows"),
    "one side": (lambda D: csr_matrix(np.triu(D)), r"0 are stored below the diagonal and 79,800 above"),
    "sparse nan": (lambda D: csr_matrix(changed(D, 7, 9, np.nan)), "1 of 400 rows of distances hold NaN"),
    "too few": (lambda D: D[:15, :15], "Lower n_neighbors to at most 14"),
    "vector": (lambda D: D[0], "1 dimensions"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_matrix_of_distances_is_refused(fit, apart, tmp_path, fault):
    change, message = FAULTS[fault]
    with pytest.raises(SourceError, match=message):
        fit(change(apart), tmp_path / "run.zarr", **GIVEN)
    assert not (tmp_path / "run.zarr").exists()


def test_rounding_on_the_diagonal_is_none(fit, apart):
    near = apart + np.diag(np.full(400, 1e-4, np.float32))
    assert sha(fit(near, **GIVEN).embedding) == sha(fit(apart, **GIVEN).embedding)


def test_what_distances_cannot_have(fit, apart):
    with pytest.raises(ParameterError, match="unique is True and the input is distances"):
        fit(apart, unique=True, **GIVEN)
    with pytest.raises(ParameterError, match="does not take 'p'"):
        fit(apart, metric_kwds={"p": 3}, **GIVEN)


def test_distances_that_differ_by_direction_are_told(fit, apart, caplog):
    """As umap-learn, each row's neighbours are the nearest in its own row."""
    wrong = changed(apart, 0, 1, 50.0)
    run = fit(wrong, **GIVEN)
    assert "not symmetric: 2 rows" in caplog.text
    expected = np.argsort(wrong + np.diag(np.full(400, np.inf)), axis=1)[:, :14]
    np.testing.assert_array_equal(run.knn()[0], expected)


# The start.


def test_starts_without_axes_are_spectral(fit, apart):
    maps = {
        init: sha(fit(apart, init=init, **GIVEN).embedding) for init in ("pca", "spectral", "tswspectral")
    }
    assert len(set(maps.values())) == 1
    assert sha(fit(apart, init="random", **GIVEN).embedding) != maps["pca"]
    start = np.random.default_rng(0).random((400, 2))
    assert sha(fit(apart, init=start, **GIVEN).embedding) != maps["pca"]


def test_the_warm_spectral_start_is_the_spectral_one(fit, small):
    first, second = (fit(small, init=init).embedding for init in ("spectral", "tswspectral"))
    assert sha(first) == sha(second)


@pytest.fixture(scope="module")
def ring():
    """1,200 rows on a circle, in no order, and the distances between them."""
    turn = np.random.default_rng(2).random(1200) * 2 * np.pi
    X = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return turn, cdist(X, X).astype(np.float32)


def test_many_rows_start_by_regions_of_the_graph(fit, ring, block_sizes, few_micro_cells):
    """A circle starts as a circle: a cell's mates are near it on the way round."""
    turn, D = ring
    block_sizes(chunks=1)
    run = fit(D, **GIVEN)
    start = run.store.read("initial") - 5
    order = np.argsort(np.arctan2(start[:, 1], start[:, 0]))
    steps = np.abs(np.diff(turn[order]))
    assert np.median(np.minimum(steps, 2 * np.pi - steps)) < 0.05
    assert np.linalg.norm(start, axis=1).min() > 2.5
    block_sizes()
    assert sha(fit(D, **GIVEN).store.array("initial")) == sha(run.store.array("initial"))


def test_pieces_without_a_seed_have_a_region(fit, few_micro_cells, monkeypatch):
    """600 pairs of rows: no seed reaches most of them."""
    pairs = lil_matrix((1200, 1200))
    for row in range(0, 1200, 2):
        pairs[row, row + 1] = pairs[row + 1, row] = 1.0
    run = fit(pairs, n_neighbors=2, **GIVEN)
    assert np.isfinite(run.embedding[:]).all()
    assert run.graph().nnz == 1200


def test_a_vertex_joins_the_region_of_most_weight():
    indptr, tails = np.array([0, 3, 4, 5]), np.array([3, 4, 5, 3, 1])
    weights = np.array([0.4, 0.3, 0.3, 1.0, 1.0], np.float32)
    regions, out = np.array([-1, -1, -1, 8, 7, 7], np.int32), np.empty(3, np.int32)
    assert grow(regions, 0, indptr, tails, weights, out) == 2
    assert out.tolist() == [7, 8, -1]


# What is told, and the estimator.


def test_the_report_of_distances(fit, apart, small):
    ours = fit(apart, report=True, **LONG).report["measures"]
    rows = fit(small, report=True, n_epochs=None, init="spectral").report["measures"]
    for name in ("trustworthiness", "knn_preservation", "attractive_loss", "flyaway_ratio"):
        assert ours[name] == pytest.approx(rows[name], rel=0.05), name
    for name in ("components", "largest_component", "edges", "isolated_rows", "recall"):
        assert ours[name] == rows[name], name
    sparse = fit(as_sparse(thinned(apart)), report=True, **GIVEN)
    assert sparse.report["measures"]["trustworthiness"] is None
    assert "trustworthiness" not in str(sparse)


def test_ranks_are_those_of_the_matrix(fit, apart):
    run = fit(apart, report=True, **GIVEN)
    probes, ids, closer = (
        run.store.read(name) for name in ("cells/probe_rows", "report/map_ids", "report/given_closer")
    )
    expected = [
        [(np.delete(apart[p], p) < apart[p, i]).sum() for i in row]
        for p, row in zip(probes, ids, strict=True)
    ]
    assert closer.tolist() == expected
    np.testing.assert_array_equal(run.store.read("order/probe_ids"), run.knn()[0][probes])


@pytest.mark.parametrize("form", [np.asarray, as_sparse], ids=["dense", "sparse"])
def test_an_estimator_of_distances(apart, form):
    model = UMAP(random_state=1, n_neighbors=10, **GIVEN).fit(form(apart[:300, :300]))
    assert type(model.embedding_) is np.ndarray
    assert (model.n_features_in_, model.graph_.shape) == (300, (300, 300))
    assert get_tags(model).input_tags.pairwise
    assert not get_tags(UMAP()).input_tags.pairwise
    placed = model.transform(form(apart[290:, :300]))
    assert placed.shape == (110, 2)
    np.testing.assert_array_equal(placed[:10], model.embedding_[290:])
    with pytest.raises(ValueError, match="299 features"):
        model.transform(form(apart[300:, :299]))


def test_the_estimator_has_few_rows_of_distances(apart):
    with pytest.warns(UserWarning, match="truncating"):
        model = UMAP(random_state=1, **GIVEN).fit(apart[:9, :9])
    assert np.isfinite(model.embedding_).all()
