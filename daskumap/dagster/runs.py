"""Runs of Dagster whose process is gone: found, and declared failed, so that Dagster tries them again.

Dagster sees by itself that a run's process died, as long as the code server that started it lives. Where both
went, as with a machine that was switched off, the run would count as under way for ever.
"""

from __future__ import annotations

import json
from typing import Any

from dagster import DagsterRunStatus, RunsFilter

from daskumap.store.lock import is_gone, this_process

PROCESS = "daskumap/process"
JOB = "daskumap/job"


def sign(instance: Any, run_id: str) -> None:
    """Write down which process works on a run."""
    if instance.get_run_by_id(run_id) is not None:
        instance.add_run_tags(run_id, {PROCESS: json.dumps(this_process())})


def fail_dead_runs(instance: Any, job: str) -> list[str]:
    """Declare those runs of a job failed whose process is surely gone; return their ids."""
    under_way = RunsFilter(job_name=job, statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
    gone = []
    for run in instance.get_runs(under_way):
        if PROCESS in run.tags and is_gone(process := json.loads(run.tags[PROCESS])):
            instance.report_run_failed(
                run, f"Process {process['pid']} on {process['host']}, which worked on it, is gone."
            )
            gone.append(run.run_id)
    return gone
