"""A job deletes and replaces what it made, and nothing else, however alike it is called."""

import os
import shutil

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.errors import ParameterError, RunMismatchError, StoreError, exit_code
from daskumap.jobs import dated, work
from daskumap.jobs.reading import read_job
from daskumap.jobs.state import JobState

QUICK = {"n_neighbors": 5, "n_epochs": 5, "random_state": 1, "report": False}
ALONE = {"client": "sequential", "progress": False}


def run(job, **how):
    return daskumap.run_job(job, progress=False, **how)


def change(tmp_path, by=1):
    zarr.open_array(tmp_path / "data.zarr", mode="r+")[0, 0] += by


def test_retention_keeps_what_the_job_did_not_make(job, tmp_path, job_rows):
    """A run of a user, one of a job with almost the same names, notes beside new rows: all stay."""
    path = job(more="retention: 1\ngrowing: {}\n")
    for name in ("2026-01-02.zarr", "2026-01-31-2.zarr"):
        daskumap.fit(job_rows, tmp_path / "maps" / name, **QUICK, **ALONE)
    first = run(path)
    assert first.run.endswith("2026-01-31-3.zarr")
    zarr.open_array(tmp_path / "data.zarr", mode="r+").append(job_rows[:20])
    assert run(path).transforms[0]["state"] == "made"
    notes = tmp_path / "maps" / "2026-01-31-3.new" / "notes.txt"
    notes.write_text("mine")
    change(tmp_path)
    second = run(path)
    assert second.run.endswith("2026-01-31-4.zarr")
    placed = str(tmp_path / "maps/2026-01-31-3.new/0000000300-0000000320.zarr")
    assert second.removed == [placed, first.run]
    assert notes.read_text() == "mine"
    left = {one.name for one in (tmp_path / "maps").glob("*.zarr")}
    assert left == {"2026-01-02.zarr", "2026-01-31-2.zarr", "2026-01-31-4.zarr"}


def test_a_map_of_somebody_else_is_not_replaced(job, tmp_path, job_rows):
    mine = daskumap.fit(job_rows[:100], tmp_path / "mine.zarr", **QUICK, **ALONE).embedding[:]
    path = job("mine.zarr", "when_changed: restart\n")
    with pytest.raises(RunMismatchError, match="This job did not make what is there"):
        run(path)
    path = job("map.zarr", "when_changed: restart\ntransform: [{source: data.zarr, out: mine.zarr}]\n")
    with pytest.raises((RunMismatchError, StoreError)):
        run(path)
    np.testing.assert_array_equal(daskumap.open(tmp_path / "mine.zarr").embedding[:], mine)


def test_a_folder_that_moved_is_still_the_jobs_own(job, tmp_path):
    path = job(more="retention: 1\nresults: [{path: out/map.csv}]\n")
    run(path)
    moved = tmp_path / "moved"
    moved.mkdir()
    path.write_text(path.read_text().replace("data.zarr", str(tmp_path / "data.zarr")))
    for name in ("maps", "out", path.name):
        shutil.move(tmp_path / name, moved / name)
    again = run(moved / path.name)
    assert (again.state, again.results[0]["state"]) == ("unchanged", "unchanged")
    change(tmp_path)
    third = run(moved / path.name)
    assert third.removed == [str(moved / "maps/2026-01-31.zarr")]
    assert third.results[0]["state"] == "made"


def test_a_clock_that_is_set_back_makes_no_map_each_night(job, tmp_path, monkeypatch):
    path = job(more="retention: 1\n")
    run(path)
    monkeypatch.setattr(dated, "today", lambda: "2026-01-30")
    change(tmp_path)
    second = run(path)
    assert second.run.endswith("2026-01-31-2.zarr")
    assert run(path).state == "unchanged"


def test_what_is_in_the_way_of_a_result_is_told_before_there_is_a_map(job, tmp_path):
    (tmp_path / "map.npy").write_text("mine")
    with pytest.raises(ParameterError, match="this job did not write it"):
        run(job("map.zarr", "results: [{path: map.npy}]\n"))
    (tmp_path / "out").write_text("no folder")
    with pytest.raises(StoreError, match=r"The folder .*out of results cannot be written"):
        run(job("map.zarr", "results: [{path: out/map.npy}]\n"))
    with pytest.raises(Exception, match=r"new\.zarr"):
        run(job("map.zarr", "transform: [{source: new.zarr, out: placed.zarr}]\n"))
    assert not (tmp_path / "map.zarr").exists()


def test_a_result_that_is_wanted_otherwise_is_written_again(job, tmp_path):
    run(job("map.zarr", "results: [{path: map.csv}]\n"))
    again = run(job("map.zarr", "results: [{path: map.csv, columns: [a, b]}]\n"))
    assert again.results[0]["state"] == "made"
    assert (tmp_path / "map.csv").read_text().startswith("a,b\n")


def test_a_job_that_was_taken_over_stops_before_it_writes(job, tmp_path, monkeypatch):
    path = job(more="results: [{path: 'out/{date}.csv'}]\n")
    write_results = work.write_results

    def late(*arguments):
        with JobState(read_job(path)).held(take_over=True):  # while this one is at work
            pass
        return write_results(*arguments)

    monkeypatch.setattr(work, "write_results", late)
    with pytest.raises(StoreError, match="was taken over by another process") as error:
        run(path)
    assert exit_code(error.value) == 5
    assert not list((tmp_path / "out").glob("*.csv"))


def test_whoever_is_to_be_told_is_told_where_the_runs_cannot_be(job, tmp_path):
    (tmp_path / "cells.zarr").mkdir()
    (tmp_path / "cells.zarr" / "zarr.json").write_text(
        '{"zarr_format": 3, "node_type": "group", "attributes": {"encoding-type": "anndata"}}'
    )
    path = job("cells.zarr/x/map.zarr", "notify: [{command: [sh, -c, 'cat > told.json']}]\n")
    with pytest.raises(Exception, match=r"cells\.zarr"):
        run(path)
    assert '"state": "failed"' in (tmp_path / "told.json").read_text()
    assert os.listdir(tmp_path / "cells.zarr") == ["zarr.json"]
