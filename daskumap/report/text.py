"""The report of a run: as one document, and as text for a terminal."""

from __future__ import annotations

from typing import Any

# Of these, steps that follow each other reach the largest, not the sum.
PEAKS = ("peak_bytes", "projected_bytes")


def assemble(
    measures: dict[str, Any], steps: dict[str, Any], params: dict[str, Any], sizes: dict[str, Any]
) -> dict[str, Any]:
    """Return a run's report: its measures, and each stage with what was planned and what was measured.

    Steps of a stage (`partition.cells`, ...) are listed alone and summed under the stage's name. The measures
    of a run without a report are empty.
    """
    return {
        "measures": measures,
        "stages": _sum_by_stage(steps),
        "steps": steps,
        "seconds": sum(step["seconds"] for step in steps.values()),
        "params": params,
        "sizes": sizes,
    }


def _sum_by_stage(steps: dict[str, Any]) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    for name, step in steps.items():
        total = stages.setdefault(name.partition(".")[0], dict.fromkeys(step, 0))
        for key, value in step.items():
            total[key] = max(total[key], value) if key in PEAKS else total[key] + value
    if "layout" in stages:
        layout = stages["layout"]
        layout["overhead_share"] = max(0.0, 1.0 - layout["kernel_seconds"] / max(layout["seconds"], 1e-9))
    return stages


def render(report: dict[str, Any]) -> str:
    """Return the report as text: what was measured, if it was, and a table of the stages."""
    measures = report["measures"]
    above = [*_measures(measures), ""] if measures else []
    return "\n".join([*above, *_stages(report)])


def _measures(m: dict[str, Any]) -> list[str]:
    return [
        f"rows                 {m['rows']:,}",
        *([f"duplicates           {m['duplicate_rows']:,}"] if "duplicate_rows" in m else []),
        f"kNN recall           {m['recall']:.4f}   ({m['probe_rows']} probe rows; a row joins "
        f"{m['cells_a_row']:.2f} cells)",
        f"trustworthiness      {_number(m['trustworthiness'])}",
        f"kNN preservation     {m['knn_preservation']:.4f}",
        f"fly-away ratio       {m['flyaway_ratio']:.2f}",
        f"components           {m['components']:,}   (largest {m['largest_component']:,} rows; "
        f"{m['isolated_rows']:,} rows without edges)",
        f"edges                {m['edges']:,}   (largest degree {m['largest_degree']:,}; "
        f"{m['cut_edge_share']:.1%} between cells)",
        f"loss                 attraction {m['attractive_loss']:.4g}, repulsion {m['repulsive_loss']:.4g}",
    ]


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


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
