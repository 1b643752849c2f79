"""Rows on which the metric is not defined: refused, left out of the map, or measured as umap-learn does."""

import numpy as np
import pytest
import scipy.sparse
from conftest import sha

import daskumap
from daskumap import UMAP
from daskumap.errors import ParameterError, SourceError
from daskumap.kernels.metrics import exact
from daskumap.kernels.metrics import metric as metrics

RNG = np.random.default_rng(0)
ZERO = np.sort(RNG.choice(400, 25, replace=False))


@pytest.fixture(scope="module")
def rows(small):
    """Counts, of which 25 rows are all zero."""
    X = np.abs(small).round(2)
    X[ZERO] = 0.0
    return X


def lost(run):
    """Return the rows without a place."""
    return np.flatnonzero(np.isnan(run.embedding[:]).all(axis=1))


# Left out.


@pytest.mark.parametrize("metric", ["cosine", "correlation", "hellinger"])
def test_rows_that_are_left_out_have_no_place(rows, fit, metric):
    run = fit(rows, metric=metric, undefined="isolate", report=True)
    assert lost(run).tolist() == ZERO.tolist()
    assert run.undefined_rows == 25
    measures = run.report["measures"]
    assert (measures["undefined_rows"], measures["isolated_rows"]) == (25, 25)
    assert measures["largest_component"] <= 375
    assert (np.diff(run.graph().indptr)[ZERO] == 0).all()
    assert (run.knn()[0][ZERO] == -1).all()
    assert not np.isin(run.knn()[0], ZERO).any()


def test_the_others_have_the_neighbours_that_they_have_alone(rows, fit):
    run = fit(rows, metric="cosine", undefined="isolate")
    others = np.setdiff1d(np.arange(400), ZERO)
    ids, distances = fit(rows[others], metric="cosine").knn()
    np.testing.assert_array_equal(run.knn()[0][others], others[ids])
    assert run.knn()[1][others].tobytes() == distances.tobytes()


@pytest.mark.parametrize("options", [{}, {"unique": True}, {"init": "spectral"}])
def test_sizes_change_no_bit(rows, fit, block_sizes, options, write):
    block_sizes(max_cell_rows=200, cells=6)
    options = {"metric": "cosine", "undefined": "isolate", **options}
    bits = sha(fit(rows, **options).embedding)
    block_sizes(max_cell_rows=200, cells=6, row_block=137, vertex_chunk=128, chunks=1)
    assert sha(fit(write(rows, chunks=(61, 3)), client="1x2", **options).embedding) == bits


def test_with_unique_copies_of_them_are_left_out_too(rows, fit):
    X = np.concatenate([rows, rows[:40]])
    run = fit(X, metric="cosine", undefined="isolate", unique=True, report=True)
    assert lost(run).tolist() == [*ZERO, *(400 + ZERO[ZERO < 40])]
    measures = run.report["measures"]
    assert measures["undefined_rows"] == np.sum(~X.any(axis=1))
    assert measures["duplicate_rows"] == np.sum(X[400:].any(axis=1))
    graph = run.graph()
    distinct = np.unique(X[X.any(axis=1)], axis=0)
    assert graph.shape == (len(distinct) + 1, len(distinct) + 1)  # the rows of zeros are one
    assert len(run.calibration()[0]) == graph.shape[0]
    plain = fit(X[X.any(axis=1)], metric="cosine", unique=True).graph()
    assert graph.nnz == plain.nnz
    assert sorted(graph.data) == sorted(plain.data)


def test_a_run_that_was_stopped_goes_on(rows, fit, held):
    options = {"metric": "cosine", "undefined": "isolate"}
    bits = sha(fit(rows, **options).embedding)

    class StoppedError(Exception):
        pass

    class Stops:
        def start(self, stage, tasks, done):
            if stage == "partition.shuffle":
                raise StoppedError

        def advance(self, done):
            pass

        finish = close = lambda self: None

    with pytest.raises(StoppedError):
        fit(rows, held, progress=Stops(), **options)
    assert sha(fit(rows, held, **options).embedding) == bits
    assert daskumap.verify(held) == {}


def test_new_rows_that_are_left_out(rows, fit):
    run = fit(rows, metric="cosine", undefined="isolate")
    placed = run.transform(rows, progress=False, client="sequential")
    np.testing.assert_array_equal(placed.embedding[:], run.embedding[:])
    assert placed.report["placed"]["alone"] == placed.undefined_rows == 25
    with pytest.raises(SourceError, match="not defined on 25 of 400 rows"):
        fit(rows[rows.any(axis=1)], metric="cosine").transform(rows, progress=False)


