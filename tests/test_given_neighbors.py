"""Neighbours that the user gives: in place of the search, checked, and as umap-learn takes them."""

import logging
import re

import dask.array
import numpy as np
import pytest
import zarr
from conftest import copied
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import daskumap
from daskumap import UMAP
from daskumap.errors import DaskumapError, ParameterError, RunMismatchError, StoreError
from daskumap.kernels.neighbors.given import take_nearest
from daskumap.kernels.quality.neighbors import exact_neighbors
from daskumap.testing.faults import FailingEngine, Fault

FEW = {"n_epochs": 3}


@pytest.fixture(scope="module")
def knn(small):
    """The 100 nearest of each row, itself first, ascending."""
    ids, distances = exact_neighbors(small, np.arange(len(small)), 99)
    own = np.arange(len(small))[:, None]
    return np.hstack([own, ids]), np.hstack([own * 0, distances]).astype(np.float32)


@pytest.fixture
def searched(fit, small):
    return fit(small, **FEW).embedding[:]


def group(folder, ids, distances, **options):
    made = zarr.open_group(str(folder), mode="w")
    made.create_array("indices", data=ids, chunks=(70, 6))
    made.create_array("distances", data=distances, chunks=(33, 99))
    return made


def shuffled(table):
    return np.take_along_axis(table, np.random.default_rng(0).random((400, 1)).argsort(1), 1)


