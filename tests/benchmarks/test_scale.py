"""The benchmarks of scale: small versions of their promises, and that each promise can be broken."""

import argparse
import copy
import dataclasses
import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from daskumap.api import plan
from daskumap.testing.datasets import uneven_clusters

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))

import limits  # noqa: E402 - scripts, found once their folder is on the path
import measure  # noqa: E402
import scale  # noqa: E402
import scale_growth  # noqa: E402
import scale_limit  # noqa: E402
import scale_peer  # noqa: E402
import scale_skew  # noqa: E402
import scale_workers  # noqa: E402
import simulate  # noqa: E402

MB = 10**6


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("name", scale.BENCHMARKS)
def test_promises_at_scale(name, tmp_path):
    assert scale.main([name, "--folder", str(tmp_path)]) == 0


@pytest.mark.parametrize("mechanism", ["cgroup", "data"])
def test_a_limit_holds(mechanism):
    limit = limits.make_limit("test", 200 * MB) if mechanism == "cgroup" else limits.DataLimit(200 * MB)
    ends = [
        subprocess.run(
            [*limit.command(), sys.executable, "-c", f"bytearray({size}); print('lives')"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout
        for size in (50 * MB, 400 * MB)
    ]
    killed = limit.readings().get("killed")
    limit.close()
    assert ends == ["lives\n", ""]
    assert killed in (1, None)


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """8,000 x 32 on two workers under a limit: an outcome."""
    arguments = argparse.Namespace(
        folder=tmp_path_factory.mktemp("limit"),
        rows=8_000,
        columns=32,
        workers=2,
        memory="900MB",
        mechanism="cgroup",
        set=[("n_epochs", 10)],
    )
    return scale_limit.run(arguments), arguments


@pytest.mark.processes
def test_a_fit_on_limited_workers(limited):
    outcome, arguments = limited
    kept = {promise.name: promise.kept for promise in outcome.promises}
    # This input is not larger than the limit; everything else has to hold.
    assert [name for name, value in kept.items() if not value] == [
        "input / limit of all workers",
        "graph / left beside overhead",
    ]
    assert not list(arguments.folder.rglob("run.zarr"))
    assert "| layout |" in str(outcome)
    assert all(reading["rss"] > 50 * MB for reading in outcome.figures["readings"])


def test_a_run_that_cannot_fit_breaks_the_benchmark(tmp_path, capsys):
    words = ["limit", "--folder", str(tmp_path), "--rows", "5000", "--columns", "8", "--memory", "400MB"]
    assert scale.main([*words, "--timeout", "120"]) == 1
    assert "did not finish: Stage" in capsys.readouterr().err


def broken(promises):
    """Return the names of the promises that are not kept."""
    return {promise.name for promise in promises if promise.kept is False}


@pytest.mark.processes
def test_each_promise_of_the_limit_can_be_broken(limited):
    figures = copy.deepcopy(limited[0].figures)
    figures["report"]["measures"]["recall"] = 0.9
    figures["readings"][0] |= {"deaths": 1, "killed": 1}
    figures["report"]["steps"]["layout"]["peak_bytes"] = 10**12
    assert len(broken(scale_limit.promises(figures))) == 6


def grown(limited, power, row_bytes):
    """Return figures of three sizes whose time grows with a power and whose memory by so many bytes a row."""
    found = []
    for rows in (10**6, 2 * 10**6, 4 * 10**6):
        one = copy.deepcopy(limited[0].figures)
        report = one["report"]
        report["sizes"] |= {"rows": rows, "cache_bytes": 7 * MB, "edge_bytes": 0}
        one["wall"] = rows**power
        for step in report["steps"].values():
            step["peak_bytes"] = 407 * MB + row_bytes * rows
            step["projected_bytes"] = 10**9
        found.append(one)
    return found


@pytest.mark.processes
@pytest.mark.parametrize(
    ("power", "row_bytes", "wrong"),
    [
        (1.1, 30, set()),
        (1.3, 30, {"exponent of the time of a fit"}),
        (1.1, 60, {"bytes a row of a worker's peak"}),
        (1.1, 200, {"bytes a row of a worker's peak", "measured / projected peak, worst step"}),
    ],
)
def test_growth_is_judged(limited, power, row_bytes, wrong):
    figures = grown(limited, power, row_bytes)
    sizes = [one["report"]["sizes"]["rows"] for one in figures]
    assert broken(scale_growth.promises(sizes, figures)) == wrong
    floor, slope = scale_growth.slope(figures, scale_growth.total_peaks(figures))
    assert floor == pytest.approx(400 * MB)
    assert slope == pytest.approx(row_bytes)


@pytest.mark.processes
def test_memory_of_sizes_with_smaller_blocks_is_not_judged(limited):
    figures = grown(limited, 1.0, 500)[:2]
    figures[0]["report"]["sizes"]["row_block"] //= 2
    promises = scale_growth.promises([10**6, 2 * 10**6], figures)
    assert [p.kept for p in promises if "bytes a row" in p.name] == [None]


def test_a_plan_grows_like_the_rows(tmp_path):
    """Bytes and tasks in proportion; memory by what the layout documents, and no more."""
    rows, plans = [3 * 10**6, 10**7, 3 * 10**7], []
    for n in rows:
        place = tmp_path / f"{n}.zarr"
        zarr.create_array(str(place), shape=(n, 64), chunks=(10_000, 64), dtype="float32")
        plans.append(plan(place, memory="8GB", workers=2, threads=1))
    assert measure.exponent(rows, [made.disk_bytes for made in plans]) < 1.05
    for number, stage in enumerate(plans[0].stages):
        peaks = [made.peak_bytes(made.stages[number]) for made in plans]
        if stage.name == "layout":  # edges are kept as far as memory has room
            kept = [min(n * 14 * 18, made.job.sizes.edge_bytes) for n, made in zip(rows, plans, strict=True)]
            peaks = [peak - edges for peak, edges in zip(peaks, kept, strict=True)]
        assert measure.line(rows, peaks)[1] <= scale_growth.SNAPSHOT_ROW_BYTES + 1, stage.name
        assert measure.exponent(rows, [made.stages[number].tasks for made in plans]) < 1.05, stage.name


def test_efficiency():
    one, two = {"neighbors": 10.0, "layout": 10.0}, {"neighbors": 5.0, "layout": 7.5}
    assert scale_workers.efficiency(one, two, ("neighbors",)) == 1.0
    assert scale_workers.efficiency(one, two, ("neighbors", "layout")) == pytest.approx(0.8)


@pytest.mark.processes
def test_each_promise_beside_the_peer_can_be_broken(limited):
    good = {"recall": 0.97, "trustworthiness": 0.97, "preservation": 0.05}
    record = limited[0].figures
    ours = {**record, "wall": 39.0, "peak": 29, "quality": good}
    theirs = {"wall": 100.0, "peak": 100, "quality": good}
    assert not broken(scale_peer.promises({"daskumap": ours, "umap-learn": theirs}))
    bad = {name: value - 0.03 for name, value in good.items()}
    worse = {**ours, "wall": 41.0, "peak": 31, "quality": bad}
    assert len(broken(scale_peer.promises({"daskumap": worse, "umap-learn": theirs}))) == 5


def test_the_gain_over_chance():
    rows = uneven_clusters(1_000, 2, 5).rows()
    same, nothing = (scale_skew.gain(rows, map_) for map_ in (rows, np.full_like(rows, np.nan)))
    assert same["preserved"] == 1.0
    assert same["by_chance"] < 0.1
    assert same["missing"] == 0
    assert nothing["missing"] == 1_000


@pytest.fixture
def recorded(limited, tmp_path):
    (tmp_path / "recorded.json").write_text(json.dumps([limited[0].figures]))
    return tmp_path / "recorded.json"


@pytest.mark.processes
def test_a_simulation_is_the_same_twice(recorded, capsys):
    arguments = [
        str(recorded),
        "--rows",
        "100000000",
        "--workers",
        "64",
        "128",
        "--scheduler-task",
        "0.001",
        "--scheduler-edge",
        "0.00001",
    ]
    texts = []
    for _ in range(2):
        assert simulate.main(arguments) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].count("\n| layout |") == 2
    assert "the scheduler takes 1.00 ms a task" in texts[0]


@pytest.mark.processes
def test_a_simulation_adds_up(limited):
    costs = simulate.Costs(limited[0].figures)
    world = simulate.World(64, 8, "64GB", 1.25e9, 20e9, 0.0, 0.0, 0.0)
    found, refused = simulate.simulate(costs, 10**8, 32, world)
    assert not refused
    more, _ = simulate.simulate(costs, 10**8, 32, dataclasses.replace(world, task=0.01, edge=1e-5))
    layout = dict(zip(simulate.CAUSES, found["layout"], strict=True))
    # 23 of the 64 workers share the layout.
    assert layout["network"] == pytest.approx(2 * 200 * 8 * 10**8 * 22 / 23 / 1.25e9)
    assert all(seconds >= -1e-9 for line in more.values() for seconds in line)
    assert sum(map(sum, more.values())) > sum(map(sum, found.values()))
    assert found["scan"][0] == more["scan"][0]


@pytest.mark.processes
def test_a_plan_that_is_refused_is_simulated_and_said_so(limited):
    world = simulate.World(64, 8, "1GB", 1.25e9, 20e9, 0.005, 0.001, 1e-5)
    _, refused = simulate.simulate(simulate.Costs(limited[0].figures), 10**9, 128, world)
    assert "memory is 1.00 GB" in refused


@pytest.mark.parametrize("module", [measure, simulate])
def test_doctests(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


@pytest.mark.processes
def test_the_scheduler_is_measured(monkeypatch):
    monkeypatch.setattr(simulate, "NOOPS", 100)
    task, edge = simulate.measure_scheduler()
    assert 1e-5 < task < 1.0
    assert 0 <= edge < 0.1
