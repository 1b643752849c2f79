"""The report of a run: as one document, and as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from daskumap.report.measures import MEASURE, Figures, judge

# Of a terminal.
COLUMNS = 80
# Of these, steps that follow each other reach the largest, not the sum.
PEAKS = ("peak_bytes", "projected_bytes")


def assemble(measures: Figures, steps: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return a run's report: verdict, measures, and each stage with what was planned and what was measured.

    Steps of a stage (`partition.cells`, ...) are listed alone and summed under the stage's name. The measures
    of a run without a report are empty, and its verdict is None.
    """
    return {
        "verdict": judge(measures),
        "measures": measures,
        "stages": _sum_by_stage(steps),
        "steps": steps,
        "seconds": sum(step["seconds"] for step in steps.values()),
        "params": about["params"],
        "sizes": about["sizes"],
        "versions": about["versions"],
        **({"reads": _of_cells(about["reads"])} if about.get("reads") else {}),
    }


def _of_cells(reads: dict[str, Any]) -> dict[str, Any]:
    """Return which numbers of an AnnData were read, for people: where it lies is told by its name."""
    names = ("element", "of", "named", "axes", "columns")
    return {name: reads[name] for name in names if name in reads}


def say_what_was_read(reads: dict[str, Any]) -> str:
    """Return the sentence that says which numbers of an AnnData the rows are."""
    chosen = "as asked" if reads["named"] else "as scanpy chooses"
    axes = f" on {reads['axes']} main axes of {reads['columns']:,} genes" if "axes" in reads else ""
    return f"rows are {reads['element']} of {reads['of']}{axes}, {chosen}"


def _sum_by_stage(steps: dict[str, Any]) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    for name, step in steps.items():
        total = stages.setdefault(name.partition(".")[0], {})
        for key, value in step.items():
            before = total.get(key, 0)
            total[key] = max(before, value) if key in PEAKS else before + value
    if "layout" in stages:
        layout = stages["layout"]
        layout["overhead_share"] = max(0.0, 1.0 - layout["kernel_seconds"] / max(layout["seconds"], 1e-9))
    return stages


class Line(NamedTuple):
    """A line of figures: its label, the measure whose grade it shows, the figure, and what is told beside it.

    The last two are formats of the measures; a line or a remark without all of its figures is left out.
    """

    label: str
    measure: str
    figure: str
    beside: tuple[str, ...] = ()


# How well a map fits its graph: of unordered pairs, in natural logarithms.
DIAGNOSTICS = (
    Line(
        "cross-entropy",
        "",
        "{cross_entropy:.4g}",
        ("of the edges", "{attraction:.4g} attraction", "{edge_repulsion:.4g} repulsion"),
    ),
    Line("KL divergence", "", "{kl_divergence:.4g}", ("beside {graph_entropy:.4g} that no map takes away",)),
    Line("other pairs", "", "{non_edge_repulsion:.4g}", ("repulsion, +- {non_edge_repulsion_se:.2g}",)),
    Line("effective loss", "", "{effective_loss:.4g}", ("repulsion as the layout draws it",)),
    Line("bits an edge", "", "{bits_per_edge:.4f}"),
    Line(
        "bits a row",
        "",
        "{bits_per_vertex:.4f}",
        ("mean sum of memberships", "{on_target:.1%} of the rows on target"),
    ),
)
LINES = (
    Line("rows", "", "{rows:,}"),
    Line("duplicates", "", "{duplicate_rows:,}"),
    Line(
        "distinct rows",
        "distinct_rows",
        "{distinct_rows_cast:,}",
        ("of {sample_rows:,} in the sample", "{distinct_rows_stored:,} as stored"),
    ),
    Line("kNN in float32", "cast_recall", "{cast_recall:.4f}", ("of the true neighbours",)),
    Line("missing chunks", "missing_chunks", "{missing_chunks:,}"),
    Line("rows alone", "isolated_rows", "{isolated_rows:,}", ("without edges",)),
    Line(
        "kNN recall",
        "recall",
        "{recall:.4f}",
        ("{probe_rows} probes", "{cells_a_row:.2f} cells a row", "{border_recall:.4f} across cells"),
    ),
    Line("sliced cells", "", "{sliced_cells:,}"),
    Line("components", "components", "{components:,}", ("largest {largest_component:,} rows",)),
    Line(
        "edges",
        "",
        "{edges:,}",
        ("largest degree {largest_degree:,}", "{cut_edge_share:.1%} between cells"),
    ),
    Line("triangles", "", "{triangles:,}", ("{tetrahedra:,} tetrahedra", "{capped_rows:,} rows capped")),
    Line(
        "weights above 1",
        "",
        "{weights_above_1:,}",
        ("{edges_dropped_negative:,} edges left out, of which nothing is above 0",),
    ),
    Line(
        "median gap",
        "",
        "{median_gap:.3g}",
        ("from the nearest neighbour to the farthest", "{vanished_rows:,} rows lose all but the nearest"),
    ),
    Line("implied alpha", "", "{implied_alpha:.4g}", ("weight of the repulsion of pairs without an edge",)),
    Line(
        "output metric",
        "",
        "{output_metric}",
        ("fly-away ratio, islands and loss are those of a plane: left out",),
    ),
    Line("kNN preservation", "knn_preservation", "{knn_preservation:.4f}"),
    Line("trustworthiness", "trustworthiness", "{trustworthiness:.4f}"),
    Line("fly-away ratio", "flyaway_ratio", "{flyaway_ratio:.2f}"),
    Line(
        "longest island",
        "longest_aspect",
        "{longest_aspect:.1f}",
        ("times its width, {longest_island:,} rows", "{islands:,} islands"),
    ),
    Line(
        "loss",
        "",
        "{attractive_loss:.4g}",
        ("attraction", "{repulsive_loss:.4g} repulsion", "each pair counts twice"),
    ),
    *DIAGNOSTICS,
)


