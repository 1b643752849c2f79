"""`daskumap plan | fit | resume | verify | status | report | demo`: thin; each calls what a script would."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from daskumap.errors import (
    DaskumapError,
    ParameterError,
    PlanError,
    RunMismatchError,
    SourceError,
    StoreError,
    TaskError,
)

# What a scheduler of batch jobs sees. 0 is success, 1 an error without a code of its own, 130 and 143 are
# SIGINT and SIGTERM.
EXIT_CODES: tuple[tuple[type[DaskumapError], int], ...] = (
    (ParameterError, 2),
    (SourceError, 3),
    (PlanError, 4),
    (RunMismatchError, 6),
    (StoreError, 5),
    (TaskError, 7),
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = vars(build_parser().parse_args(arguments))
    command = options.pop("command")
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        command(options)
    except DaskumapError as error:
        sys.stderr.write(f"daskumap: {error}\n")
        return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        sys.stderr.write("daskumap: stopped. Finished tasks are kept; `daskumap resume` goes on from here.\n")
        return 128 + int(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _stop(number: int, frame: object) -> None:
    """Stop in an orderly way at the first signal, at once at the second."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="daskumap", description="UMAP for Zarr arrays larger than memory, on Dask."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    fit = commands.add_parser("fit", help="embed an array into a run store")
    _add_input(fit)
    fit.add_argument("run", help="path or URL of the run store; an unfinished run of the same input goes on")
    fit.add_argument(
        "--scheduler",
        metavar="WHERE",
        help="Dask scheduler's address or file, or 'sequential'; default: embedded",
    )
    fit.add_argument("--quiet", action="store_true", help="no progress, no report")
    fit.add_argument("--restart", action="store_true", help="delete the run that is there, and start over")
    fit.set_defaults(command=run_fit)

    resume = commands.add_parser("resume", help="go on with an unfinished run, from what its run store says")
    resume.add_argument("run", help="path or URL of a run store")
    resume.add_argument("--memory", help="what a worker may use, such as 4GB")
    resume.add_argument("--threads", type=int, help="threads of the embedded worker")
    resume.add_argument("--scheduler", metavar="WHERE", help="as in fit")
    resume.add_argument("--quiet", action="store_true", help="no progress, no report")
    resume.set_defaults(command=run_resume)

    verify = commands.add_parser("verify", help="read a run store against its checksums")
    verify.add_argument("run", help="path or URL of a run store")
    verify.add_argument("--repair", action="store_true", help="mark what is damaged as not done")
    verify.set_defaults(command=run_verify)

    plan = commands.add_parser("plan", help="say what a fit would do; starts nothing")
    _add_input(plan)
    plan.add_argument("--workers", type=int, default=1, help="worker processes")
    plan.set_defaults(command=run_plan)

    for name, function, text in (
        ("status", run_status, "say how far a run is"),
        ("report", run_report, "show what was measured"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("run", help="path or URL of a run store")
        command.add_argument("--json", action="store_true", help="as JSON")
        command.set_defaults(command=function)

    demo = commands.add_parser("demo", help="embed scikit-learn's digits; leaves a run store and a picture")
    demo.add_argument("folder", nargs="?", default="daskumap-demo", help="where (default: %(default)s)")
    demo.set_defaults(command=run_demo)
    return parser


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="path or URL of a Zarr array (n, D)")
    parser.add_argument("--memory", help="what a worker may use, such as 4GB; default: 60 %% of the machine")
    parser.add_argument("--threads", type=int, help="threads a worker; default: one a core")
    parser.add_argument("--n-neighbors", type=int, help="15 by default; counts the row itself")
    parser.add_argument("--n-components", type=int, help="2 by default")
    parser.add_argument("--metric", help="euclidean by default; any dense metric of pynndescent")
    parser.add_argument("--min-dist", type=float, help="0.1 by default")
    parser.add_argument("--spread", type=float, help="1.0 by default")
    parser.add_argument("--n-epochs", type=int, help="200 by default, 500 up to 10,000 rows")
    parser.add_argument("--init", choices=("pca", "spectral", "random"), help="pca by default")
    parser.add_argument("--optimizer", choices=("adam", "sgd"), help="adam by default")
    parser.add_argument(
        "--unique", action="store_const", const=True, help="exact duplicates get the position of the first"
    )
    parser.add_argument("--seed", type=int, dest="random_state", help="the same seed gives the same bits")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other parameter of daskumap.fit, value as JSON",
    )


