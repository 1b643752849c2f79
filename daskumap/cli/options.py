"""Options that several commands share, and how they become keyword arguments.

A command takes a group of them as `**options: Unpack[Driver]`; each is
None, or False of a switch, if left out.
"""

import ast
import contextlib
import json
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypedDict

import typer

from daskumap.errors import ParameterError

of_map = partial(typer.Option, rich_help_panel="The map")
of_machine = partial(typer.Option, rich_help_panel="Where it runs")
of_store = partial(typer.Option, rich_help_panel="The run store")

EXAMPLES = {"--set": "--set target_recall=0.99", "--source-option": "--source-option columns=embedding"}

RunPath = Annotated[str, typer.Argument(metavar="RUN", help="path or URL of a run store")]
NewRows = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="path or URL of rows (m, D) with the columns of the fit's"),
]
Input = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="path or URL of rows (n, D): Zarr, parquet, .npy, HDF5; or of a finished run, whose neighbours "
        "are not searched again, and whose parameters are taken where no others are given",
    ),
]
Out = Annotated[
    str,
    typer.Argument(
        metavar="OUT", help="path or URL of the result; an unfinished one of the same input goes on"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="as JSON, for programs", rich_help_panel="Everywhere")]
Fitted = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="path or URL of the rows that were fitted; default: what RUN names"),
]
Seed = Annotated[int | None, of_map("--seed", metavar="N", help="the same seed gives the same bits")]

Cluster = Annotated[
    str | None,
    of_machine(
        metavar="FILE",
        help="a cluster file: what it describes is started, and closed with the run; "
        "`daskumap cluster check` explains one",
    ),
]


class Rows(TypedDict, total=False):
    """How the input is read."""

    source_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            rich_help_panel="The input",
            help="how SOURCE is read, by its kind: columns=embedding, dataset=X, labels='[\"id\"]'; see "
            "`daskumap.source`",
        ),
    ]


class Machine(TypedDict, total=False):
    """What this machine, or a worker, gives to a run."""

    memory: Annotated[
        str | None,
        of_machine(metavar="SIZE", help="what a worker may use, such as 4GB; default: 60 % of the machine"),
    ]
    threads: Annotated[int | None, of_machine(metavar="N", help="threads a worker; default: one a core")]


Live = Annotated[
    str | None,
    typer.Option(
        "--live",
        metavar="FILE.png|PORT",
        rich_help_panel="Everywhere",
        help="show the map as it forms: in a picture that is renewed, or on a page of this machine",
    ),
]


class Driver(TypedDict, total=False):
    """Where tasks run, and what is said meanwhile."""

    scheduler: Annotated[
        str | None,
        of_machine(
            metavar="WHERE",
            help="Dask scheduler's address or file, 'threads' for one worker in this process, or "
            "'sequential'; default: what suits the size",
        ),
    ]
    cluster: Cluster
    quiet: Annotated[
        bool,
        typer.Option("--quiet", help="no progress, no report; warnings only", rich_help_panel="Everywhere"),
    ]
    json: Json


class GoOn(TypedDict, total=False):
    """What is done about a run store that another process has, or that goes on."""

    take_over: Annotated[
        bool,
        of_store(
            "--take-over",
            help="take the run store from another process, which stops; where its lock is dated by a wrong "
            "clock",
        ),
    ]
    trust_input: Annotated[
        bool,
        of_store(
            "--trust-input",
            help="go on with a run that is there without reading the input again to see that it did not "
            "change",
        ),
    ]


class Start(GoOn, total=False):
    """What is done about a run store that is there."""

    restart: Annotated[bool, of_store("--restart", help="delete the run that is there, and start over")]


class Settings(TypedDict, total=False):
    """All other parameters of a function."""

    set: Annotated[
        list[str] | None,
        of_map(
            metavar="NAME=VALUE",
            help="any other parameter of the function in Python, value as JSON or Python writes it",
        ),
    ]


class Leaves(TypedDict, total=False):
    """What a run leaves behind."""

    report: Annotated[
        bool | None, of_store("--report/--no-report", help="measure and draw, which is the default, or not")
    ]
    keep: Annotated[
        Literal["all", "graph", "model", "embedding"] | None,
        of_store(
            help="what stays in the run store: every array; all but scratch, which is the default; what "
            "places new rows; or the map and the report only",
        ),
    ]


class Making(Rows, Machine, Driver, Start, total=False):
    """How a result of a finished run is made."""


class Map(TypedDict, total=False):
    """What the map is like."""

    n_neighbors: Annotated[int | None, of_map(metavar="N", help="15 by default; counts the row itself")]
    n_components: Annotated[int | None, of_map(metavar="N", help="2 by default")]
    metric: Annotated[
        str | None, of_map(metavar="NAME", help="euclidean by default; any dense metric of pynndescent")
    ]
    membership: Annotated[
        Literal["exponential", "gaussian", "quadratic", "morse", "harmonic", "constant"] | None,
        of_map(help="exponential by default: how memberships fall with distance"),
    ]
    min_dist: Annotated[float | None, of_map(metavar="X", help="0.1 by default")]
    spread: Annotated[float | None, of_map(metavar="X", help="1.0 by default")]
    n_epochs: Annotated[int | None, of_map(metavar="N", help="200 by default, 500 up to 10,000 rows")]
    init: Annotated[
        Literal["pca", "spectral", "tswspectral", "random"] | None,
        of_map(help="pca by default; a run by --set"),
    ]
    optimizer: Annotated[Literal["adam", "sgd", "none"] | None, of_map(help="adam by default")]
    simplices: Annotated[
        Literal["1", "2", "3"] | None,
        of_map(
            help="weigh edges by the triangles (2), or tetrahedra too (3), that they are in; 1, the default: "
            "the graph as it is",
        ),
    ]
    vr_delta: Annotated[
        float | None,
        of_map(metavar="X", help="leave longer edges out of simplices, by -log(w); inf by default"),
    ]
    unique: Annotated[
        bool | None,
        of_map("--unique/--no-unique", help="exact duplicates get the position of the first, or their own"),
    ]
    random_state: Seed


class Params(Map, Settings, Leaves, Machine, total=False):
    """How rows are fitted: the same for a fit and its plan."""


def as_params(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given of the options, `--set` among them, as keyword arguments of `daskumap.fit`.

    Raises
    ------
    ParameterError
        If a `--set` has no value.
    """
    given = {name: value for name, value in options.items() if value is not None and name != "set"}
    if "simplices" in given:
        given["simplices"] = int(given["simplices"])
    return given | dict(map(parse_setting, options.get("set") or ()))


def rows_of(path: Any, given: list[str] | None) -> Any:
    """Return the input as the library takes it: with options of its own, NAME=VALUE, if there are any."""
    if not given:
        return path
    if path is None:
        raise ParameterError("--source-option is given without --source. Name the input too.")
    import daskumap

    return daskumap.source(path, **settings_of(given))


def settings_of(given: list[str] | None) -> dict[str, Any]:
    """Return the options of an input by name."""
    return dict(parse_setting(text, "--source-option") for text in given or ())


def parse_setting(text: str, option: str = "--set") -> tuple[str, Any]:
    """Return name and value of NAME=VALUE: as JSON or Python writes it, such as .01 and True; else a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ParameterError(
            f"{option} {text} has no '='; write {option} NAME=VALUE, such as {EXAMPLES.get(option, '')}."
        )
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            return name, read(value)
    return name, value
