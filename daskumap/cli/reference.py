"""`python -m daskumap.cli.reference` writes the reference into docs/command-line.md."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer

from daskumap.cli.help import first_line, sections_of, usage_of
from daskumap.cli.main import app

PAGE = Path("docs/command-line.md")
MARK = "<!-- From here on: python -m daskumap.cli.reference -->\n"
REMEDY = "python -m daskumap.cli.reference"


def reference() -> str:
    """Return what each command takes, as Markdown."""
    root: Any = typer.main.get_command(app)
    ctx = typer.Context(root, info_name="daskumap")
    parts = ["## Commands"]
    for heading, commands in root.headings(ctx).items():
        rows = [f"| [`{one.name}`](#daskumap-{one.name}) | {first_line(one)} |" for one in commands]
        parts.append("\n".join([f"| {heading} | |", "|---|---|", *rows]))
    for commands in root.headings(ctx).values():
        for one in commands:
            parts += _section(one, typer.Context(one, parent=ctx, info_name=one.name))
    return "\n\n".join(parts) + "\n"


def with_reference(page: str) -> str:
    """Return a page with the reference after the mark."""
    return page.partition(MARK)[0] + MARK + "\n" + reference()


def _section(command: Any, ctx: Any) -> list[str]:
    if hasattr(command, "headings"):
        inner = [
            typer.Context(one, parent=ctx, info_name=one.name) for one in command.headings(ctx)["Commands"]
        ]
        parts = [part for one in inner for part in _section(one.command, one)]
        return [f"### {ctx.command_path}", command.help, *parts]
    usage = usage_of(command, ctx).removeprefix("usage: ")
    parts = [f"### {ctx.command_path}", f"`{usage}`", inspect.cleandoc(command.help)]
    rows = [
        f"| `{_cell(written)}` | {_cell(text)} |"
        for rows in sections_of(command, ctx).values()
        for written, text in rows
        if written not in ("--help", "--config FILE")
    ]
    parts.append("\n".join(["| | |", "|---|---|", *rows]))
    return [*parts, f"```\n{inspect.cleandoc(command.epilog)}\n```"]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    if not PAGE.exists():
        sys.exit(f"There is no {PAGE} here. Run this in the folder of the project.")
    PAGE.write_text(with_reference(PAGE.read_text()))
