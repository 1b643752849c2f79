"""`daskumap COMMAND`: thin; each command calls what a script would, and its errors become exit codes."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import daskumap
from daskumap.cli import demo, examine, fit, network
from daskumap.cli.output import complain, open_missing_streams, showing_messages
from daskumap.errors import DaskumapError, exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    open_missing_streams()
    options = vars(build_parser().parse_args(arguments))
    command = options.pop("command")
    with showing_messages(options.get("quiet", False)), _stopping_in_order():
        return _exit_code(command, options)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="daskumap", description="UMAP for Zarr arrays larger than memory, on Dask."
    )
    parser.add_argument("--version", action="version", version=f"daskumap {daskumap.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in (fit, network, examine, demo):
        group.add_commands(commands)
    return parser


def _exit_code(command: Callable[[dict[str, Any]], None], options: dict[str, Any]) -> int:
    try:
        command(options)
    except DaskumapError as error:
        complain(f"daskumap: {error}")
        return exit_code(error)
    except KeyboardInterrupt as stop:
        complain("daskumap: stopped.")
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    return 0


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
