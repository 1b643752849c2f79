"""Cluster files on a Slurm: workers as jobs, and tasks of one allocation, give the bits of a local fit."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr
from conftest import sha
from slurm_jobs import Job, command

import daskumap
from daskumap.errors import ClusterError

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

CONFIGS = Path(__file__).parents[2] / "cluster_configs"
OPTIONS = {"n_epochs": 20, "random_state": 1, "report": False, "progress": False}


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(5).normal(size=(600, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def local(rows):
    return sha(daskumap.fit(rows, client="sequential", **OPTIONS).embedding)


@pytest.fixture
def source(rows, tmp_path):
    path = tmp_path / "x.zarr"
    zarr.create_array(str(path), shape=rows.shape, chunks=(200, 8), dtype=rows.dtype)[...] = rows
    return path


def shipped(file, **changes):
    """Return a shipped file with what differs here; None leaves a key out."""
    content = yaml.safe_load((CONFIGS / file).read_text()) | changes
    return {key: value for key, value in content.items() if value is not None}


def jobs_of(name):
    return command("squeue", "--noheader", f"--name={name}").splitlines()


@pytest.fixture
def tls(tmp_path):
    """Make certificates as docs/clusters.md does."""
    page = (CONFIGS.parent / "docs" / "clusters.md").read_text()
    lines = page.split("<!-- certificates -->\n```\n")[1].split("```")[0]
    subprocess.run(["bash", "-euc", lines], cwd=tmp_path, check=True, capture_output=True)
    files = {"ca": "ca.pem", "cert": "cluster.pem", "key": "cluster.key"}
    return {name: str(tmp_path / file) for name, file in files.items()}


def test_workers_as_jobs(source, tmp_path, local, tls):
    here = {
        "workers": 2,
        "threads": 1,
        "memory": "900MB",
        "interface": "lo",
        "queue": "main",
        "account": None,
        "tls": tls,
    }
    cluster = shipped(
        "slurm.yaml", **here, walltime="00:10:00", log_folder=str(tmp_path / "logs"), name="of-a-test"
    )
    run = daskumap.fit(source, tmp_path / "run.zarr", cluster=cluster, **OPTIONS)
    assert sha(run.embedding) == local
    logs = [path.read_text() for path in (tmp_path / "logs").iterdir()]
    assert sum("Registered to:      tls://" in log for log in logs) == 2
    assert not any("tcp://" in log for log in logs)
    assert not [job for job in jobs_of("of-a-test") if " CG " not in job]


def test_what_slurm_does_not_take_is_said_at_once(source, tmp_path):
    here = {"workers": 2, "threads": 1, "memory": "900MB", "interface": "lo", "account": None}
    cluster = shipped("slurm.yaml", **here, queue="none", log_folder=None, name="refused", wait=3600)
    with pytest.raises(ClusterError, match=r"sbatch says: .*invalid partition.* Change the cluster file"):
        daskumap.fit(source, tmp_path / "run.zarr", cluster=cluster, **OPTIONS)
    assert not jobs_of("refused")


def test_one_allocation(source, tmp_path, local):
    cluster = shipped("slurm-allocation.yaml", interface="lo")
    (tmp_path / "allocation.yaml").write_text(yaml.safe_dump(cluster))
    fit = "daskumap fit x.zarr run.zarr --n-epochs 20 --seed 1 --no-report --cluster allocation.yaml"
    sized = ("--ntasks=4", "--cpus-per-task=1", "--mem-per-cpu=900M", "--time=10")
    job = Job(tmp_path, *sized, "--wrap", f"srun {fit}")
    assert job.end() == ("COMPLETED", "0:0"), job.log
    assert sha(daskumap.open(tmp_path / "run.zarr").embedding) == local
    assert not list(tmp_path.glob("scheduler-*.json"))
    # Without srun it would wait as a scheduler, for ever.
    forgot = Job(tmp_path, *sized, "--wrap", fit.replace("run.zarr", "none.zarr"))
    assert forgot.end() == ("FAILED", "8:0")
    assert "Start the run with `srun daskumap fit" in forgot.log
