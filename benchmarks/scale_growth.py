"""Time and memory against the number of rows, by stage: the exponent of one, the slope of the other.

Each size is fitted in a fresh process after a small fit that loads the kernels. `memory` is fixed, so that
buffers sized by it do not count as growth. What it lets a worker keep (decoded rows, edges of the layout) and
the wide cells that large inputs are searched in, which are bounded, are taken off before the slope is fitted.
Sizes too small for full blocks do not take part in it.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure

MAX_EXPONENT = 1.15
# Two snapshots, two moments and the gathered positions, float32 (stages/map/layout.py), for a map of d = 2.
SNAPSHOT_ROW_BYTES = 5 * 4 * 2
# Below this share of the largest size's blocks, a size does not show the full working set of a task.
FULL_BLOCKS = 0.7
# An exponent of stages below this many seconds at the largest size is noise.
LEAST_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000, 3_000_000])
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--memory", default="2GB", help="bytes a worker, the same at all sizes")
    parser.add_argument("--threads", type=int, help="of the one worker; all cores by default")


def run(arguments: argparse.Namespace) -> measure.Outcome:
    """Fit every size and fit the curves."""
    from daskumap.testing.datasets import uneven_clusters

    if len(set(arguments.rows)) < 2:
        raise SystemExit("--rows needs two sizes or more: one has no exponent")
    figures = []
    for rows in sorted(set(arguments.rows)):
        data = uneven_clusters(rows, arguments.columns)
        path = measure.write_rows(data, arguments.folder, f"growth-{rows}.zarr")
        options = {"memory": arguments.memory, "threads": arguments.threads, **dict(arguments.set)}
        task = {"path": str(path), "columns": arguments.columns, "options": options}
        figures.append(measure.fresh("growth", task))
    sizes = [int(found["report"]["sizes"]["rows"]) for found in figures]
    title = f"{arguments.columns} columns, memory {arguments.memory}, {measure.machine()}"
    time, memory = time_table(sizes, figures), memory_table(figures)
    full = ", ".join(f"{n:,}" for n in full_sizes(figures))
    notes = [f"Blocks have their full size at {full} rows: slopes of memory are those of these sizes."]
    return measure.Outcome(title, [time, memory], promises(sizes, figures), notes, figures)


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Fit one size; called in a fresh process."""
    folder = Path(task["path"]).parent
    measure.warm_up(task["columns"], folder, **task["options"])
    with measure.run_store(folder) as place:
        fitted, seconds = measure.timed_fit(task["path"], place, **task["options"])
        return measure.record(fitted, seconds, task["options"]["threads"])


def seconds_of(figures: list[dict[str, Any]], stage: str) -> list[float]:
    """Return a stage's seconds at each size."""
    return [found["report"]["stages"][stage]["seconds"] for found in figures]


def time_table(sizes: list[int], figures: list[dict[str, Any]]) -> measure.Table:
    """Return seconds by stage and size, with the exponents."""
    rows = [["seconds", *(f"{n:,}" for n in sizes), "exponent"]]
    for stage in measure.in_order(figures[0]["report"]["stages"]):
        seconds = seconds_of(figures, stage)
        power = f"{measure.exponent(sizes, seconds):.2f}" if seconds[-1] >= LEAST_SECONDS else "-"
        rows.append([stage, *(f"{s:,.1f}" for s in seconds), power])
    walls = [found["wall"] for found in figures]
    return [*rows, ["whole fit", *(f"{s:,.1f}" for s in walls), f"{measure.exponent(sizes, walls):.2f}"]]


def kept_bytes(found: dict[str, Any], step: str) -> int:
    """Return what does not grow without bound in a step: what `memory` has room for, and the wide cells.

    Decoded rows; in the layout the edges; in the search a wide cell a thread, up to `sizes.WIDE_BYTES`.
    """
    report = found["report"]
    sizes, measures = report["sizes"], report["measures"]
    kept = int(sizes["cache_bytes"])
    if step == "layout":
        kept += min(8 * (measures["edges"] + sizes["rows"]), sizes["edge_bytes"])
    if step == "neighbors" and measures["largest_cell"] > sizes["max_cell_rows"]:
        row = 8 * sizes["columns"] + 50 * report["params"]["n_neighbors"]
        kept += found["threads"] * measures["largest_cell"] * row
    return kept


def needed(found: dict[str, Any], step: str) -> float:
    """Return the peak of a step without what it could have done without, or what is bounded."""
    return float(found["report"]["steps"][step]["peak_bytes"] - kept_bytes(found, step))


def full_sizes(figures: list[dict[str, Any]]) -> list[int]:
    """Return the sizes whose blocks are as large as those of the largest size."""
    names = ("row_block", "partition_rows", "group_rows")
    sizes = [found["report"]["sizes"] for found in figures]
    return [s["rows"] for s in sizes if all(s[n] >= FULL_BLOCKS * sizes[-1][n] for n in names)]


def slope(figures: list[dict[str, Any]], peaks: list[float]) -> tuple[float, float]:
    """Return the floor in bytes and the bytes a row of peaks, over full sizes; over all if they are few."""
    full = full_sizes(figures)
    chosen = [(f["report"]["sizes"]["rows"], p) for f, p in zip(figures, peaks, strict=True)]
    pairs = [pair for pair in chosen if pair[0] in full or len(full) < 2]
    return measure.line([n for n, _ in pairs], [p for _, p in pairs])


def total_peaks(figures: list[dict[str, Any]]) -> list[float]:
    """Return at each size the largest need of any step."""
    return [max(needed(found, step) for step in found["report"]["steps"]) for found in figures]


def memory_table(figures: list[dict[str, Any]]) -> measure.Table:
    """Return the peaks by step and size, with floor and bytes a row."""
    sizes = [found["report"]["sizes"]["rows"] for found in figures]
    rows = [["peak without caches, MB", *(f"{n:,}" for n in sizes), "floor, MB", "bytes a row"]]
    steps = measure.in_order(figures[0]["report"]["steps"])
    lines = {step: [needed(found, step) for found in figures] for step in steps}
    for name, peaks in {**lines, "worker": total_peaks(figures)}.items():
        floor, each = slope(figures, peaks)
        rows.append([name, *map(measure.megabytes, peaks), measure.megabytes(floor), f"{each:.1f}"])
    return rows


def promises(sizes: list[int], figures: list[dict[str, Any]]) -> list[measure.Promise]:
    """Hold the curves against what is promised."""
    power = measure.exponent(sizes, [found["wall"] for found in figures])
    _, each = slope(figures, total_peaks(figures))
    flat = measure.at_most("bytes a row of a worker's peak", each, SNAPSHOT_ROW_BYTES)
    if len(full_sizes(figures)) < 2:  # what grows between smaller sizes are blocks, up to their limit
        flat = replace(flat, kept=None)
    plans = [measure.within_plan(found["report"]["steps"]) for found in figures]
    worst = max(plans, key=lambda row: row.measured or 0)
    return [
        measure.at_most("exponent of the time of a fit", power, MAX_EXPONENT),
        flat,
        worst,
        measure.at_least("recall, worst size", min(f["report"]["measures"]["recall"] for f in figures), 0.95),
    ]