def test_too_few_rows_that_take_part(rows, fit):
    X = np.zeros_like(rows)
    X[:15] = rows[rows.any(axis=1)][:15]
    with pytest.raises(SourceError, match=r"'cosine' is defined on 15 of 400 rows; it needs more such rows"):
        fit(X, metric="cosine", undefined="isolate")
    X[15] = 1.0
    assert len(lost(fit(X, metric="cosine", undefined="isolate"))) == 384


def test_what_undefined_may_be(rows, fit):
    with pytest.raises(ParameterError, match="undefined is 'drop'; allowed are refuse, isolate, apart"):
        fit(rows, undefined="drop")
    with pytest.raises(SourceError, match="undefined='isolate', which leaves them out of the map"):
        fit(rows, metric="cosine")


# Apart, as in umap-learn.


@pytest.mark.parametrize("metric", ["cosine", "correlation", "hellinger"])
def test_distances_are_those_of_umap_learn(rows, metric):
    from umap.distances import named_distances

    X = np.concatenate([rows[ZERO[:2]], rows[:6], np.full((1, 8), 0.1, np.float32)])
    resolved = metrics.resolve(metric, apart=True)
    distance, theirs = metrics.distance_function(resolved), named_distances[metric]
    # Theirs finds a constant row by sums that round: not all of 0.1 are at distance 0 from their mean.
    constant = X.max(axis=1) == X.min(axis=1)
    for i in range(len(X)):
        for j in range(len(X)):
            found = distance(X[i], X[j])
            if metric == "correlation" and constant[i] + constant[j]:
                assert found == 1.0 - float(constant[i] and constant[j])
            else:
                assert found == pytest.approx(
                    max(0.0, theirs(X[i], X[j])), abs=2e-3 * (metric == "hellinger") + 1e-6
                )
    there = metrics.to_space(X, resolved)
    np.testing.assert_allclose(exact.to_space(X.astype(float), resolved), there, atol=1e-6)


def test_neighbours_are_those_of_umap_learns_rule(rows):
    """Fewer rows of zeros than neighbours: these have others at distance 1 as well."""
    X = np.delete(rows, ZERO[:17], axis=0)
    length = np.linalg.norm(X.astype(float), axis=1)
    zero = length == 0
    table = 1 - (X.astype(float) @ X.T) / np.outer(length + zero, length + zero)
    table[zero[:, None] & zero] = 0.0
    np.fill_diagonal(table, np.inf)
    with pytest.warns(UserWarning, match=r"'cosine' is not defined on 8 of 383 rows.*0 from one another"):
        model = UMAP(metric="cosine", n_epochs=3, random_state=1).fit(X)
    _, distances = model._run.knn()
    np.testing.assert_allclose(distances, np.sort(table, axis=1)[:, :14], atol=1e-6)
    assert (distances[zero].round(6) == np.repeat([0, 1], 7)).all()
    assert np.isfinite(model.embedding_).all()


def test_sizes_change_no_bit_of_rows_apart(rows, fit, block_sizes, write):
    options = {"metric": "cosine", "undefined": "apart"}
    block_sizes(max_cell_rows=200, cells=6)
    run = fit(rows, **options)
    assert (run.knn()[1][ZERO] == 0).all()
    block_sizes(max_cell_rows=200, cells=6, row_block=137, vertex_chunk=128, chunks=1)
    other = fit(write(rows, chunks=(61, 3)), client="1x2", **options)
    assert sha(other.embedding) == sha(run.embedding)


def test_new_rows_of_zeros_lie_where_the_fitted_ones_do(rows):
    with pytest.warns(UserWarning, match="25 of 400"):
        model = UMAP(metric="cosine", n_epochs=3, random_state=1).fit(rows)
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        placed = model.transform(np.stack([np.zeros(8), rows[0]]))
    assert (placed[0] == model.embedding_[ZERO]).all(axis=1).any()
    with pytest.warns(UserWarning, match="1 of 1 rows"):
        away = (
            UMAP(metric="cosine", n_epochs=3, random_state=1)
            .fit(rows[rows.any(axis=1)])
            .transform(np.zeros((1, 8)))
        )
    assert np.isfinite(away).all()


def test_the_estimator_says_what_it_left_out(rows):
    with pytest.warns(
        UserWarning, match="25 of 400 rows, as on rows of zeros: they have no place on the map"
    ):
        model = UMAP(metric="cosine", undefined="isolate", n_epochs=3).fit(scipy.sparse.csr_array(rows))
    assert np.isnan(model.embedding_[ZERO]).all()


def test_rows_outside_a_domain_have_no_direction_either(rows):
    with pytest.raises(SourceError, match="'hellinger' is not defined on 1 of 400 rows; the first: row 3"):
        UMAP(metric="hellinger").fit(rows - (np.arange(400) == 3)[:, None])
