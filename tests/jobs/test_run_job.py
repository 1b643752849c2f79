"""A job from its file to its maps: what is made, what is left alone, and what is said of mistakes."""

import os

import pytest
import zarr

import daskumap
from daskumap.errors import LockedError, ParameterError, RunMismatchError, exit_code
from daskumap.jobs import dated
from daskumap.jobs.reading import read_job
from daskumap.jobs.state import JobState


def put(path, rows):
    zarr.create_array(path, data=rows, overwrite=True)


def run(job, **how):
    return daskumap.run_job(job, progress=False, **how)


class Stops:
    """Progress of a run that its user stops when a stage begins."""

    def __init__(self, stage):
        self.stage, self.seen = stage, []

    def start(self, stage, tasks, done):
        self.seen.append((stage, tasks - done))
        if stage == self.stage:
            raise KeyboardInterrupt

    def advance(self, done): ...

    def finish(self): ...


def test_a_second_call_finds_nothing_to_do_and_says_so(job, tmp_path, monkeypatch):
    first = run(job())
    assert (first.state, first.rows) == ("finished", 300)
    assert first.run == str(tmp_path / "maps/2026-01-31.zarr")
    written = os.stat(f"{first.run}/report/stages.json").st_mtime_ns
    monkeypatch.setattr(dated, "today", lambda: "2026-02-01")  # neither does the next night
    second = run(job())
    assert (second.state, second.run) == ("unchanged", first.run)
    assert os.stat(f"{first.run}/report/stages.json").st_mtime_ns == written
    assert [path.name for path in (tmp_path / "maps").glob("*.zarr")] == ["2026-01-31.zarr"]


def test_changed_rows_or_parameters_make_a_run_of_their_own_and_old_ones_go(
    job, tmp_path, job_rows, monkeypatch
):
    path = job(more="retention: 2\n")
    run(path)
    job_rows[7] += 1
    put(tmp_path / "data.zarr", job_rows)
    second = run(path)
    assert second.run.endswith("maps/2026-01-31-2.zarr")
    assert "another input" in second.reason
    monkeypatch.setattr(dated, "today", lambda: "2026-02-03")
    path.write_text(path.read_text().replace("n_neighbors: 5", "n_neighbors: 6"))
    third = run(path)
    assert third.run.endswith("maps/2026-02-03.zarr")
    assert "n_neighbors was 5 and is now 6" in third.reason
    assert third.removed == [str(tmp_path / "maps/2026-01-31.zarr")]
    assert sorted(one.name for one in (tmp_path / "maps").glob("*.zarr")) == [
        "2026-01-31-2.zarr",
        "2026-02-03.zarr",
    ]


def test_a_stopped_job_goes_on_where_it_was(job):
    path, stops = job(), Stops("layout")
    with pytest.raises(KeyboardInterrupt):
        daskumap.run_job(path, progress=stops)
    again = Stops("none")
    done = daskumap.run_job(path, progress=again)
    assert done.state == "finished"
    assert done.run.endswith("2026-01-31.zarr")
    left = dict(again.seen)
    assert left["neighbors"] == 0 < left["layout"]


def test_one_run_store_is_refused_or_made_anew_where_something_changed(job, tmp_path, job_rows):
    path = job("map.zarr")
    assert run(path).state == "finished"
    assert run(path).state == "unchanged"
    put(tmp_path / "data.zarr", job_rows + 1)
    with pytest.raises(RunMismatchError) as refused:
        run(path)
    assert exit_code(refused.value) == 6
    job("map.zarr", "when_changed: restart\n")
    assert run(path).state == "finished"
    assert daskumap.open(tmp_path / "map.zarr").finished
    assert run(path).state == "unchanged"
    assert run(path, restart=True).state == "finished"


def test_two_at_once(job):
    path = job()
    with (
        JobState(read_job(path)).held(),
        pytest.raises(LockedError, match=f"process {os.getpid()} on") as error,
    ):
        run(path)
    assert "'nightly'" in str(error.value)
    assert exit_code(error.value) == 9
    assert run(path).state == "finished"


def test_new_rows_are_placed_once(job, tmp_path, job_rows):
    put(tmp_path / "new.zarr", job_rows[:50] + 0.1)
    path = job(more="transform: [{source: new.zarr, out: 'new/{date}.zarr'}]\n")
    out = str(tmp_path / "new/2026-01-31.zarr")
    assert run(path).transforms == [{"path": out, "state": "made"}]
    assert daskumap.open(out).embedding.shape == (50, 2)
    again = run(path)
    assert (again.state, again.transforms) == ("unchanged", [{"path": out, "state": "unchanged"}])
    put(tmp_path / "new.zarr", job_rows[:60] + 0.1)
    third = run(path)
    assert (third.state, third.transforms) == ("finished", [{"path": out, "state": "made"}])
    assert daskumap.open(out).embedding.shape == (60, 2)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("labls: x.npy", "labls: no such key; did you mean 'labels'?"),
        ("notify: [{comand: [x]}]", "notify.0.comand: no such key; did you mean 'command'?"),
        ("notify: [{command: [x], webhook: 'http://x'}]", "either a command or a webhook"),
        ("retention: 0", "retention: Input should be greater than or equal to 1 (seen: 0)"),
        ("labels: ${NOT_THERE}", "the environment has no NOT_THERE"),
        ("labels: 1\nlabels: 2", "'labels' stands twice"),
        ("transform: [{source: a, out: '{day}.zarr'}]", "only {date} is replaced"),
        ("results: [{path: m.csv}, {path: m.csv}]", "is written twice"),
        ("labels: [", "is no YAML"),
    ],
)
def test_mistakes_are_named(job, more, said):
    with pytest.raises(ParameterError) as refused:
        read_job(job(more=more))
    assert said in str(refused.value)


def test_wrong_parameters_are_refused_before_anything_is_read(job):
    path = job()
    path.write_text(path.read_text().replace("n_epochs: 5", "n_epoch: 5"))
    with pytest.raises(ParameterError, match="n_epochs"):
        read_job(path)


def test_retention_needs_a_date(job):
    with pytest.raises(ParameterError, match=r"Put \{date\} into its name"):
        read_job(job("map.zarr", "retention: 3\n"))


def test_numbers_environment_and_paths(job, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK", "http://localhost:1/secret")
    path = job(more="labels: labels.npy\nnotify: [{webhook: '${HOOK}'}]\n")
    path.write_text(path.read_text().replace("n_epochs: 5", "min_dist: 1e-3"))
    monkeypatch.chdir("/")
    found = read_job(path)
    assert found.parameters["min_dist"] == 0.001
    assert found.notify[0].webhook == "http://localhost:1/secret"
    assert found.labels == str(tmp_path / "labels.npy")
    assert found.source.path == str(tmp_path / "data.zarr")
    assert found.name == "nightly"
