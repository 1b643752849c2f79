"""Maps into AnnData as scanpy lays them out, by what anndata reads of it afterwards."""

import contextlib
import json
import os
import shutil

import numpy as np
import pytest
import scipy.sparse
import zarr

import daskumap
import daskumap.scanpy
from daskumap.cli.main import main
from daskumap.errors import ParameterError, StoreError
from daskumap.exports import swap

anndata = pytest.importorskip("anndata")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Consolidated metadata"),
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2"),
]
ROWS = 220
QUICK = {"client": "sequential", "report": False, "progress": False, "n_epochs": 3, "random_state": 4}
KINDS = ("v2", "v3", "not consolidated", "h5ad")
UMAP = ("obsm/X_umap", "uns/umap")
GRAPH = ("obsp/connectivities", "obsp/distances", "uns/neighbors")


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(1)
    data = anndata.AnnData(scipy.sparse.random(ROWS, 60, 0.2, format="csr", dtype=np.float32, random_state=3))
    data.obs_names = [f"cell-{number}" for number in range(ROWS)]
    data.obsm["X_pca"] = rng.normal(size=(ROWS, 8)).astype(np.float32)
    return data, daskumap.fit(data, **QUICK)


def write(data, folder, kind):
    path = folder / ("cells.h5ad" if kind == "h5ad" else "cells.zarr")
    if kind == "h5ad":
        data.write_h5ad(path)
        return path
    with anndata.settings.override(zarr_write_format=2 if kind == "v2" else 3):
        data.write_zarr(path)
    if kind == "v2":
        zarr.consolidate_metadata(path)
    if kind == "not consolidated":
        document = json.loads((path / "zarr.json").read_text())
        document.pop("consolidated_metadata", None)
        (path / "zarr.json").write_text(json.dumps(document))
    return path


def read(path):
    return anndata.read_h5ad(path) if path.suffix == ".h5ad" else anndata.read_zarr(path)


def is_consolidated(path):
    if (path / ".zmetadata").exists():
        return True
    return "consolidated_metadata" in json.loads((path / "zarr.json").read_text())


def check_map(data, run, obsm="X_umap", uns="umap"):
    np.testing.assert_array_equal(data.obsm[obsm], run.embedding[:])
    a, b = run.curve()
    assert data.uns[uns]["params"] == {"a": a, "b": b, "random_state": 4}


def check_graph(data, run, prefix="", key="neighbors"):
    indices, distances = run.knn()
    found = data.obsp[f"{prefix}distances"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.indices.reshape(indices.shape), indices)
    np.testing.assert_array_equal(found.data.reshape(indices.shape), distances)
    assert (data.obsp[f"{prefix}connectivities"] != run.graph()).nnz == 0
    about = data.uns[key]
    assert about["connectivities_key"] == f"{prefix}connectivities"
    assert about["distances_key"] == f"{prefix}distances"
    assert {"n_neighbors": 15, "method": "umap", "random_state": 4, "metric": "euclidean"}.items() <= about[
        "params"
    ].items()


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_and_its_graph_get_into_an_anndata(made, tmp_path, kind):
    data, run = made
    path = write(data, tmp_path, kind)
    consolidated = kind != "h5ad" and is_consolidated(path)
    daskumap.export(run, path)
    after = read(path)
    check_map(after, run)
    assert not after.obsp
    assert kind == "h5ad" or is_consolidated(path) == consolidated
    with pytest.raises(ParameterError, match=r"has obsm/X_umap, uns/umap already\. Pass overwrite"):
        daskumap.export(run, path, graph=True)
    assert not read(path).obsp
    daskumap.export(run, path, graph=True, overwrite=True)
    daskumap.export(run, path, graph=True, key_added="again")
    after = read(path)
    check_map(after, run)
    check_graph(after, run)
    check_map(after, run, "again", "again")
    check_graph(after, run, "again_neighbors_", "again_neighbors")
    assert (after.X != data.X).nnz == 0
    assert after.obs_names.equals(data.obs_names)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_anndata_in_memory(made):
    data, run = made[0].copy(), made[1]
    assert daskumap.export(run, data, graph=True) is data
    check_map(data, run)
    check_graph(data, run)
    with pytest.raises(ParameterError, match="has obsm/X_umap"):
        daskumap.export(run, data)


