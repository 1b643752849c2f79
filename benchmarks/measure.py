"""What the benchmarks of scale share: rows written in chunks, fits in fresh processes, fitted exponents."""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from compare import ROOT, Promise, render

Table = list[list[str]]
# Rows a chunk: 5 MB at 128 columns, so that making the data takes as little memory as reading it.
CHUNK_ROWS = 10_000
# umap-learn takes another path below 4,096 rows, and daskumap has several cells at this size.
WARM_ROWS = 5_000
# The kernels of the layout are loaded by the first epoch.
WARM_EPOCHS = 20


@dataclass
class Outcome:
    """What a benchmark found: tables to paste, notes under them, promises, and all figures for --json."""

    title: str
    tables: list[Table]
    promises: list[Promise]
    notes: list[str] = field(default_factory=list)
    figures: Any = None

    @property
    def kept(self) -> bool:
        """Whether no promise is broken."""
        return all(promise.kept is not False for promise in self.promises)

    def __str__(self) -> str:
        return self.text(markdown=True)

    def text(self, markdown: bool) -> str:
        """Return all of it, with tables in Markdown or aligned."""
        promised = [["promise", "target", "measured", "met"], *(row.cells() for row in self.promises)]
        tables = [render(table, markdown) for table in self.tables]
        return "\n\n".join([self.title, *tables, *self.notes, render(promised, markdown)])


def at_most(name: str, value: float, limit: float) -> Promise:
    """Promise that a figure stays below a limit."""
    return Promise(name, f"<= {limit:,.4g}", float(value), bool(value <= limit))


def at_least(name: str, value: float, limit: float) -> Promise:
    """Promise that a figure reaches a limit."""
    return Promise(name, f">= {limit:,.4g}", float(value), bool(value >= limit))


def within_plan(steps: dict[str, Any], name: str = "measured / projected peak, worst step") -> Promise:
    """Promise that no step of a run took more memory than its plan says."""
    return at_most(name, max(step["peak_bytes"] / step["projected_bytes"] for step in steps.values()), 1.0)


def write_rows(data: Any, folder: Path, name: str = "data.zarr") -> Path:
    """Write a data set to a Zarr array a chunk at a time; one that is there already is used again."""
    import zarr

    path, finished = folder / name, folder / f"{name}.finished"
    known = f"{data.name} {data.shape}"
    if finished.exists() and finished.read_text() == known and zarr.open_array(path).shape == data.shape:
        return path
    finished.unlink(missing_ok=True)
    data.write_zarr(path, chunks=min(data.shape[0], CHUNK_ROWS))
    finished.write_text(known)
    return path


@contextmanager
def run_store(folder: Path) -> Iterator[str]:
    """Yield the place of a run store that is deleted afterwards: each is larger than its input."""
    place = tempfile.mkdtemp(prefix="run-", dir=folder)
    try:
        yield f"{place}/run.zarr"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def timed_fit(data: Any, run: str, **options: Any) -> tuple[Any, float]:
    """Fit quietly and with a seed; return the run and its wall time."""
    import daskumap

    begin = time.perf_counter()
    fitted = daskumap.fit(data, run, **{"random_state": 0, "progress": False, **options})
    return fitted, time.perf_counter() - begin


def warm_up(columns: int, folder: Path, **options: Any) -> None:
    """Fit a few rows, so that compiling and loading kernels does not count."""
    from daskumap.testing.datasets import uneven_clusters

    small = uneven_clusters(WARM_ROWS, columns, 12, seed=9).write_zarr(folder / "warm.zarr", WARM_ROWS)
    with run_store(folder) as run:
        timed_fit(str(small), run, **{"n_epochs": WARM_EPOCHS, **options})


def record(run: Any, seconds: float, threads: int | None = None) -> dict[str, Any]:
    """Return all that is known of a finished run: its report, its receipts, and the wall time of the fit.

    `threads` are those of its worker, None for one a core.
    """
    steps = run.report["steps"]
    receipts = {
        step: [[receipt.rows, receipt.seconds] for receipt in run.store.ledger.records(step).values()]
        for step in steps
    }
    return {"report": run.report, "receipts": receipts, "wall": seconds, "threads": threads or cores()}


def fresh(name: str, task: dict[str, Any]) -> dict[str, Any]:
    """Call `work(task)` of the benchmark called `name` in a process of its own."""
    paths = filter(None, (os.environ.get("PYTHONPATH"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("scale.py")), "--worker", name, json.dumps(task)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    # The tools may print as well; the last line is ours.
    return dict(json.loads(done.stdout.splitlines()[-1]))


def exponent(sizes: list[int], values: list[float]) -> float:
    """Return e of values ~ sizes^e by least squares in logarithms.

    >>> round(exponent([10, 100, 1000], [2.0, 20.0, 200.0]), 3)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def line(sizes: list[int], values: list[float]) -> tuple[float, float]:
    """Return (floor, slope) of values ~ floor + slope x size by least squares.

    >>> [round(x, 3) for x in line([1, 2, 4], [12.0, 14.0, 18.0])]
    [10.0, 2.0]
    """
    slope, floor = np.polyfit(np.asarray(sizes, float), np.asarray(values, float), 1)
    return float(floor), float(slope)


def in_order(found: dict[str, Any]) -> dict[str, Any]:
    """Return steps or stages of a report in the order in which they run."""
    from daskumap.pipeline import FIT

    order: dict[str, int] = {}
    for place, (step, _) in enumerate(FIT):
        order.setdefault(step.name.split(".")[0], place)
        order[step.name] = place
    return {name: found[name] for name in sorted(found, key=order.__getitem__)}


def folder_bytes(path: str | Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def status_bytes(name: str, pid: int | str = "self") -> int:
    """Return a figure of /proc/<pid>/status such as VmHWM or VmRSS, in bytes; 0 if there is none."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith(f"{name}:"):
            return int(text.split()[1]) * 1024
    return 0


def forget_peak() -> None:
    """Let VmHWM start again from what this process holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def megabytes(size: float) -> str:
    """Return bytes as MB."""
    return f"{size / 1e6:,.0f}"


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> str:
    """Say what a figure was measured on."""
    pages = resource.getpagesize() * os.sysconf("SC_PHYS_PAGES")
    return f"{cores()} cores, {math.ceil(pages / 1e9)} GB"
