"""`daskumap inspect | doctor`: what an input is, and what this machine has."""

from __future__ import annotations

import shutil
import textwrap
from typing import Annotated, Any, Unpack

import typer

from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.defaults import unknown_variables
from daskumap.cli.output import say, say_json

# Paths and commands stay whole, for those who copy them.
WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
SIGNS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


@command(
    example="daskumap inspect cells.zarr/X\ndaskumap inspect rows.parquet --source-option columns=embedding"
)
def inspect(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="path or URL of an input, a run store or a saved network")
    ],
    json: shared.Json = False,
    **options: Unpack[shared.Rows],
) -> None:
    """Say what lies at a path, and what a fit of it would take; reads metadata only."""
    from daskumap.inspection import inspect

    found = inspect(path, **shared.settings_of(options["source_option"]))
    say_json(found) if json else say("\n".join(f"{name:<16}{text}" for name, text in _lines(found)))


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was found as names and texts."""
    lines = [(name.replace("_", " "), _text(name, value)) for name, value in found.items() if name != "fit"]
    lines = [(name, text) for name, text in lines if text]
    fit = found.get("fit")
    if fit is None:
        return lines
    if "refused" in fit:
        return [*lines, ("fit", f"refused: {fit['refused']}")]
    size = {name: f"{fit[f'{name}_bytes'] / 1e6:,.0f} MB" for name in ("peak", "disk", "kept")}
    text = (
        f"{size['peak']} of memory, {size['disk']} on disk, {size['kept']} in the end, about "
        f"{fit['seconds']:,.0f} s here; `daskumap plan` has the stages"
    )
    return [*lines, ("fit", text)]


def _text(name: str, value: Any) -> str:
    if name == "shape":
        return " x ".join(f"{size:,}" for size in value)
    if name == "bytes":
        return f"{value / 1e6:,.1f} MB"
    if name == "chunks":
        sizes = [f"{key} {' x '.join(map(str, size))}" for key, size in value.items() if key != "rows"]
        return ", ".join([*sizes, f"read by {value['rows']:,} rows"])
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value in (None, 0) and not isinstance(value, bool) else str(value)


@command(example="daskumap doctor")
def doctor(ctx: typer.Context, json: shared.Json = False) -> int:
    """Look at versions, threads, memory, folders, extras and Dask's settings; exit code 1 if one is wrong."""
    from daskumap.doctor import Finding, examine

    found = examine()
    for name, near in unknown_variables(ctx.find_root()):
        found.append(Finding("environment", "note", f"{name} is set; no option has that name.", near))
    wrong = [one for one in found if one.state == "wrong"]
    if json:
        say_json({"healthy": not wrong, "findings": [one._asdict() for one in found]})
        return int(bool(wrong))
    width = shutil.get_terminal_size().columns
    for one in found:
        head, indent = f"{SIGNS[one.state]} {one.name:<18}", " " * 24
        say(textwrap.fill(one.text, width, initial_indent=head, subsequent_indent=indent, **WHOLE))
        if one.remedy:
            say(f"{indent}-> {one.remedy}")
    say(f"\n{len(wrong)} wrong." if wrong else "\nAll is well.")
    return int(bool(wrong))
