"""Small arrays in memory, beside umap-learn: warm, in a cold process from import to map, and the CPU of both.

    python benchmarks/small.py [--repeats 5] [--json FILE] [--markdown]

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

SETS = {
    "400 x 8": "uneven_clusters(400, 8, 5, seed=1).rows()",
    "1,000 x 20": "uneven_clusters(1000, 20, 8, seed=1).rows()",
    "digits": "digits().rows()",
    "5,000 x 50": "uneven_clusters(5000, 50, 10, seed=2).rows()",
}
FITS = {
    "daskumap": "import daskumap; fit = lambda: daskumap.fit(X, progress=False, report=False).embedding[:]",
    "umap-learn": "import umap; fit = lambda: umap.UMAP().fit_transform(X)",
}
# Ratios to umap-learn's wall time, and seconds of CPU.
PROMISED = {("1,000 x 20", "warm"): 0.35, ("1,000 x 20", "cold"): 0.20}
PROMISED_CPU = {"400 x 8": 0.20}

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
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    results = {name: measure(name, options.repeats) for name in SETS}
    print(table(results, options.markdown))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    missed = misses(results)
    for text in missed:
        print(text)
    return 1 if missed else 0


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


def table(results: dict[str, Any], markdown: bool) -> str:
    """Return the results as a table."""
    head = [
        "",
        *(f"{tool} {what}" for what in ("warm s", "cold s", "CPU s") for tool in FITS),
        "warm",
        "cold",
    ]
    rows = []
    for name, tools in results.items():
        ours, theirs = tools["daskumap"], tools["umap-learn"]
        figures = [tools[tool][what] for what in ("warm", "cold", "cpu") for tool in FITS]
        ratios = [ours[what] / theirs[what] for what in ("warm", "cold")]
        rows.append([name, *(f"{figure:.2f}" for figure in figures), *(f"{ratio:.3f}" for ratio in ratios)])
    if markdown:
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join("".join(f"{cell:>20}" for cell in line) for line in [head, *rows])


def misses(results: dict[str, Any]) -> list[str]:
    """Return what was promised and not kept."""
    found = []
    for (name, what), limit in PROMISED.items():
        ratio = results[name]["daskumap"][what] / results[name]["umap-learn"][what]
        if ratio > limit:
            found.append(f"{name}: {what} {ratio:.3f} of umap-learn's, promised {limit:.2f}")
    for name, limit in PROMISED_CPU.items():
        cpu = results[name]["daskumap"]["cpu"]
        if cpu > limit:
            found.append(f"{name}: {cpu:.2f} s of CPU, promised {limit:.2f}")
    return found


if __name__ == "__main__":
    sys.exit(main())
