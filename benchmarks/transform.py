"""New rows on the map of others, beside umap-learn: accuracy, wall time and CPU.

    python benchmarks/transform.py [--data fashion_mnist|digits] [--seeds 8] [--repeats 3] [--json FILE]
    python benchmarks/transform.py --large [--rows 1000000] [--folder DIR] [--json FILE]

Each tool fits the first rows and places the last ones, each into its own map; accuracies are means over
seeds, with their standard error; times are of models that placed rows once before, in turn. `--large` places
more rows than fit into memory, see `transform_large.py`. The exit code is 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import Outcome, at_least, at_most
from sklearn.neighbors import KNeighborsClassifier
from transform_large import add_arguments, run_large

import daskumap
from daskumap.testing import datasets

# Rows that are placed; the others are fitted.
NEW = {"fashion_mnist": 10_000, "digits": 450}
# Of umap-learn's time; and by how many standard errors of the difference its accuracy may be above ours.
RATIO, ERRORS = 0.35, 2.0
# Seeds, and transforms that are timed with each. From seed to seed accuracy has a deviation of .003, and
# umap-learn's of .006 (eight each): one seed says nothing of a difference.
TIMES = (8, 3)


def main() -> int:
    """Measure and tell."""
    options = parse()
    found = run_large(options) if options.large else run(options.data, options.seeds, options.repeats)
    print(found)
    if options.json:
        options.json.write_text(json.dumps(found.figures, indent=1))
    return int(not found.kept)


def run(name: str, seeds: int, repeats: int) -> Outcome:
    """Measure a data set with some seeds, and hold the means against the promises."""
    warnings.filterwarnings("ignore")
    data = getattr(datasets, name)()
    rows, labels, cut = data.rows(), data.labels(), data.shape[0] - NEW[name]
    found = [
        compare(rows[:cut], labels[:cut], rows[cut:], labels[cut:], seed, repeats) for seed in range(seeds)
    ]
    ours, theirs = (mean(found, tool) for tool in found[0])
    errors = {tool: error_of([one[tool]["accuracy"] for one in found], NEW[name]) for tool in found[0]}
    table = [
        ["", *ours, "+-"],
        *(
            [tool, *(f"{value:.3f}" for value in mean(found, tool).values()), f"{errors[tool]:.4f}"]
            for tool in found[0]
        ),
    ]
    slack = ERRORS * math.hypot(*errors.values())
    promises = [
        at_least("accuracy beside umap-learn's", ours["accuracy"] - theirs["accuracy"], -slack),
        at_most("wall time, of umap-learn's", ours["wall"] / theirs["wall"], RATIO),
    ]
    return Outcome(f"{NEW[name]:,} new rows of {data.name}", [table], promises, figures=found)


def mean(found: list[dict[str, dict[str, float]]], tool: str) -> dict[str, float]:
    """Return the means of a tool's figures over all seeds."""
    return {key: float(np.mean([one[tool][key] for one in found])) for key in found[0][tool]}


def error_of(accuracies: list[float], rows: int) -> float:
    """Return the standard error of a mean accuracy: over seeds, or of so many rows where one seed is all."""
    if len(accuracies) > 1:
        return statistics.stdev(accuracies) / math.sqrt(len(accuracies))
    return math.sqrt(accuracies[0] * (1 - accuracies[0]) / rows)


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", choices=tuple(NEW), default="fashion_mnist")
    parser.add_argument("--seeds", type=int, default=TIMES[0])
    parser.add_argument("--repeats", type=int, default=TIMES[1])
    parser.add_argument("--json", type=Path)
    add_arguments(parser)
    return parser.parse_args()


def compare(X: Any, y: Any, new: Any, wanted: Any, seed: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return accuracy, wall time and CPU of both tools with one seed; times are medians."""
    import umap

    run = daskumap.fit(X, random_state=seed, progress=False, report=False)
    model = umap.UMAP(random_state=seed).fit(X)
    maps = {"daskumap": run.embedding[:], "umap-learn": model.embedding_}
    place: dict[str, Callable[[], Any]] = {
        "daskumap": lambda: run.transform(new, progress=False).embedding[:],
        "umap-learn": lambda: model.transform(new),
    }
    placed = {tool: function() for tool, function in place.items()}
    times: dict[str, list[tuple[float, float]]] = {tool: [] for tool in place}
    for _ in range(repeats):
        for tool, function in place.items():
            times[tool].append(timed(function))
    return {
        tool: {
            "accuracy": float(KNeighborsClassifier(5).fit(maps[tool], y).score(placed[tool], wanted)),
            "wall": statistics.median(wall for wall, _ in times[tool]),
            "cpu": statistics.median(cpu for _, cpu in times[tool]),
        }
        for tool in place
    }


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of wall time and CPU that a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    sys.exit(main())
