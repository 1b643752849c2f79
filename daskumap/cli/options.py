"""Options that several commands share, and how they become keyword arguments."""

from __future__ import annotations

import argparse
import json
from typing import Any

from daskumap.errors import ParameterError


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the run store that a command looks at or goes on with."""
    parser.add_argument("run", help="path or URL of a run store")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add what this machine, or a worker, gives to a run that is fixed already."""
    parser.add_argument("--memory", help="what a worker may use, such as 4GB")
    parser.add_argument("--threads", type=int, help="threads of this process")


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add what is fitted, and how: the same for a fit and its plan."""
    parser.add_argument(
        "source",
        help="path or URL of a Zarr array (n, D); or of a finished run, whose neighbours are not searched "
        "again, and whose parameters are taken where no others are given",
    )
    parser.add_argument("--memory", help="what a worker may use, such as 4GB; default: 60 %% of the machine")
    parser.add_argument("--threads", type=int, help="threads a worker; default: one a core")
    parser.add_argument("--n-neighbors", type=int, help="15 by default; counts the row itself")
    parser.add_argument("--n-components", type=int, help="2 by default")
    parser.add_argument("--metric", help="euclidean by default; any dense metric of pynndescent")
    parser.add_argument(
        "--membership",
        choices=("exponential", "gaussian", "quadratic", "morse", "harmonic", "constant"),
        help="exponential by default: how memberships fall with distance",
    )
    parser.add_argument("--min-dist", type=float, help="0.1 by default")
    parser.add_argument("--spread", type=float, help="1.0 by default")
    parser.add_argument("--n-epochs", type=int, help="200 by default, 500 up to 10,000 rows")
    parser.add_argument(
        "--init",
        choices=("pca", "spectral", "tswspectral", "random"),
        help="pca by default; a run by --set",
    )
    parser.add_argument("--optimizer", choices=("adam", "sgd", "none"), help="adam by default")
    parser.add_argument(
        "--simplices",
        type=int,
        choices=(1, 2, 3),
        help="weigh edges by the triangles (2), or tetrahedra too (3), that they are in; 1, the default: "
        "the graph as it is",
    )
    parser.add_argument(
        "--vr-delta", type=float, help="leave longer edges out of simplices, by -log(w); inf by default"
    )
    parser.add_argument(
        "--unique", action="store_const", const=True, help="exact duplicates get the position of the first"
    )
    parser.add_argument("--seed", type=int, dest="random_state", help="the same seed gives the same bits")
    add_results(parser)
    add_settings(parser, "daskumap.fit")


def add_settings(parser: argparse.ArgumentParser, function: str) -> None:
    """Add all other parameters of a function."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"any other parameter of {function}, value as JSON",
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add what a run leaves behind."""
    parser.add_argument(
        "--no-report", action="store_const", const=False, dest="report", help="measure and draw nothing"
    )
    parser.add_argument(
        "--keep",
        choices=("all", "graph", "model", "embedding"),
        help="what stays in the run store: every array; all but scratch, which is the default; what places "
        "new rows; or the map and the report only",
    )


def add_result(parser: argparse.ArgumentParser, fitted: bool = True) -> None:
    """Add where the result goes of what is made by a finished run, and how it is made."""
    parser.add_argument("out", help="path or URL of the result; an unfinished one of the same input goes on")
    if fitted:
        parser.add_argument(
            "--fitted", help="path or URL of the rows that were fitted; default: what RUN names"
        )
    add_machine(parser)
    add_driver(parser)
    parser.add_argument("--restart", action="store_true", help="delete what is in OUT, and start over")
    add_take_over(parser)
    add_trust_input(parser)


def add_driver(parser: argparse.ArgumentParser) -> None:
    """Add where tasks run, and what is said meanwhile."""
    parser.add_argument(
        "--scheduler",
        metavar="WHERE",
        help="Dask scheduler's address or file, 'threads' for one worker in this process, or 'sequential'; "
        "default: what suits the size",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no report; warnings only")


def add_take_over(parser: argparse.ArgumentParser) -> None:
    """Add what is done about another process that has the run store."""
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="take the run store from another process, which stops; where its lock is dated by a wrong clock",
    )


def add_trust_input(parser: argparse.ArgumentParser) -> None:
    """Add whether the input of a run that goes on is read again and compared."""
    parser.add_argument(
        "--trust-input",
        action="store_true",
        help="go on with a run that is there without reading the input again to see that it did not change",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a form for programs."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def as_params(options: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of the options, `--set` among them, as keyword arguments of `daskumap.fit`.

    Raises
    ------
    ParameterError
        If a `--set` has no value.
    """
    given = {name: value for name, value in options.items() if value is not None and name != "set"}
    return given | dict(map(_parse_setting, options["set"]))


def _parse_setting(text: str) -> tuple[str, Any]:
    """Return name and value of NAME=VALUE; what is no JSON is a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ParameterError(
            f"--set {text} has no '='; write --set NAME=VALUE, such as --set target_recall=0.99."
        )
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
