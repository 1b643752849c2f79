"""A store that grows, and what is written of its map and of the new rows."""

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.errors import ParameterError, SourceError
from daskumap.jobs.growth import FAR
from daskumap.jobs.reading import read_job
from daskumap.sources.find import open_spec, source


def run(job):
    return daskumap.run_job(job, progress=False)


def append(path, rows):
    zarr.open_array(path, mode="r+").append(rows)


@pytest.fixture
def growing(job, tmp_path, job_rows):
    """Return a job of job_rows that grow, with ids beside them."""
    np.save(tmp_path / "ids.npy", np.array([f"r{i}" for i in range(len(job_rows))]))
    return job(more="growing: {refit_above: 0.3}\nlabels: ids.npy\nresults: [{path: 'out/{date}.csv'}]\n")


def grow(tmp_path, new, total):
    append(tmp_path / "data.zarr", new.astype(np.float32))
    np.save(tmp_path / "ids.npy", np.array([f"r{i}" for i in range(total)]))


def lines(path):
    return path.read_text().splitlines()


def test_new_rows_are_placed_until_they_are_unlike(growing, tmp_path, job_rows):
    first = run(growing)
    out = tmp_path / "out"
    assert len(lines(out / "2026-01-31.csv")) == 301
    assert lines(out / "2026-01-31.csv")[300].startswith("r299,")
    assert run(growing).state == "unchanged"

    alike = job_rows[:40] + np.float32(0.001)
    grow(tmp_path, alike, 340)
    second = run(growing)
    assert (second.state, second.run, second.new_rows) == ("finished", first.run, 40)
    assert second.far < 0.3
    part = out / "2026-01-31.new-0000000300-0000000340.csv"
    assert [line.split(",")[0] for line in lines(part)[1:]] == [f"r{i}" for i in range(300, 340)]
    placed = daskumap.transform(first.run, alike, client="sequential", progress=False)
    stored = daskumap.open(tmp_path / "maps/2026-01-31.new/0000000300-0000000340.zarr")
    np.testing.assert_array_equal(stored.embedding[:], placed.embedding[:])
    assert second.far == np.mean(placed.fit_distance[:] > FAR).round(4)
    assert run(growing).state == "unchanged"

    grow(tmp_path, job_rows[40:50] + np.float32(0.001), 350)  # the next night only those that came since
    third = run(growing)
    assert [one["state"] for one in third.transforms] == ["unchanged", "made"]

    grow(tmp_path, job_rows[:100] + 30, 450)
    fourth = run(growing)
    assert fourth.run.endswith("2026-01-31-2.zarr")
    assert (fourth.rows, fourth.transforms[0]["state"]) == (450, "unchanged")
    assert "farther from their neighbours" in fourth.reason
    assert len(lines(out / "2026-01-31-2.csv")) == 451
    assert run(growing).state == "unchanged"


def test_rows_that_changed_make_a_new_map(growing, tmp_path):
    first = run(growing)
    zarr.open_array(tmp_path / "data.zarr", mode="r+")[5, 0] += 1
    second = run(growing)
    assert second.run != first.run
    assert "another input" in second.reason


def test_what_the_job_wrote_it_replaces_and_nothing_else(job, tmp_path):
    path = job("map.zarr", "results: [{path: map.npy}]\n")
    (tmp_path / "map.npy").write_text("mine")
    with pytest.raises(ParameterError, match="is there"):
        run(path)
    assert (tmp_path / "map.npy").read_text() == "mine"
    (tmp_path / "map.npy").unlink()
    first = run(path)
    assert first.results == [{"path": str(tmp_path / "map.npy"), "state": "made"}]
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), daskumap.open(first.run).embedding[:])
    assert run(path).results[0]["state"] == "unchanged"
    (tmp_path / "map.npy").unlink()
    assert run(path).results[0]["state"] == "made"
    path.write_text(path.read_text().replace("n_epochs: 5", "n_epochs: 4") + "when_changed: restart\n")
    second = run(path)
    assert second.results[0]["state"] == "made"
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), daskumap.open(second.run).embedding[:])


def test_a_growing_job_needs_a_run_for_each_map(job):
    with pytest.raises(ParameterError, match="growing needs a run store for each map"):
        read_job(job("map.zarr", "growing: {}\n"))


def test_labels_of_another_number_are_refused(job, tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(7))
    with pytest.raises(SourceError, match="one for each of the 300 rows"):
        run(job(more="labels: ids.npy\n"))


def test_a_part_is_the_same_when_the_source_has_grown(tmp_path, job_rows):
    zarr.create_array(tmp_path / "x.zarr", data=job_rows, chunks=(64, 4))
    part = source(tmp_path / "x.zarr", rows=[10, 150])
    before = part.identity()
    np.testing.assert_array_equal(part.read(0, 140), job_rows[10:150])
    np.testing.assert_array_equal(part.read(60, 140), job_rows[70:150])
    assert part.digest() == source(job_rows[10:150]).digest()
    append(tmp_path / "x.zarr", job_rows[:9])
    again = open_spec(part.spec())
    assert (again.identity(), again.shape) == (before, (140, 6))
    for wrong in ([0, 400], [5, 5], [0], "all"):
        with pytest.raises(ParameterError, match="rows is"):
            source(tmp_path / "x.zarr", rows=wrong)
