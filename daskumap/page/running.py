"""The parts of the page that say how a run went: stages with their plan, parameters, and all figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from daskumap.page.parts import folded, head, section, table, text
from daskumap.params import Params, make_params
from daskumap.pipeline import params_in
from daskumap.report.text import render
from daskumap.secrets import hide_secrets
from daskumap.views import Mapped

Report = dict[str, Any]

CAPTION = (
    "Wide bars are the plan, narrow ones what was measured. Seconds are planned for the machine on which the "
    "project was measured, with nothing else running. Memory above its plan is red."
)


def stages(name: str, report: Report) -> str:
    """Return how long each stage took, its memory, and both beside what was planned, as bars."""
    found = report["stages"]
    if not found:
        return ""
    longest = max(max(one["seconds"], one.get("projected_seconds", 0.0)) for one in found.values()) or 1.0
    most = max(max(one["peak_bytes"], one["projected_bytes"]) for one in found.values()) or 1
    lines = "".join(_stage(one, stage, longest, most) for one, stage in found.items())
    names = head("stage", "#tasks", "#seconds (planned)", "", "#peak MB (planned)", "")
    return section(
        f"Stages of {text(name)}: {report['seconds']:,.1f} seconds", table(names, lines, "stages", CAPTION)
    )


def _stage(name: str, stage: dict[str, Any], longest: float, most: float) -> str:
    peak, planned, seconds = stage["peak_bytes"], stage["projected_bytes"], stage["seconds"]
    # Runs of earlier versions kept no plan of their seconds.
    expected = stage.get("projected_seconds")
    beside = "" if expected is None else f" ({expected:,.1f})"
    over = " doubtful" if peak > planned else ""
    times = _bar((expected or 0) / longest, seconds / longest)
    return (
        f'<tr><th scope="row">{text(name)}</th><td class="number">{stage["tasks"]:,}</td>'
        f'<td class="number">{seconds:,.1f}{beside}</td><td>{times}</td>'
        f'<td class="number{over}">{peak / 1e6:,.0f} ({planned / 1e6:,.0f})</td>'
        f"<td>{_bar(planned / most, peak / most)}</td></tr>"
    )


def _bar(planned: float, actual: float) -> str:
    """Return two bars, of what was planned and of what was measured, as shares of the width."""
    bars = ("plan", planned), ("actual", actual)
    spans = "".join(f'<span class="{kind}" style="width:{100 * share:.1f}%"></span>' for kind, share in bars)
    return f'<div class="bar" aria-hidden="true">{spans}</div>'


def facts(run: Mapped, report: Report) -> str:
    """Return what a run is in one line."""
    sizes, p = report["sizes"], params_in(run.store.about)
    way = "a trained network" if p.encoder else f"{_epochs(p, report)} epochs from {report['params']['init']}"
    return (
        f"{sizes['rows']:,} rows x {sizes['columns']:,} columns, {report['params']['metric']}, "
        f"n_neighbors {p.n_neighbors}, min_dist {p.min_dist:g}, {way}, seed {p.random_state}, "
        f"made in {report['seconds']:,.0f} s"
    )


def _epochs(p: Any, report: Report) -> int:
    return make_params({"n_epochs": p.n_epochs}).epochs(report["sizes"]["rows"])


def about(name: str, run: Mapped, report: Report) -> str:
    """Return the parameters of a run, its input, and what made it."""
    sizes, defaults = report["sizes"], Params().fingerprint()
    given = {key: value for key, value in report["params"].items() if value != defaults.get(key)}
    rest = {key: value for key, value in report["params"].items() if key not in given}
    pairs: list[tuple[str, Any]] = [
        ("run store", hide_secrets(run.path)),
        ("input", f"{_source(run)}, {sizes['rows']:,} rows x {sizes['columns']:,} columns"),
        *given.items(),
        *_derived(run, report),
        ("made by", ", ".join(f"{key} {value}" for key, value in report["versions"].items())),
    ]
    usual = folded(f"{len(rest)} parameters at their defaults", _pairs(rest.items()))
    every = folded(
        "All figures, as in the terminal", f'<div class="wide"><pre>{text(render(report))}</pre></div>'
    )
    return section(f"Parameters of {text(name)}", _pairs(pairs) + usual + every)


def _derived(run: Mapped, report: Report) -> list[tuple[str, Any]]:
    """Return what parameters at their defaults became in this run."""
    p = params_in(run.store.about)
    if p.encoder is not None:
        return []
    found: list[tuple[str, Any]] = []
    if p.n_epochs is None:
        found.append(("epochs", f"{_epochs(p, report)}, by the number of rows"))
    if p.a is None and p.b is None:
        a, b = make_params({"min_dist": p.min_dist, "spread": p.spread}).curve()
        found.append(("a, b", f"{a:.4g}, {b:.4g}, by min_dist {p.min_dist:g} and spread {p.spread:g}"))
    return found


def _source(run: Mapped) -> str:
    known = run.store.about.get("source") or {}
    return hide_secrets(str(known.get("path") or "an array in memory"))


def _pairs(pairs: Iterable[tuple[str, Any]]) -> str:
    return "<dl>" + "".join(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in pairs) + "</dl>"
