"""The table of measures, and the verdict that follows from it."""

import json

import numpy as np
import pytest

from daskumap.report.measures import MEASURES, judge
from daskumap.report.text import render
from daskumap.testing.datasets import uneven_clusters

SOUND = {
    "rows": 20_000,
    "n_neighbors": 15,
    "probe_rows": 256,
    "recall": 0.96,
    "trustworthiness": 0.95,
    "knn_preservation": 0.04,
    "flyaway_ratio": 1.02,
    "components": 2,
    "largest_component": 19_000,
    "isolated_rows": 0,
    "longest_aspect": 4.0,
    "longest_island": 400,
    "islands": 10,
    "missing_chunks": 0,
    "sample_rows": 20_000,
    "distinct_rows_stored": 20_000,
    "distinct_rows_cast": 20_000,
    "cast_recall": 1.0,
}
# What goes wrong, and the measure that says so; the heaviest first.
BROKEN = {
    "missing_chunks": {"missing_chunks": 1},
    "distinct_rows_cast": {"distinct_rows_cast": 15_000},
    "cast_recall": {"cast_recall": 0.94},
    "isolated_rows": {"isolated_rows": 21},
    "recall": {"recall": 0.79},
    "distinct_rows": {"distinct_rows_stored": 3_000, "distinct_rows_cast": 3_000},
    "components": {"components": 300},
    "knn_preservation": {"knn_preservation": 0.006},
    "trustworthiness": {"trustworthiness": 0.7},
    "flyaway_ratio": {"flyaway_ratio": 50.0},
    "longest_aspect": {"longest_aspect": 10.1},
}


def test_each_measure_says_what_it_is_and_where_its_limits_come_from():
    assert [m.name for m in MEASURES] == list(BROKEN)
    assert [m.weight for m in MEASURES] == sorted((m.weight for m in MEASURES), reverse=True)
    for measure in MEASURES:
        assert measure.what.endswith(".")
        assert measure.why.endswith(".")
        assert measure.source
        good, doubtful = measure.limits(SOUND)
        assert good >= doubtful if measure.high_is_good else good <= doubtful


def test_a_sound_map_has_no_warning():
    verdict = judge(SOUND)
    assert verdict["sound"]
    assert verdict["warnings"] == []
    assert verdict["sentence"] == "The map is sound: none of 11 measures is doubtful."
    assert {one["grade"] for one in verdict["measures"]} == {"good"}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_doubtful_and_nothing_else_is(name):
    verdict = judge(SOUND | BROKEN[name])
    assert not verdict["sound"]
    (warning,) = verdict["warnings"]
    assert set(warning) == {"measure", "value", "limit", "weight", "says", "remedy"}
    assert warning["measure"] == name
    assert warning["remedy"].endswith(".")
    assert "{" not in warning["says"] + warning["remedy"]


def test_warnings_stand_in_the_order_of_their_weight():
    together = {key: value for broken in BROKEN.values() for key, value in broken.items()}
    verdict = judge(SOUND | together | {"distinct_rows_stored": 20_000, "distinct_rows_cast": 3_000})
    assert [warning["measure"] for warning in verdict["warnings"]] == list(BROKEN)
    assert verdict["sentence"] == "Look at the input first: 11 of 11 measures are doubtful."
    text = render({**document(SOUND | together), "verdict": verdict})
    assert text.startswith("Look at the input first")
    assert max(map(len, text.splitlines())) <= 80


def document(measures):
    return {"measures": measures, "stages": {}, "seconds": 0.0, "versions": {"numpy": "2.0"}}


def test_between_the_limits_is_no_warning():
    fair = judge(SOUND | {"trustworthiness": 0.85, "longest_aspect": 8.0})
    assert fair["sound"]
    assert [one["measure"] for one in fair["measures"] if one["grade"] == "fair"] == [
        "trustworthiness",
        "longest_aspect",
    ]


def test_what_a_run_does_not_have_is_not_judged():
    assert judge({}) is None
    verdict = judge({"recall": 0.5, "trustworthiness": None, "flyaway_ratio": float("nan")})
    assert [one["measure"] for one in verdict["measures"]] == ["recall"]
    # Copies that count once crowd nobody out.
    copies = SOUND | BROKEN["distinct_rows"]
    assert not judge(copies)["sound"]
    assert judge(copies | {"duplicate_rows": 17_000})["sound"]


def test_few_rows_are_judged_by_less_than_chance_would_give():
    # Of 30 rows 14 are neighbours: chance keeps half of them, a map of digits .74.
    assert judge({"rows": 30, "n_neighbors": 15, "knn_preservation": 0.74})["sound"]
    assert judge({"rows": 30, "n_neighbors": 15, "trustworthiness": 0.7}) is None
    assert not judge({"rows": 45, "n_neighbors": 15, "trustworthiness": 0.7})["sound"]
    assert judge({"rows": 60, "n_neighbors": 15, "components": 4, "isolated_rows": 0})["sound"]


BLOBS = uneven_clusters(2000, 16, 5, seed=2).rows()
NOISE = np.random.default_rng(0).normal(size=(2000, 30)).astype(np.float32)
HEALTHY = {
    "clusters": (BLOBS, {}),
    "few rows": (BLOBS[:60], {}),
    "very few rows": (BLOBS[:25], {}),
    "a plane": (NOISE[:, :2], {}),
    "three components": (BLOBS, {"n_components": 3}),
    "one component": (BLOBS, {"n_components": 1}),
}
FAULTY = {
    "noise": (NOISE, {}, {"trustworthiness"}),
    "too few neighbours": (BLOBS, {"n_neighbors": 2}, {"components"}),
    "no epochs to speak of": (
        BLOBS,
        {"init": "random", "n_epochs": 2},
        {"knn_preservation", "trustworthiness"},
    ),
    "a metric that tells no rows apart": (NOISE, {"metric": "hamming"}, {"knn_preservation"}),
    "cells too small": (BLOBS, {"max_cell_rows": 64, "max_overlap": 1}, {"recall"}),
    "ten copies of each row": (np.repeat(BLOBS[:200], 10, axis=0), {}, {"components"}),
    "too near a cutoff": (BLOBS, {"disconnection_distance": 3.0}, {"isolated_rows"}),
    "one column outweighs all": (
        np.c_[BLOBS, 1e5 * NOISE[:, :1]],
        {"max_cell_rows": 2000},
        {"longest_aspect"},
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_maps_are_sound(fit, name):
    data, options = HEALTHY[name]
    verdict = fit(data, report=True, **{"n_epochs": None, **options}).report["verdict"]
    assert verdict["sound"], verdict["warnings"]


@pytest.mark.parametrize("name", FAULTY)
def test_broken_maps_are_not(fit, name, caplog):
    data, options, doubtful = FAULTY[name]
    run = fit(data, report=True, **{"n_epochs": None, **options})
    verdict = run.report["verdict"]
    assert doubtful <= {warning["measure"] for warning in verdict["warnings"]}
    assert verdict["sentence"] in caplog.text
    assert str(run).startswith(verdict["sentence"])
    json.loads(json.dumps(run.report))
