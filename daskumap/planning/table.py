"""A plan as a table of HTML, for a cell of a notebook."""

from __future__ import annotations

import html
from typing import Any

HEAD = ("stage", "tasks", "MB a task", "MB a worker", "MB read", "MB written", "seconds")


def as_table(found: dict[str, Any], where: str) -> str:
    """Return what `Plan.as_dict` says as HTML.

    Parameters
    ----------
    where
        A line above it: rows, workers and how the work is divided.
    """
    stages = found["stages"]
    lines = [_line(HEAD, "th"), *(_line(_figures(stage), "td") for stage in stages)]
    written, seconds = (sum(stage[name] for stage in stages) for name in ("written_bytes", "seconds"))
    lines.append(_line(("total", "", "", "", "", _megabytes(written), f"{seconds:,.1f}"), "th"))
    disk = f"{_megabytes(found['disk_bytes'])} MB at most, {_megabytes(found['kept_bytes'])} MB in the end"
    above, below = html.escape(where), f"The run store takes {disk}."
    return f"<div><p>{above}</p><table>{''.join(lines)}</table><p>{below}</p></div>"


def _figures(stage: dict[str, Any]) -> tuple[str, ...]:
    sizes = (stage[f"{name}_bytes"] for name in ("task", "peak", "read", "written"))
    return stage["name"], f"{stage['tasks']:,}", *map(_megabytes, sizes), f"{stage['seconds']:,.1f}"


def _line(texts: tuple[str, ...], cell: str) -> str:
    first = f'<th scope="row" style="text-align:left">{html.escape(texts[0])}</th>'
    rest = "".join(f'<{cell} style="text-align:right">{html.escape(text)}</{cell}>' for text in texts[1:])
    return f"<tr>{first}{rest}</tr>"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"