KINDS = {
    "as umap-learn's, wider": lambda i, d, at: (i, d, None),
    "unsigned, of one column more": lambda i, d, at: (i[:, :16].astype(np.uint16), d[:, :16]),
    "without the rows themselves": lambda i, d, at: (i[:, 1:15], d[:, 1:15]),
    "in reverse": lambda i, d, at: (i[:, ::-1], d[:, ::-1]),
    "a sparse matrix": lambda i, d, at: csr_matrix((d.ravel(), i.ravel(), np.arange(401) * 100), (400, 400)),
    "the path of a group": lambda i, d, at: group(at / "knn.zarr", i, d).store.root,
    "a group": lambda i, d, at: group(at / "knn.zarr", i, d),
    "dask arrays": lambda i, d, at: (dask.array.from_array(i, (64, 50)), dask.array.from_array(d, (99, 100))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_true_neighbors_give_the_map_of_the_search(fit, small, knn, searched, kind, tmp_path, block_sizes):
    block_sizes(row_block=150)
    run = fit(small, precomputed_knn=KINDS[kind](*knn, tmp_path), **FEW)
    np.testing.assert_array_equal(run.embedding[:], searched)
    assert "neighbors.given" in run.status()
    assert "neighbors" not in run.status()


def test_a_run_is_its_neighbors(fit, small, knn, write):
    source = write(small)
    run = fit(source, **FEW)
    other = daskumap.fit(source, precomputed_knn=run, min_dist=0.4, progress=False)
    assert "taken.neighbors" in other.status()
    np.testing.assert_array_equal(other.embedding[:], fit(small, min_dist=0.4, **FEW).embedding[:])
    with pytest.raises(RunMismatchError, match="rows was"):
        daskumap.fit(small + 1, precomputed_knn=run, progress=False)
    with pytest.raises(ParameterError, match=r"^A run has its neighbours\. Leave precomputed_knn out"):
        daskumap.fit(run, precomputed_knn=knn)


def test_rows_that_are_moved(fit, small, knn):
    """Distances are the user's: rows are scaled to suit float32, and so are they."""
    ids, distances = knn[0][:, :15], knn[1][:, :15].astype(np.float64) * 2.0**-100
    run = fit(small.astype(np.float64) * 2.0**-100, precomputed_knn=(ids, distances), **FEW)
    np.testing.assert_allclose(run.knn()[1], distances[:, 1:], rtol=1e-6)
    assert abs(run.graph() - fit(small, **FEW).graph()).max() < 1e-5


def test_what_is_not_there(fit, small, knn):
    """-1 and inf are no neighbours, and the cutoff makes more of these."""
    ids, distances = (table[:, :15].copy() for table in knn)
    ids[7, 10:], distances[8, 10:] = -1, np.inf
    ids[9], distances[9] = -1, np.inf
    run = fit(small, precomputed_knn=(ids, distances), disconnection_distance=2.5, **FEW)
    indices, near = run.knn()
    assert (indices[7] >= 0).sum() <= 9
    assert (near[near < np.inf] < 2.5).all()
    assert (indices[9] == -1).all()
    assert np.isnan(run.embedding[9]).all() == (run.graph()[9].nnz == 0)


def test_equal_rows_in_one_place(fit, small, knn):
    """umap-learn has a row not among its neighbours where more rows than it has equal it: others count."""
    ids, distances = (table[:, :5].copy() for table in knn)
    ids[0], distances[0] = [3, 9, 11, 40, 41], 0.0
    run = fit(small, precomputed_knn=(ids, distances), n_neighbors=5, **FEW)
    assert set(run.knn()[0][0]) == {3, 9, 11, 40}
    np.testing.assert_array_equal(run.knn()[1][0], 0.0)


def test_what_is_mended_is_said(fit, small, knn, caplog):
    ids, distances = (table[:, :15].copy() for table in knn)
    ids[4], distances[4] = ids[4, ::-1], distances[4, ::-1]
    ids[6, 9] = ids[6, 8]
    with caplog.at_level(logging.WARNING, "daskumap"):
        run = fit(small, precomputed_knn=(ids, distances), **FEW)
    assert [record.getMessage() for record in caplog.records] == [
        "precomputed_knn: 1 rows whose distances do not ascend were sorted; the first: row 4.",
        "precomputed_knn: 1 rows that name a row twice count it once; the first: row 6.",
        "precomputed_knn: 1 rows that have fewer than n_neighbors count those that there are; the first: row "
        "6.",
    ]
    np.testing.assert_array_equal(run.knn()[0][4], knn[0][4, 1:15])
    assert (run.knn()[0][6] == ids[6, 8]).sum() == 1


WRONG = {
    "indices (400, 100) and distances (400, 4)": lambda i, d: (i, d[:, :4]),
    "must have as many rows as the input, 400": lambda i, d: (i[:100], d[:100]),
    "of type float32; row ids are integers": lambda i, d: (d, i),
    "10 columns, each row itself counted; n_neighbors=15 needs 15. Lower n_neighbors to 10": lambda i, d: (
        i[:, :10],
        d[:, :10],
    ),
    "13 columns, no row itself among them; n_neighbors=15 needs 14. Lower n_neighbors to 14": lambda i, d: (
        i[:, 1:14],
        d[:, 1:14],
    ),
    "at most 5 neighbours a row": lambda i, d: csr_matrix(
        (d[:, 1:6].ravel(), i[:, 1:6].ravel(), np.arange(401) * 5)
    ),
    "is a matrix (5, 5)": lambda i, d: csr_matrix((5, 5)),
    "first in row 7": lambda i, d: csr_matrix(
        np.where(np.arange(400)[:, None] == 7, np.nan, 1.0) * np.ones(400)
    ),
    "row ids below -1 or above 399, which is the last row, in 1 of 400 rows; the first: row 3": (
        lambda i, d: (np.where((i == 3) & (d == 0), 400, i), d)
    ),
    "row ids below -1": lambda i, d: (np.where(i == 3, -2, i), d),
    "NaN or beyond float32": lambda i, d: (i, np.where(i == 3, np.nan, d)),
    "or beyond float32, in": lambda i, d: (i, np.where(i == 3, 1e300, d.astype(float))),
    "distances below 0": lambda i, d: (i, d - 1),
    "is a int of another kind": lambda i, d: 5,
    "is a tuple of another kind": lambda i, d: (i, None),
    "There is nothing at": lambda i, d: "nowhere.zarr",
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_neighbors(fit, small, knn, message, tmp_path):
    with pytest.raises(DaskumapError, match=re.escape(message)):
        fit(small, tmp_path / "run.zarr", precomputed_knn=WRONG[message](*knn), **FEW)
    assert not (tmp_path / "run.zarr").exists()


def test_unique_and_neighbors_exclude_each_other(fit, small, knn):
    with pytest.raises(ParameterError, match=r"^unique=True and precomputed_knn exclude each other"):
        fit(small, precomputed_knn=knn, unique=True)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("scan.given", "as umap-learn's, wider"),
        ("neighbors.given", "the path of a group"),
        ("layout", "as umap-learn's, wider"),
    ],
)
def test_a_run_that_died_goes_on(
    fit, small, knn, searched, kind, step, write, held, tmp_path, sequential, block_sizes
):
    block_sizes(row_block=150)
    source, neighbors = write(small), KINDS[kind](*knn, tmp_path)
    engine = FailingEngine(sequential, tmp_path / "witness", stop_at=step)
    with pytest.raises(Fault):
        fit(source, held, precomputed_knn=neighbors, client=engine, keep="model", **FEW)
    if step == "layout":
        again = fit(source, copied(held), precomputed_knn=neighbors, keep="model", **FEW)
        np.testing.assert_array_equal(again.embedding[:], searched)
    run = daskumap.resume(held, client="sequential", progress=False)
    np.testing.assert_array_equal(run.embedding[:], searched)
    assert daskumap.verify(held) == {}
    assert not run.store.has("input/knn_indices")


def test_other_neighbors_are_another_run(fit, small, knn, held):
    fit(small, held, precomputed_knn=knn, **FEW)
    with pytest.raises(RunMismatchError, match="precomputed_knn was"):
        fit(small, held, precomputed_knn=(knn[0], knn[1] * 2), **FEW)


def test_neighbors_that_changed_are_refused(fit, small, knn, tmp_path, sequential):
    place, path = tmp_path / "run.zarr", group(tmp_path / "knn.zarr", *knn).store.root
    engine = FailingEngine(sequential, tmp_path / "witness", stop_at="neighbors.given")
    with pytest.raises(Fault):
        fit(small, place, precomputed_knn=path, client=engine, **FEW)
    zarr.open_array(str(path / "distances"))[30] = 0.5
    with pytest.raises(RunMismatchError, match="given neighbours of rows 0 to 399 changed"):
        daskumap.resume(place, client="sequential", progress=False)


def test_neighbors_that_a_run_has_not(fit, small, knn, tmp_path, sequential):
    """The run stopped before its neighbours were copied."""
    place, engine = tmp_path / "run.zarr", FailingEngine(sequential, tmp_path / "w", stop_at="scan")
    with pytest.raises(Fault):
        fit(small, place, precomputed_knn=knn, client=engine, **FEW)
    (place / "input/knn_digests.json").unlink()
    with pytest.raises(StoreError, match="started with neighbours that it does not hold"):
        daskumap.resume(place, progress=False)


def test_a_cluster_reads_a_group(fit, small, knn, searched, tmp_path, write, block_sizes):
    block_sizes(row_block=150)
    neighbors = group(tmp_path / "knn.zarr", *knn).store.root
    run = fit(write(small), tmp_path / "run.zarr", precomputed_knn=neighbors, client="1x2", **FEW)
    np.testing.assert_array_equal(run.embedding[:], searched)


def test_new_rows_and_the_report(fit, small, knn):
    """The cells are there as ever; the report says how good the given neighbours are."""
    wrong = knn[0].copy()
    wrong[:, 8:] = (wrong[:, :1] + np.arange(1, 93) * 4) % 400
    run = fit(small, precomputed_knn=(wrong, np.sort(knn[1])), report=True, **FEW)
    assert 0.5 <= run.report["measures"]["recall"] < 0.7
    placed = run.transform(small[:9] + 0.1, client="sequential", progress=False).embedding[:]
    assert np.isfinite(placed).all()
    np.testing.assert_array_equal(
        run.transform(small[:9], client="sequential", progress=False).embedding[:], run.embedding[:9]
    )


def test_neighbors_of_the_estimator(small, knn):
    words = {"n_epochs": 1, "random_state": 1, "client": "sequential"}
    given_ = UMAP(precomputed_knn=(*knn, None), **words).fit(small)
    np.testing.assert_array_equal(given_._knn_indices, knn[0][:, :15])
    np.testing.assert_array_equal(given_._knn_dists, knn[1][:, :15])
    np.testing.assert_array_equal(given_.knn_indices, given_._knn_indices)
    np.testing.assert_array_equal(given_.knn_dists, given_._knn_dists)
    found = UMAP(**words).fit(small)
    assert found.knn_indices is None
    assert found.knn_dists is None
    np.testing.assert_array_equal(found._knn_indices, knn[0][:, :15])


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_nearest_of_given_lists(data):
    rows, width, k = (data.draw(st.integers(1, most)) for most in (6, 9, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    ids = rng.integers(-1, 12, (rows, width))
    distances = rng.choice([0.0, 0.5, 1.0, 2.0, np.inf], (rows, width))
    found, near = take_nearest(ids, distances, 3, k)
    for row in range(rows):
        best = {}
        for one, distance in zip(ids[row].tolist(), distances[row].tolist(), strict=True):
            if one >= 0 and one != row + 3 and distance < min(np.inf, best.get(one, np.inf)):
                best[one] = distance
        there = near[row] < np.inf
        wanted = sorted(best.values())[:k]
        assert near[row][there].tolist() == wanted
        assert len(set(found[row][there])) == len(wanted)
        assert all(best[one] == distance for one, distance in zip(found[row][there], wanted, strict=True))
        assert (found[row][~there] == -1).all()
