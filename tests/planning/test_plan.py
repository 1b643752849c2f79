"""Plans: sizes from shapes and resources, a whole plan as text, refusals; and that nothing is started."""

import doctest
import importlib
import importlib.util
import itertools
import re
import shutil
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from conftest import snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

import daskumap
from daskumap.api import plan
from daskumap.errors import PlanError
from daskumap.pipeline import STAGES, STEPS
from daskumap.planning.sizes import RESERVED, Resources, make_sizes

GB = 10**9


def sizes(rows, columns, memory=4 * GB, workers=1, threads=2, **options):
    return make_sizes(rows, columns, 15, 2, Resources(memory, workers, threads), **options)


@pytest.fixture
def shape(tmp_path):
    """An array of that shape without any data: a plan reads metadata only."""

    def create(rows, columns, chunk=10_000, dtype="float32"):
        zarr.create_array(
            str(tmp_path / "x.zarr"),
            shape=(rows, columns),
            chunks=(chunk, columns),
            dtype=dtype,
            overwrite=True,
        )
        return tmp_path / "x.zarr"

    return create


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # Brute force: about 1,024 rows a cell, more of them as the square root grows; one cell for few rows.
        ({"rows": 1_000, "columns": 10}, {"cells": 1, "sample_rows": 1_000}),
        ({"rows": 100_000, "columns": 64}, {"cells": 98, "sample_rows": 8_192}),
        ({"rows": 10**8, "columns": 128}, {"cells": 20_000, "sample_rows": 480_000}),
        # NN-descent: few and large ones.
        ({"rows": 9_000, "columns": 10, "matrix_product": False}, {"cells": 1, "probe_rows": 128}),
        ({"rows": 10**6, "columns": 64, "matrix_product": False}, {"cells": 16, "max_cell_rows": 750_000}),
        # What the user asks for.
        ({"rows": 100_000, "columns": 64, "max_cell_rows": 2_000}, {"cells": 200, "max_cell_rows": 2_000}),
        ({"rows": 1_500, "columns": 10, "max_cell_rows": 500}, {"cells": 12}),
        ({"rows": 9_000, "columns": 10, "matrix_product": False, "max_cell_rows": 1_000}, {"cells": 36}),
        # Row blocks are whole chunks, one large chunk is read once, and each slot has two blocks.
        ({"rows": 100_000, "columns": 64, "source_chunk_rows": 7_000}, {"row_block": 21_000}),
        ({"rows": 100_000, "columns": 64, "source_chunk_rows": 60_000}, {"row_block": 60_000}),
        ({"rows": 100_000, "columns": 64, "workers": 4}, {"row_block": 6_250}),
        # A window of rows and the edges in memory follow the budget.
        ({"rows": 10**6, "columns": 1_000, "memory": GB}, {"window_rows": 8_812}),
        ({"rows": 10**6, "columns": 64, "partitions": 1}, {"layout_partitions": 1}),
        ({"rows": 10**6, "columns": 64, "partitions": 7}, {"layout_partitions": 7}),
        # The layout is shared where that is faster: not for few rows, and not by all of many workers.
        ({"rows": 10**5, "columns": 64, "workers": 2}, {"layout_partitions": 1}),
        ({"rows": 10**6, "columns": 64, "workers": 2}, {"layout_partitions": 2}),
        (
            {"rows": 10**8, "columns": 64, "workers": 512, "threads": 8, "memory": 64 * GB},
            {"layout_partitions": 26},
        ),
        # More of them where fewer could not keep the edges, 22 GB, in 640 MB each.
        (
            {"rows": 10**8, "columns": 64, "workers": 64, "threads": 8, "memory": 5_500_000_000},
            {"layout_partitions": 35},
        ),
    ],
)
def test_sizes(case, expected):
    got = sizes(**case)
    assert {name: getattr(got, name) for name in expected} == expected


