"""What a notebook shows of a run: verdict, picture and measures."""

from __future__ import annotations

import base64
import io
import logging

from daskumap.page.parts import text
from daskumap.page.sections import graded, verdict_line
from daskumap.plot.maps import map_of
from daskumap.report.picture import LIGHT, raster
from daskumap.report.png import write_png
from daskumap.report.thin import Thin
from daskumap.secrets import hide_secrets
from daskumap.views import Mapped

log = logging.getLogger(__name__)

# Of the longer side: some 50 kB of a notebook's file.
PIXELS = 400


def summary(run: Mapped) -> str:
    """Return a run as HTML, for a cell of a notebook; of one that has no map what `repr` says.

    A cell that fails since a store was moved or cleaned would be worse than one that says less.
    """
    try:
        return f"<div>{_line(run)}{_found(run) if run.finished else ''}</div>"
    except Exception:  # of a store: whatever it is, the notebook goes on
        log.debug("A run cannot be shown.", exc_info=True)
        return f"<div><p><code>daskumap.{type(run).__name__}</code>, whose run store cannot be read</p></div>"


def _line(run: Mapped) -> str:
    return f"<p><code>{text(hide_secrets(repr(run)))}</code></p>"


def _found(run: Mapped) -> str:
    report = run.report
    table = f"<table>{graded(report)}</table>" if report["verdict"] else ""
    beside = f'<div style="display:flex;flex-wrap:wrap;gap:1rem;align-items:start">{_image(run)}{table}</div>'
    return f"<p>{verdict_line(report)}</p>{beside}"


def _image(run: Mapped) -> str:
    """Return the picture of a run's map; on a ground of its own, since a notebook may be light or dark."""
    if run.params["transform_mode"] == "graph":
        return ""
    image, _ = raster(Thin(map_of(run)[0]), None, PIXELS, LIGHT)
    write_png(stream := io.BytesIO(), image)
    shown = base64.b64encode(stream.getvalue()).decode()
    name = text(hide_secrets(run.path))
    return f'<img alt="Map of {name}" src="data:image/png;base64,{shown}" style="max-width:100%">'
