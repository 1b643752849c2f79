"""The measures of benchmarks/parametric.py, each against another implementation or its definition."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness

from daskumap.testing.datasets import digits

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))

import parametric  # noqa: E402 - scripts, found once their folder is on the path
import parametric_measures as measures  # noqa: E402
import parametric_tables as tables  # noqa: E402

N = 240
CURVE = (1.577, 0.895)


@pytest.fixture(scope="module")
def rows():
    """Return digits without ties, which other implementations break in other ways."""
    return digits().rows()[:N] + np.random.default_rng(1).uniform(0, 0.01, (N, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def places(rows):
    """Some map that is neither perfect nor chance."""
    centred = rows - rows.mean(axis=0)
    noise = np.random.default_rng(0).normal(size=(N, 2))
    return (centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T + noise).astype(np.float32)


def test_ranks_are_those_of_sorted_distances(rows):
    queries = np.array([5, 0, N - 1])
    expected = np.argsort(np.argsort(cdist(rows[queries], rows), axis=1, kind="stable"), axis=1)
    assert (measures.ranks(rows, queries) == expected).all()


def test_a_twin_does_not_take_the_rank_of_the_query(rows):
    twins = np.repeat(rows[:3], 2, axis=0)
    found = measures.ranks(twins, np.arange(6))
    assert (np.diag(found) == 0).all()
    assert (found[np.arange(6), np.arange(6) ^ 1] == 1).all()


def test_trustworthiness_is_scikit_learns(rows, places):
    ours = measures.trustworthiness(measures.ranks(rows, np.arange(N)), places)
    assert ours == pytest.approx(trustworthiness(rows, places, n_neighbors=15), abs=1e-12)


def test_the_area_under_rnx_is_that_of_its_definition(rows, places):
    near = [np.argsort(cdist(X, X), axis=1, kind="stable")[:, 1:] for X in (rows, places)]
    R, K = [], np.arange(1, N - 1)
    for k in K:
        kept = np.mean([len(set(a[:k]) & set(b[:k])) for a, b in zip(*near, strict=True)]) / k
        R.append(((N - 1) * kept - k) / (N - 1 - k))
    expected = np.sum(R / K) / np.sum(1 / K)
    everyone = np.arange(N)
    ours = measures.area_under_rnx(measures.ranks(rows, everyone), measures.ranks(places, everyone))
    assert ours == pytest.approx(expected, abs=1e-12)
    assert 0.1 < ours < 0.9


def test_the_area_is_one_for_the_rows_and_about_nothing_for_chance(rows):
    high = measures.ranks(rows, np.arange(N))
    chance = measures.ranks(np.random.default_rng(0).normal(size=(N, 2)), np.arange(N))
    assert measures.area_under_rnx(high, high) == pytest.approx(1.0)
    assert abs(measures.area_under_rnx(high, chance)) < 0.02


def test_the_cross_entropy_is_the_expected_value_of_its_draws(places, monkeypatch):
    monkeypatch.setattr(measures, "EDGES", 40_000)
    drawn = np.random.default_rng(1)
    graph = sp.random(N, N, 0.05, random_state=2, data_rvs=drawn.random)
    graph = (graph + graph.T).tocsr()
    a, b = CURVE
    scaled = a * np.maximum(cdist(places, places) ** 2, 1e-12) ** b
    pulled = (graph.toarray() * np.log1p(scaled)).sum() / graph.sum()
    pushed = (np.log1p(scaled) - np.log(scaled)).mean()
    # A pair of a row with itself is drawn now and then, and weighs as much as the floor says.
    assert measures.cross_entropy(places, graph, CURVE) == pytest.approx(pulled + 5 * pushed, rel=0.02)


def test_the_correlation_of_distances_is_that_of_all_pairs(rows, places):
    upper = np.triu_indices(N, 1)
    expected = spearmanr(cdist(rows, rows)[upper], cdist(places, places)[upper]).statistic
    assert measures.distance_correlation(rows, places) == pytest.approx(expected, abs=0.01)


def test_a_map_with_nan_has_no_figures_and_reconstructions_have_errors(rows, places):
    labels = digits().labels()[: 2 * N]
    graph = sp.identity(N, format="csr")
    judge = measures.Judge(rows, rows, np.r_[labels[:N], labels[:N]], graph, CURVE)
    found = judge.measure(places, places)
    assert found.keys() == set(measures.FIGURES)
    assert found["1-NN"] == 1.0
    broken = judge.measure(places, places * np.float32("nan"))
    assert all(math.isnan(value) for value in broken.values())
    assert judge.reconstruction(rows[:7] + 2.0) == pytest.approx(4.0)


def test_a_part_that_is_kept_is_not_measured_again_unless_it_is_asked_otherwise(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        parametric.Bench, "_measure", lambda bench, part, asked: calls.append(asked) or {"steps": {}}
    )
    part = parametric.Part("ours", "short", 0, "train", {"steps": 4_000})
    first = parametric.Bench(tmp_path, tmp_path, False).figures(part)
    assert parametric.Bench(tmp_path, tmp_path, False).figures(part) == first
    other = parametric.Part("ours", "short", 0, "train", {"steps": 5})
    parametric.Bench(tmp_path, tmp_path, False).figures(other)
    assert [asked["steps"] for asked in calls] == [4_000, 5]


def found_of(**changed):
    """Return figures of two seeds in which every promise is just kept, but for what is changed."""
    good = dict.fromkeys(measures.FIGURES, 0.97) | {
        "cross_entropy": 0.5,
        "distances": 0.5,
        "cpu": 1.0,
        "reconstruction": 0.1,
    }
    process = {
        "train_cpu": 1.0,
        "peak": 1e9,
        "import_cpu": 0.7,
        "own_import_cpu": 0.1,
        "embed_cpu_per_row": 1e-6,
        "decode_cpu_per_row": 1e-6,
        "inverse_cpu_per_row": 1e-3,
        "edges_cpu": 1.0,
        "compile_cpu": 1.0,
        "session": "then",
    }
    found = {}
    for part in parametric.parts(0, quick=False):
        key = f"{part.side}-{part.name}"
        asked = part.asked.get("steps", 0)
        marks = asked if isinstance(asked, list) else [asked]
        steps = {str(mark): dict(good) for mark in marks if mark or part.kind != "train"}
        if key == "peer-default":
            steps["81820"] = good | {"cpu": 900.0}
        if key == "peer-short":
            steps = {mark: good | {"cpu": 46.0, "cross_entropy": 0.579} for mark in steps}
        if key == "ours-global":
            steps["3000"]["distances"] = 0.995
        entry = {**process, "steps": steps}
        if part.kind == "alone" or "labels" in part.name:
            entry["accuracy"] = 0.6 if part.kind == "alone" else 0.7
        found[key] = [entry, entry]
    for path, value in changed.items():
        key, figure = path.split("/")
        found[key] = [{**part, figure: value} for part in found[key]]
    return found


def test_promises_are_kept_or_broken_by_the_figures():
    kept = tables.outcome("a title", found_of(), judged=True)
    assert kept.kept, [row.cells() for row in kept.promises if not row.kept]
    assert "umap-learn, default" in kept.text(markdown=True)
    for path, value in (
        ("ours-default/peak", 2e9),
        ("ours-short/train_cpu", 10.0),
        ("ours-default/train_cpu", 30.0),
        ("ours-default/embed_cpu_per_row", 1e-5),
        ("ours-labels-4/accuracy", 0.63),
        ("ours-short/own_import_cpu", 0.3),
        ("ours-default/trustworthiness", 0.9),
    ):
        broken = tables.outcome("a title", found_of(**{path: value}), judged=True)
        assert sum(row.kept is False for row in broken.promises) == 1, path
    assert tables.outcome("a title", found_of(**{"ours-default/peak": 2e9}), judged=False).kept


def test_figures_of_several_calls_are_said_to_be_of_several_calls():
    found = found_of()
    assert "calls" not in tables.outcome("", found, judged=True).text(markdown=True)
    found["ours-short"] = [{**part, "session": "later"} for part in found["ours-short"]]
    assert "Measured in 2 calls" in tables.outcome("", found, judged=True).text(markdown=True)
