"""The parts of the page that are text: verdict, measures, and runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daskumap.page.parts import head, number, section, table, text
from daskumap.plot.maps import differences
from daskumap.report.measures import MEASURE

Report = dict[str, Any]


def verdict(name: str, facts: str, report: Report, alone: bool) -> str:
    """Return what stands first: whether the map is sound, and what to do where it is not."""
    called = "" if alone else f"<strong>{text(name)}</strong>: "
    found = report["verdict"]
    if not found:
        said = "The run made no report, so nothing was measured. Fit with report=True."
        return _box("none", called + said, facts)
    warnings = "".join(f"<li>{text(w['says'])} {text(w['remedy'])}</li>" for w in found["warnings"])
    return _box(
        "" if found["sound"] else "doubtful",
        f"{called}<strong>{text(found['sentence'])}</strong>",
        facts,
        f"<ul>{warnings}</ul>" if warnings else "",
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


def _box(kind: str, sentence: str, facts: str, more: str = "") -> str:
    return f'<div class="verdict {kind}"><p>{sentence}</p>{more}<p class="what">{text(facts)}</p></div>'


def cautions(reports: Sequence[Report]) -> str:
    """Return what a map does not show, so that nobody reads it there."""
    parts = max((report["measures"].get("components", 1) for report in reports), default=1)
    pieces = "where the pieces of the graph lie to each other means nothing" + (
        f", and there are {parts:,}" if parts > 1 else ""
    )
    lines = (
        "<strong>Sound</strong> says that the computation did what it should. It does not say that groups on "
        "the map are groups of the data.",
        "<strong>Sizes and densities</strong> of groups mean little: each row is given about the same room.",
        f"<strong>Distances</strong> between far groups mean little, axes nothing; {pieces}.",
        "<strong>Gaps</strong> are no proof of clusters. Cluster the data or the graph, not the map.",
        "<strong>One map is one draw.</strong> Believe what stays with another seed and another n_neighbors.",
    )
    return section("What a map does not show", f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>")


def pictures(names: Sequence[str], runs: Sequence[Any]) -> str:
    """Return the maps of several runs beside one another; of one run nothing, as it is shown below.

    The pictures are among the data of the page, which fills them in.
    """
    if len(names) < 2:
        return ""
    figures = "".join(
        "<figure>"
        + "".join(
            f'<img class="{theme}" data-run="{number}" alt="Map of {text(name)}">'
            for theme in ("light", "dark")
        )
        + f"<figcaption><strong>{text(name)}</strong> {text(what)}</figcaption></figure>"
        for number, (name, what) in enumerate(zip(names, differences(runs), strict=True))
    )
    return f'<section><h2>Side by side</h2><div class="grid">{figures}</div></section>'


def compared(names: Sequence[str], reports: Sequence[Report]) -> str:
    """Return a table of the measures of several runs."""
    judged = [_measures_by_name(report) for report in reports]
    found = list(dict.fromkeys(name for one in judged for name in one))
    if len(names) < 2 or not found:
        return ""
    between = [report["measures"].get("intervals", {}) for report in reports]
    lines = "".join(
        f'<tr><th scope="row">{title(measure)}</th>'
        + "".join(_figure(one.get(measure), b.get(measure)) for one, b in zip(judged, between, strict=True))
        + "</tr>"
        for measure in found
    )
    seconds = "".join(f'<td class="number">{report["seconds"]:,.1f}</td>' for report in reports)
    caption = "Measures of one name can be compared where the runs have the same rows and n_neighbors."
    lines += f'<tr><th scope="row">seconds</th>{seconds}</tr>'
    return section(
        "Measures beside one another",
        table(head("measure", *(f"#{name}" for name in names)), lines, "compared", caption),
    )


def _measures_by_name(report: Report) -> dict[str, Any]:
    return {one["measure"]: one for one in (report["verdict"] or {}).get("measures", [])}


def _figure(one: dict[str, Any] | None, interval: Sequence[float] | None = None) -> str:
    if one is None:
        return '<td class="number">none</td>'
    return (
        f'<td class="number">{number(one["value"])} <span class="{one["grade"]}">{one["grade"]}</span>'
        f"{_between(interval)}</td>"
    )


def _between(interval: Sequence[float] | None) -> str:
    if not interval:
        return ""
    return f'<span class="what">{number(interval[0])} to {number(interval[1])}</span>'


def title(name: str) -> str:
    """Return a measure's name as it is read."""
    return text(name.replace("_", " ").replace("knn", "kNN"))


def measures(name: str, report: Report) -> str:
    """Return the measures of a run, each with what it means, its limits and its interval."""
    if not report["verdict"]:
        return ""
    intervals = report["measures"].get("intervals", {})
    lines = "".join(_line(one, intervals.get(one["measure"])) for one in report["verdict"]["measures"])
    probes = report["measures"].get("probe_rows")
    caption = f"Of {probes:,} probe rows, with the interval of 95 % below the figure." if intervals else ""
    names = head("measure", "#figure", "grade", "limits")
    return section(f"Measures of {text(name)}", table(names, lines, "measures", caption))


def _line(one: dict[str, Any], interval: Sequence[float] | None) -> str:
    return (
        f'<tr><th scope="row">{title(one["measure"])}<span class="what">{text(one["what"])}</span></th>'
        f'<td class="number">{number(one["value"])}{_between(interval)}</td>'
        f'<td class="{one["grade"]}">{one["grade"]}</td>'
        f'<td>{_limits(one)}<span class="what">{text(one["why"])}</span></td></tr>'
    )


def _limits(one: dict[str, Any]) -> str:
    """Return where good ends and doubtful begins."""
    good, doubtful = number(one["good"]), number(one["doubtful"])
    if MEASURE[one["measure"]].high_is_good:
        return f"good: {good} or more; doubtful: below {doubtful}"
    return f"good: {good} or less; doubtful: above {doubtful}"
