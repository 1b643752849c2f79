"""`daskumap fit | transform | inverse | save | plan | resume`: what makes a run, or says what it would be."""

from __future__ import annotations

from typing import Any

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.output import say
from daskumap.cli.results import make, show
from daskumap.errors import StoreError


def add_commands(commands: Any) -> None:
    """Add these commands to the parser's."""
    fit = commands.add_parser("fit", help="embed an array into a run store")
    shared.add_input(fit)
    fit.add_argument("run", help="path or URL of the run store; an unfinished run of the same input goes on")
    shared.add_driver(fit)
    fit.add_argument("--restart", action="store_true", help="delete the run that is there, and start over")
    shared.add_take_over(fit)
    shared.add_trust_input(fit)
    fit.set_defaults(command=run_fit)

    transform = commands.add_parser("transform", help="place new rows into the map of a finished run")
    transform.add_argument("run", help="path or URL of a run store, or of a saved network")
    transform.add_argument("source", help="path or URL of a Zarr array (m, D) with the columns of the fit's")
    shared.add_result(transform)
    transform.set_defaults(command=run_transform)

    save = commands.add_parser("save", help="write what transform needs of a run to a place of its own")
    shared.add_run(save)
    save.add_argument("path", help="path or URL of the copy")
    save.add_argument("--rows", action="store_true", help="with the rows that were fitted")
    save.add_argument("--fitted", help="path or URL of the rows that were fitted; default: what RUN names")
    save.set_defaults(command=run_save)
    inverse = commands.add_parser("inverse", help="find rows of the data for points of a finished run's map")
    inverse.add_argument("run", help="path or URL of a run store, or of a network with a decoder")
    inverse.add_argument("points", help="path or URL of a Zarr array (m, n_components)")
    shared.add_result(inverse)
    inverse.set_defaults(command=run_inverse)

    resume = commands.add_parser("resume", help="go on with an unfinished run, from what its run store says")
    shared.add_run(resume)
    resume.add_argument("--source", dest="data", help="path or URL of the input; default: what the run names")
    shared.add_machine(resume)
    shared.add_driver(resume)
    shared.add_take_over(resume)
    shared.add_trust_input(resume)
    resume.set_defaults(command=run_resume)

    plan = commands.add_parser("plan", help="say what a fit would do; starts nothing")
    shared.add_input(plan)
    plan.add_argument("--workers", type=int, default=1, help="worker processes")
    plan.add_argument("--run", help="plan the transform of SOURCE into the map of this run")
    plan.add_argument(
        "--inverse",
        action="store_const",
        const=True,
        help="plan the rows of SOURCE, points of the map of RUN",
    )
    plan.set_defaults(command=run_plan)


def run_fit(options: dict[str, Any]) -> None:
    """Fit and show the report."""
    source, run, quiet, scheduler = (options.pop(name) for name in ("source", "run", "quiet", "scheduler"))
    params = shared.as_params(options)
    result = daskumap.fit(source, run, client=scheduler, progress=not quiet, **params)
    if not quiet:
        show(result, run)


def run_transform(options: dict[str, Any]) -> None:
    """Place new rows and say where they are."""
    make(daskumap.transform, options, "source")


def run_save(options: dict[str, Any]) -> None:
    """Save a model and say where it is."""
    run = daskumap.open(options.pop("run"))
    if not isinstance(run, daskumap.Run):
        raise StoreError(f"{run.path} was made by a run. Name the run store that the map of the rows is in.")
    say(repr(run.save(**options)))


def run_inverse(options: dict[str, Any]) -> None:
    """Find rows for points and say where they are."""
    make(daskumap.inverse_transform, options, "points")


def run_resume(options: dict[str, Any]) -> None:
    """Go on with a run and show the report."""
    run, quiet, scheduler = (options.pop(name) for name in ("run", "quiet", "scheduler"))
    result = daskumap.resume(run, client=scheduler, progress=not quiet, **options)
    if not quiet:
        show(result, run)


def run_plan(options: dict[str, Any]) -> None:
    """Print the plan."""
    source = options.pop("source")
    say(str(daskumap.plan(source, **shared.as_params(options))))
