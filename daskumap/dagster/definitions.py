"""All that Dagster needs of a job file, in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster

from daskumap.dagster.assets import make_assets
from daskumap.dagster.jobfile import PARTITION, JobFile
from daskumap.dagster.runs import JOB
from daskumap.dagster.triggers import make_schedule, make_sensor
from daskumap.errors import ParameterError

# An attempt that finds the lock of one that died on another host waits for at most a minute.
RETRY = dagster.RetryPolicy(max_retries=3, delay=30, backoff=dagster.Backoff.LINEAR)


def definitions(
    job: str | Path,
    *,
    partitions: Any = None,
    schedule: str | None = "0 2 * * *",
    timezone: str = "UTC",
    sensor: bool = True,
    retry: Any = RETRY,
) -> Any:
    """Return the definitions of Dagster for a job file.

    They are the assets `NAME/embedding`, `NAME/report` and, where the job has new rows, `NAME/transformed`;
    a job `NAME` that makes all of them; the schedule `NAME_schedule` and the sensor `NAME_sensor`, which are
    on from the start. NAME is that of the job, or of its file. Several job files are put together by
    `dagster.Definitions.merge`.

    Parameters
    ----------
    job
        Path of a job file (docs/nightly.md). It is read again for each run, so that other parameters need no
        new start.
    partitions
        What stands in the place of `{partition}` in the job file: a list of names, one for each data set; or
        any partitions of Dagster's, such as `dagster.DailyPartitionsDefinition("2026-01-01")` for one data
        set a day. With `dagster.DynamicPartitionsDefinition(name="...")` the sensor finds the data sets: it
        adds one for each file or folder that the input's path fits.
    schedule
        When all is made, as in a crontab; None for no schedule. Of partitions by time that is the newest
        complete one.
    timezone
        Of the schedule, such as "Europe/Berlin".
    sensor
        Whether a sensor looks for changes of the input. It also finds runs whose process died with its
        machine, so that Dagster tries them again.
    retry
        `dagster.RetryPolicy` of each asset, or None. Each attempt goes on from the checkpoints of the last.

    Returns
    -------
    dagster.Definitions

    Raises
    ------
    ParameterError
        If the job file has mistakes, or names partitions that it is not given, or the other way round.
    """
    found = JobFile.open(job)
    if isinstance(partitions, list | tuple) and not isinstance(partitions, dagster.PartitionsDefinition):
        partitions = dagster.StaticPartitionsDefinition(list(partitions))
    _refuse_unfit(found, partitions)
    assets = make_assets(found, partitions, retry)
    asset_job = dagster.define_asset_job(
        found.name,
        selection=[asset.key for asset in assets],
        tags={JOB: found.name},
        executor_def=dagster.in_process_executor,
        description=f"Makes what {found.path.name} says.",
    )
    ticks = [make_schedule(found, asset_job, cron, timezone, partitions) for cron in [schedule] if cron]
    return dagster.Definitions(
        assets=assets,
        jobs=[asset_job],
        schedules=ticks,
        sensors=[make_sensor(found, asset_job, partitions)] if sensor else [],
        executor=dagster.in_process_executor,
    )


def _refuse_unfit(job: JobFile, partitions: Any) -> None:
    """Refuse partitions without their place in the job file, and a place without partitions."""
    named = any(job.parts())
    if named and partitions is None:
        raise ParameterError(
            f"{job.path} has {PARTITION} in a name, and no partitions are given. Name them: "
            "definitions(..., partitions=['a', 'b'])."
        )
    if partitions is not None and not isinstance(partitions, dagster.PartitionsDefinition):
        raise ParameterError(
            f"partitions is {partitions!r}; it must be a list of names or partitions of Dagster's, such as "
            "dagster.DailyPartitionsDefinition('2026-01-01')."
        )
    if partitions is not None and not named:
        raise ParameterError(
            f"partitions are given, and {job.path} has no {PARTITION} in a name. Write it into the paths "
            f"that differ, such as 'data/{PARTITION}.zarr', or leave partitions out."
        )
