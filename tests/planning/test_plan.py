"""Plans: a whole plan as text, refusals; that nothing is started, and that a run does what was planned."""

import doctest
import importlib
import importlib.util
import re
import shutil
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from conftest import snapshot

import daskumap
from daskumap.api import plan
from daskumap.errors import PlanError
from daskumap.pipeline import FIT, by_simplices, steps_of

GB = 10**9
# Without timing this machine: a second for each of many plans.
REFERENCE = {"calibrate": False}


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


def test_a_plan_says_what_each_level_keeps(shape):
    """A model of a row: its vertex, its place, rho and sigma."""
    rows = 1_000_000
    made = plan(shape(rows, 128), memory="8GB", threads=2, **REFERENCE)
    kept = made.kept_by_level
    assert list(kept) == ["all", "graph", "model", "embedding"]
    assert kept["graph"] == made.kept_bytes > 300 * rows
    assert 24 * rows < kept["model"] < 25 * rows
    assert kept["embedding"] == 8 * rows
    assert f"{kept['model'] / 1e6:,.0f} MB with 'model', 8 MB with 'embedding'" in str(made)
    new = plan(shape(rows, 128), memory="8GB", threads=2, keep="model", **REFERENCE)
    assert abs(new.kept_bytes - kept["model"]) < 20_000


def test_a_plan_of_a_hundred_million_rows(shape):
    made = plan(shape(10**8, 128, 100_000), memory="32GB", workers=16, threads=4, calibrate=False)
    assert max(stage.tasks for stage in made.stages) <= 10_000
    assert 10**8 * 128 * 4 < made.disk_bytes < 10**8 * 128 * 4 * 6


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("report", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_stages_are_the_steps_of_the_pipeline(shape, unique, report, listed):
    options = {"unique": unique, "report": report, "n_epochs": [1, 2] if listed else 2, **REFERENCE}
    made = plan(shape(10_000, 8), memory="8GB", threads=1, **options)
    names = [stage.name for stage in made.stages]
    assert names == [step.name for step in steps_of(FIT, made.job.params)]
    # Each step is there once, and options add steps without another order of the rest.
    every = [step.name for step, condition in FIT if condition is not by_simplices]
    assert len(set(every)) == len(every) == 27
    has = {"unique.": unique, "report.": report, "publish.": listed}
    gone = ("scan.given", "neighbors.given", "calibrate.typical")
    gone += tuple(name for name, there in has.items() if not there)
    assert names == [name for name in every if not name.startswith(gone)]
    assert len(names) == 14 + 2 * unique + 7 * report + listed


def test_more_memory_or_fewer_threads_let_it_fit(shape):
    path = shape(2_000_000, 512)
    with pytest.raises(
        PlanError, match=r"Stage '[a-z.]+' needs [\d.]+ GB a worker, memory is 0\.90 GB \(reserved"
    ):
        plan(path, memory="900MB", threads=4, **REFERENCE)
    peaks = [
        max(made.peak_bytes(stage) for stage in made.stages)
        for made in (plan(path, memory=memory, threads=2, **REFERENCE) for memory in ("8GB", "32GB"))
    ]
    assert peaks[0] <= 8 * GB
    assert peaks[1] <= 32 * GB


def test_a_plan_that_needs_smaller_cells_says_how_small(shape):
    path, options = (
        shape(4_000_000, 1_000),
        {"memory": "6GB", "threads": 4, "metric": "manhattan", **REFERENCE},
    )
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
        plan(shape(3 * 10**8, 4, 1_000_000), memory="8GB", workers=workers, threads=1, **REFERENCE)


def test_a_disk_that_is_too_small(shape, fit, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(PlanError, match=r"The run store needs [\d.]+ GB of disk, 0.00 GB are free"):
        fit(shape(50_000, 64), tmp_path / "run.zarr")


def test_a_plan_starts_nothing(shape, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a plan started something")

    monkeypatch.setattr("daskumap.store.run.RunStore.open_or_create", refuse)
    monkeypatch.setattr("daskumap.engine.dask.DaskEngine.__init__", refuse)
    monkeypatch.setattr("daskumap.engine.threads.ThreadsEngine.__init__", refuse)
    monkeypatch.setattr("daskumap.sources.base.Source.read", refuse)
    path = shape(50_000, 64)
    before = sorted(tmp_path.rglob("*"))
    assert "50,000 rows x 64 columns" in str(plan(path, memory="8GB"))
    assert "3,000 rows x 8 columns" in str(plan(np.ones((3_000, 8)), memory="8GB"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("keep", ["all", "graph", "model", "embedding"])
def test_a_plan_is_what_a_run_does(fit, clustered, tmp_path, keep):
    """Tasks as planned, but for the groups of cells, whose sizes only the data tell; and so the disk."""
    options = {"n_epochs": 5, "memory": "4GB", "report": True, "keep": keep}
    run = fit(clustered, tmp_path / "run.zarr", **options)
    made = plan(clustered, threads=1, **options, **REFERENCE)
    steps = run.report["steps"]
    for stage in made.stages:
        if stage.name != "neighbors":
            assert steps[stage.name]["tasks"] == stage.tasks, stage.name
    files = [path for path in run.store.place.path.rglob("*") if path.is_file()]
    written = sum(path.stat().st_size for path in files if path.name != "embedding.png")
    copied = 0 if keep == "embedding" else clustered.nbytes
    assert 0.4 * made.kept_bytes < written - copied < 1.6 * made.kept_bytes
    assert made.kept_bytes < made.disk_bytes or keep == "all"
    assert made.kept_by_level[keep] == made.kept_bytes


def test_a_refusal_names_terms_that_add_up(shape):
    with pytest.raises(PlanError) as error:
        plan(shape(2_000_000, 512), memory="600MB", threads=3, **REFERENCE)
    message = str(error.value)
    needed = float(re.search(r"needs ([\d.]+) GB", message)[1])
    terms = {
        name: int(size.replace(",", "")) for name, size in re.findall(r"([a-z][a-z -]*) ([\d,]+) MB", message)
    }
    once = terms.pop("reserved") + terms.pop("shared", 0) + terms.pop("cache", 0)
    at_once = int(re.search(r"(\d+) task\(s\) at once", message)[1])
    assert at_once == 3
    assert needed == pytest.approx((once + at_once * sum(terms.values())) / 1000, abs=0.02)


@pytest.mark.parametrize("name", ["costs", "job", "memory", "plan", "sizes", "stage"])
def test_doctests(name):
    result = doctest.testmod(importlib.import_module(f"daskumap.planning.{name}"))
    assert not result.failed
    assert result.attempted or name not in ("sizes", "stage")


@pytest.mark.parametrize("name", daskumap.__all__)
def test_no_module_hides_a_public_name(name):
    assert name.startswith("__") or importlib.util.find_spec(f"daskumap.{name}") is None
