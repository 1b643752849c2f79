"""What kernels do to a map, as docs/geometry.md says: kept neighbours and silhouettes, no clusterer."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

from daskumap.testing.datasets import digits

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))

import geometry_maps  # noqa: E402 - scripts, found once their folder is on the path
import geometry_pictures  # noqa: E402
import geometry_scores  # noqa: E402
import information_geometry  # noqa: E402

IRIS = [geometry_maps.Graphs(load_iris().data, seed, n_epochs=200) for seed in (0, 1)]


def test_weights_keep_neighbours():
    rows = digits().rows()
    graphs = geometry_maps.Graphs(rows, 0, n_epochs=50)
    judge = geometry_scores.Judge(rows, digits().labels(), 13, "scikit-learn")
    kept = {
        kernel: judge.preservation(geometry_maps.daskumap_layout(graphs, kernel))
        for kernel in ("exponential", "constant")
    }
    # .509 and .465; with all epochs .545 and .477, within .002 whatever the seed.
    assert kept["exponential"] > kept["constant"] + 0.03


def test_kernels_that_join_more_draw_iris_closer_together():
    found = load_iris()
    setosa = np.where(found.target == 0, 0, 1)
    apart = {}
    for kernel in ("exponential", "morse", "constant"):
        places = [geometry_maps.daskumap_layout(one, kernel) for one in IRIS]
        seeds = [geometry_scores.scores(one, found.target, setosa)["silhouette"] for one in places]
        apart[kernel] = np.mean(seeds)
    # .90, .93 and .94, whose order is the paper's; the last two are within the spread of the seeds.
    assert apart["exponential"] < min(apart["morse"], apart["constant"])


@pytest.mark.slow
def test_a_quick_version_of_all_tables_and_pictures(tmp_path, capsys):
    words = ["iris", "digits", "pictures", "--quick", "--json", str(tmp_path / "cells.json")]
    assert information_geometry.main([*words, "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for kernel in geometry_maps.KERNELS:
        assert f"| {kernel} | as printed |" in said
        assert f"| {kernel} | daskumap |" in said
    assert said.count("|  | umap-learn |") == 12
    drawn = {path.name: path.read_bytes()[:4] for path in tmp_path.glob("*.png")}
    curves = {f"dynamics-{line}-{column}.png" for line in (1, 2, 3) for column in geometry_pictures.COLUMNS}
    assert drawn.keys() == curves | {f"digits-min-dist-{d}.png" for d in (0.01, 0.1, 0.3)}
    assert set(drawn.values()) == {b"\x89PNG"}
