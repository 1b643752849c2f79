"""`daskumap COMMAND`: thin; each command calls what a script would, and its errors become exit codes.

To add a command:

1. Write a function in a module of its group, such as `fit.py`, or in a new one, with `@command(example=...)`:
   parameters are its arguments and options (`typer.Argument`, `typer.Option` in `Annotated`; those that are
   shared stand in `options.py`), its docstring is the help. It calls one function of the library, and says
   its result by `say`, or by `say_json` with `--json`. What it returns is the exit code; nothing is 0.
2. Put its name and module into COMMANDS, under its heading. A command of more than one word, such as
   `cluster check`, is in a `group`.
3. Give it `--json` (`options.Json`) if it says a result, and run `python -m daskumap.cli.reference`, which
   writes the reference in docs/command-line.md.

Modules of commands import nothing heavy: the library is loaded by `daskumap.fit` and its like when called.
`--config`, the environment, help, `--quiet` and errors are those of all commands (`command.py`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

import daskumap
from daskumap.cli.command import PLAIN, lazy
from daskumap.cli.mistakes import explain
from daskumap.cli.output import complain, complain_of, open_missing_streams, say
from daskumap.errors import DaskumapError

# Heading of the help -> command -> module with a function of that name.
COMMANDS = {
    "Fit": {
        "plan": "daskumap.cli.fit",
        "fit": "daskumap.cli.fit",
        "resume": "daskumap.cli.fit",
        "train": "daskumap.cli.network",
        "demo": "daskumap.cli.demo",
    },
    "Jobs": {
        "run": "daskumap.cli.jobs",
        "batch": "daskumap.cli.jobs",
    },
    "Look": {
        "inspect": "daskumap.cli.look",
        "status": "daskumap.cli.examine",
        "report": "daskumap.cli.examine",
        "diagnose": "daskumap.cli.examine",
        "evaluate": "daskumap.cli.quality",
        "stability": "daskumap.cli.quality",
        "plot": "daskumap.cli.picture",
        "watch": "daskumap.cli.picture",
    },
    "Use": {
        "transform": "daskumap.cli.use",
        "inverse": "daskumap.cli.use",
        "predict": "daskumap.cli.network",
    },
    "Move data": {
        "save": "daskumap.cli.use",
        "export": "daskumap.cli.move",
        "convert": "daskumap.cli.move",
    },
    "Maintain": {
        "cluster": "daskumap.cli.cluster",
        "verify": "daskumap.cli.examine",
        "clean": "daskumap.cli.clean",
        "doctor": "daskumap.cli.look",
    },
}

app = typer.Typer(cls=lazy(COMMANDS), no_args_is_help=True, **(PLAIN | {"add_completion": True}))


def _say_version(value: bool) -> None:
    if value:
        say(f"daskumap {daskumap.__version__}")
        raise typer.Exit


@app.callback(help="UMAP for Zarr arrays larger than memory, on Dask.", epilog="daskumap COMMAND --help")
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="say the version")
    ] = False,
) -> None:
    """Take the options before a command."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Wrong usage ends in `SystemExit` with code 2."""
    open_missing_streams()
    built: Any = typer.main.get_command(app)
    if "_DASKUMAP_COMPLETE" in os.environ:  # a shell asks
        built.main(arguments, prog_name="daskumap")
    with _stopping_in_order():
        return _exit_code(built, sys.argv[1:] if arguments is None else arguments)


def _exit_code(built: Any, arguments: list[str]) -> int:
    try:
        with built.make_context("daskumap", list(arguments)) as context:
            return int(built.invoke(context) or 0)
    except typer.Exit as over:
        return over.exit_code
    except typer.TyperException as mistake:
        complain(explain(mistake))
        raise SystemExit(mistake.exit_code) from None
    except (DaskumapError, KeyboardInterrupt) as error:  # before a command began
        return complain_of(error)


@contextlib.contextmanager
def _stopping_in_order() -> Iterator[None]:
    """Stop in an orderly way at the first signal, at once at the second."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    sys.exit(main())