def _version() -> str:
    from daskumap import __version__

    return f"daskumap {__version__}"


def _params(options: dict[str, Any]) -> dict[str, Any]:
    """Turn what is left of the options into keyword arguments of `fit`."""
    given = {name: value for name, value in options.items() if value is not None and name != "set"}
    for text in options["set"]:
        name, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(
                f"--set {text} has no '='; write --set NAME=VALUE, such as --set target_recall=0.99."
            )
        try:
            given[name] = json.loads(value)
        except json.JSONDecodeError:
            given[name] = value
    return given


def run_fit(options: dict[str, Any]) -> None:
    """Fit and show the report."""
    import daskumap

    source, run, quiet, scheduler = (options.pop(name) for name in ("source", "run", "quiet", "scheduler"))
    result = daskumap.fit(source, run, client=scheduler, progress=not quiet, **_params(options))
    if not quiet:
        sys.stdout.write(
            f"{result}\n\nembedding            {run}/embedding\npicture              {run}/embedding.png\n"
        )


def run_resume(options: dict[str, Any]) -> None:
    """Go on with a run and show the report."""
    import daskumap

    run, quiet, scheduler = (options.pop(name) for name in ("run", "quiet", "scheduler"))
    result = daskumap.resume(run, client=scheduler, progress=not quiet, **options)
    if not quiet:
        sys.stdout.write(f"{result}\n\nembedding            {run}/embedding\n")


def run_verify(options: dict[str, Any]) -> None:
    """Check a run store; damage that is not repaired is an error."""
    import daskumap

    damage = daskumap.verify(options["run"], repair=options["repair"])
    for stage, texts in damage.items():
        sys.stdout.write("".join(f"{stage}: {text}\n" for text in texts))
    if damage and not options["repair"]:
        raise StoreError(f"{options['run']} is damaged. `daskumap verify --repair`, then `resume`, mends it.")
    sys.stdout.write("All is well.\n" if not damage else "Marked; `daskumap resume` makes it again.\n")


def run_plan(options: dict[str, Any]) -> None:
    """Print the plan."""
    import daskumap

    source = options.pop("source")
    sys.stdout.write(f"{daskumap.plan(source, **_params(options))}\n")


def run_status(options: dict[str, Any]) -> None:
    """Print how many tasks each stage has done."""
    import daskumap

    run = daskumap.open(options["run"])
    status = run.status()
    if options["json"]:
        sys.stdout.write(json.dumps({"finished": run.finished, "tasks": status}, indent=1) + "\n")
        return
    lines = [f"{name:<20}{count:>8,}" for name, count in status.items() if count]
    sys.stdout.write("\n".join([repr(run), f"{'stage':<20}{'done':>8}", *lines]) + "\n")


def run_report(options: dict[str, Any]) -> None:
    """Print the report."""
    import daskumap

    run = daskumap.open(options["run"])
    sys.stdout.write((json.dumps(run.report, indent=1) if options["json"] else str(run)) + "\n")


def run_demo(options: dict[str, Any]) -> None:
    """Write digits to a Zarr array, fit it, draw it."""
    import daskumap
    from daskumap.report.picture import embedding_png
    from daskumap.testing.datasets import digits

    folder = Path(options["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    data = digits()
    source, run, picture = folder / "digits.zarr", folder / "run.zarr", folder / "digits.png"
    data.write_zarr(source, chunks=512)
    result = daskumap.fit(source, run, random_state=42)
    embedding_png(result.embedding, picture, labels=data.labels(0, data.shape[0]))
    sys.stdout.write(f"{result}\n\nembedding            {run}/embedding\npicture              {picture}\n")


if __name__ == "__main__":
    sys.exit(main())
