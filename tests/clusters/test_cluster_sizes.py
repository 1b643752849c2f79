"""A plan for the workers of a cluster file is for those that a run on it gets."""

import pytest

import daskumap
from daskumap.clusters import resources_of
from daskumap.clusters.runners import Runner
from daskumap.errors import ClusterError, ParameterError
from daskumap.planning.sizes import Resources

BATCH = {"kind": "slurm", "workers": 4, "threads": 2, "memory": "4GB", "interface": "lo"}
RUNNER = {"kind": "slurm-runner"}
TASK = {
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "6",
    "SLURM_CPUS_PER_TASK": "3",
    "SLURM_MEM_PER_CPU": "2000",
}


@pytest.fixture(autouse=True)
def _no_allocation(monkeypatch):
    for name in (*TASK, "SLURM_STEP_ID", "SLURM_MEM_PER_NODE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_what_the_file_says():
    assert resources_of(BATCH) == Resources(4 * 10**9, workers=4, threads=2)
    assert resources_of({**BATCH, "workers_per_job": 2}) == resources_of(BATCH)


def test_a_limit_of_the_caller_is_one_as_of_a_run():
    assert resources_of(BATCH, memory="1GB").memory == 10**9
    assert resources_of(BATCH, memory="9GB").memory == 4 * 10**9


@pytest.mark.parametrize(("name", "has"), [("workers", 4), ("threads", 2)])
def test_what_the_file_says_is_not_said_again(name, has):
    with pytest.raises(
        ParameterError, match=rf"{name} is 3, and the cluster of kind slurm has {has}\. Leave"
    ):
        resources_of(BATCH, **{name: 3})


def test_what_only_its_start_can_tell_is_asked_for():
    with pytest.raises(ParameterError, match=r"Plan with workers and threads and memory too \(--workers"):
        resources_of(RUNNER)
    with pytest.raises(
        ParameterError, match=r"kind gateway .* with threads and memory too \(--threads \.\.\. --m"
    ):
        resources_of({"kind": "gateway", "workers": 2})
    asked = {"memory": "3GB", "workers": 2, "threads": 5}
    assert resources_of(RUNNER, **asked) == Resources(3 * 10**9, workers=2, threads=5)


def test_in_an_allocation_slurm_says_it(monkeypatch):
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    assert resources_of(RUNNER) == Resources(6000 * 2**20, workers=4, threads=3)
    assert resources_of({**RUNNER, "threads": 2, "memory": "1GB"}) == Resources(10**9, workers=4, threads=2)


def test_a_plan_is_for_them(tmp_path):
    rows = [[float(i), float(i % 7)] for i in range(300)]
    by_file = daskumap.plan(rows, cluster=BATCH, calibrate=False)
    by_hand = daskumap.plan(rows, memory="4GB", workers=4, threads=2, calibrate=False)
    assert str(by_file) == str(by_hand)
    assert "4 worker(s) x 2 thread(s)" in str(by_file)


def test_a_script_is_no_task_and_knows_the_size(monkeypatch, tmp_path):
    """Slurm gives the script of a job the number of a task too: as one it would be a scheduler for ever."""
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert resources_of(RUNNER).workers == 4
    with pytest.raises(ClusterError, match=r"has none: .* Start the run with `srun daskumap fit"):
        daskumap.fit([[0.0, 1.0]] * 50, tmp_path / "run.zarr", cluster=RUNNER)


def test_a_second_run_of_an_allocation_is_refused(monkeypatch):
    monkeypatch.setattr(Runner, "served", True)
    with pytest.raises(ClusterError, match=r"has served a run, .* within one `with daskumap\.start_cluster"):
        daskumap.start_cluster(RUNNER).__enter__()


def test_a_job_does_not_run_in_an_allocation(tmp_path):
    job = {"source": str(tmp_path / "x.zarr"), "run": str(tmp_path / "run.zarr"), "cluster": RUNNER}
    with pytest.raises(ParameterError, match=r"kind slurm-runner, which serves one run, .*slurm_fit\.sbatch"):
        daskumap.run_job(job)
    assert not list(tmp_path.iterdir())
