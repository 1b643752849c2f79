"""Inverse: what it promises and refuses, and how good the rows of points are."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from scipy.spatial import cKDTree
from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsClassifier

import daskumap
from daskumap.cli.main import main
from daskumap.errors import ParameterError, PlanError, RunMismatchError, SourceError, StoreError
from daskumap.testing.datasets import digits

QUIET = {"client": "sequential", "progress": False}
FIT = {"n_epochs": 20, "random_state": 1, "report": False, **QUIET}


@pytest.fixture(scope="module")
def run(small):
    return daskumap.fit(small, **FIT)


def rows_of(run, points, **options):
    return run.inverse_transform(points, **{**QUIET, **options}).rows[:]


# How good it is.


def test_neighbours_on_the_map_are_found_again():
    """umap-learn's own test: of the 5 nearest, 3 are among the 10 nearest of the row of their centre."""
    rows = load_iris().data
    run = daskumap.fit(rows, n_neighbors=10, min_dist=0.01, random_state=42, report=False, **QUIET)
    places = run.embedding[:]
    near = cKDTree(places).query(places[1:150:20], 5)[1]
    again = cKDTree(rows).query(rows_of(run, places[near].mean(axis=1)), 10)[1]
    found = [len(np.intersect1d(*both)) for both in zip(near, again, strict=True)]
    assert min(found) >= 4
    assert np.mean(found) >= 4.5


def test_digits_are_read_as_the_same_digit():
    """Those that were not fitted, by way of the map."""
    order = np.random.default_rng(0).permutation(1797)
    rows, labels = digits().rows()[order], digits().labels()[order]
    run = daskumap.fit(rows[599:], **{**FIT, "n_epochs": 100})
    found = rows_of(run, run.transform(rows[:599], **QUIET).embedding)
    assert KNeighborsClassifier(5).fit(rows[599:], labels[599:]).score(found, labels[:599]) >= 0.95
    # Nearer to the digit than any other digit of its kind is, on average.
    away = [
        np.linalg.norm(rows[599:] - row, axis=1)[labels[599:] == label].mean()
        for row, label in zip(rows[:599], labels[:599], strict=True)
    ]
    assert (np.linalg.norm(found - rows[:599], axis=1) < away).mean() > 0.9


def test_fitted_rows_are_about_themselves(run, small):
    found = rows_of(run, run.embedding)
    off = np.linalg.norm(found - small, axis=1) / np.linalg.norm(small - small.mean(axis=0), axis=1).mean()
    assert np.median(off) < 0.1


# What it takes and refuses.


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_metrics_with_a_gradient(small, metric):
    run = daskumap.fit(small, metric=metric, **FIT)
    found = rows_of(run, run.embedding[:50])
    assert np.sqrt(((found - small[:50]) ** 2).mean()) < 0.2 * small.std()


def test_a_metric_without_gradient_is_refused(small):
    run = daskumap.fit(small, metric="dot", **FIT)
    with pytest.raises(ParameterError, match=r"has no gradient\. Allowed: braycurtis.* fit with another"):
        rows_of(run, run.embedding)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((3, 3)), r"The points have 3 columns, and the map in .* has 2\."),
        (np.where(np.arange(50)[:, None] == 7, np.nan, np.zeros((50, 2))), r"1 of 50 rows .* row 7\."),
        (np.full((1, 2), np.inf), "1 of 1 rows hold NaN or infinity"),
        (np.zeros(2), "2 are needed"),
    ],
)
def test_points_that_are_refused(run, tmp_path, points, message):
    with pytest.raises(SourceError, match=message):
        run.inverse_transform(points, tmp_path / "out.zarr", **QUIET)
    assert not (tmp_path / "out.zarr" / "inverted").exists()


def test_values_come_back_in_their_unit(small):
    """Where float32 would make rows equal, in float64; else in float32."""
    for change, back in (
        (lambda X: X.astype(np.float64) + 1e9, lambda X: X - 1e9),
        (lambda X: X * np.float32(1e30), lambda X: X / 1e30),
        (lambda X: np.rint(X * 100).astype(np.int64) + 2**50, lambda X: (X - 2**50) / 100),
    ):
        run = daskumap.fit(change(small), **FIT)
        found = run.inverse_transform(run.embedding[:50], **QUIET).rows
        assert found.dtype == np.float64
        assert np.sqrt(((back(found[:]) - small[:50]) ** 2).mean()) < 0.2 * small.std()
    assert rows_of(daskumap.fit(small.astype(np.float64), **FIT), np.zeros((1, 2))).dtype == np.float32


def test_far_points_are_rows_too(run, small):
    found = rows_of(run, np.array([[1e4, 1e4], [1e30, 0], [-3e38, 3e38]]))
    assert (found >= small.min(axis=0)).all()
    assert (found <= small.max(axis=0)).all()


