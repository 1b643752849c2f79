"""The report as text, with and without measures."""

from daskumap.report.text import assemble, render


def assembled(stages=None, measures=None):
    """Assemble the report of a run of the digits."""
    return assemble(measures or {}, stages or {}, {"n_neighbors": 15}, {"rows": 1797})


def step(tasks, seconds, peak, **more):
    times = {"task_seconds": seconds, "kernel_seconds": seconds / 2, "read_bytes": 10, "written_bytes": 1}
    return {
        "tasks": tasks,
        "seconds": seconds,
        "peak_bytes": peak,
        "projected_bytes": 2 * peak,
        **times,
        **more,
    }


STEPS = {
    "scan": step(4, 0.5, 100 * 10**6),
    "partition.cells": step(1, 1.0, 300 * 10**6),
    "partition.assign": step(2000, 2.0, 200 * 10**6),
    "layout": step(1, 4.0, 150 * 10**6, kernel_seconds=3.0),
}
TABLE = """\
stage           tasks   seconds   peak MB  planned MB
scan                4      0.50       100         200
partition       2,001      3.00       300         600
layout              1      4.00       150         300
total                      7.50"""
MEASURES = {
    "rows": 1797,
    "recall": 0.9987,
    "probe_rows": 512,
    "cells_a_row": 2.0,
    "trustworthiness": None,
    "knn_preservation": 0.4321,
    "flyaway_ratio": 1.5,
    "components": 2,
    "largest_component": 1700,
    "isolated_rows": 0,
    "edges": 30000,
    "largest_degree": 44,
    "cut_edge_share": 0.125,
    "attractive_loss": 12345.6,
    "repulsive_loss": 0.5,
}


def test_steps_are_summed_by_stage_and_peaks_are_not():
    report = assembled(STEPS)
    assert report["steps"] == STEPS
    assert list(report["stages"]) == ["scan", "partition", "layout"]
    assert report["stages"]["partition"] == step(2001, 3.0, 300 * 10**6, read_bytes=20, written_bytes=2)
    assert report["stages"]["layout"]["overhead_share"] == 0.25
    assert report["seconds"] == 7.5
    assert report["params"] == {"n_neighbors": 15}
    assert report["sizes"] == {"rows": 1797}


def test_a_run_without_a_report_is_a_table_of_its_stages():
    report = assembled(STEPS)
    assert report["measures"] == {}
    assert render(report) == TABLE


def test_a_run_that_did_nothing_yet():
    assert render(assembled()).splitlines()[1:] == ["total                      0.00"]


def test_measures_stand_above_the_table():
    text = render(assembled(STEPS, MEASURES))
    measures, table = text.split("\n\n")
    assert table == TABLE
    assert measures.splitlines()[0] == "rows                 1,797"
    assert "trustworthiness      not defined" in measures
    assert "duplicates" not in measures
    twins = render(assembled(STEPS, {**MEASURES, "duplicate_rows": 3}))
    assert "duplicates           3" in twins
