"""Snakemake, Prefect and Airflow start a job file: the real ones, with a stand-in for the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.services
WORKFLOWS = Path(__file__).parents[2] / "workflows"


@pytest.fixture
def start(tmp_path):
    """Start a program of a package's environment, with a `daskumap` that ends with a code of our choice."""
    command, seen = tmp_path / "bin" / "daskumap", tmp_path / "seen"
    command.parent.mkdir()

    def call(package, *words, code=0):
        summary = json.dumps({"job": "a", "state": "unchanged", "run": "a.zarr"})
        command.write_text(f"#!/bin/sh\necho \"$@\" >> '{seen}'\necho '{summary}'\nexit {code}\n")
        command.chmod(0o755)
        place = Path(sys.prefix) / package / "bin"
        own = {
            "PATH": f"{command.parent}:{place}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "200",
            "DO_NOT_TRACK": "1",
        }
        done = subprocess.run(
            words, cwd=tmp_path, env={**os.environ, **own}, capture_output=True, text=True, timeout=400
        )
        lines = seen.read_text().splitlines() if seen.exists() else []
        return done, lines

    return call


def test_snakemake_runs_a_job_for_each_file(start, tmp_path):
    (tmp_path / "jobs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "jobs" / f"{name}.yaml").write_text("source: x.zarr\nrun: y.zarr\n")
    file = str(WORKFLOWS / "snakemake" / "Snakefile")
    done, seen = start("snakemake", "snakemake", "-s", file, "--cores", "1")
    assert done.returncode == 0, done.stderr
    assert sorted(seen) == ["run jobs/a.yaml --json", "run jobs/b.yaml --json"]
    assert json.loads((tmp_path / "done" / "a.json").read_text())["state"] == "unchanged"


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (9, 0), (3, 1)])
def test_prefect_runs_the_job_once_where_another_attempt_does_not_help(start, code, ends):
    file = str(WORKFLOWS / "prefect" / "daskumap_nightly.py")
    done, seen = start("prefect", "python", file, "nightly.yaml", code=code)
    assert (done.returncode, seen) == (ends, ["run nightly.yaml --json --quiet"]), done.stderr


def test_airflow_reads_the_dag(start):
    look = (
        "import runpy; dag = runpy.run_path('FILE')['dag']; job = dag.get_task('job');"
        "print(dag.schedule, dag.max_active_runs, job.retries, job.skip_on_exit_code, job.bash_command)"
    ).replace("FILE", str(WORKFLOWS / "airflow" / "daskumap_nightly.py"))
    done, _ = start("apache-airflow", "python", "-c", look)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert said == "0 2 * * * 1 3 [9] exec daskumap run /srv/maps/nightly.yaml --log-json"