# What the result depends on: from the data and the parameters alone.
FIXED = ("rows", "columns", "sample_rows", "probe_rows", "cells", "max_cell_rows", "vertex_chunk")


@given(
    st.integers(20, 10**8),
    st.integers(1, 4_000),
    st.integers(RESERVED, 64 * GB),
    st.integers(1, 32),
    st.integers(1, 16),
    st.integers(1, 10**6),
    st.booleans(),
    st.none() | st.integers(1, 20),
)
@settings(max_examples=300, deadline=None)
def test_sizes_of_any_shape(rows, columns, memory, workers, threads, chunk, product, partitions):
    options = {"matrix_product": product}
    one = make_sizes(
        rows,
        columns,
        15,
        2,
        Resources(memory, workers, threads),
        source_chunk_rows=chunk,
        partitions=partitions,
        **options,
    )
    other = make_sizes(rows, columns, 15, 2, Resources(64 * GB), **options)
    assert [getattr(one, name) for name in FIXED] == [getattr(other, name) for name in FIXED]
    assert 1 <= one.row_block <= rows
    assert one.probe_rows <= one.sample_rows <= rows
    # A task owns whole chunks of vertices: two that share one would lose data. A layout partition is one.
    assert one.partition_rows % one.vertex_chunk == 0
    for count, part in (
        (one.row_blocks, one.block),
        (one.partitions, one.partition),
        (one.layout_partitions, one.layout_partition),
    ):
        assert count <= 2 * 10**5
        if count < 200:
            ranges = [part(number) for number in range(count)]
            assert ranges[0][0] == 0
            assert ranges[-1][1] == rows
            assert all(a[1] == b[0] and b[0] < b[1] for a, b in itertools.pairwise(ranges))


def test_a_whole_plan(shape):
    plans = [
        plan(shape(1_000_000, 128), memory="8GB", workers=4, threads=2, random_state=0, calibrate=False),
        plan(
            shape(50_000, 784, 1_000, "uint8"),
            memory="4GB",
            threads=4,
            metric="cosine",
            init="spectral",
            calibrate=False,
        ),
    ]
    snapshot("plan.txt", "\n\n".join(map(str, plans)) + "\n")


def test_a_billion_rows_fit_64_workers(shape):
    """A task of the search holds offsets of its own cells, not of all 63,000 in each of 21,000 row blocks."""
    made = plan(shape(10**9, 128, 100_000), memory="64GB", workers=64, threads=8, calibrate=False)
    made.check()
    search = next(stage for stage in made.stages if stage.name == "neighbors")
    blocks, held = made.job.sizes.row_blocks, made.job.sizes.group_cells
    assert search.memory["offsets"] == blocks * (held + 2) * 8 < 400_000_000


def test_a_plan_of_a_hundred_million_rows(shape):
    made = plan(shape(10**8, 128, 100_000), memory="32GB", workers=16, threads=4)
    assert max(stage.tasks for stage in made.stages) <= 10_000
    assert 10**8 * 128 * 4 < made.disk_bytes < 10**8 * 128 * 4 * 6


def test_stages_are_those_of_the_ledger(shape):
    assert len(STAGES) == len(STEPS)
    made = plan(shape(10_000, 8), memory="8GB", threads=1)
    assert tuple(stage.name for stage in made.stages) == STEPS


def test_more_memory_or_fewer_threads_let_it_fit(shape):
    path = shape(2_000_000, 512)
    with pytest.raises(
        PlanError, match=r"Stage '[a-z.]+' needs [\d.]+ GB a worker, memory is 0\.90 GB \(reserved"
    ):
        plan(path, memory="900MB", threads=4)
    peaks = [
        max(made.peak_bytes(stage) for stage in made.stages)
        for made in (plan(path, memory=memory, threads=2) for memory in ("8GB", "32GB"))
    ]
    assert peaks[0] <= 8 * GB
    assert peaks[1] <= 32 * GB


