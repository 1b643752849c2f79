"""New cells on the main axes of a run, by what scikit-learn's PCA makes of them; and columns of obs."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.decomposition import PCA

import daskumap
from daskumap.errors import ParameterError, SourceError
from daskumap.plot.colouring import coloured
from daskumap.plot.maps import map_of
from daskumap.report.picture import LIGHT
from daskumap.request import make_transform_request

anndata = pytest.importorskip("anndata")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Consolidated metadata"),
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding"),
]
CELLS, GENES, AXES = 240, 60, 6
QUICK = {"client": "sequential", "report": False, "progress": False, "n_epochs": 2}
PLACED = {"client": "sequential", "progress": False}
KINDS = np.array(["T cell", "B/NK", "ünknown"])


def make(seed, cells=CELLS):
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=cells)
    means = np.random.default_rng(0).gamma(0.5, 2.0, (3, GENES))
    data = anndata.AnnData(scipy.sparse.csr_matrix(np.log1p(rng.poisson(means[kind])).astype(np.float32)))
    data.obs_names = [f"{seed}-{number} ä/#" for number in range(cells)]
    data.var_names = [f"gene {number}" for number in range(GENES)]
    data.var["highly_variable"] = np.arange(GENES) % 4 != 0
    data.obs["kind"] = pd.Categorical(np.where(np.arange(cells) % 7 == 0, None, KINDS[kind]))
    data.obs["depth"] = np.asarray(data.X.sum(axis=1)).ravel()
    data.obs["donor"] = pd.array([None, 1, 2] * (cells // 3), dtype="Int64")
    data.obsm["X_other"] = rng.normal(size=(cells, AXES)).astype(np.float32)
    return data


@pytest.fixture(scope="module", params=("zarr", "h5ad", "memory"))
def fitted(request, tmp_path_factory):
    data, folder = make(1), tmp_path_factory.mktemp("fitted")
    given = data
    if request.param == "zarr":
        data.write_zarr(folder / "cells.zarr")
        given = folder / "cells.zarr"
    if request.param == "h5ad":
        data.write_h5ad(folder / "cells.h5ad")
        given = folder / "cells.h5ad"
    run = daskumap.fit(daskumap.source(given, pca=AXES), folder / "run.zarr", **QUICK)
    genes = data.var["highly_variable"].to_numpy()
    return data, run, PCA(AXES, svd_solver="full").fit(data.X.toarray().astype(np.float64)[:, genes])


def rows_of(run, new):
    """Return the rows as a transform has them."""
    source = make_transform_request(new, run.model()).source
    return source.read(0, source.shape[0])


def on_axes(fitted, matrix):
    data, _, pca = fitted
    return pca.transform(matrix.toarray().astype(np.float64)[:, data.var["highly_variable"].to_numpy()])


def same_up_to_sign(found, expected):
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=2e-5)


def test_new_cells_go_on_the_axes_of_the_run(fitted):
    run, new = fitted[1], make(2, 90)
    expected = on_axes(fitted, new.X)
    new.obsm["X_pca"] = np.random.default_rng(1).normal(size=(90, AXES))  # on axes of its own
    same_up_to_sign(rows_of(run, new), expected)
    same_up_to_sign(rows_of(run, daskumap.source(new, pca=AXES)), expected)
    same_up_to_sign(rows_of(run, new.X), expected)
    same_up_to_sign(rows_of(run, new.X.toarray()), expected)


def test_genes_are_found_by_name(fitted, tmp_path):
    run, new = fitted[1], make(2, 90)
    before = rows_of(run, new)
    extra = anndata.AnnData(scipy.sparse.csr_matrix(np.ones((90, 2), np.float32)), new.obs)
    extra.var_names = ["other", "more"]
    moved = anndata.concat([extra, new[:, ::-1]], axis=1)
    np.testing.assert_array_equal(rows_of(run, moved), before)
    moved.X = scipy.sparse.csr_matrix(moved.X)
    moved.write_zarr(tmp_path / "new.zarr")
    np.testing.assert_array_equal(rows_of(run, tmp_path / "new.zarr"), before)
    with pytest.raises(SourceError, match=r"lacks 2 of the 45 genes.*: gene 1, gene 2\. Give"):
        rows_of(run, new[:, [0, *range(3, GENES)]].copy())
    twice = new.copy()
    twice.var_names = ["gene 1", *twice.var_names[1:]]
    twice = twice[:, ::-1].copy()
    with pytest.raises(SourceError, match=r"Two genes of the AnnData.*are called 'gene 1'"):
        rows_of(run, twice)
    with pytest.raises(SourceError, match=r"has 59 columns, and 60 were fitted"):
        rows_of(run, new.X[:, 1:])


def test_bits_depend_on_no_blocks(fitted):
    source = make_transform_request(make(2, 90), fitted[1].model()).source
    whole = source.read(0, 90)
    np.testing.assert_array_equal(np.concatenate([source.read(n, n + 9) for n in range(0, 90, 9)]), whole)
    part = make_transform_request(daskumap.source(make(2, 90), rows=[10, 40]), fitted[1].model()).source
    np.testing.assert_array_equal(part.read(0, 30), whole[10:40])


def test_fitted_cells_come_to_the_rows_that_were_fitted(fitted, tmp_path):
    data, run, _ = fitted
    np.testing.assert_array_equal(rows_of(run, data), run.store.read("input/rows"))
    placed = daskumap.transform(run, data, tmp_path / "placed.zarr", **PLACED)
    assert placed.report["placed"]["known"] == CELLS
    assert placed.labels["obs_names"][:3].tolist() == data.obs_names[:3].tolist()


def test_what_is_made_of_a_run_has_its_axes(fitted, tmp_path):
    run, new = fitted[1], make(2, 30)
    before = rows_of(run, new)
    saved = run.save(tmp_path / "model.zarr")
    np.testing.assert_array_equal(rows_of(saved, new), before)
    again = daskumap.fit(run, tmp_path / "again.zarr", min_dist=0.5, **QUICK)
    np.testing.assert_array_equal(rows_of(daskumap.open(again.path), new), before)
    assert daskumap.verify(again.path) == {}


def test_a_run_says_what_it_read(fitted):
    run = fitted[1]
    read = daskumap.open(run.path).report["reads"]
    assert (read["element"], read["axes"], read["columns"]) == ("X", AXES, 45)
    assert "rows are X of " in str(run)


def test_other_numbers_of_an_anndata_are_read_again_of_new_cells():
    data, new = make(1), make(2, 90)
    new.obsm["X_pca"] = np.zeros((90, AXES))
    run = daskumap.fit(daskumap.source(data, use_rep="X_other"), **QUICK)
    np.testing.assert_array_equal(rows_of(run, new), new.obsm["X_other"])
    np.testing.assert_array_equal(rows_of(run, daskumap.source(new, use_rep="X_pca")), 0)
    assert run.report["reads"]["element"] == "obsm/X_other"
    assert "rows are obsm/X_other of the AnnData, as asked" in str(run)
    del new.obsm["X_other"]
    with pytest.raises(SourceError, match="has no obsm/X_other"):
        rows_of(run, new)


def test_columns_of_obs(fitted):
    data, run, _ = fitted
    if run.report["reads"]["of"] == "the AnnData":  # which no other process finds
        return
    run = daskumap.open(run.path)
    embedding, columns = map_of(run)
    kinds = [None if kind != kind else kind for kind in data.obs["kind"].tolist()]
    assert columns["kind"][:].tolist() == kinds
    np.testing.assert_array_equal(columns["depth"][:], data.obs["depth"])
    np.testing.assert_array_equal(columns["donor"][:6], [np.nan, 1, 2] * 2)
    assert list(columns) == ["obs_names"]
    assert coloured("kind", CELLS, columns, LIGHT).names == tuple(sorted(KINDS))
    with pytest.raises(FileNotFoundError, match="The run has the columns obs_names, kind, depth, donor"):
        coloured("type", CELLS, columns, LIGHT)
    measured = daskumap.evaluate(data.obsm["X_other"], run, "kind", probe_rows=50, sample_rows=60)
    assert 0 <= measured["knn_accuracy"].value <= 1
    assert daskumap.evaluate(data, embedding, "kind", probe_rows=50, sample_rows=60).keys() == measured.keys()
    with pytest.raises(FileNotFoundError, match=r"labels is 'type'.*obs_names, kind, depth, donor"):
        daskumap.evaluate(data, run, "type")


def test_labels_are_taken_along_where_they_are_asked_for(tmp_path):
    data = make(1)
    given = daskumap.source(data, labels=["kind", "donor"], pca=AXES)
    run = daskumap.open(daskumap.fit(given, tmp_path / "run.zarr", **QUICK).path)
    assert list(run.labels) == ["obs_names", "kind", "donor"]
    assert run.labels["kind"][:2].tolist() == [None, data.obs["kind"].iloc[1]]
    with pytest.raises(ParameterError, match=r"has no obs/type\. obs has kind, depth, donor"):
        daskumap.source(data, labels="type")


def test_columns_of_other_cells_are_refused(tmp_path):
    data = make(1)
    data.write_zarr(tmp_path / "cells.zarr")
    run = daskumap.fit(tmp_path / "cells.zarr", tmp_path / "run.zarr", **QUICK)
    data[::-1].copy().write_zarr(tmp_path / "cells.zarr")
    with pytest.raises(ParameterError, match="has other cells than the run"):
        run.columns["kind"]


class Heard:
    """What is heard of progress."""

    def __init__(self):
        self.steps = {}

    def start(self, stage, tasks, done):
        self.name = stage
        self.steps[stage] = [tasks, done]

    def advance(self, done):
        self.steps[self.name][1] = done

    def finish(self):
        pass


def test_axes_are_in_the_plan_and_in_the_progress(tmp_path):
    data = daskumap.source(make(1), pca=AXES)
    planned = daskumap.plan(data)
    first = planned.stages[0]
    assert first.name == "input.axes"
    assert "input.axes" in str(planned)
    assert planned.peak_bytes(first) > first.memory["blocks"] > 0
    assert next(stage.name for stage in daskumap.plan(make(1).obsm["X_other"]).stages) != "input.axes"
    heard = Heard()
    daskumap.fit(data, tmp_path / "run.zarr", **{**QUICK, "progress": heard})
    assert list(heard.steps)[:2] == ["input.axes", "input.rows"]
    assert heard.steps["input.rows"] == [1, 1]


def test_a_run_of_an_anndata_goes_on(tmp_path):
    data = make(1)
    data.obsm["X_pca"] = data.obsm["X_other"]
    data.write_zarr(tmp_path / "cells.zarr")
    first = daskumap.fit(tmp_path / "cells.zarr", tmp_path / "run.zarr", **QUICK)
    again = daskumap.fit(tmp_path / "cells.zarr", tmp_path / "run.zarr", **QUICK)
    assert again.store.about["id"] == first.store.about["id"]
    with pytest.raises(ParameterError, match="is an AnnData, which a run store would not go with"):
        daskumap.fit(tmp_path / "cells.zarr", tmp_path / "cells.zarr", **QUICK)
