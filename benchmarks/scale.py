"""Scale: what grows with the rows, and what must not.

    python scale.py growth  --folder DIR [--rows 100000 300000 1000000 3000000] [--columns 64]
    python scale.py limit   --folder DIR [--rows 8000000] [--columns 128] [--workers 2] [--memory 1GB]
    python scale.py workers --folder DIR [--rows 1000000] [--columns 64]
    python scale.py peer    --folder DIR [--rows 1000000] [--columns 64]
    python scale.py skew    --folder DIR [--rows 300000]
    python scale.py kernels --folder DIR [--rows 1000000] [--columns 64]
    python scale.py pairs   --folder DIR [--rows 1000000] [--columns 64] [--set simplices=2] [--most 1.6]

Each prints Markdown tables and ends with its promises; the exit code is 1 if one is broken. Rows are made
chunk by chunk in --folder, run stores there are deleted after use. `--set name=value` goes to daskumap.fit,
`--json FILE` keeps all figures, `--timeout SECONDS` bounds the whole command. docs/scaling.md says what each
measures and what it assumes.
"""

import argparse
import importlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compare import ROOT, setting
from measure import Outcome

# Runs from a checkout as well, where daskumap need not be installed.
sys.path.append(str(ROOT))

# Each is a module `scale_<name>` with `add_arguments(parser)`, `run(arguments) -> Outcome` and `work(task)`.
BENCHMARKS = ("growth", "limit", "workers", "peer", "skew", "kernels", "pairs")


def module(name: str) -> Any:
    """Return the module of one benchmark."""
    return importlib.import_module(f"scale_{name}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="name", required=True)
    for name in BENCHMARKS:
        command = commands.add_parser(name, help=(module(name).__doc__ or "").split("\n")[0])
        command.add_argument("--folder", type=Path, help="for data and run stores: several times the input")
        command.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE")
        command.add_argument("--json", type=Path, help="write all figures to this file")
        command.add_argument("--timeout", type=int, default=7_200, help="seconds for the whole command")
        module(name).add_arguments(command)
    return parser.parse_args(argv)


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Raise TimeoutError after so many seconds; whoever started processes ends them on the way out."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"stopped after {seconds} s; raise --timeout or take fewer rows")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark and return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["--worker"]:
        print(json.dumps(module(words[1]).work(json.loads(words[2]))))
        return 0
    from daskumap.errors import DaskumapError

    arguments = parse(words)
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scale-", dir=arguments.folder) as folder:
        arguments.folder = arguments.folder or Path(folder)
        try:
            with bounded(arguments.timeout):
                outcome: Outcome = module(arguments.name).run(arguments)
        except (DaskumapError, TimeoutError, subprocess.CalledProcessError) as error:
            print(f"{arguments.name} did not finish: {error}", file=sys.stderr)
            return 1
    print(outcome)
    if arguments.json:
        arguments.json.write_text(json.dumps(outcome.figures, indent=1))
    return 0 if outcome.kept else 1


if __name__ == "__main__":
    sys.exit(main())
