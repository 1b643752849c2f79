"""What a parameter costs: fits with it and without, in turn, each in a fresh process.

The parameter is what --set says, triangles where it says nothing. The promise is about CPU seconds, which
other processes on the machine change less than wall time, and about memory within the plan.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import measure

NAMES = ("default", "with it")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--memory", default="1500MB", help="bytes of the process")
    parser.add_argument("--repeats", type=int, default=2, help="fits with the parameter, and without")
    parser.add_argument("--most", type=float, default=1.6, help="CPU seconds with it, in those without")


def run(arguments: argparse.Namespace) -> measure.Outcome:
    """Fit with the defaults and with the parameter, in turn."""
    from daskumap.testing.datasets import uneven_clusters

    path = measure.write_rows(uneven_clusters(arguments.rows, arguments.columns), arguments.folder)
    own = dict(arguments.set) or {"simplices": 2}
    task = {"path": str(path), "folder": str(arguments.folder), "columns": arguments.columns}
    words = dict(zip(NAMES, ({}, own), strict=True))
    fits: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for _ in range(arguments.repeats):
        for name, options in words.items():
            options = {"memory": arguments.memory, **options}
            fits[name].append(measure.fresh("pairs", {**task, "options": options}))
    seconds = [statistics.median(fit["cpu"] for fit in fits[name]) for name in NAMES]
    title = (
        f"{arguments.rows:,} x {arguments.columns}, {own} beside the default, memory {arguments.memory}, "
        f"{measure.machine()}"
    )
    promises = [
        measure.at_most("CPU seconds with it / default", seconds[1] / seconds[0], arguments.most),
        *(
            measure.within_plan(fit["report"]["steps"], f"measured / projected peak, {name}")
            for name in NAMES
            for fit in fits[name][:1]
        ),
    ]
    return measure.Outcome(title, [table(fits)], promises, [], fits)


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Fit once; called in a fresh process."""
    folder = Path(task["folder"])
    measure.warm_up(task["columns"], folder, **task["options"])
    with measure.run_store(folder) as place:
        begin = time.process_time()
        fitted, seconds = measure.timed_fit(task["path"], place, **task["options"])
        cpu = time.process_time() - begin
        return {**measure.record(fitted, seconds), "cpu": cpu}


def table(fits: dict[str, list[dict[str, Any]]]) -> measure.Table:
    """Return the task seconds of each stage, its peak and plan, and the CPU seconds of the whole; medians."""
    rows = [["stage", *(f"{name}, {what}" for name in NAMES for what in ("s", "peak MB", "planned MB"))]]
    stages = measure.in_order(fits[NAMES[1]][0]["report"]["stages"])
    for stage in stages:
        rows.append([stage, *(cell for name in NAMES for cell in cells(fits[name], stage))])
    totals = [f"{statistics.median(fit['cpu'] for fit in fits[name]):,.1f}" for name in NAMES]
    return [*rows, ["CPU", totals[0], "", "", totals[1], "", ""]]


def cells(fits: list[dict[str, Any]], stage: str) -> list[str]:
    """Return the figures of a stage in some fits; nothing where they do not have it."""
    found = [fit["report"]["stages"][stage] for fit in fits if stage in fit["report"]["stages"]]
    if not found:
        return ["", "", ""]
    seconds = statistics.median(one["task_seconds"] for one in found)
    peaks = (max(one[key] for one in found) for key in ("peak_bytes", "projected_bytes"))
    return [f"{seconds:,.1f}", *map(measure.megabytes, peaks)]
