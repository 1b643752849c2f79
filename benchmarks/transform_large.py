"""Many new rows, out of core, in half the memory that they take, by drivers that are killed.

A model is fitted by one process on a cluster of worker processes, and saved with its rows. Another process
transforms the new rows under a limit (`limits.py`), once undisturbed; and once in three processes, of which
two are killed while they place rows. The bits have to be the same.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import deaths
import measure
import numpy as np
import zarr
from compare import Promise

import daskumap
from daskumap.testing import datasets

# What a process takes before it holds any data, and a little to work with: at fewer rows this is the limit.
LEAST_BYTES = 600_000_000
# Of the new rows that are placed, when a driver is killed.
KILLED_AT = (0.25, 0.6)
# Rows a chunk: 3 MB at 320 columns, so that a block of a few fits beside what a process takes anyway.
CHUNK_ROWS = 2_500
PLACE = "transform.place"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this mode."""
    parser.add_argument("--large", action="store_true", help="many rows out of core, and drivers killed")
    parser.add_argument("--rows", type=int, default=1_000_000, help="new rows, with --large")
    parser.add_argument("--fitted", type=int, default=100_000, help="fitted rows, with --large")
    parser.add_argument("--columns", type=int, default=320, help="with --large")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the fit, with --large")
    parser.add_argument("--threads", type=int, default=1, help="of the transform, with --large")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-transform"), help="with --large")


