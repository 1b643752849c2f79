"""The report as text, with and without measures."""

from daskumap.report.text import assemble, render

VERSIONS = {
    "daskumap": "0.1.0",
    "numba": "0.61.2",
    "numpy": "2.2.0",
    "scipy": "1.15.0",
    "pynndescent": "0.7.0",
}


def assembled(stages=None, measures=None):
    """Assemble the report of a run of the digits."""
    about = {"params": {"n_neighbors": 15}, "sizes": {"rows": 1797}, "versions": VERSIONS}
    return assemble(measures or {}, stages or {}, about)


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
MADE_BY = """\
made by daskumap 0.1.0, numba 0.61.2, numpy 2.2.0, scipy 1.15.0, pynndescent
  0.7.0"""
MEASURES = {
    "rows": 1797,
    "n_neighbors": 15,
    "recall": 0.9987,
    "probe_rows": 512,
    "cells_a_row": 2.0,
    "trustworthiness": None,
    "knn_preservation": 0.4321,
    "flyaway_ratio": 1.5,
    "components": 2,
    "largest_component": 1700,
    "isolated_rows": 0,
    "longest_aspect": 12.34,
    "longest_island": 140,
    "islands": 7,
    "edges": 30000,
    "largest_degree": 44,
    "cut_edge_share": 0.125,
    "sliced_cells": 0,
    "attractive_loss": 12345.6,
    "repulsive_loss": 0.5,
}
VERDICT = """\
Look at the shape of the islands first: 1 of 6 measures is doubtful.
- An island of 140 rows is 12 times as long as wide. Where one column outweighs
  the others, scale them. Else fit with optimizer='adam' and a larger min_dist,
  unless the data do run along a line."""
FIGURES = """\
rows              1,797
rows alone        0          good      without edges
kNN recall        0.9987     good      512 probes; 2.00 cells a row
sliced cells      0
components        2          good      largest 1,700 rows
edges             30,000               largest degree 44; 12.5% between cells
kNN preservation  0.4321     good
fly-away ratio    1.50       good
longest island    12.3       doubtful  times its width, 140 rows; 7 islands
loss              1.235e+04            attraction; 0.5 repulsion; each pair counts twice"""


def test_steps_are_summed_by_stage_and_peaks_are_not():
    report = assembled(STEPS)
    assert report["steps"] == STEPS
    assert list(report["stages"]) == ["scan", "partition", "layout"]
    assert report["stages"]["partition"] == step(2001, 3.0, 300 * 10**6, read_bytes=20, written_bytes=2)
    assert report["stages"]["layout"]["overhead_share"] == 0.25
    assert report["seconds"] == 7.5
    assert report["params"] == {"n_neighbors": 15}
    assert report["sizes"] == {"rows": 1797}
    assert report["versions"] == VERSIONS


def test_a_run_without_a_report_is_a_table_of_its_stages():
    report = assembled(STEPS)
    assert report["measures"] == {}
    assert report["verdict"] is None
    assert render(report) == f"{TABLE}\n\n{MADE_BY}"


def test_a_run_that_did_nothing_yet():
    assert render(assembled()).splitlines()[1] == "total                      0.00"


def test_the_verdict_comes_first_then_the_figures_then_the_stages():
    assert render(assembled(STEPS, MEASURES)) == "\n\n".join([VERDICT, FIGURES, TABLE, MADE_BY])


def test_facts_of_the_input_are_shown_where_they_are():
    facts = {
        "duplicate_rows": 3,
        "missing_chunks": 2,
        "sample_rows": 1797,
        "distinct_rows_stored": 1790,
        "distinct_rows_cast": 12,
    }
    lines = render(assembled(STEPS, MEASURES | facts)).splitlines()
    assert "duplicates        3" in lines
    assert "missing chunks    2          doubtful" in lines
    assert "distinct rows     12                   of 1,797 in the sample; 1,790 as stored" in lines
