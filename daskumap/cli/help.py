"""The help of a command, within the width of the terminal; typer's own takes twice the time to import."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import textwrap
from typing import Any

# Wider lines are hard to read; narrower terminals wrap.
WIDEST = 100


def render_help(command: Any, ctx: Any) -> str:
    """Return the help of a command or of a group of them."""
    width, bold = min(shutil.get_terminal_size().columns, WIDEST), _bold()
    parts = [usage_of(command, ctx), _paragraphs(command.help or "", width)]
    sections = sections_of(command, ctx)
    names = [len(name) for rows in sections.values() for name, _ in rows]
    first = max((size for size in names if size <= width // 3), default=width // 3)
    for heading, rows in sections.items():
        parts.append(f"{bold(heading)}\n{table(rows, first, width, bold)}")
    if command.epilog:
        lines = inspect.cleandoc(command.epilog).splitlines()
        parts.append("\n".join([bold("Example"), *(f"  {line}" for line in lines)]))
    if not hasattr(command, "headings"):
        parts.append(textwrap.fill(EVERYWHERE, width))
    return "\n\n".join(part for part in parts if part) + "\n"


EVERYWHERE = (
    "The command line counts before the environment (--n-neighbors is DASKUMAP_N_NEIGHBORS), that before the "
    "file of --config."
)


def usage_of(command: Any, ctx: Any) -> str:
    """Return the line that says what a command takes."""
    names = [one.metavar or one.name.upper() for one in command.params if one.param_type_name == "argument"]
    required = [one.required for one in command.params if one.param_type_name == "argument"]
    words = [name if needed else f"[{name}]" for name, needed in zip(names, required, strict=True)]
    return " ".join(
        ["usage:", ctx.command_path, "[OPTIONS]", *(words or _COMMAND[hasattr(command, "headings")])]
    )


_COMMAND = {True: ["COMMAND", "..."], False: []}


def sections_of(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return by heading what a command takes: what is written, and its help."""
    found: dict[str, list[tuple[str, str]]] = {}
    if hasattr(command, "headings"):
        for heading, commands in command.headings(ctx).items():
            found[heading] = [(one.name, first_line(one)) for one in commands if not one.hidden]
    for parameter in command.get_params(ctx):
        if getattr(parameter, "hidden", False):
            continue
        heading = getattr(parameter, "rich_help_panel", None) or (
            "Arguments" if parameter.param_type_name == "argument" else "Options"
        )
        if parameter.name == "help":
            heading = "Everywhere"
        found.setdefault(heading, []).append((written(parameter, ctx), help_of(parameter)))
    if "Everywhere" in found:
        found["Everywhere"] = found.pop("Everywhere")
    return found


def first_line(command: Any) -> str:
    """Return what the list of commands says of one."""
    return " ".join((command.help or "").split("\n\n")[0].split()).rstrip(".")


def written(parameter: Any, ctx: Any) -> str:
    """Return how a parameter is written."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {metavar(parameter, ctx)}"


def metavar(parameter: Any, ctx: Any) -> str:
    """Return what the value of an option is called; of a choice, its choices."""
    shown = str(parameter.display_type(ctx)).strip("<>")
    return str(parameter.metavar or (shown if "|" in shown else shown.upper()))


def help_of(parameter: Any) -> str:
    """Return the help of a parameter, and whether it may be given more than once."""
    text = " ".join((parameter.help or "").split())
    if parameter.param_type_name == "option" and parameter.multiple:
        text += "; may be given more than once"
    return text


def table(rows: list[tuple[str, str]], first: int, width: int, bold: Any) -> str:
    """Return rows of two columns; what is too long for the first has a line of its own."""
    lines = []
    for name, text in rows:
        indent = " " * (first + 4)
        wrapped = textwrap.wrap(text, width - len(indent)) or [""]
        if len(name) > first:
            names = textwrap.wrap(name, width - 2, subsequent_indent="      ") or [name]
            lines += [f"  {bold(line)}" for line in names] + [indent + line for line in wrapped if line]
        else:
            lines.append(f"  {bold(name)}{' ' * (first - len(name) + 2)}{wrapped[0]}".rstrip())
            lines += [indent + line for line in wrapped[1:]]
    return "\n".join(lines)


def _paragraphs(text: str, width: int) -> str:
    return "\n\n".join(textwrap.fill(" ".join(part.split()), width) for part in text.split("\n\n"))


def _bold() -> Any:
    """Return what makes a text bold where standard output is a terminal, and NO_COLOR is not set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return str if plain else "\033[1m{}\033[0m".format
