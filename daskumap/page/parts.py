"""Pieces of HTML: texts, numbers, tables."""

from __future__ import annotations

import html
from typing import Any


def text(value: Any) -> str:
    """Return a value as text of a page."""
    return html.escape(str(value))


def number(value: Any) -> str:
    """Return a figure with as many digits as mean something."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.4g}"


def head(*names: str) -> str:
    """Return the first line of a table; a name that begins with # is of numbers."""
    cells = [(' class="number"', name[1:]) if name.startswith("#") else ("", name) for name in names]
    return "<tr>" + "".join(f'<th scope="col"{kind}>{text(name)}</th>' for kind, name in cells) + "</tr>"


def table(names: str, lines: str, kind: str, caption: str = "") -> str:
    """Return a table, which scrolls in a region of its own where a window is too narrow for it."""
    said = f"<caption>{text(caption)}</caption>" if caption else ""
    body = f"<table>{said}<thead>{names}</thead><tbody>{lines}</tbody></table>"
    # Chromium takes from a table what it is where its lines are blocks, as on a phone.
    for tag, role in (("table", "table"), ("tr", "row"), ("td", "cell")):
        body = body.replace(f"<{tag}>", f'<{tag} role="{role}">').replace(
            f"<{tag} c", f'<{tag} role="{role}" c'
        )
    for scope, role in (("col", "columnheader"), ("row", "rowheader")):
        body = body.replace(f'<th scope="{scope}"', f'<th scope="{scope}" role="{role}"')
    return f'<div class="wide {kind}">{body}</div>'


def section(heading: str, body: str) -> str:
    """Return a part of the page with its heading."""
    return f"<section><h2>{heading}</h2>{body}</section>"


def folded(summary: str, body: str) -> str:
    """Return what is shown when it is asked for."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"
