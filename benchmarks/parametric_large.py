"""A network trained on more rows than its machine's share of memory, by drivers that are killed.

    python benchmarks/parametric_large.py [--rows 1000000] [--columns 64] [--memory 2e9] [--folder DIR]

One process fits the graph, and another one trains on it, each under a limit (`limits.py`). Then four
processes train on it again, of which three are killed in the middle of the training. The bits have to be the
same. The exit code is 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import deaths
import measure
import numpy as np
from compare import Promise

import daskumap
from daskumap.encoder_params import EncoderParams
from daskumap.testing import datasets

# Of the segments that are done, when a driver is killed.
KILLED_AT = (0.2, 0.45, 0.75)


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    options = parser.parse_args()
    found = run_large(options)
    print(found)
    if options.json:
        options.json.write_text(json.dumps(found.figures, indent=1))
    return int(not found.kept)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--memory", type=float, default=2e9, help="bytes of each process")
    parser.add_argument("--steps", type=int, default=EncoderParams.steps, help="of the training")
    parser.add_argument("--window-rows", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("benchmark-parametric"))
    parser.add_argument("--json", type=Path, default=None)


def run_large(options: argparse.Namespace) -> measure.Outcome:
    """Measure, and tell."""
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = datasets.uneven_clusters(options.rows, options.columns, 50, seed=1)
    rows = measure.write_rows(data, folder, f"rows-{options.rows}-{options.columns}.zarr")
    for name in ("run.zarr", "whole.zarr", "killed.zarr"):
        shutil.rmtree(folder / name, ignore_errors=True)
    # Windows regress to the map first.
    mode = "graph" if options.window_rows is None else "embedding"
    words = {"memory": int(options.memory), "threads": options.threads}
    fit = deaths.finish(
        start({"do": "fit", "data": str(rows), "out": "run.zarr", "mode": mode, **words}, folder)
    )
    words |= {"do": "train", "params": {"steps": options.steps, "window_rows": options.window_rows}}
    whole = deaths.finish(start({**words, "out": "whole.zarr"}, folder))
    killed = train_killed({**words, "out": "killed.zarr"}, folder)
    same = same_bits(folder / "whole.zarr", folder / "killed.zarr")
    return outcome(options, fit, whole, killed, same)


# In processes of their own.


def start(task: dict[str, Any], folder: Path) -> deaths.Started:
    """Start a process for a task, under the limit of its memory."""
    return deaths.start(__file__, task, folder, task["memory"])


def train_killed(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train; kill the driver when so many segments are done, and start another one, to the end."""
    began, out = time.perf_counter(), folder / task["out"]
    killed = deaths.kill_at(KILLED_AT, lambda: trained_share(out), lambda: start(task, folder))
    last = deaths.finish(start(task, folder))
    return {**last, "killed_at": killed, "wall": time.perf_counter() - began}


def trained_share(out: Path) -> float:
    """Return the share of the segments that are done."""
    if not (out / "zarr.json").exists():
        return 0.0
    run = daskumap.open(out)
    return len(run.history) / len(EncoderParams(**run.params["encoder"]).segments())


def same_bits(one: Path, other: Path) -> bool:
    """Compare both maps, a chunk at a time."""
    first, second = daskumap.open(one).embedding, daskumap.open(other).embedding
    step = first.chunks[0]
    return all(
        np.array_equal(first[at : at + step], second[at : at + step]) for at in range(0, first.shape[0], step)
    )


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Do a task in this process."""
    folder, began, cpu = Path(task["folder"]), time.perf_counter(), time.process_time()
    words = {"client": "threads", "threads": task["threads"], "memory": task["memory"], "progress": False}
    if task["do"] == "fit":
        options = {"random_state": 0, "report": False, "transform_mode": task["mode"]}
        run = daskumap.fit(task["data"], folder / task["out"], **options, **words)
    else:
        run = daskumap.train(folder / "run.zarr", folder / task["out"], **task["params"], **words)
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "steps": run.report["steps"],
        "measures": run.report.get("measures", {}),
        "history": run.history if task["do"] == "train" else [],
    }


# What is told.


def outcome(
    options: argparse.Namespace,
    fit: dict[str, Any],
    whole: dict[str, Any],
    killed: dict[str, Any],
    same: bool,
) -> measure.Outcome:
    """Return the tables and the promises."""
    parts = {"fit": fit, "whole": whole, "killed": killed}
    trained = [*whole["steps"].values(), *killed["steps"].values()]
    peak = max(step["peak_bytes"] for step in trained)
    dead = sum(one is not None for one in killed["killed_at"])
    expected = len(KILLED_AT)
    return measure.Outcome(
        f"{options.rows:,} rows x {options.columns}; {options.memory / 1e6:,.0f} MB "
        f"({whole['readings']['kind']}), {options.threads} thread(s); {measure.machine()}",
        [times(parts), steps_of(whole, killed)],
        [
            Promise("bits of the killed training are those of the other", "== 1", float(same), same),
            Promise("drivers killed", f"== {expected}", float(dead), dead == expected),
            measure.within_plan(whole["steps"]),
            measure.within_plan(killed["steps"]),
            measure.at_most("peak, of the memory", peak / options.memory, 1.0),
        ],
        [f"killed when {deaths.killed_text(killed['killed_at'])} of the steps were done"],
        parts,
    )


def times(parts: dict[str, Any]) -> measure.Table:
    """Return what each process took; of the killed ones the wall time of all."""
    rows = [[name, f"{part['seconds']:,.0f}", f"{part['cpu']:,.0f}"] for name, part in parts.items()]
    return [["", "seconds", "CPU seconds"], *rows, ["all four", f"{parts['killed']['wall']:,.0f}", ""]]


def steps_of(whole: dict[str, Any], killed: dict[str, Any]) -> measure.Table:
    """Return the peaks of each step beside the plan's, the larger one of both trainings."""
    table = [["step", "tasks", "seconds", "peak, MB", "planned, MB"]]
    for name, one in whole["steps"].items():
        peak = max(one["peak_bytes"], killed["steps"][name]["peak_bytes"])
        figures = measure.megabytes(peak), measure.megabytes(one["projected_bytes"])
        table.append([name, str(one["tasks"]), f"{one['seconds']:,.1f}", *figures])
    return table


if __name__ == "__main__" and not deaths.serve(work):
    sys.exit(main())
