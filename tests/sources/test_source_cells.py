"""AnnData as sources: what anndata wrote is read as scanpy would choose it, and as anndata reads it."""

import logging

import h5py
import numpy as np
import pytest
import scipy.sparse
import zarr

import daskumap
from daskumap.errors import ParameterError, SourceError
from daskumap.sources.find import check_stored_spec, find, open_spec

anndata = pytest.importorskip("anndata")

ROWS, GENES = 230, 70
rng = np.random.default_rng(5)
COUNTS = scipy.sparse.random(ROWS, GENES, 0.2, format="csr", dtype=np.float32, random_state=7)
PCS = rng.normal(size=(ROWS, 50)).astype(np.float32)
VARIABLE = np.arange(GENES) % 3 == 0
NAMES = [f"cell-{number}" for number in range(ROWS)]


def make(matrix=COUNTS, pca=True):
    data = anndata.AnnData(matrix.copy())
    data.obs_names = NAMES
    data.layers["counts"] = COUNTS.toarray()
    data.obsm["X_other"] = np.asfortranarray(PCS[:, :7].astype(np.float64))
    data.var["highly_variable"] = VARIABLE
    if pca:
        data.obsm["X_pca"] = PCS
    return data


def write(data, folder, kind):
    """Write as anndata does: "h5ad", or Zarr of a version, sharded or not."""
    path = folder / ("cells.h5ad" if kind == "h5ad" else "cells.zarr")
    if kind == "h5ad":
        data.write_h5ad(path)
        return path
    with anndata.settings.override(zarr_write_format=2 if kind == "v2" else 3):
        data.write_zarr(path)
    if kind == "sharded":
        shard(path)
    return path


def shard(path):
    """Write the entries of X again in shards, as anndata 0.13 does, in small ones."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)["X"]
    for name in ("data", "indices", "indptr"):
        values, attributes = group[name][:], dict(group[name].attrs)
        del group[name]
        new = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(50,), shards=(500,))
        new[:] = values
        new.attrs.update(attributes)
    zarr.consolidate_metadata(path)


pytestmark = [
    pytest.mark.filterwarnings("ignore:Consolidated metadata"),
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2"),
]
KINDS = ("v2", "v3", "sharded", "h5ad", "backed", "memory")


@pytest.fixture(scope="module", params=KINDS)
def cells(request, tmp_path_factory):
    if request.param == "memory":
        return make()
    path = write(
        make(), tmp_path_factory.mktemp("cells"), "h5ad" if request.param == "backed" else request.param
    )
    return anndata.read_h5ad(path, backed="r") if request.param == "backed" else path


def rows(source):
    return source.read(0, source.shape[0])


def same_elsewhere(source):
    """Open the source as another process would, where one can."""
    spec = source.spec()
    if spec is not None:
        check_stored_spec(spec, "/somewhere/run.zarr")
        again = open_spec(spec)
        np.testing.assert_array_equal(again.read(3, 50), source.read(3, 50))
        assert again.dtype == source.dtype


def test_x_pca_is_read_as_scanpy_does_and_said_so(cells, caplog):
    with caplog.at_level(logging.INFO, "daskumap"):
        source = find(cells)
    np.testing.assert_array_equal(rows(source), PCS)
    assert "obsm/X_pca of" in caplog.text
    assert "as scanpy does" in caplog.text
    assert source.labels["obs_names"].read(0, ROWS).tolist() == NAMES
    same_elsewhere(source)


def test_what_options_choose(cells):
    dense = COUNTS.toarray()
    for options, wanted in (
        ({"use_rep": "X_other"}, PCS[:, :7]),
        ({"use_rep": "X_other", "n_pcs": 3}, PCS[:, :3]),
        ({"n_pcs": 20}, PCS[:, :20]),
        ({"use_rep": "X"}, dense),
        ({"n_pcs": 0}, dense),
        ({"layer": "counts"}, dense),
    ):
        source = daskumap.source(cells, **options)
        np.testing.assert_array_equal(rows(source), wanted.astype(np.float32))
        assert len(source.labels["obs_names"]) == ROWS
        same_elsewhere(source)


def reference(matrix, count):
    """Return PCA of scikit-learn's kind by NumPy: rows on the axes, up to signs, and variances."""
    centred = matrix.astype(np.float64) - matrix.astype(np.float64).mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    return np.abs(left * values)[:, :count], (values**2 / (len(matrix) - 1))[:count]


@pytest.mark.parametrize(
    ("options", "genes"),
    [
        ({"pca": 9}, VARIABLE),
        ({"pca": 9, "use_rep": "X", "mask_var": "highly_variable"}, VARIABLE),
        ({"pca": 9, "mask_var": False}, np.ones(GENES, bool)),
        ({"pca": 9, "layer": "counts"}, VARIABLE),
    ],
)
def test_main_axes_are_those_of_pca(cells, options, genes):
    source = daskumap.source(cells, **options)
    wanted, variances = reference(COUNTS.toarray()[:, genes], 9)
    assert source.shape == (ROWS, 9)
    np.testing.assert_allclose(np.abs(rows(source)), wanted, atol=2e-5)
    np.testing.assert_allclose(source.axes.variances, variances, rtol=1e-9)
    np.testing.assert_array_equal(source.read(10, 20), rows(source)[10:20])
    assert len(source.labels["obs_names"]) == ROWS


