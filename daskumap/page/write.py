"""The page as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from daskumap.errors import ParameterError
from daskumap.page import running, sections
from daskumap.page.parts import text
from daskumap.page.sample import shown
from daskumap.secrets import hide_secrets
from daskumap.views import Mapped

ENDINGS = (".html", ".htm")


def write_page(runs: Sequence[Mapped], path: str | Path, color: Any = None) -> Path:
    """Write the report of one run, or of several side by side, as one HTML file without any request.

    It has the verdict first; a picture of all rows that turns into sampled rows near by, with search,
    selection and colours by the run's labels; measures with what they mean; stages with their plan; and the
    parameters.

    Parameters
    ----------
    runs
        Finished runs with a map of two columns or more.
    path
        The file, ending in .html; what is there is replaced when the new one is whole.
    color
        A column that all rows are coloured by, as in `daskumap.plot.points`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ParameterError
        If there is no run, or the name does not end in .html.
    StoreError
        If a run is unfinished.
    """
    target = Path(path)
    if target.suffix.lower() not in ENDINGS:
        raise ParameterError(f"{target} ends in {target.suffix!r}; the page is .html.")
    if not runs:
        raise ParameterError("runs is empty; pass at least one run.")
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_text(_page(runs, color), encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _page(runs: Sequence[Mapped], color: Any) -> str:
    names = _names(runs)
    drawn = [shown(run, color, name, len(runs)) for run, name in zip(runs, names, strict=True)]
    reports = [run.report for run in runs]
    each = list(zip(names, runs, reports, strict=True))
    parts = [
        sections.cautions(reports),
        sections.compared(names, reports),
        *(sections.measures(name, report) for name, _, report in each),
        *(running.stages(name, report) for name, _, report in each),
        *(running.about(name, run, report) for name, run, report in each),
    ]
    return Template(_file("page.html")).substitute(
        title=text(f"Map of {names[0]}" if len(names) == 1 else f"{len(names)} maps"),
        style=_file("page.css"),
        script=_file("page.js"),
        verdicts="".join(
            sections.verdict(name, running.facts(run, report), report, len(runs) == 1)
            for name, run, report in each
        ),
        pictures=sections.pictures(names, runs),
        sample=text(_about_sample(drawn[0], runs[0])),
        sections="".join(parts),
        footer=text(_footer()),
        # A text that ends a script could not stand in one.
        data=json.dumps({"runs": drawn}, allow_nan=False).replace("</", "<\\/"),
    )


def _names(runs: Sequence[Mapped]) -> list[str]:
    """Return what runs are called: the end of their place, with more of it where two have the same."""
    ends = [Path(hide_secrets(run.path)).name or "run" for run in runs]
    if len(set(ends)) == len(ends):
        return ends
    return [f"{end} ({number})" for number, end in enumerate(ends, 1)]


def _about_sample(drawn: dict[str, Any], run: Mapped) -> str:
    rows = run.embedding.shape[0]
    some = (
        f"{drawn['sampled']:,} of {rows:,} rows, drawn at random,"
        if rows > drawn["sampled"]
        else f"All {rows:,} rows"
    )
    return (
        f"From afar the picture has all rows. {some} can be pointed at, searched and selected. Axes have no "
        "unit, and distances between far groups mean little."
    )


def _footer() -> str:
    import daskumap

    return f"Written by daskumap {daskumap.__version__}. This file needs no network."


def _file(name: str) -> str:
    return resources.files("daskumap.page").joinpath(name).read_text(encoding="utf-8")
