"""What starts jobs from elsewhere: each wrapper calls `daskumap run` with a job file that holds."""

import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from daskumap.cli.main import COMMANDS
from daskumap.errors import LockedError, exit_code
from daskumap.jobs.many import find_jobs
from daskumap.jobs.reading import read_job

WORKFLOWS = Path(__file__).parents[2] / "workflows"
# Codes with which a job fails again, as it stands: parameters, source, plan, another run.
WRONG = [2, 3, 4, 6]


@pytest.fixture
def run(tmp_path: Path):
    """Run a workflow with a `daskumap` that writes down its arguments and exits with 4."""
    command = tmp_path / "bin" / "daskumap"
    command.parent.mkdir()
    command.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "{tmp_path}/arguments"\nexit 4\n')
    command.chmod(0o755)

    def call(*words: str, **environment: str) -> tuple[int, list[str]]:
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            words, env={**os.environ, **environment, "PATH": path}, capture_output=True, timeout=60
        )
        seen = tmp_path / "arguments"
        return done.returncode, seen.read_text().splitlines() if seen.exists() else []

    return call


def test_the_jobs_that_are_ready_hold():
    jobs = WORKFLOWS / "jobs"
    night = read_job(jobs / "nightly.yaml")
    assert (night.dated, night.growing.refit_above, night.retention) == (True, 0.15, 7)
    many = find_jobs([str(jobs / "many" / "*.yaml")])
    assert len(many) == 2
    assert Path(read_job(many[0]).run).parent == jobs / "maps"
    sweep = yaml.safe_load((jobs / "sweep.yaml").read_text())
    assert sweep.pop("sweep").keys() == {"n_neighbors", "min_dist"}
    read_job(sweep)


def test_cron_calls_the_job_with_full_paths_and_a_log(run, tmp_path):
    lines = (WORKFLOWS / "cron" / "crontab").read_text().splitlines()
    names = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]+=", line))
    assert all(value.startswith("/") for value in names.values())
    (entry,) = [line for line in lines if re.match(r"[\d*]", line)]
    *when, said = entry.split(maxsplit=5)
    assert when == ["0", "2", "*", "*", "*"]
    # As cron calls it: its shell, with its variables and nothing else.
    log = tmp_path / "nightly.log"
    (tmp_path / "bin" / "daskumap").write_text('#!/bin/sh\necho "$@"; echo trouble >&2; exit 4\n')
    own = {**names, "DASKUMAP": str(tmp_path / "bin" / "daskumap"), "LOG": str(log)}
    done = subprocess.run([names["SHELL"], "-c", said], env=own, cwd="/")
    assert done.returncode == 4
    assert log.read_text().splitlines() == [f"run {names['JOB']}", "trouble"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
def test_systemd_takes_the_units(tmp_path):
    command = tmp_path / "home/daskumap/.venv/bin/daskumap"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    for name in ("daskumap-nightly.service", "daskumap-nightly.timer"):
        text = (WORKFLOWS / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("%h", str(tmp_path / "home")))
    files = [str(tmp_path / "daskumap-nightly.service"), str(tmp_path / "daskumap-nightly.timer")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *files], capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if "daskumap-nightly" in line]
    assert said == []


def test_systemd_says_what_the_command_does():
    text = (WORKFLOWS / "systemd" / "daskumap-nightly.service").read_text()
    assert "bin/daskumap run %h/daskumap/nightly.yaml" in text
    assert f"SuccessExitStatus={exit_code(LockedError())}" in text


def test_kubernetes_runs_the_job_of_its_config_map(tmp_path):
    config, cron = yaml.safe_load_all((WORKFLOWS / "kubernetes" / "nightly.yaml").read_text())
    (tmp_path / "nightly.yaml").write_text(config["data"]["nightly.yaml"])
    assert read_job(tmp_path / "nightly.yaml").growing is not None
    assert (cron["apiVersion"], cron["kind"]) == ("batch/v1", "CronJob")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    job = cron["spec"]["jobTemplate"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == WRONG
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which a podFailurePolicy needs
    _check_container(pod["containers"][0], pod["volumes"], config)
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]


def test_argo_runs_the_same_job():
    config, _ = yaml.safe_load_all((WORKFLOWS / "kubernetes" / "nightly.yaml").read_text())
    cron = yaml.safe_load((WORKFLOWS / "argo" / "nightly.yaml").read_text())
    assert (cron["apiVersion"], cron["kind"]) == ("argoproj.io/v1alpha1", "CronWorkflow")
    spec = cron["spec"]["workflowSpec"]
    (template,) = spec["templates"]
    assert spec["entrypoint"] == template["name"]
    assert all(f'"{code}"' in template["retryStrategy"]["expression"] for code in WRONG)
    _check_container(template["container"], template["volumes"], config)


def _check_container(container, volumes, config):
    """Check that a container runs the job file that is mounted."""
    assert container["command"][:2] == ["daskumap", "run"]
    assert "run" in COMMANDS["Jobs"]
    folder, name = container["command"][2].rsplit("/", 1)
    (mount,) = container["volumeMounts"]
    assert mount["mountPath"] == folder
    (volume,) = [one for one in volumes if one["name"] == mount["name"]]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert name in config["data"]


def test_airflow_calls_the_job(monkeypatch, run, tmp_path):
    """With a stand-in for Airflow; tests/services has the real one."""
    seen = {}

    class Dag:
        def __init__(self, **settings):
            seen["dag"] = settings

        def __enter__(self):
            return self

        def __exit__(self, *_): ...

    names = ["airflow", "airflow.sdk"]
    for end in ("providers", "providers.standard", "providers.standard.operators"):
        names.append(f"airflow.{end}")
    operator = "airflow.providers.standard.operators.bash"
    for name in [*names, operator]:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["airflow.sdk"].DAG = Dag
    sys.modules[operator].BashOperator = lambda **settings: seen.update(task=settings)
    monkeypatch.setenv("DASKUMAP_JOB", "my jobs/nightly.yaml")
    code = (WORKFLOWS / "airflow" / "daskumap_nightly.py").read_text()
    exec(compile(code, "dag", "exec"), {"__name__": "dag"})
    assert (seen["dag"]["max_active_runs"], seen["dag"]["catchup"]) == (1, False)
    assert seen["task"]["skip_on_exit_code"] == exit_code(LockedError())
    assert run("bash", "-c", seen["task"]["bash_command"]) == (
        4,
        ["run", "my jobs/nightly.yaml", "--log-json"],
    )