def test_axes_of_many_columns_are_close_to_those_of_pca(monkeypatch):
    monkeypatch.setattr("daskumap.sources.principal.COVARIANCE_COLUMNS", 0)
    matrix = scipy.sparse.random(500, 400, 0.1, format="csr", random_state=1).astype(np.float32)
    source = daskumap.source(anndata.AnnData(matrix), pca=12)
    wanted, variances = reference(matrix.toarray(), 12)
    np.testing.assert_allclose(source.axes.variances, variances, rtol=1e-5)
    np.testing.assert_allclose(np.abs(rows(source))[:, :4], wanted[:, :4], atol=2e-2)


def test_bits_of_axes_depend_on_neither_chunks_nor_reads(tmp_path, monkeypatch):
    monkeypatch.setattr("daskumap.sources.axes.BLOCK_ROWS", 64)
    sources = [
        daskumap.source(write(make(pca=False), tmp_path / kind, kind), pca=5)
        for kind in KINDS[:4]
        if not (tmp_path / kind).mkdir()
    ]
    wanted = rows(sources[0])
    for source in sources:
        np.testing.assert_array_equal(np.concatenate(list(source.blocks())), wanted)
        np.testing.assert_array_equal(source.read(60, 70), wanted[60:70])
    assert len({source.identity()["rows"] for source in sources}) == 1


def test_a_sparse_x_without_pca_goes_on_its_main_axes(caplog):
    with caplog.at_level(logging.INFO, "daskumap"):
        source = find(make(pca=False))
    assert source.shape == (ROWS, VARIABLE.sum() - 1)
    assert "is sparse, of 70 columns" in caplog.text
    narrow = anndata.AnnData(COUNTS[:, :40])
    np.testing.assert_array_equal(rows(find(narrow)), COUNTS[:, :40].toarray())
    np.testing.assert_array_equal(rows(find(make(COUNTS.toarray(), pca=False))), COUNTS.toarray())


@pytest.mark.parametrize("kind", ["v2", "h5ad"])
def test_rows_of_a_matrix_by_columns_are_refused(tmp_path, kind):
    path = write(make(COUNTS.tocsc(), pca=False), tmp_path, kind)
    with pytest.raises(SourceError, match=r"X is sparse by columns \(CSC\).*adata.X.tocsr\(\)"):
        find(path)
    np.testing.assert_array_equal(rows(daskumap.source(make(COUNTS.tocsc()), use_rep="X")), COUNTS.toarray())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"use_rep": "X_none"},
            SourceError,
            r"has no obsm/X_none\. It has X, obsm/X_other, obsm/X_pca, layers/counts",
        ),
        ({"layer": "none"}, SourceError, r"has no layers/none\. It has X"),
        ({"n_pcs": 60}, ParameterError, r"n_pcs is 60, and obsm/X_pca.* has 50 columns\. Lower"),
        ({"pca": 500}, ParameterError, r"pca is 500; of 230 rows and 24 columns .* 1 to 23"),
        ({"pca": -1}, ParameterError, r"pca is -1; it must be a number of axes"),
        ({"pca": 3, "mask_var": "none"}, SourceError, r"has no var/none; var has highly_variable"),
        ({"use_rep": "X", "mask_var": "highly_variable"}, ParameterError, "no main axes are found.*Give pca"),
        ({"use_rep": "X", "layer": "counts"}, ParameterError, "Give one of them"),
    ],
)
def test_mistakes(options, error, message):
    with pytest.raises(error, match=message):
        daskumap.source(make(), **options)


def test_a_damaged_matrix_is_told(tmp_path):
    path = write(make(pca=False), tmp_path, "v3")
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group["X/indices"][5] = GENES
    with pytest.raises(SourceError, match=r"X is damaged: rows 0 to 230 have an entry in column 70"):
        rows(daskumap.source(path, use_rep="X"))
    group["X/indptr"][3] = 10**6
    with pytest.raises(SourceError, match=r"damaged: indptr does not say where 230 rows"):
        daskumap.source(path, use_rep="X")


def test_values_that_are_not_finite_have_no_axes():
    matrix = COUNTS.copy()
    matrix.data[3] = np.nan
    with pytest.raises(SourceError, match="values that are not finite, in column"):
        rows(daskumap.source(anndata.AnnData(matrix), pca=3))


def test_one_sparse_matrix_by_its_path(tmp_path):
    path = write(make(), tmp_path, "v3")
    source = find(path / "X")
    np.testing.assert_array_equal(rows(source), COUNTS.toarray())
    same_elsewhere(source)
    with pytest.raises(ParameterError, match="one matrix of an AnnData"):
        daskumap.source(path / "X", pca=3)


def test_a_fit_takes_the_names_of_cells_along(tmp_path):
    run = daskumap.fit(
        write(make(), tmp_path, "h5ad"), client="sequential", report=False, progress=False, n_epochs=2
    )
    assert run.labels["obs_names"].read(0, ROWS).tolist() == NAMES
    with h5py.File(tmp_path / "cells.h5ad") as file:  # it is free again
        assert "X_pca" in file["obsm"]


def fit_on_axes(tmp_path):
    path = write(make(pca=False), tmp_path, "h5ad")
    quick = {"client": "sequential", "report": False, "progress": False, "n_epochs": 2}
    return daskumap.fit(daskumap.source(path, pca=9), **quick), daskumap.source(path, pca=9)


@pytest.mark.processes  # a training takes its time
def test_a_network_refuses_new_cells_on_axes_of_their_own(tmp_path):
    run, new = fit_on_axes(tmp_path)
    trained = daskumap.train(run, steps=2, hidden=[4], client="sequential", report=False, progress=False)
    with pytest.raises(SourceError, match="would be other ones"):
        daskumap.transform(trained, new, client="sequential", progress=False)
