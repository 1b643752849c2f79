"""Where the value of an option comes from: the command line, the environment, a file, or the default."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import typer

from daskumap.errors import ParameterError
from daskumap.hints import nearest

PREFIX = "DASKUMAP_"


def read_defaults(ctx: typer.Context, value: str | None) -> str | None:
    """Take the values of a file as those of options that neither the command line nor the environment gives.

    The file is YAML: names of options with their values, such as `n-neighbors: 30`. Those of a section that
    has the name of a command, such as `fit` or `cluster check`, hold for that command only.

    Raises
    ------
    ParameterError
        If it cannot be read, or names an option that no such command has.
    """
    if value is None or ctx.resilient_parsing:
        return value
    root = ctx.find_root()
    commands: set[str] = set(root.command.list_commands(root)) if root is not ctx else set()  # type: ignore[attr-defined]
    content = _read(Path(value))
    options = {_spelt(name): item for name, item in content.items() if name.split()[0] not in commands}
    called = " ".join(ctx.command_path.split()[1:])
    own = content.get(called) or {}
    if not isinstance(own, dict):
        raise ParameterError(f"{value}: {called} has to be a section of options with values.")
    known = {_spelt(opt): option.name for option in ctx.command.params for opt in option.opts}
    own = {_spelt(name): item for name, item in own.items()}
    for name in own:
        if name not in known:
            raise ParameterError(
                f"{value}: `daskumap {called}` has no option {name}.{did_you_mean(name, known)}"
            )
    _refuse_unknown(ctx, value, [name for name in options if name not in known])
    chosen = {known[name]: item for name, item in (options | own).items() if name in known}
    ctx.default_map = {name: _as_given(name, item) for name, item in chosen.items() if item is not None}
    return value


def did_you_mean(word: str, known: Any) -> str:
    """Return a sentence with the nearest names, or nothing."""
    near = nearest(word, known, 3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def sources_of(ctx: typer.Context) -> dict[str, dict[str, Any]]:
    """Return each option that is not the default: its value, and from where it is."""
    found = {}
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        kind = source.name if source else "DEFAULT"
        if kind in _SAID and option.param_type_name == "option" and option.name != "config":
            where = _SAID[kind].format(variable=option.envvar, file=ctx.params.get("config"))
            found[str(option.name)] = {"value": ctx.params[str(option.name)], "from": where}
    return found


_SAID = {"COMMANDLINE": "command line", "ENVIRONMENT": "environment, {variable}", "DEFAULT_MAP": "{file}"}


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ParameterError(f"--config {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"--config {path} is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ParameterError(f"--config {path} has to hold names of options with values: `n-neighbors: 30`.")
    return content


def _refuse_unknown(ctx: typer.Context, path: str, names: list[str]) -> None:
    """Refuse names that no command has an option for; a file may serve several commands."""
    root = ctx.find_root()
    if not names or root is ctx:
        return
    known = all_options(root)
    for name in names:
        if name not in known:
            raise ParameterError(f"{path}: no command has an option {name}.{did_you_mean(name, known)}")


def all_options(root: Any) -> set[str]:
    """Return the names of the options of all commands, without their dashes."""
    commands = _commands(root.command, root)
    return {_spelt(opt) for one in commands for option in one.params for opt in option.opts}


def unknown_variables(root: Any) -> list[tuple[str, str]]:
    """Return the variables of the environment that look like options and are none, with the nearest names."""
    known = {PREFIX + name.replace("-", "_").upper() for name in all_options(root)}
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    return [(name, did_you_mean(name, known).strip()) for name in given if name not in known]


def _commands(group: Any, ctx: Any) -> list[Any]:
    """Return all commands, those of groups too."""
    found = [group.get_command(ctx, name) for name in group.list_commands(ctx)]
    inner = [_commands(one, ctx) for one in found if hasattr(one, "list_commands")]
    return found + [command for commands in inner for command in commands]


def _spelt(name: str) -> str:
    return name.lstrip("-").replace("_", "-")


def _as_given(name: str, value: Any) -> Any:
    """Return a value as the command line would have it, so that it is checked in the same way."""
    if isinstance(value, dict):
        return [f"{key}={json.dumps(item)}" for key, item in value.items()]
    if isinstance(value, list):
        return [str(item) for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | str):
        return str(value)
    raise ParameterError(f"The value of {name} is {value!r}; write a number, a text, true or false.")