def render(report: dict[str, Any]) -> str:
    """Return the report as text: the verdict, what was measured, and a table of the stages."""
    parts = [_stages(report)]
    if report["verdict"]:
        measures = report["measures"]
        course = _course(measures.get("loss_course", ()))
        parts = [_verdict(report["verdict"]), list(_figures(measures, LINES)), *course, *parts]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    read = _wrap(say_what_was_read(report["reads"])) if "reads" in report else []
    parts.append([*read, *_wrap(f"made by {versions}")])
    return "\n\n".join("\n".join(lines) for lines in parts)


def _verdict(verdict: dict[str, Any]) -> list[str]:
    lines = _wrap(verdict["sentence"])
    for warning in verdict["warnings"]:
        lines += _wrap(f"- {warning['says']} {warning['remedy']}")
    return lines


def render_diagnostics(found: Figures) -> str:
    """Return what `daskumap.diagnose` found as text."""
    return "\n".join(_figures(found, DIAGNOSTICS))


def _course(course: Sequence[Figures]) -> list[list[str]]:
    """Return the loss on the way as a table, if it was looked at."""
    names = ("attraction", "repulsion", "loss")
    lines = [f"{look['epoch']:<14}" + "".join(f"{look[name]:>15.4g}" for name in names) for look in course]
    heads = f"{'epoch':<14}" + "".join(f"{name:>15}" for name in names)
    return (
        [[heads, *lines, "of a sample of the vertices: how the loss goes, not what it is"]] if lines else []
    )


def _figures(measures: Figures, lines: tuple[Line, ...]) -> Iterator[str]:
    for line in lines:
        if figure := _filled(line.figure, measures):
            beside = "; ".join(filter(None, (_filled(remark, measures) for remark in line.beside)))
            grade = (MEASURE[line.measure].grade(measures) or "") if line.measure else ""
            yield f"{line.label:<18}{figure:<11}{grade:<10}{beside}".rstrip()


def _filled(text: str, measures: Figures) -> str:
    """Return a format with its figures; nothing where one is missing or not defined."""
    try:
        return text.format_map(measures)
    except (KeyError, TypeError):
        return ""


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, subsequent_indent="  ")


def _stages(report: dict[str, Any]) -> list[str]:
    return [
        f"{'stage':<14}{'tasks':>7}{'seconds':>10}{'peak MB':>10}{'planned MB':>12}",
        *(
            f"{name:<14}{stage['tasks']:>7,}{stage['seconds']:>10.2f}{stage['peak_bytes'] / 1e6:>10,.0f}"
            f"{stage['projected_bytes'] / 1e6:>12,.0f}"
            for name, stage in report["stages"].items()
        ),
        f"{'total':<14}{'':>7}{report['seconds']:>10.2f}",
    ]