def test_other_cells_are_refused(made, tmp_path):
    data, run = made
    fewer, moved = data[:100].copy(), data[::-1].copy()
    for other, message in (
        (fewer, "has 100 cells, and the map has 220"),
        (moved, "cell 0 is 'cell-219' there"),
    ):
        with pytest.raises(ParameterError, match=message):
            daskumap.export(run, other)
        for kind in ("v3", "h5ad"):
            folder = tmp_path / f"{len(other)}{message[4:8].strip()}{kind}"
            folder.mkdir()
            path = write(other, folder, kind)
            with pytest.raises(ParameterError, match=message):
                daskumap.export(run, path)
            assert not set(UMAP) & set(anndata_keys(path))


def anndata_keys(path):
    data = read(path)
    return [f"{part}/{name}" for part in ("obsm", "obsp", "uns") for name in getattr(data, part)]


class Killed(BaseException):
    """As a signal that nothing handles."""


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["v2", "v3"])
@pytest.mark.parametrize("moment", range(8))
def test_a_kill_leaves_the_old_or_the_new_or_none(made, tmp_path, monkeypatch, kind, moment):
    """What is overwritten has another shape: new chunks under old metadata would be read as nonsense."""
    data, run = made[0].copy(), made[1]
    old = np.arange(3.0 * ROWS).reshape(ROWS, 3)
    data.obsm["X_umap"] = old
    path = write(data, tmp_path, kind)
    calls = iter(range(100))

    def counted(function):
        def call(*arguments, **options):
            if next(calls) == moment:
                raise Killed
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(os, "rename", counted(os.rename))
    for name in ("_hide", "_exchange", "_swap", "_write"):
        monkeypatch.setattr(swap, name, counted(getattr(swap, name)))
    monkeypatch.setattr(zarr, "consolidate_metadata", counted(zarr.consolidate_metadata))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # A kill cleans nothing up.
    with contextlib.suppress(Killed):
        daskumap.export(run, path, graph=True, overwrite=True)
    monkeypatch.undo()
    after = read(path)
    if "X_umap" in after.obsm:
        found = after.obsm["X_umap"]
        assert np.array_equal(found, old) or np.array_equal(found, run.embedding[:])
    daskumap.export(run, path, graph=True, overwrite=True)
    check_map(read(path), run)
    check_graph(read(path), run)


def test_without_an_exchange_of_folders(made, tmp_path, monkeypatch):
    monkeypatch.setattr(swap, "_swap", lambda *_: False)
    path = write(made[0], tmp_path, "v3")
    for _ in range(2):
        daskumap.export(made[1], path, overwrite=True)
    check_map(read(path), made[1])


def test_a_bucket(made, tmp_path):
    import fsspec

    path = write(made[0], tmp_path, "v3")
    url = f"memory://{tmp_path.name}/cells.zarr"
    fsspec.filesystem("memory").put(str(path), url, recursive=True)
    daskumap.export(made[1], url, graph=True)
    daskumap.export(made[1], url, overwrite=True)
    fsspec.filesystem("memory").get(url, str(tmp_path / "back.zarr"), recursive=True)
    after = read(tmp_path / "back.zarr")
    check_map(after, made[1])
    check_graph(after, made[1])


def test_a_full_disk_leaves_the_file(made, tmp_path, monkeypatch):
    path = write(made[0], tmp_path, "h5ad")
    before = path.read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(StoreError, match=r"is written as a copy.*are free\. Free some, or use Zarr"):
        daskumap.export(made[1], path)
    assert path.read_bytes() == before


# -- for users of scanpy


