"""`daskumap status | report | diagnose | verify`: commands that look at a run that exists."""

from __future__ import annotations

import json
from typing import Any

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.output import say
from daskumap.errors import StoreError
from daskumap.report.text import render_diagnostics


def add_commands(commands: Any) -> None:
    """Add these commands to the parser's."""
    status = commands.add_parser("status", help="say how far a run is")
    shared.add_run(status)
    shared.add_json(status)
    status.set_defaults(command=run_status)

    report = commands.add_parser("report", help="show what was measured")
    shared.add_run(report)
    shared.add_json(report)
    report.set_defaults(command=run_report)

    diagnose = commands.add_parser("diagnose", help="measure how well a map fits the graph of a run")
    shared.add_run(diagnose)
    diagnose.add_argument(
        "--embedding",
        metavar="FILE",
        help="a NumPy file, Zarr array or run with a place for each row; default: the run's own map",
    )
    for name in ("a", "b"):
        diagnose.add_argument(f"--{name}", type=float, help="of that map's curve; default: as of the run")
    shared.add_json(diagnose)
    diagnose.set_defaults(command=run_diagnose)

    verify = commands.add_parser("verify", help="read a run store against its checksums")
    shared.add_run(verify)
    verify.add_argument("--repair", action="store_true", help="mark what is damaged as not done")
    verify.set_defaults(command=run_verify)


def run_status(options: dict[str, Any]) -> None:
    """Print how many tasks each stage has done."""
    run = daskumap.open(options["run"])
    status = run.status()
    if options["json"]:
        say(json.dumps({"finished": run.finished, "tasks": status}, indent=1))
        return
    lines = [f"{name:<20}{count:>8,}" for name, count in status.items() if count]
    say("\n".join([repr(run), f"{'stage':<20}{'done':>8}", *lines]))


def run_report(options: dict[str, Any]) -> None:
    """Print the report."""
    run = daskumap.open(options["run"])
    say(json.dumps(run.report, indent=1) if options["json"] else str(run))


def run_diagnose(options: dict[str, Any]) -> None:
    """Print how well a map fits the graph of a run."""
    found = daskumap.diagnose(options["run"], options["embedding"], a=options["a"], b=options["b"])
    say(json.dumps(found, indent=1) if options["json"] else render_diagnostics(found))


def run_verify(options: dict[str, Any]) -> None:
    """Check a run store; damage that is not repaired is an error."""
    place, repair = options["run"], options["repair"]
    damage = daskumap.verify(place, repair=repair)
    for stage, texts in damage.items():
        for text in texts:
            say(f"{stage}: {text}")
    if damage and not repair:
        raise StoreError(f"{place} is damaged. `daskumap verify --repair`, then `resume`, mends it.")
    say("Marked; `daskumap resume` makes it again." if damage else "All is well.")
