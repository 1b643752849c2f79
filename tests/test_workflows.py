"""The batch jobs pass their arguments on to `daskumap fit`, and its exit code back."""

import os
import subprocess
from pathlib import Path

import pytest

JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_CPUS_ON_NODE": "16",
    "SLURM_CPUS_PER_TASK": "16",
}
WORKFLOWS = Path(__file__).parents[1] / "workflows"


@pytest.fixture
def run(tmp_path: Path):
    """Run a workflow with commands that write down their arguments and exit with 4."""
    command = tmp_path / "bin" / "daskumap"
    command.parent.mkdir()
    command.write_text(
        f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" >> "{tmp_path}/arguments"\nexit ${{CODE:-4}}\n'
    )
    command.chmod(0o755)
    command.with_name("dask").symlink_to(command)

    def call(name: str, *arguments: str, **environment: str) -> tuple[int, list[str]]:
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", str(WORKFLOWS / name), *arguments],
            env={**os.environ, **environment, "PATH": path},
            capture_output=True,
        )
        seen = tmp_path / "arguments"
        return done.returncode, seen.read_text().splitlines() if seen.exists() else []

    return call


@pytest.mark.parametrize(
    ("memory", "options"),
    [
        ({"SLURM_MEM_PER_NODE": "65536"}, ["--memory", "58982MiB"]),
        ({"SLURM_MEM_PER_CPU": "4096"}, ["--memory", "58982MiB"]),
        ({}, []),
    ],
)
def test_slurm_stays_below_the_memory_of_the_job(run, memory, options) -> None:
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_ON_NODE": "16",
        "SLURM_CPUS_PER_TASK": "16",
    }
    code, arguments = run("slurm_fit.sbatch", "data.zarr/X", "run.zarr", **job, **memory)
    assert code == 4
    assert arguments == ["fit", "data.zarr/X", "run.zarr", "--threads", "16", *options]


def test_a_job_file_of_slurm_says_itself_where_it_runs(run) -> None:
    assert run("slurm_fit.sbatch", "job.yaml", "--restart", **JOB) == (4, ["run", "job.yaml", "--restart"])


def test_an_array_of_slurm_takes_the_words_of_its_line(run, tmp_path) -> None:
    (tmp_path / "list").write_text("a.zarr a-run.zarr\njobs/b.yaml\n")
    lists = ("slurm_fit.sbatch", str(tmp_path / "list"))
    first = run(*lists, "--seed", "1", **JOB, SLURM_ARRAY_TASK_ID="1")
    assert first == (4, ["fit", "a.zarr", "a-run.zarr", "--seed", "1", "--threads", "16"])
    assert run(*lists, **JOB, SLURM_ARRAY_TASK_ID="3")[0] == 2
    (tmp_path / "arguments").unlink()
    assert run(*lists, **JOB, SLURM_ARRAY_TASK_ID="2") == (4, ["run", "jobs/b.yaml"])


@pytest.mark.parametrize(("restarts", "fits"), [("0", 1), ("1", 2)])
def test_a_job_of_slurm_that_starts_again_waits_for_a_driver_that_seems_alive(run, restarts, fits) -> None:
    about = {"SLURM_RESTART_COUNT": restarts, "DASKUMAP_LOCK_SECONDS": "0", "CODE": "9"}
    code, arguments = run("slurm_fit.sbatch", "data.zarr/X", "run.zarr", **JOB, **about)
    assert code == 9
    assert arguments.count("fit") == fits


def test_the_slurm_script_is_no_program(run) -> None:
    assert run("slurm_fit.sbatch", "data.zarr/X", "run.zarr") == (2, [])
