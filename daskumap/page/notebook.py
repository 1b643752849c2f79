"""What a notebook shows of a run: verdict, picture and measures."""

from __future__ import annotations

from daskumap.page.parts import text
from daskumap.page.sample import density_picture
from daskumap.page.sections import graded, verdict_line
from daskumap.views import Mapped


def summary(run: Mapped) -> str:
    """Return a run as HTML, for a cell of a notebook; of an unfinished one what `repr` says."""
    if not run.finished:
        return f"<p><code>{text(repr(run))}</code></p>"
    report = run.report
    picture = density_picture(run)
    image = ""
    if picture:
        image = f'<img alt="Map of {text(run.path)}" src="{picture}" style="width:22rem;max-width:100%">'
    beside = '<div style="display:flex;flex-wrap:wrap;gap:1rem;align-items:start">'
    table = f"{beside}{image}<table>{graded(report)}</table></div>"
    return f"<div><p><code>{text(repr(run))}</code></p><p>{verdict_line(report)}</p>{table}</div>"
