"""A flow of Prefect that runs a job file: `python daskumap_nightly.py nightly.yaml`.

`python daskumap_nightly.py nightly.yaml --serve "0 2 * * *"` stays, and runs it each night. The variable of
the environment DASKUMAP is the command, with its full path where it is in an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from prefect import flow, get_run_logger, task

COMMAND = os.environ.get("DASKUMAP", "daskumap")
# Another process runs the job; a job, an input or a plan that is wrong stays so.
LOCKED, WRONG = 9, (2, 3, 4, 6)


def _may_succeed(task: Any, run: Any, state: Any) -> bool:
    """Return whether another attempt helps: it goes on where the run was."""
    error = state.result(raise_on_failure=False)
    return getattr(error, "returncode", 1) not in WRONG


@task(retries=3, retry_delay_seconds=60, retry_condition_fn=_may_succeed)
def run_job(job: str) -> dict[str, Any]:
    """Run the job in a process of its own; return its summary."""
    log, command = get_run_logger(), [COMMAND, "run", job, "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, LOCKED):
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout)
    summary: dict[str, Any] = json.loads(done.stdout)
    log.info("%s: %s, %s", summary["job"], summary["state"], summary["run"])
    return summary


@flow(name="daskumap-nightly", log_prints=True)
def nightly(job: str = "nightly.yaml") -> dict[str, Any]:
    """Run one job file."""
    return run_job(job)


if __name__ == "__main__":
    file, *rest = sys.argv[1:] or ["nightly.yaml"]
    if rest[:1] == ["--serve"]:
        nightly.serve("daskumap-nightly", cron=rest[1], parameters={"job": file})
    else:
        nightly(file)
