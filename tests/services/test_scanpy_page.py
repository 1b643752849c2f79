"""The page for biologists runs as it stands, with scanpy; what it leaves is laid out as scanpy does it."""

import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from test_vectors_page import blocks_of

from daskumap.cli.main import main

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # of scanpy and of what it draws with
]

PAGE = Path(__file__).parents[2] / "docs" / "biologists.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Run the page in a fresh folder; return its names, and the folder."""
    pytest.importorskip("matplotlib").use("Agg")
    folder, before = tmp_path_factory.mktemp("page"), Path.cwd()
    names, commands = {"__name__": PAGE.name}, 0
    os.chdir(folder)
    try:
        for language, line, text in blocks_of(PAGE):
            if language == "python":
                exec(compile("\n" * line + text, str(PAGE), "exec"), names)
                continue
            for command in text.splitlines():
                words = shlex.split(command)
                if words[0] != "pip":
                    assert words[0] == "daskumap"
                    assert main(words[1:]) == 0, command
                    commands += 1
    finally:
        os.chdir(before)
    assert commands == 2
    return names, folder


def test_clusters_are_the_kinds(page):
    from sklearn.metrics import adjusted_rand_score

    cells = page[0]["cells"]
    for key in ("leiden", "again_leiden"):
        assert adjusted_rand_score(cells.obs["kind"], cells.obs[key]) > 0.5
    groups = cells.obs["leiden"].nunique()
    assert cells.uns["paga"]["connectivities"].shape == (groups, groups)


def test_pictures_have_colours(page):
    from matplotlib.image import imread

    for name in ("map.png", "umap.png", "again.png"):
        picture = imread(page[1] / name)[..., :3]
        spread = picture.max(axis=-1) - picture.min(axis=-1)
        assert (spread > 0.3).sum() > 500, name


def test_what_is_stored_is_laid_out_as_scanpy_does_it(page):
    import anndata
    import scanpy

    ours = anndata.read_zarr(page[1] / "cells.zarr")
    theirs = anndata.AnnData(ours.X.copy(), obs=ours.obs[["kind"]])
    scanpy.pp.pca(theirs, n_comps=50)
    scanpy.pp.neighbors(theirs, random_state=42)
    scanpy.tl.umap(theirs, random_state=42)
    assert set(ours.obsp) == set(theirs.obsp)
    for key, matrix in theirs.obsp.items():
        assert type(ours.obsp[key]) is type(matrix)
        assert ours.obsp[key].dtype == matrix.dtype, key
        assert ours.obsp[key].shape == matrix.shape
    assert ours.obsm["X_umap"].dtype == theirs.obsm["X_umap"].dtype
    assert ours.obsm["X_umap"].shape == theirs.obsm["X_umap"].shape
    for key in ("connectivities_key", "distances_key"):
        assert ours.uns["neighbors"][key] == theirs.uns["neighbors"][key]
    assert plain(ours.uns["neighbors"]["params"]) == plain(theirs.uns["neighbors"]["params"])
    got, expected = plain(ours.uns["umap"]["params"]), plain(theirs.uns["umap"]["params"])
    assert got.keys() == expected.keys()
    assert got == pytest.approx(expected, rel=1e-3)
    # Both leave a cell's distance to itself out, and both have the same neighbours but for ties.
    shared = (
        ours.obsp["connectivities"].astype(bool).multiply(theirs.obsp["connectivities"].astype(bool))
    ).nnz
    assert shared > 0.9 * theirs.obsp["connectivities"].nnz


def plain(params):
    """Return parameters as Python's own values."""
    return {name: np.asarray(value).item() for name, value in params.items()}


def test_daskumap_alone_needs_no_scanpy():
    import subprocess

    code = "import sys, daskumap.scanpy; sys.exit('scanpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