def test_rows_without_a_place_are_no_neighbours(small):
    rows = np.concatenate([small, small[:1] + 1e5])
    run = daskumap.fit(rows, disconnection_distance=1e3, **FIT)
    assert np.isnan(run.embedding[400]).all()
    assert np.abs(rows_of(run, run.embedding[:400])).max() < 1e3
    lost = daskumap.fit(small, disconnection_distance=1e-9, **FIT).inverse_transform(
        np.zeros((2, 2)), **QUIET
    )
    assert np.isnan(lost.rows[:]).all()
    assert lost.report["inverted"] == {"points": 2, "neighbors": 8, "epochs": 6, "alone": 2}


def test_copies_count_once(small):
    """A row that is there a hundred times is one neighbour."""
    rows = np.concatenate([small, np.repeat(small[:1], 100, axis=0)])
    run = daskumap.fit(rows, unique=True, **FIT)
    np.testing.assert_array_equal(rows_of(run, run.embedding[400:402]), rows_of(run, run.embedding[[0, 0]]))
    assert (rows_of(run, run.embedding[:1] + 1e-3) != small[0]).any()


def test_few_rows_and_columns(small):
    run = daskumap.fit(small[:5, :1], n_neighbors=3, **FIT)
    np.testing.assert_array_equal(rows_of(run, run.embedding), small[:5, :1])
    for n_components in (1, 3):
        run = daskumap.fit(small, n_components=n_components, **FIT)
        assert rows_of(run, run.embedding[:7]).shape == (7, 8)


def test_without_epochs_rows_stay_where_they_start(small):
    run = daskumap.fit(small, **{**FIT, "n_epochs": 1})
    made = run.inverse_transform(run.embedding[:5], **QUIET)
    assert str(made).startswith("5 points became rows by 8 neighbours and 0 epochs; 0 have none")


def test_a_run_that_kept_its_embedding_alone(small):
    run = daskumap.fit(small, keep="embedding", **FIT)
    with pytest.raises(StoreError, match="kept its embedding alone"):
        rows_of(run, run.embedding)


def test_rows_that_changed_since_the_fit_are_refused(small, write, tmp_path):
    run = daskumap.fit(write(small), tmp_path / "run.zarr", **FIT)
    other = small.copy()
    other[1] += 1  # no row of those by which an input is known at once
    with pytest.raises(RunMismatchError, match=r"not those that the run in .* was fitted to"):
        rows_of(run, run.embedding[:5], fitted=write(other, "other.zarr"))


def test_what_is_no_run(run, small, tmp_path):
    out = tmp_path / "out.zarr"
    made = run.inverse_transform(run.embedding[:5], out, **QUIET)
    assert repr(made).startswith("<daskumap.Inverted ")
    with pytest.raises(StoreError, match="holds rows of points of a map"):
        daskumap.inverse_transform(out, np.zeros((1, 2)), **QUIET)
    with pytest.raises(RunMismatchError):
        run.transform(small[:5], out, **QUIET)


def test_the_estimator(small):
    model = daskumap.UMAP(n_epochs=20, random_state=1).fit(small)
    expected = rows_of(model._run, model.embedding_[:9])
    for points in (model.embedding_[:9], model.embedding_[:9].tolist()):
        np.testing.assert_array_equal(model.inverse_transform(points), expected)


def test_the_command(small, write, tmp_path, capsys):
    place, out = str(tmp_path / "run.zarr"), str(tmp_path / "out.zarr")
    run = daskumap.fit(small, place, **FIT)
    points, expected = str(write(run.embedding[:30], "points.zarr")), rows_of(run, run.embedding[:30])
    assert main(["inverse", place, points, out, "--scheduler", "sequential"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith(f"inverted             {out}/inverted\n")
    np.testing.assert_array_equal(daskumap.open(out).rows[:], expected)
    assert main(["status", out, "--json"]) == 0
    assert '"inverse.descend": 1' in capsys.readouterr().out
    assert main(["verify", out]) == 0
    assert main(["plan", points, "--run", place, "--inverse", "--set", "calibrate=false"]) == 0
    assert "from the map of 400 rows" in capsys.readouterr().out
    assert main(["resume", out, "--quiet"]) == 0


# What it takes.


def inverse_apart(place, points, out, memory):
    return daskumap.inverse_transform(place, points, out, memory=memory, **QUIET).report["steps"]


def test_memory_is_as_planned(clustered, tmp_path):
    """In a process without what other tests left in memory, with little more than it takes empty."""
    place, out = tmp_path / "run.zarr", tmp_path / "out.zarr"
    run = daskumap.fit(clustered, place, **FIT)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        steps = process.submit(inverse_apart, place, run.embedding[:], out, "500MB").result()
    assert list(steps) == ["inverse.scan", "inverse.gather", "inverse.descend"]
    assert all(0 < step["peak_bytes"] <= step["projected_bytes"] for step in steps.values())


def test_the_plan_of_few_points_is_small(run):
    few, many = (daskumap.plan(run.embedding[:n], run, inverse=True, calibrate=False) for n in (1, 400))
    assert few.disk_bytes < many.disk_bytes
    with pytest.raises(ParameterError, match="name the run whose map"):
        daskumap.plan(run.embedding, inverse=True)
    with pytest.raises(PlanError, match=r"Stage 'inverse\.\w+' needs .* memory is 0\.30 GB"):
        rows_of(run, run.embedding, memory="300MB")
