"""The pictures of docs/plots.md: one data set drawn by `umap.plot`, by scanpy and by daskumap.

All three draw the same places, those of daskumap, so that what differs is the drawing. Needs
`umap-learn[plot]`, scanpy and daskumap's extra `plot`:

    python benchmarks/plots_beside.py [daskumap] [umap] [scanpy]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

import daskumap
from daskumap import plot
from daskumap.testing.datasets import digits

FOLDER = Path(__file__).parents[1] / "docs" / "plots"
# 6 inches at this are 540 pixels: below 150 kB a picture.
DPI = 90


def main(tools):
    """Draw scikit-learn's digits with each tool, in a process of its own or in this one."""
    FOLDER.mkdir(exist_ok=True)
    data = digits()
    rows, classes = data.rows(), np.asarray(data.labels(0, data.shape[0])).astype(str)
    run = daskumap.fit(rows, random_state=42, report=False, progress=False)
    if "daskumap" in tools:
        with_daskumap(run, classes)
    if "umap" in tools:
        with_umap(run, classes)
    if "scanpy" in tools:
        with_scanpy(run, rows, classes)


def with_daskumap(run, classes):
    """Draw with `daskumap.plot`: classes, density, edges, and what was measured of each row."""
    save(plot.points(run, classes).figure, "daskumap.png")
    save(plot.density(run, theme="dark").figure, "density.png")
    save(plot.connectivity(run).figure, "connectivity.png")
    save(plot.diagnostic(run), "diagnostic.png")


def with_umap(run, classes):
    """Draw with `umap.plot.points`, which takes a fitted object."""
    import umap.plot

    save(umap.plot.points(run.to_umap(), labels=classes, width=540, height=540).figure, "umap-plot.png")


def with_scanpy(run, rows, classes):
    """Draw with `scanpy.pl.umap`, which takes an AnnData."""
    import anndata
    import pandas
    import scanpy

    cells = anndata.AnnData(rows, obs=pandas.DataFrame({"class": pandas.Categorical(classes)}))
    cells.obsm["X_umap"] = run.embedding[:]
    save(scanpy.pl.umap(cells, color="class", show=False, return_fig=True), "scanpy.png")


def save(figure, name):
    """Write a figure with as few colours as are seen."""
    from PIL import Image

    path = FOLDER / name
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["daskumap", "umap", "scanpy"])
