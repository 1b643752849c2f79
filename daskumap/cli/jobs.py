"""`daskumap run | batch`: jobs that stand in files."""

from __future__ import annotations

from typing import Annotated

import typer

from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.output import say, say_json
from daskumap.errors import ParameterError

Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="no progress, no summary; warnings only", rich_help_panel="Everywhere"),
]


@command(example="daskumap run nightly.yaml\ndaskumap run --schema > job.schema.json")
def run(
    job: Annotated[
        str | None,
        typer.Argument(metavar="JOB", help="the job: a YAML or JSON file, see docs/nightly.md"),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="make the map anew, whether anything changed or not")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="take the job from another process, which stops")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="print what may stand in a job file, as JSON schema")
    ] = False,
    quiet: Quiet = False,
    json: shared.Json = False,
) -> None:
    """Run a whole job: map, new rows, results, retention, notification.

    It is safe to call at any time: what is done is not done again, what was interrupted goes on, and one
    process runs a job at a time.
    """
    from daskumap.jobs.schema import job_schema
    from daskumap.jobs.work import attempt_job

    if schema:
        say_json(job_schema())
        return
    if job is None:
        raise ParameterError("Name a job file: daskumap run JOB. `daskumap run --schema` says what it holds.")
    done, error = attempt_job(job, progress=not quiet, take_over=take_over, restart=restart)
    if json:
        say_json(done.as_json())
    elif not quiet and error is None:
        say(str(done))
    if error is not None:
        raise error


@command(example="daskumap batch 'jobs/*.yaml' --workers 4")
def batch(
    jobs: Annotated[
        list[str], typer.Argument(metavar="JOB...", help="job files, or patterns such as 'jobs/*.yaml'")
    ],
    workers: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="jobs at a time, each in a process", rich_help_panel="Where it runs"
        ),
    ] = 1,
    restart: Annotated[
        bool, typer.Option("--restart", help="make all maps anew, whether anything changed or not")
    ] = False,
    quiet: Quiet = False,
    json: shared.Json = False,
) -> int:
    """Run many jobs, each in a process of its own; those after one that fails too.

    The exit code is 0 if none failed, the one of those that failed where it is the same, and else 1.
    """
    from daskumap.jobs.many import Batch, find_jobs

    done = Batch(find_jobs(jobs), workers, restart, quiet).run()
    if json:
        say_json(done.as_json())
    elif not quiet:
        say(str(done))
    return done.exit_code
