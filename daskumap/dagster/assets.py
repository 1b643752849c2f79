"""The assets of a job file: its map, the report of that, and new rows placed in it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import dagster

import daskumap
from daskumap.dagster import metadata
from daskumap.dagster.jobfile import ANY, JobFile, only_map, places_rows
from daskumap.dagster.logs import Stages, forwarded
from daskumap.dagster.runs import sign
from daskumap.errors import (
    DaskumapError,
    DependencyError,
    ParameterError,
    PlanError,
    RunMismatchError,
    StoreError,
)
from daskumap.jobs.dated import runs_of
from daskumap.jobs.schema import Job
from daskumap.jobs.state import JobState
from daskumap.jobs.summary import Summary
from daskumap.jobs.work import run_job

# What another attempt does not change.
FINAL = (DependencyError, ParameterError, PlanError, RunMismatchError)
SOUND = "sound"


def make_assets(job: JobFile, partitions: Any, retry: Any) -> list[Any]:
    """Return the assets of a job file.

    An attempt after a failure goes on from the checkpoints of the one before: run stores keep them.
    """
    by_map, by_rows = job.parts() if partitions is not None else (False, False)
    of_map = {"group_name": job.name, "retry_policy": retry, "partitions_def": partitions if by_map else None}
    found = [_embedding(job, of_map), _report(job, of_map)]
    if places_rows(job.read(ANY)):
        of_rows = {**of_map, "partitions_def": partitions if by_rows else None}
        found.append(_transformed(job, of_rows))
    return found


def _embedding(job: JobFile, how: dict[str, Any]) -> Any:
    @dagster.asset(
        key=[job.name, "embedding"],
        description="The map of all rows; made where input or parameters changed, gone on with where one was "
        "interrupted.",
        **how,
    )
    def embedding(context: dagster.AssetExecutionContext) -> dagster.MaterializeResult:
        with _trouble_told(context):
            summary = _run(context, only_map(_job_of(job, context)))
            run = daskumap.open(str(summary.run))
            about = metadata.of_run(run) | metadata.of_summary(summary)
            return dagster.MaterializeResult(
                metadata=about, data_version=dagster.DataVersion(metadata.version(run))
            )

    return embedding


def _report(job: JobFile, how: dict[str, Any]) -> Any:
    key = [job.name, "report"]
    check = dagster.AssetCheckSpec(
        SOUND, asset=dagster.AssetKey(key), description="Whether no measure of the map is doubtful."
    )

    @dagster.asset(
        key=key,
        deps=[dagster.AssetKey([job.name, "embedding"])],
        check_specs=[check],
        description="Measures, verdict and picture of the map.",
        **how,
    )
    def report(context: dagster.AssetExecutionContext) -> dagster.MaterializeResult:
        with _trouble_told(context):
            run = daskumap.open(newest_run(_job_of(job, context)))
            return dagster.MaterializeResult(
                metadata=metadata.of_report(run),
                check_results=[_verdict(run)],
                data_version=dagster.DataVersion(metadata.version(run)),
            )

    return report


def _verdict(run: Any) -> Any:
    """Return whether a map is sound; one without measures passes, and says so."""
    verdict = run.report["verdict"]
    warnings = {
        one["measure"]: f"{one['says']} {one['remedy']}" for one in (verdict or {}).get("warnings", [])
    }
    return dagster.AssetCheckResult(
        check_name=SOUND,
        passed=verdict is None or bool(verdict["sound"]),
        severity=dagster.AssetCheckSeverity.WARN,
        description="The run has no report." if verdict is None else verdict["sentence"],
        metadata=warnings,
    )


def _transformed(job: JobFile, how: dict[str, Any]) -> Any:
    @dagster.asset(
        key=[job.name, "transformed"],
        deps=[dagster.AssetKey([job.name, "embedding"])],
        description="New rows placed into the map.",
        **how,
    )
    def transformed(context: dagster.AssetExecutionContext) -> dagster.MaterializeResult:
        with _trouble_told(context):
            summary = _run(context, _job_of(job, context))
            placed = [daskumap.open(one["path"]) for one in summary.transforms]
            return dagster.MaterializeResult(
                metadata=metadata.of_all_placed(placed) | metadata.of_summary(summary),
                data_version=dagster.DataVersion(metadata.joined(map(metadata.version, placed))),
            )

    return transformed


def _job_of(job: JobFile, context: Any) -> Job:
    """Return the job of the partition that is asked for."""
    return job.read(context.partition_key if context.has_partition_key else None)


def _run(context: Any, job: Job) -> Summary:
    """Run a job, with its messages in the log of the Dagster run, which says which process works on it."""
    sign(context.instance, context.run.run_id)
    with forwarded(context.log):
        return run_job(job, progress=Stages(context.log))


def newest_run(job: Job) -> str:
    """Return where the map of a job is that was made last: with {date} in its name it has several."""
    if not job.dated:
        return job.run
    known = runs_of(job, JobState(job))
    if not known:
        raise StoreError(f"There is no run of the job {job.name!r} yet. Materialize its embedding first.")
    return known[-1].path


@contextlib.contextmanager
def _trouble_told(context: Any) -> Iterator[None]:
    """Give the errors of daskumap to Dagster: their own words, and whether another attempt may help."""
    try:
        yield
    except (KeyboardInterrupt, dagster.DagsterExecutionInterruptedError) as stop:
        # Dagster tries again what was interrupted, even where somebody asked for it.
        raise dagster.Failure(
            description="The run was stopped. The next one goes on from its checkpoints.", allow_retries=False
        ) from stop
    except DaskumapError as error:
        again = not isinstance(error, FINAL)
        raise dagster.Failure(
            description=str(error), metadata={"kind": type(error).__name__}, allow_retries=again
        ) from error
