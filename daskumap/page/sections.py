"""The parts of the page that are text: verdict, measures, stages, parameters, and runs side by side."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from daskumap.plot.maps import differences
from daskumap.report.measures import MEASURE

Report = dict[str, Any]


def text(value: Any) -> str:
    """Return a value as text of a page."""
    return html.escape(str(value))


def number(value: Any) -> str:
    """Return a figure with as many digits as mean something."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.4g}"


def verdict(name: str, report: Report) -> str:
    """Return what stands first: whether the map is sound, and what to do where it is not."""
    found = report["verdict"]
    if not found:
        return _box(
            "none", f"{text(name)}: the run made no report, so nothing was measured. Fit with report=True."
        )
    warnings = "".join(f"<p>{text(w['says'])} {text(w['remedy'])}</p>" for w in found["warnings"])
    return _box(
        "" if found["sound"] else "doubtful",
        f"<strong>{text(name)}</strong>: {text(found['sentence'])}",
        warnings,
    )


def verdict_line(report: Report) -> str:
    """Return the verdict in one sentence."""
    found = report["verdict"]
    return text(found["sentence"]) if found else "The run made no report."


def graded(report: Report) -> str:
    """Return lines of a table: each measure, its figure and its grade."""
    return "".join(
        f"<tr><td>{title(name)}</td>{_figure(one)}</tr>" for name, one in _measures_by_name(report).items()
    )


def _box(kind: str, sentence: str, more: str = "") -> str:
    return f'<div class="verdict {kind}"><p>{sentence}</p>{more}</div>'


def pictures(names: Sequence[str], shown: Sequence[dict[str, Any]], runs: Sequence[Any]) -> str:
    """Return the maps of several runs beside one another; of one run nothing, as it is shown below."""
    if len(names) < 2:
        return ""
    figures = "".join(
        "<figure>"
        + "".join(
            f'<img class="{theme}" src="{picture[theme]}" alt="Map of {text(name)}">'
            for theme in ("light", "dark")
        )
        + f"<figcaption><strong>{text(name)}</strong> {text(what)}</figcaption></figure>"
        for name, what, picture in zip(names, differences(runs), map(_picture, shown), strict=True)
    )
    return f'<section><h2>Side by side</h2><div class="grid">{figures}</div></section>'


def _picture(one: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = one["columns"][0]["raster"] if one["coloured"] else one["raster"]
    return found


def compared(names: Sequence[str], reports: Sequence[Report]) -> str:
    """Return a table of the measures of several runs."""
    judged = [_measures_by_name(report) for report in reports]
    found = list(dict.fromkeys(name for one in judged for name in one))
    if len(names) < 2 or not found:
        return ""
    head = "".join(f'<th scope="col" class="number">{text(name)}</th>' for name in names)
    lines = "".join(
        f'<tr><th scope="row">{title(measure)}</th>'
        + "".join(_figure(one.get(measure)) for one in judged)
        + "</tr>"
        for measure in found
    )
    seconds = "".join(f'<td class="number">{report["seconds"]:,.1f}</td>' for report in reports)
    table = f"<tr><td></td>{head}</tr>{lines}<tr><th scope='row'>seconds</th>{seconds}</tr>"
    return _section("Measures beside one another", f'<div class="wide"><table>{table}</table></div>')


def _measures_by_name(report: Report) -> dict[str, Any]:
    return {one["measure"]: one for one in (report["verdict"] or {}).get("measures", [])}


def _figure(one: dict[str, Any] | None) -> str:
    if one is None:
        return '<td class="number">none</td>'
    return f'<td class="number {one["grade"]}">{number(one["value"])} ({one["grade"]})</td>'


def title(name: str) -> str:
    """Return a measure's name as it is read."""
    return text(name.replace("_", " ").replace("knn", "kNN"))


def measures(name: str, report: Report) -> str:
    """Return the measures of a run, each with what it means, its limits and its interval."""
    if not report["verdict"]:
        return ""
    intervals = report["measures"].get("intervals", {})
    lines = "".join(_line(one, intervals.get(one["measure"])) for one in report["verdict"]["measures"])
    head = _head("measure", "#figure", "grade", "limits")
    return _section(f"Measures of {text(name)}", f'<div class="wide"><table>{head}{lines}</table></div>')


def _line(one: dict[str, Any], interval: Sequence[float] | None) -> str:
    between = f'<span class="what">{number(interval[0])} to {number(interval[1])}</span>' if interval else ""
    better = "or more" if MEASURE[one["measure"]].high_is_good else "or less"
    return (
        f'<tr><th scope="row">{title(one["measure"])}<span class="what">{text(one["what"])}</span></th>'
        f'<td class="number">{number(one["value"])}{between}</td>'
        f'<td class="{one["grade"]}">{one["grade"]}</td>'
        f'<td>good: {number(one["good"])} {better}<span class="what">{text(one["why"])}</span></td></tr>'
    )


def stages(name: str, report: Report) -> str:
    """Return how long each stage took, and its memory beside what was planned, as bars."""
    found = report["stages"]
    if not found:
        return ""
    longest = max(stage["seconds"] for stage in found.values()) or 1.0
    most = max(max(stage["peak_bytes"], stage["projected_bytes"]) for stage in found.values()) or 1
    lines = "".join(_stage(one, stage, longest, most) for one, stage in found.items())
    head = _head("stage", "#tasks", "#seconds", "", "#peak MB of planned", "")
    caption = "<caption>In the last column the wide bar is planned, and the narrow one measured.</caption>"
    body = f'<div class="wide"><table>{caption}{head}{lines}</table></div>'
    return _section(f"Stages of {text(name)}: {report['seconds']:,.1f} seconds", body)


def _stage(name: str, stage: dict[str, Any], longest: float, most: float) -> str:
    peak, planned = stage["peak_bytes"], stage["projected_bytes"]
    return (
        f'<tr><th scope="row">{text(name)}</th><td class="number">{stage["tasks"]:,}</td>'
        f'<td class="number">{stage["seconds"]:,.2f}</td><td>{_bar(("", stage["seconds"] / longest))}</td>'
        f'<td class="number">{peak / 1e6:,.0f} of {planned / 1e6:,.0f}</td>'
        f"<td>{_bar(('plan', planned / most), ('actual', peak / most))}</td></tr>"
    )


def _bar(*bars: tuple[str, float]) -> str:
    spans = "".join(f'<span class="{kind}" style="width:{100 * share:.1f}%"></span>' for kind, share in bars)
    return f'<div class="bar" aria-hidden="true">{spans}</div>'


def about(name: str, path: str, source: str, report: Report) -> str:
    """Return the parameters of a run, its input, and what made it."""
    sizes = report["sizes"]
    pairs: list[tuple[str, Any]] = [
        ("run store", path),
        ("input", f"{source}, {sizes['rows']:,} rows x {sizes['columns']:,} columns"),
        *report["params"].items(),
        ("made by", ", ".join(f"{key} {value}" for key, value in report["versions"].items())),
    ]
    return _section(f"Parameters of {text(name)}", _pairs(pairs))


def _pairs(pairs: Iterable[tuple[str, Any]]) -> str:
    return "<dl>" + "".join(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in pairs) + "</dl>"


def _head(*names: str) -> str:
    """Return the first line of a table; a name that begins with # is of numbers."""
    cells = [(' class="number"', name[1:]) if name.startswith("#") else ("", name) for name in names]
    return "<tr>" + "".join(f'<th scope="col"{kind}>{name}</th>' for kind, name in cells) + "</tr>"


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{heading}</h2>{body}</section>"
