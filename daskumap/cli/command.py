"""What a command is: a typed function, and what all have: `--config`, the environment, help, messages.

A function says `**options: Unpack[Driver]` for the options of a `TypedDict`, which several commands share.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from daskumap.cli.defaults import PREFIX, read_defaults
from daskumap.cli.help import render_help
from daskumap.cli.output import complain_of, showing_messages
from daskumap.errors import DaskumapError

PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}

Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        callback=read_defaults,
        is_eager=True,
        rich_help_panel="Everywhere",
        help="YAML file with values of options that are not given otherwise",
    ),
]

LogJson = Annotated[
    bool,
    typer.Option(
        "--log-json",
        rich_help_panel="Everywhere",
        help="on standard error a line of JSON for each event: stage, task, retry, dead worker, checkpoint, "
        "warning, verdict",
    ),
]


class Helpful:
    """What has the help of `help.py`, and is quick to give it."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(render_help(self, ctx))

    def get_help_option(self, ctx: Any) -> Any:
        """Return `--help`; where it is not given it is off: of None typer makes a bool, with pydantic."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        option.default, option.help = False, "say this"
        return option


class Command(Helpful, TyperCommand):
    """One command: its options may come from the environment, and what is logged is shown while it runs."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for option in self.params:
            if option.param_type_name == "option":
                option.envvar = variable_of(option)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with showing_messages(bool(ctx.params.get("quiet")), bool(ctx.params.get("log_json"))):
            try:
                return super().invoke(ctx)
            except (DaskumapError, KeyboardInterrupt) as error:
                return complain_of(error)


class Group(Helpful, TyperGroup):
    """Commands under one name, such as those of `daskumap cluster`."""

    def headings(self, ctx: Any) -> dict[str, list[Any]]:
        """Return the commands by heading, as the help has them."""
        return {"Commands": [self.get_command(ctx, name) for name in self.list_commands(ctx)]}


def lazy(table: dict[str, dict[str, str]]) -> type[Group]:
    """Return a group whose commands are imported when they are used: heading -> command -> module."""

    class Lazy(Group):
        modules: ClassVar = {name: module for part in table.values() for name, module in part.items()}

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            # typer loads pydantic for an option that takes a text, even where it is not given.
            if args and not args[0].startswith("-"):
                self.params = [one for one in self.params if "completion" not in str(one.name)]
            return super().parse_args(ctx, args)

        def list_commands(self, ctx: Any) -> list[str]:
            return list(self.modules)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in self.modules:
                return None
            app = getattr(import_module(self.modules[cmd_name]), cmd_name.replace("-", "_"))
            return named(typer.main.get_command(app), cmd_name)

        def headings(self, ctx: Any) -> dict[str, list[Any]]:
            return {part: [self.get_command(ctx, name) for name in names] for part, names in table.items()}

    return Lazy


def named(built: Any, name: str) -> Any:
    """Return a command that was built, with its name."""
    built.name = name
    return built


def command(
    *, example: str, group: typer.Typer | None = None, name: str | None = None
) -> Callable[[Callable[..., Any]], typer.Typer]:
    """Make a function a command.

    Its docstring is the help, its first line the line in the list of commands; what it returns, if anything,
    is the exit code.

    Parameters
    ----------
    example
        Command lines that show its use, one a line.
    group
        Of a command such as `daskumap cluster check`: what `group` returned.
    """

    def make(function: Callable[..., Any]) -> typer.Typer:
        app = typer.Typer(**PLAIN) if group is None else group
        called = name or function.__name__.strip("_").replace("_", "-")
        app.command(called, cls=Command, epilog=example)(_expanded(function))
        return app

    return make


def group(about: str) -> typer.Typer:
    """Return an empty group of commands; `@command(group=...)` fills it."""
    app = typer.Typer(cls=Group, help=about, no_args_is_help=True, **PLAIN)
    app.callback()(lambda: None)
    return app


def variable_of(option: Any) -> str:
    """Return the environment variable of an option: that of `--n-neighbors` is DASKUMAP_N_NEIGHBORS."""
    longest: str = max(option.opts or option.secondary_opts, key=len)
    return PREFIX + longest.lstrip("-").replace("-", "_").upper()


def _expanded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with a parameter for each option of `**options`, and with `--config`."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            (options,) = get_args(hints[parameter.name])
            parameters += [_parameter(*pair) for pair in get_type_hints(options, include_extras=True).items()]
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
    if any(parameter.name == "quiet" for parameter in parameters):  # of what takes its time
        parameters.append(_parameter("log_json", LogJson))
    parameters.append(_parameter("config", Config))

    def call(**given: Any) -> Any:
        del given["config"]
        given.pop("log_json", None)
        return function(**given)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__doc__, call.__name__ = function.__doc__, function.__name__
    return call


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    """Return an option that may be left out: a switch is off then, anything else None."""
    default = False if get_args(annotation)[0] is bool else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
