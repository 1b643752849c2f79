"""When assets are made: by a cron schedule, and where a sensor saw that the input changed."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from typing import Any

import dagster

import daskumap
from daskumap.dagster.jobfile import PARTITION, JobFile
from daskumap.dagster.runs import fail_dead_runs
from daskumap.errors import ParameterError
from daskumap.jobs.rows import open_rows
from daskumap.jobs.schema import Job, Rows
from daskumap.store.run import is_run_store

# No file is called so.
PLACE = "-partition-"
# Of partitions by time, as many of the newest are looked at.
NEWEST = 31
# What of a job file changes a result; the rest says where it is made and who is told.
MADE_OF = {"source", "labels", "parameters", "transform", "growing", "results", "run"}
# Seconds between two looks at the input.
INTERVAL = 60


def make_schedule(job: JobFile, asset_job: Any, cron: str, timezone: str, partitions: Any) -> Any:
    """Return a schedule that asks for all partitions, or for the newest complete one where they are times."""

    @dagster.schedule(
        name=f"{job.name}_schedule",
        job=asset_job,
        cron_schedule=cron,
        execution_timezone=timezone,
        default_status=dagster.DefaultScheduleStatus.RUNNING,
        description=f"Makes what {job.path.name} says; what is unchanged is not made again.",
    )
    def schedule(context: dagster.ScheduleEvaluationContext) -> Any:
        if partitions is None:
            return dagster.RunRequest()
        keys = _known(partitions, context.instance, context.scheduled_execution_time)
        if isinstance(partitions, dagster.TimeWindowPartitionsDefinition):
            keys = keys[-1:]
        if not keys:
            return dagster.SkipReason("There is no partition yet.")
        tick = context.scheduled_execution_time.isoformat()
        return [dagster.RunRequest(run_key=f"{tick} {key}", partition_key=key) for key in keys]

    return schedule


def make_sensor(job: JobFile, asset_job: Any, partitions: Any) -> Any:
    """Return a sensor that asks for what is made of an input which changed and has settled.

    An input is settled if two looks at it see the same: whoever writes it is done, or slow.
    """

    @dagster.sensor(
        name=f"{job.name}_sensor",
        job=asset_job,
        minimum_interval_seconds=INTERVAL,
        default_status=dagster.DefaultSensorStatus.RUNNING,
        description="Looks at the shape, the type and some rows of the input, and asks for a run where they "
        "changed.",
    )
    def sensor(context: dagster.SensorEvaluationContext) -> Any:
        fail_dead_runs(context.instance, asset_job.name)
        added = _found(job, partitions)
        keys = [None] if partitions is None else [*_known(partitions, context.instance), *added]
        known, notes = json.loads(context.cursor or "{}"), []
        now, requests = {}, []
        for key in dict.fromkeys(keys):
            before = known.get(key or "", {})
            try:
                seen = fingerprint(job.read(key))
            except Exception as error:  # one data set out of reach must not hide the others
                notes.append(str(error))
                now[key or ""] = before
                continue
            now[key or ""] = {**before, "seen": seen}
            if seen != before.get("seen"):
                notes.append(f"{key or 'The input'} is new or changed; it is made once it has settled.")
            elif seen != before.get("asked"):
                now[key or ""]["asked"] = seen
                requests.append(dagster.RunRequest(partition_key=key))
        return dagster.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dagster.SkipReason("\n".join(notes) or "Nothing changed."),
            cursor=json.dumps(now),
            dynamic_partitions_requests=[partitions.build_add_request(added)] if added else None,
        )

    return sensor


def fingerprint(job: Job) -> str:
    """Return a digest of what the results of a job depend on; of its inputs a few rows are read."""
    inputs = [_identity(job.source, job.labels), *(_identity(one.source) for one in job.transform)]
    known = {"job": job.model_dump(include=MADE_OF, mode="json"), "inputs": inputs}
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def _identity(rows: Rows, labels: str | None = None) -> Any:
    """Return what tells an input from others, and from itself before a change."""
    if is_run_store(rows.path):
        return daskumap.open(rows.path).store.about["id"]
    return open_rows(rows, labels).identity()


def _known(partitions: Any, instance: Any, now: Any = None) -> list[str]:
    """Return the names of partitions that there are, of those by time the newest."""
    if isinstance(partitions, dagster.TimeWindowPartitionsDefinition):
        return list(partitions.get_partition_keys(current_time=now))[-NEWEST:]
    return list(partitions.get_partition_keys(dynamic_partitions_store=instance))


def _found(job: JobFile, partitions: Any) -> list[str]:
    """Return the names of dynamic partitions whose data sets are there.

    Raises
    ------
    ParameterError
        If they lie where folders cannot be listed.
    """
    if not isinstance(partitions, dagster.DynamicPartitionsDefinition):
        return []
    pattern = _pattern(job)
    if "://" in pattern:
        raise ParameterError(
            f"{pattern} is a URL, where no data sets are looked for. Give the names of the partitions as a "
            "list."
        )
    before, after = map(glob.escape, pattern.split(PARTITION, 1))
    named = re.compile(
        re.escape(pattern).replace(re.escape(PARTITION), "(.+)", 1).replace(re.escape(PARTITION), r"\1")
    )
    places = sorted(glob.glob(f"{before}*{after.replace(glob.escape(PARTITION), '*')}"))
    return [match[1] for place in places if (match := named.fullmatch(place))]


def _pattern(job: JobFile) -> str:
    """Return the path of the first input that has a partition in its name."""
    found = job.read(PLACE)
    paths = [found.source.path, *(one.source.path for one in found.transform)]
    return next(path.replace(PLACE, PARTITION) for path in paths if PLACE in path)
