"""Figures of matplotlib: axes without ticks, and files by the ending of their name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daskumap.errors import ParameterError
from daskumap.extras import load
from daskumap.report.picture import THEMES, Theme

FORMATS = (".png", ".svg", ".pdf", ".jpg", ".jpeg")
INK = {"dark": "#d8dae4", "light": "#30323c", "transparent": "#30323c"}


def matplotlib() -> Any:
    """Return `matplotlib.figure`; pyplot, and with it any window, is left to the user.

    Raises
    ------
    DependencyError
        If it is not installed.
    """
    return load("matplotlib.figure", "plot", "Drawing")


def theme_of(name: str) -> Theme:
    """Return the theme of a name."""
    if name not in THEMES:
        raise ParameterError(f"theme is {name!r}; allowed are {', '.join(THEMES)}.")
    return THEMES[name]


def axes_of(ax: Any, theme: str, width: float, height: float) -> Any:
    """Return the axes to draw into: the given ones, or those of a new figure of so many inches."""
    matplotlib()
    if ax is None:
        ax = figure(theme, width, height).add_subplot()
    return ax


def figure(theme: str, width: float, height: float) -> Any:
    """Return an empty figure in the colours of a theme."""
    ground = [part / 255 for part in theme_of(theme).ground]
    return matplotlib().Figure(
        (width, height), dpi=150, layout="constrained", facecolor="none" if theme == "transparent" else ground
    )


def dress(ax: Any, theme: str, title: str | None, frame: bool) -> None:
    """Take ticks from axes, and give them a title and a frame."""
    ax.set(xticks=[], yticks=[])
    ax.set_facecolor("none")
    ax.spines[:].set(visible=frame, color=INK[theme], linewidth=0.5, alpha=0.5)
    if title:
        ax.set_title(title, color=INK[theme], fontsize=9, loc="left")


def check_format(path: str | Path) -> Path:
    """Return the path of a picture.

    Raises
    ------
    ParameterError
        If its ending names no format.
    """
    found = Path(path)
    if found.suffix.lower() not in FORMATS:
        raise ParameterError(f"{found} ends in {found.suffix!r}; pictures are {', '.join(FORMATS)}.")
    return found


def save(ax: Any, path: str | Path) -> Path:
    """Write the figure of some axes to a file: PNG, SVG, PDF or JPEG, by the ending of its name.

    It takes the place of a file that is there only when it is whole. The points of an SVG or PDF are one
    raster, so that a map of 10^8 rows is no larger than one of 10^4; its texts are texts.

    Parameters
    ----------
    ax
        Axes, or a figure.

    Raises
    ------
    ParameterError
        If the ending names no format.
    """
    target = check_format(path)
    partial = target.with_name(f".{target.name}.partial{target.suffix}")
    made = getattr(ax, "figure", None) or ax
    # Nothing of the moment in the file: the same map gives the same bytes.
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(target.suffix.lower())
    try:
        made.savefig(partial, metadata=dated)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target