def run_large(options: argparse.Namespace) -> measure.Outcome:
    """Measure, and tell."""
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    fitted, new = write_rows(options, folder)
    size = options.rows * options.columns * 4
    limit = max(size // 2, LEAST_BYTES)
    for name in ("run.zarr", "model.zarr", "whole.zarr", "killed.zarr"):
        shutil.rmtree(folder / name, ignore_errors=True)
    fit = deaths.finish(start({"do": "fit", "data": str(fitted), "workers": options.workers}, folder, None))
    task = {"do": "transform", "data": str(new), "memory": limit, "threads": options.threads}
    whole = deaths.finish(start({**task, "out": "whole.zarr"}, folder, limit))
    killed = transform_killed({**task, "out": "killed.zarr"}, folder, limit)
    same = same_bits(folder / "whole.zarr", folder / "killed.zarr")
    return Found(options, size, limit, fit, whole, killed, same).outcome()


def write_rows(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Write the fitted rows, and new ones of the same clusters, a chunk at a time, unless they are there."""
    n, columns = options.fitted + options.rows, options.columns
    data = datasets.uneven_clusters(n, columns, 50, seed=1)
    paths = (folder / f"fitted-{n}-{columns}.zarr", folder / f"new-{n}-{columns}.zarr")
    for path, start, stop in zip(paths, (0, options.fitted), (options.fitted, n), strict=True):
        if path.exists():
            continue
        part, step = path.with_suffix(".partial"), CHUNK_ROWS
        array = zarr.create_array(
            str(part), shape=(stop - start, columns), chunks=(step, columns), dtype="f4", overwrite=True
        )
        for at in range(start, stop, step):
            end = min(at + step, stop)
            array[at - start : end - start] = data.rows(at, end)
        part.rename(path)
    return paths


# In processes of their own.


def start(task: dict[str, Any], folder: Path, limit: int | None) -> deaths.Started:
    """Start a process for a task, under a limit."""
    return deaths.start(__file__, task, folder, limit)


def transform_killed(task: dict[str, Any], folder: Path, limit: int) -> dict[str, Any]:
    """Transform; kill the driver when so many blocks are placed, and start another one, to the end."""
    began, out = time.perf_counter(), folder / task["out"]
    killed = deaths.kill_at(KILLED_AT, lambda: placed_share(out), lambda: start(task, folder, limit))
    last = deaths.finish(start(task, folder, limit))
    return {**last, "killed_at": killed, "wall": time.perf_counter() - began}


def placed_share(out: Path) -> float:
    """Return the share of the row blocks that are placed."""
    if not (out / "zarr.json").exists():
        return 0.0
    run = daskumap.open(out)
    sizes = run.store.about["sizes"]
    blocks = -(-sizes["rows"] // sizes["row_block"])
    return float(run.status()[PLACE] / blocks)


def same_bits(one: Path, other: Path) -> bool:
    """Compare places and scores, a chunk at a time."""
    first, second = daskumap.open(one), daskumap.open(other)
    pairs = ((first.embedding, second.embedding), (first.fit_distance, second.fit_distance))
    return all(
        np.array_equal(a[at : at + a.chunks[0]], b[at : at + a.chunks[0]], equal_nan=True)
        for a, b in pairs
        for at in range(0, a.shape[0], a.chunks[0])
    )


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Do a task in this process."""
    return {"fit": fit_and_save, "transform": transform}[task["do"]](task)


def fit_and_save(task: dict[str, Any]) -> dict[str, Any]:
    """Fit on a cluster of worker processes, and save the model with its rows."""
    from distributed import Client, LocalCluster

    folder, began = Path(task["folder"]), time.perf_counter()
    with (
        LocalCluster(n_workers=task["workers"], threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        run = daskumap.fit(task["data"], folder / "run.zarr", client=client, random_state=0, progress=False)
        fitted = time.perf_counter()
    run.save(folder / "model.zarr", rows=True)
    planned = daskumap.plan(task["data"], memory="4GB", calibrate=False).kept_by_level
    return {
        "fit": fitted - began,
        "save": time.perf_counter() - fitted,
        "run_bytes": measure.folder_bytes(folder / "run.zarr"),
        "model_bytes": measure.folder_bytes(folder / "model.zarr"),
        "planned_bytes": planned["model"],
    }


def transform(task: dict[str, Any]) -> dict[str, Any]:
    """Transform in this process, or go on with it."""
    folder, began = Path(task["folder"]), time.perf_counter()
    placed = daskumap.open(folder / "model.zarr").transform(
        task["data"],
        folder / task["out"],
        client="threads",
        threads=task["threads"],
        memory=task["memory"],
        progress=False,
    )
    report = placed.report
    return {"seconds": time.perf_counter() - began, "steps": report["steps"], "placed": report["placed"]}


# What is told.


class Found:
    """All that was found."""

    def __init__(
        self,
        options: argparse.Namespace,
        size: int,
        limit: int,
        fit: dict[str, Any],
        whole: dict[str, Any],
        killed: dict[str, Any],
        same: bool,
    ) -> None:
        self.options, self.size, self.limit, self.same = options, size, limit, same
        self.fit, self.whole, self.killed = fit, whole, killed

    def outcome(self) -> measure.Outcome:
        """Return the tables and the promises."""
        o, kind = self.options, self.whole["readings"]["kind"]
        return measure.Outcome(
            f"{o.rows:,} new rows x {o.columns} into a model of {o.fitted:,}; {self.limit / 1e6:,.0f} MB "
            f"({kind}), {o.threads} thread(s); {measure.machine()}",
            [self.sizes(), self.steps()],
            self.promises(),
            [f"killed when {deaths.killed_text(self.killed['killed_at'])} of the blocks were placed"],
            {"fit": self.fit, "whole": self.whole, "killed": self.killed},
        )

    def sizes(self) -> measure.Table:
        """Return sizes and times."""
        rows = self.options.fitted * self.options.columns * 4
        return [
            ["", "MB", "seconds"],
            ["new rows", measure.megabytes(self.size), ""],
            [
                "run store of the fit, on a cluster",
                measure.megabytes(self.fit["run_bytes"]),
                _f(self.fit["fit"]),
            ],
            ["model with its rows", measure.megabytes(self.fit["model_bytes"]), _f(self.fit["save"])],
            ["of these, rows", measure.megabytes(rows), ""],
            ["planned for the model without rows", measure.megabytes(self.fit["planned_bytes"]), ""],
            ["transform, undisturbed", "", _f(self.whole["seconds"])],
            ["transform, killed twice, all three processes", "", _f(self.killed["wall"])],
        ]

    def steps(self) -> measure.Table:
        """Return the peaks of each step beside the plan's, the larger one of both passes."""
        head = ["step", "tasks", "seconds", "peak, MB", "planned, MB"]
        return [head, *([name, *self.step(name)] for name in self.whole["steps"])]

    def step(self, name: str) -> list[str]:
        """Return a row of it."""
        one, other = (found["steps"][name] for found in (self.whole, self.killed))
        peak = max(one["peak_bytes"], other["peak_bytes"])
        figures = measure.megabytes(peak), measure.megabytes(one["projected_bytes"])
        return [str(one["tasks"]), _f(one["seconds"]), *figures]

    def promises(self) -> list[Promise]:
        """Hold the figures against what is promised."""
        every = [*self.whole["steps"].values(), *self.killed["steps"].values()]
        model = self.fit["model_bytes"] - self.options.fitted * self.options.columns * 4
        share = self.limit / self.size
        dead = sum(one is not None for one in self.killed["killed_at"])
        return [
            Promise("bits of the killed pass are those of the other", "== 1", float(self.same), self.same),
            Promise("drivers killed", f"== {len(KILLED_AT)}", float(dead), dead == len(KILLED_AT)),
            Promise("memory, of the new rows", "<= 0.5", share, share <= 0.5 or None),
            measure.at_most("measured / projected peak, worst step", _worst(every, "projected_bytes"), 1.0),
            measure.at_most("peak, of the memory", max(one["peak_bytes"] for one in every) / self.limit, 1.0),
            # Metadata, records and the report are beside the plan: megabytes at most.
            measure.at_most("model, of the planned bytes", model / (self.fit["planned_bytes"] + 4e6), 1.1),
        ]


def _worst(steps: list[dict[str, Any]], name: str) -> float:
    return float(max(step["peak_bytes"] / step[name] for step in steps))


def _f(seconds: float) -> str:
    return f"{seconds:,.1f}"


if __name__ == "__main__":
    deaths.serve(work)