def test_one_call_as_scanpy_has_it(made):
    data = made[0].copy()
    assert daskumap.scanpy.umap(data, **QUICK) is None
    check_graph(data, made[1])
    assert data.obsm["X_umap"].shape == (ROWS, 2)
    assert data.uns["umap"]["params"]["a"] == pytest.approx(0.583, abs=1e-3)  # min_dist 0.5, as scanpy's
    again = daskumap.scanpy.umap(
        data, 10, 5, use_rep="X_pca", key_added="small", copy=True, n_components=3, **QUICK
    )
    assert "small" not in data.obsm
    assert again.obsm["small"].shape == (ROWS, 3)
    params = again.uns["small_neighbors"]["params"]
    assert (params["use_rep"], params["n_pcs"], params["n_neighbors"]) == ("X_pca", 5, 10)
    assert again.obsp["small_neighbors_distances"].nnz == 9 * ROWS
    np.testing.assert_array_equal(again.obsm["X_umap"], data.obsm["X_umap"])


def test_neighbours_alone_and_of_a_backed_file(made, tmp_path):
    path = write(made[0], tmp_path, "h5ad")
    backed = anndata.read_h5ad(path, backed="r")
    options = {name: value for name, value in QUICK.items() if name != "n_epochs"}
    daskumap.scanpy.neighbors(backed, key_added="near", **options)
    check_graph(backed, made[1], "near_", "near")
    assert not set(backed.obsm) - {"X_pca"}
    with pytest.raises(ParameterError, match="backed by a file, of which there is no copy"):
        daskumap.scanpy.neighbors(backed, copy=True)
    with pytest.raises(ParameterError, match=r"adata is a str; it must be an AnnData\. Of a path"):
        daskumap.scanpy.umap("cells.h5ad")


def test_a_view_becomes_actual(made):
    view = made[0][:150]
    daskumap.scanpy.umap(view, **QUICK)
    assert not view.is_view
    assert view.obsm["X_umap"].shape == (150, 2)
    assert "X_umap" not in made[0].obsm


def test_write_back_of_the_command(made, tmp_path, monkeypatch, capsys):
    data, run = made
    path = write(data, tmp_path, "v3")
    monkeypatch.chdir(tmp_path)
    fits = []

    def quick(*args, **options):
        fits.append(args)
        return daskumap_fit(*args, **options | QUICK)

    daskumap_fit = daskumap.fit
    monkeypatch.setattr(daskumap, "fit", quick)
    assert main(["fit", path.name, "--write-back", "--graph"]) == 0
    assert capsys.readouterr().out.endswith("written back         cells.zarr/obsm/X_umap\n")
    check_map(read(path), run)
    check_graph(read(path), run)
    # What cannot be written back is known before the fit.
    assert main(["fit", path.name, "--write-back"]) == 2
    assert "has obsm/X_umap, uns/umap already" in capsys.readouterr().err
    assert main(["fit", path.name]) == 2
    assert "RUN is missing" in capsys.readouterr().err
    assert main(["fit", path.name, "map.zarr", "--graph"]) == 2
    assert "are about --write-back" in capsys.readouterr().err
    assert main(["fit", "cells.zarr/obsm/X_pca", "--write-back"]) == 2
    assert "is no AnnData" in capsys.readouterr().err
    assert len(fits) == 1
    # Beside a run store of its own, under another name.
    assert main(["fit", path.name, "map.zarr", "--write-back", "--key-added", "again", "--quiet"]) == 0
    check_map(read(path), daskumap.open("map.zarr"), "again", "again")
    assert main(["fit", path.name, "--write-back", "--overwrite", "--quiet"]) == 0


def test_the_demo_stays_out_of_an_anndata(made, tmp_path, capsys):
    path = write(made[0], tmp_path, "v3")
    before = sorted(path.iterdir())
    for folder in (path, path / "demo"):
        assert main(["demo", str(folder)]) == 2
        assert "cells.zarr is a Zarr array or group" in capsys.readouterr().err
    assert sorted(path.iterdir()) == before
