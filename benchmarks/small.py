"""Small arrays in memory, beside umap-learn: warm, in a cold process from import to map, and the CPU of both.

    python benchmarks/small.py [--repeats 5] [--json FILE]

Both tools fit the same arrays in turn, each in a process of its own, without a report and with the cores that
they take by themselves. The exit code is 1 if a promised ratio is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from compare import Promise
from measure import Outcome, Table, at_most

SETS = {
    "400 x 8": "uneven_clusters(400, 8, 5, seed=1).rows()",
    "1,000 x 20": "uneven_clusters(1000, 20, 8, seed=1).rows()",
    "digits": "digits().rows()",
    "5,000 x 50": "uneven_clusters(5000, 50, 10, seed=2).rows()",
}
FITS = {
    "daskumap": "from daskumap import UMAP; fit = lambda: UMAP().fit_transform(X)",
    "umap-learn": "from umap import UMAP; fit = lambda: UMAP().fit_transform(X)",
}
# Ratios to umap-learn's wall time, and seconds of CPU.
PROMISED = {"warm": 0.35, "cold": 0.20}
PROMISED_FOR = ("1,000 x 20", "digits", "5,000 x 50")
PROMISED_CPU = {"400 x 8": 0.20}
REPEATS = 5

# The clock of a cold process starts with its imports; the data is made before, by numpy alone.
COLD = """if True:
    import sys, time, warnings
    import numpy as np
    warnings.filterwarnings("ignore")
    X = np.load(sys.argv[1])
    started = time.perf_counter()
    {fit}
    fit()
    print(time.perf_counter() - started)
"""
WARM = """if True:
    import json, sys, time, warnings
    import numpy as np
    warnings.filterwarnings("ignore")
    X = np.load(sys.argv[1])
    {fit}
    fit(), fit()
    print("ready", flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        fit()
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
"""


def main() -> int:
    """Measure, print, and say whether the promises hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = run(options.repeats)
    print(found)
    if options.json:
        options.json.write_text(json.dumps(found.figures, indent=1))
    return int(not found.kept)


def run(repeats: int) -> Outcome:
    """Measure all sets, and hold the figures against the promises."""
    results = {name: measure(name, repeats) for name in SETS}
    return Outcome("Small arrays in memory", [table(results)], promises(results), figures=results)


def measure(name: str, repeats: int) -> dict[str, dict[str, float]]:
    """Return medians of wall seconds, warm and cold, and of CPU seconds, by tool."""
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder) / "rows.npy", SETS[name], repeats)


def _measure(data: Path, rows: str, repeats: int) -> dict[str, dict[str, float]]:
    made = f"import numpy; from daskumap.testing.datasets import *; numpy.save({str(data)!r}, {rows})"
    subprocess.run([sys.executable, "-c", made], check=True)
    cold = {tool: list[float]() for tool in FITS}
    for _ in range(max(3, repeats // 2)):
        for tool, fit in FITS.items():
            command = [sys.executable, "-c", COLD.format(fit=fit), str(data)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            cold[tool].append(float(done.stdout))
    warm = _warm(data, repeats)
    return {
        tool: {
            "cold": statistics.median(cold[tool]),
            "warm": statistics.median(wall for wall, _ in warm[tool]),
            "cpu": statistics.median(cpu for _, cpu in warm[tool]),
        }
        for tool in FITS
    }


def _warm(data: Path, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Return (wall, CPU) of fits after two others in the same process, the tools in turn."""
    processes = {}
    for tool, fit in FITS.items():
        processes[tool] = subprocess.Popen(
            [sys.executable, "-c", WARM.format(fit=fit), str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert processes[tool].stdout.readline() == "ready\n"
    found: dict[str, list[Any]] = {tool: [] for tool in FITS}
    for _ in range(repeats):
        for tool, process in processes.items():
            process.stdin.write("\n")
            process.stdin.flush()
            found[tool].append(json.loads(process.stdout.readline()))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return found


def table(results: dict[str, Any]) -> Table:
    """Return the results as rows of text."""
    head = [f"{what} s: {tool}" for what in ("warm", "cold", "CPU") for tool in FITS]
    rows = [["", *head, "warm ratio", "cold ratio"]]
    for name, tools in results.items():
        figures = [tools[tool][what] for what in ("warm", "cold", "cpu") for tool in FITS]
        ratios = [ratio(tools, what) for what in PROMISED]
        rows.append([name, *(f"{figure:.2f}" for figure in figures), *(f"{ratio:.3f}" for ratio in ratios)])
    return rows


def promises(results: dict[str, Any]) -> list[Promise]:
    """Return what is promised, kept or not."""
    ratios = [
        at_most(f"{name}: {what}, of umap-learn's time", ratio(results[name], what), limit)
        for name in PROMISED_FOR
        for what, limit in PROMISED.items()
    ]
    cpu = [
        at_most(f"{name}: s of CPU", results[name]["daskumap"]["cpu"], limit)
        for name, limit in PROMISED_CPU.items()
    ]
    return ratios + cpu


def ratio(tools: dict[str, Any], what: str) -> float:
    """Return our time over umap-learn's."""
    return float(tools["daskumap"][what] / tools["umap-learn"][what])


if __name__ == "__main__":
    sys.exit(main())