def test_a_plan_that_needs_smaller_cells_says_how_small(shape):
    path, options = shape(4_000_000, 1_000), {"memory": "6GB", "threads": 4, "metric": "manhattan"}
    advice = []
    for _ in range(3):  # the advice is an estimate: it may take a second look
        with pytest.raises(PlanError, match=r"Stage 'neighbors' needs .* Lower max_cell_rows to") as error:
            plan(path, **options)
        advice.append(int(re.search(r"max_cell_rows to ([\d_]+), use fewer", str(error.value))[1]))
        options["max_cell_rows"] = advice[-1]
        with suppress(PlanError):
            plan(path, **options)
            break
    else:
        pytest.fail(f"nothing fits, whatever is advised: {advice}")


@pytest.mark.parametrize(("workers", "advice"), [(50, "use fewer workers"), (1, "raise memory")])
def test_positions_that_no_worker_can_hold(shape, workers, advice):
    with pytest.raises(PlanError, match=f"Every worker holds the positions of all rows: {advice}"):
        plan(shape(3 * 10**8, 4, 1_000_000), memory="8GB", workers=workers, threads=1)


def test_a_disk_that_is_too_small(shape, fit, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(PlanError, match=r"The run store needs [\d.]+ GB of disk, 0.00 GB are free"):
        fit(shape(50_000, 64), tmp_path / "run.zarr")


def test_a_plan_starts_nothing(shape, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a plan started something")

    monkeypatch.setattr("daskumap.store.run.RunStore.open_or_create", refuse)
    monkeypatch.setattr("daskumap.engine.cluster.DaskEngine.__init__", refuse)
    monkeypatch.setattr("daskumap.store.source.Source.read", refuse)
    path = shape(50_000, 64)
    before = sorted(tmp_path.rglob("*"))
    assert "50,000 rows x 64 columns" in str(plan(path, memory="8GB"))
    assert "3,000 rows x 8 columns" in str(plan(np.ones((3_000, 8)), memory="8GB"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_is_what_a_run_does(fit, clustered):
    """Tasks as planned, but for the groups of cells, whose sizes only the data tell; and so the disk."""
    options = {"n_epochs": 5, "memory": "4GB"}
    run = fit(clustered, **options)
    made = plan(clustered, threads=1, **options)
    steps = run.report["steps"]
    for stage in made.stages:
        if stage.name != "neighbors":
            assert steps[stage.name]["tasks"] == stage.tasks, stage.name
    written = sum(path.stat().st_size for path in run.store.group.store.root.rglob("*") if path.is_file())
    assert 0.4 * made.disk_bytes < written - clustered.nbytes < 1.6 * made.disk_bytes


def test_a_refusal_names_terms_that_add_up(shape):
    with pytest.raises(PlanError) as error:
        plan(shape(2_000_000, 512), memory="500MB", threads=3)
    message = str(error.value)
    needed = float(re.search(r"needs ([\d.]+) GB", message)[1])
    terms = {
        name: int(size.replace(",", "")) for name, size in re.findall(r"([a-z][a-z -]*) ([\d,]+) MB", message)
    }
    once = terms.pop("reserved") + terms.pop("shared", 0) + terms.pop("cache", 0)
    at_once = int(re.search(r"(\d+) task\(s\) at once", message)[1])
    assert at_once == 3
    assert needed == pytest.approx((once + at_once * sum(terms.values())) / 1000, abs=0.02)


@pytest.mark.parametrize("name", ["held", "job", "progress", "sizes", "stage"])
def test_doctests(name):
    result = doctest.testmod(importlib.import_module(f"daskumap.planning.{name}"))
    assert not result.failed
    assert result.attempted or name not in ("sizes", "stage")


@pytest.mark.parametrize("name", daskumap.__all__)
def test_no_module_hides_a_public_name(name):
    assert name.startswith("__") or importlib.util.find_spec(f"daskumap.{name}") is None
