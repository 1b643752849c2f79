"""daskumap beside umap-learn: one run, the same cores, the same data, the same measures.

    python benchmarks/compare.py [fit] [small] [transform] [sweep]
                                 [--data fashion_mnist|digits|hub_heavy|uneven] [--rows N] [--seeds 3]
                                 [--repeats 2] [--set optimizer=sgd] [--json FILE] [--markdown]

`fit`, which is meant if none is named, is one data set, and `sweep` five maps of it with other `min_dist` by
the same neighbours; `small` are small arrays in memory, `transform` new rows on a map: benchmarks of their
own, with their own data.

Each tool runs in fresh processes, in turn with the other. A speed process fits twice: cold (import,
compilation, fit), then warm. The fastest of the repeats counts: noise on shared cores only adds, and the
first process fills numba's caches on disk. There umap-learn has no seed and uses all cores; in the quality
process, a fit a seed, it uses one. Writing and loading the data and judging the maps are not timed.

Of a sweep, five maps of other `min_dist`: a warm fit, and four of its neighbours, which start from
its map, have half of the epochs, and no report, as umap-learn has none; it gets its neighbours and its map
back in the same way.

The exit code is 1 if a promise is broken. Speed is promised for the whole of Fashion-MNIST.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("daskumap", "umap-learn")
NEIGHBORS = 15
# Two thousand queries put the standard error of recall and preservation at 0.002 and less.
SAMPLE_ROWS = 2_000
QUALITY = {
    "recall": f"kNN recall@{NEIGHBORS - 1}",
    "trustworthiness": f"trustworthiness@{NEIGHBORS}",
    "preservation": f"kNN preservation@{NEIGHBORS}",
    "accuracy": f"kNN accuracy@{NEIGHBORS}",
    "flyaway": "fly-away ratio",
}
SPEED = {
    "warm": "warm fit, s",
    "cold": "cold, import to published map, s",
    "cold_fit": "cold, import to end of fit, s",
    "layout": "layout alone, warm, s",
    "peak": "peak memory of a cold fit, MB",
    "overhead": "layout's share outside its kernels, warm",
}


def load(name: str, rows: int | None) -> Any:
    """Return the named data set, cut to `rows`; digits where Fashion-MNIST is not installed."""
    from daskumap.errors import DependencyError
    from daskumap.testing import datasets

    if name == "uneven":
        return datasets.uneven_clusters(rows or 100_000)
    if name == "hub_heavy":
        return datasets.hub_heavy(rows or 40_000)
    try:
        data = datasets.fashion_mnist() if name == "fashion_mnist" else datasets.digits()
    except DependencyError as error:
        print(f"{error}\nGoing on with digits.", file=sys.stderr)
        data = datasets.digits()
    return replace(data, shape=(min(rows or data.shape[0], data.shape[0]), data.shape[1]))


def prepare(data: Any, folder: Path) -> None:
    """Write what the workers read: the rows as Zarr and as .npy, and the sampled rows."""
    n = data.shape[0]
    data.write_zarr(folder / "data.zarr", chunks=min(n, 5_000))
    np.save(folder / "data.npy", data.rows())
    sample = np.random.default_rng(0).choice(n, min(n, SAMPLE_ROWS), replace=False)
    np.save(folder / "sample.npy", np.sort(sample))


# The first fit has the default, .1; the others have half of the epochs that it has.
MIN_DISTS = (0.0, 0.25, 0.5, 0.8)
EPOCHS = 100
SWEEP = {
    "first": "one fit, s",
    "others": "four others, s",
    "sweep": "sweep of five min_dist, s",
    "share": "sweep, in fits",
}
# By how much the mean of five maps may be below umap-learn's.
SWEEP_QUALITY = {"trustworthiness": 0.005, "preservation": 0.003}
Fitter = tuple[Callable[[int | None], Any], Callable[[Any], tuple[Any, Any, dict[str, Any]]]]


def daskumap_fitter(folder: Path, options: dict[str, Any]) -> Fitter:
    """Import daskumap; return what fits with a seed, and what reads (map, neighbours, figures) of a fit."""
    import daskumap

    def fit(seed: int | None) -> Any:
        (folder / "runs").mkdir(exist_ok=True)
        run = f"{tempfile.mkdtemp(dir=folder / 'runs')}/run.zarr"
        fixed: dict[str, Any] = {"n_neighbors": NEIGHBORS, "random_state": seed or 0, "progress": False}
        return daskumap.fit(str(folder / "data.zarr"), run, **fixed, **options)

    def read(run: Any) -> tuple[Any, Any, dict[str, Any]]:
        stages = run.report["stages"]
        figures = {
            "layout": stages["layout"]["seconds"],
            "overhead": stages["layout"].get("overhead_share"),
            "stages": {name: stage["seconds"] for name, stage in stages.items()},
        }
        return run.embedding[:], run.knn()[0], figures

    return fit, read


def umap_fitter(data: np.ndarray[Any, Any]) -> Fitter:
    """Import umap-learn and put a clock around its layout; return the same two functions."""
    import umap
    import umap.umap_ as module

    optimize, clock = module.optimize_layout_euclidean, {}

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        result = optimize(*args, **kwargs)
        clock["layout"] = time.perf_counter() - begin
        return result

    module.optimize_layout_euclidean = timed

    def fit(seed: int | None) -> Any:
        return umap.UMAP(n_neighbors=NEIGHBORS, random_state=seed).fit(data)

    def read(model: Any) -> tuple[Any, Any, dict[str, Any]]:
        # Below 4,096 rows umap-learn takes all distances and keeps no neighbours: they are exact.
        return model.embedding_, getattr(model, "_knn_indices", None), dict(clock)

    return fit, read


def work(tool: str, folder: Path, seeds: list[int | None], options: dict[str, Any]) -> dict[str, Any]:
    """Fit once for each seed and leave the maps in `folder`; return the seconds and where the maps are."""
    warnings.simplefilter("ignore")
    data = np.load(folder / "data.npy") if tool == "umap-learn" else None
    begin = time.perf_counter()
    fit, read = daskumap_fitter(folder, options) if data is None else umap_fitter(data)
    importing, fits, peak = time.perf_counter() - begin, [], None
    for seed in seeds:
        begin = time.perf_counter()
        result = fit(seed)
        seconds = time.perf_counter() - begin
        # Of the first fit alone, and before its result is read.
        peak = peak or peak_bytes()
        embedding, neighbors, figures = read(result)
        place = tempfile.mkdtemp(dir=folder)
        np.save(f"{place}/embedding.npy", embedding)
        if neighbors is not None:
            np.save(f"{place}/found.npy", neighbors[np.load(folder / "sample.npy")])
        fits.append({"seconds": seconds, "place": place, **figures})
    return {"importing": importing, "peak": peak, "fits": fits}


def sweep(tool: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Fit twice, the second time by the clock, then four times from that; return seconds and maps."""
    warnings.simplefilter("ignore")
    data = np.load(folder / "data.npy") if tool == "umap-learn" else None
    fit, _ = daskumap_fitter(folder, options) if data is None else umap_fitter(data)
    again = daskumap_again if data is None else umap_again
    fit(None)
    begin = time.perf_counter()
    first = fit(None)
    seconds, maps = [time.perf_counter() - begin], [first]
    for min_dist in MIN_DISTS:
        begin = time.perf_counter()
        maps.append(again(first, {"min_dist": min_dist, "n_epochs": EPOCHS}))
        seconds.append(time.perf_counter() - begin)
    places = [tempfile.mkdtemp(dir=folder) for _ in maps]
    for place, one in zip(places, maps, strict=True):
        np.save(f"{place}/embedding.npy", one.embedding[:] if data is None else one.embedding_)
    return {"seconds": seconds, "places": places}


def daskumap_again(first: Any, options: dict[str, Any]) -> Any:
    """Fit the neighbours of a run, from its map on."""
    import daskumap

    place = f"{tempfile.mkdtemp(dir=Path(first.path).parents[1])}/run.zarr"
    return daskumap.fit(first, place, init=first, report=False, progress=False, **options)


def umap_again(first: Any, options: dict[str, Any]) -> Any:
    """Fit the neighbours of a model, from its map on."""
    import umap

    options = {**options, "init": first.embedding_}
    if hasattr(first, "_knn_indices"):  # Below 4,096 rows it keeps none.
        options["precomputed_knn"] = (first._knn_indices, first._knn_dists, first._knn_search_index)
    return umap.UMAP(n_neighbors=NEIGHBORS, **options).fit(first._raw_data)


def peak_bytes() -> int | None:
    """Return the peak memory of this process. Not `ru_maxrss`: a child inherits that of its parent."""
    lines = status.read_text().splitlines() if (status := Path("/proc/self/status")).exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def call(tool: str, folder: Path, seeds: list[int | None], options: dict[str, Any]) -> dict[str, Any]:
    """Run `work` in a fresh process, or `sweep` where there are no seeds."""
    task = json.dumps({"tool": tool, "folder": str(folder), "seeds": seeds, "options": options})
    paths = filter(None, (os.environ.get("PYTHONPATH"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, __file__, "--worker", task],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    # Run stores are large, and read by now.
    shutil.rmtree(folder / "runs", ignore_errors=True)
    # The tools may print as well; the last line is ours.
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Judge:
    """Measures every map in the same way: exact neighbours and ranks of the same sampled rows."""

    def __init__(self, folder: Path, labels: np.ndarray[Any, Any]) -> None:
        from daskumap.kernels.quality.neighbors import exact_neighbors

        self.labels = labels
        self.data = np.load(folder / "data.npy", mmap_mode="r")
        self.sample = np.load(folder / "sample.npy")
        self.exact, _ = exact_neighbors(self.data, self.sample, NEIGHBORS)

    def measure(self, place: str) -> dict[str, float]:
        """Return the quality of the map that a worker left in `place`."""
        from daskumap.kernels.quality.figures import (
            flyaway_ratio,
            knn_accuracy,
            preservation,
            trustworthiness_from_ranks,
        )
        from daskumap.kernels.quality.neighbors import embedding_neighbors, exact_ranks

        sample = self.sample
        embedding = np.load(f"{place}/embedding.npy")
        close, _ = embedding_neighbors(embedding, sample, NEIGHBORS)
        ranks = exact_ranks(self.data, sample, close)
        return {
            "recall": self._recall(found) if (found := Path(place) / "found.npy").exists() else 1.0,
            "trustworthiness": trustworthiness_from_ranks(ranks, len(self.data), NEIGHBORS),
            "preservation": preservation(self.exact, close),
            "accuracy": knn_accuracy(embedding, self.labels, NEIGHBORS, sample),
            "flyaway": flyaway_ratio(embedding),
        }

    def _recall(self, path: Path) -> float:
        # n_neighbors counts the row itself, which is no find.
        found = np.where((found := np.load(path)) == self.sample[:, None], -1, found)
        from daskumap.kernels.quality.figures import recall

        return float(recall(found, self.exact[:, : NEIGHBORS - 1]))


def speed_figures(runs: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return the best of some speed processes, each with a cold and a warm fit."""
    found: dict[str, list[float | None]] = {name: [] for name in SPEED}
    for run in runs:
        cold, warm = run["fits"]
        found["warm"].append(warm["seconds"])
        found["cold_fit"].append(run["importing"] + cold["seconds"])
        # daskumap publishes the map, then measures it; umap-learn measures nothing.
        found["cold"].append(found["cold_fit"][-1] - cold.get("stages", {}).get("report", 0.0))
        found["layout"].append(warm.get("layout"))
        found["overhead"].append(warm.get("overhead"))
        found["peak"].append(run["peak"] and run["peak"] / 1e6)
    return {name: min((v for v in values if v is not None), default=None) for name, values in found.items()}


def compare(data: Any, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run both tools in turn; return {"speed": {tool: figures}, "quality": {tool: [figures a seed]}, ...}."""
    prepare(data, folder)
    options = dict(arguments.set)
    runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in TOOLS}
    quality: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
    for repeat in range(arguments.repeats):
        for tool in TOOLS:
            print(f"{tool}: speed, {repeat + 1} of {arguments.repeats}", file=sys.stderr)
            runs[tool].append(call(tool, folder, [None, None], options))
    judge = Judge(folder, data.labels())
    for tool in TOOLS:
        print(f"{tool}: quality of {arguments.seeds} seeds", file=sys.stderr)
        fits = call(tool, folder, list(range(arguments.seeds)), options)["fits"]
        quality[tool] = [judge.measure(fit["place"]) for fit in fits]
    return {"speed": {tool: speed_figures(runs[tool]) for tool in TOOLS}, "quality": quality, "runs": runs}


@dataclass(frozen=True)
class Promise:
    """One row of the verdict; `kept` is None where the data set is not what the promise is made for."""

    name: str
    target: str
    measured: float | None
    kept: bool | None

    def cells(self) -> list[str]:
        """Return the row as text."""
        measured = "not measured" if self.measured is None else f"{self.measured:.4f}"
        return [self.name, self.target, measured, {True: "yes", False: "NO", None: "not judged"}[self.kept]]


def promises(figures: dict[str, Any], speed_counts: bool) -> list[Promise]:
    """Hold the figures against what daskumap promises; what was not measured is not kept."""
    ours, theirs = (figures["speed"][tool] for tool in TOOLS)
    seeds = figures["quality"]
    mean = {name: [float(np.mean([s[name] for s in seeds[tool]])) for tool in TOOLS] for name in QUALITY}
    least = {
        "recall": 0.95,
        "trustworthiness": mean["trustworthiness"][1] - 0.005,
        "preservation": mean["preservation"][1] - 0.003,
    }
    rows = [Promise(QUALITY[n], f">= {t:.4f}", mean[n][0], mean[n][0] >= t) for n, t in least.items()]
    worst = max(s["flyaway"] for s in seeds[TOOLS[0]])
    rows.append(Promise("fly-away ratio, worst seed", "< 1.5000", worst, worst < 1.5))
    most = {"warm": 0.40, "cold": 0.60, "layout": 0.20, "overhead": 0.25}
    for name, target in most.items():
        value = ours[name] if name == "overhead" else _ratio(ours[name], theirs[name])
        kept = value is not None and value <= target
        title = SPEED[name] if name == "overhead" else f"{SPEED[name]}, ratio"
        rows.append(Promise(title, f"<= {target:.4f}", value, kept if speed_counts else None))
    return rows


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def table(figures: dict[str, Any]) -> list[list[str]]:
    """Return the comparison as rows of text: speed with the ratio, quality with its mean and spread."""
    rows = [["", *TOOLS, "ratio"]]
    for name, title in SPEED.items():
        pair = [figures["speed"][tool][name] for tool in TOOLS]
        rows.append([title, *("-" if value is None else f"{value:,.2f}" for value in (*pair, _ratio(*pair)))])
    for name, title in QUALITY.items():
        seeds = [np.array([seed[name] for seed in figures["quality"][tool]]) for tool in TOOLS]
        cells = [f"{values.mean():.4f} ({values.min():.4f} .. {values.max():.4f})" for values in seeds]
        rows.append([title, *cells, f"{seeds[0].mean() / seeds[1].mean():.3f}"])
    return rows


def compare_sweeps(data: Any, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the sweeps of both tools in turn; return {tool: figures}, of the fastest and of its maps."""
    prepare(data, folder)
    judge, figures = Judge(folder, data.labels()), {}
    for tool in TOOLS:
        runs = []
        for repeat in range(arguments.repeats):
            print(f"{tool}: sweep, {repeat + 1} of {arguments.repeats}", file=sys.stderr)
            runs.append(call(tool, folder, [], dict(arguments.set)))
        seconds = np.min([run["seconds"] for run in runs], axis=0)
        maps = [judge.measure(place) for place in runs[-1]["places"]]
        figures[tool] = {
            "first": float(seconds[0]),
            "others": float(seconds[1:].sum()),
            "sweep": float(seconds.sum()),
            "share": float(seconds.sum() / seconds[0]),
            **{name: float(np.mean([one[name] for one in maps])) for name in SWEEP_QUALITY},
        }
    return figures


def sweep_promises(figures: dict[str, Any], speed_counts: bool) -> list[Promise]:
    """Hold the figures of the sweeps against what daskumap promises."""
    ours, theirs = (figures[tool] for tool in TOOLS)
    kept = bool(ours["share"] <= 1.8) if speed_counts else None
    share = Promise(SWEEP["share"], "<= 1.8000", ours["share"], kept)
    least = {name: theirs[name] - margin for name, margin in SWEEP_QUALITY.items()}
    return [share, *(Promise(QUALITY[n], f">= {t:.4f}", ours[n], ours[n] >= t) for n, t in least.items())]


def sweep_table(figures: dict[str, Any]) -> list[list[str]]:
    """Return the sweeps as rows of text; quality is the mean of the five maps."""
    titles = SWEEP | {name: QUALITY[name] for name in SWEEP_QUALITY}
    pairs = {title: [figures[tool][name] for tool in TOOLS] for name, title in titles.items()}
    rows = [[title, *(f"{v:,.4g}" for v in (*pair, pair[0] / pair[1]))] for title, pair in pairs.items()]
    return [["", *TOOLS, "ratio"], *rows]


def render(rows: list[list[str]], markdown: bool) -> str:
    """Return the rows as aligned text, or as a Markdown table; the first row is the header."""
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    if not markdown:
        return "\n".join("  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]) for r in rows)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def setting(text: str) -> tuple[str, Any]:
    """Read name=value; the value as JSON where it is JSON."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def comparison(text: str) -> str:
    """Check the name of a comparison."""
    if text not in RUNS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(RUNS)}")
    return text


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", type=comparison, default=["fit"], metavar="|".join(RUNS))
    parser.add_argument(
        "--data", default="fashion_mnist", choices=["fashion_mnist", "digits", "hub_heavy", "uneven"]
    )
    parser.add_argument("--rows", type=int, help="take only so many rows (uneven: make so many)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds to judge the quality by")
    parser.add_argument("--repeats", type=int, default=2, help="speed processes of each tool")
    parser.add_argument(
        "--set", type=setting, action="append", default=[], help="name=value for daskumap.fit"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        task = json.loads(arguments.worker)
        tool, folder, options = task["tool"], Path(task["folder"]), task["options"]
        seeds = task["seeds"]
        print(json.dumps(work(tool, folder, seeds, options) if seeds else sweep(tool, folder, options)))
        return 0
    # Runs from a checkout as well, where daskumap need not be installed.
    sys.path.append(str(ROOT))
    kept, figures = True, {}
    for name in arguments.what:
        outcome = RUNS[name](arguments)
        print(outcome.text(arguments.markdown), flush=True)
        kept, figures[name] = kept and outcome.kept, outcome.figures
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    return 0 if kept else 1


def run_data(measured: Any, promised: Any, shown: Any, arguments: argparse.Namespace) -> Any:
    """Compare what both tools make of one data set: `measured` it, `promised` about it and `shown` of it."""
    from measure import Outcome

    data = load(arguments.data, arguments.rows)
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        figures = measured(data, arguments, Path(folder))
    whole = data.name == "fashion_mnist" and data.shape[0] == 70_000
    verdict, compared = promised(figures, speed_counts=whole), shown(figures)
    title = f"{data.name}, {data.shape[0]:,} x {data.shape[1]:,}, {os.cpu_count()} cores"
    figures |= {"data": title, "promises": [vars(row) for row in verdict], "set": dict(arguments.set)}
    return Outcome(title, [compared], verdict, figures=figures)


def run_small(arguments: argparse.Namespace) -> Any:
    """Compare fits of small arrays in memory."""
    import small

    return small.run(small.REPEATS)


def run_transform(arguments: argparse.Namespace) -> Any:
    """Compare what becomes of new rows."""
    import transform

    return transform.run(arguments.data if arguments.data in transform.NEW else "digits", *transform.TIMES)


RUNS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "fit": partial(run_data, compare, promises, table),
    "sweep": partial(run_data, compare_sweeps, sweep_promises, sweep_table),
    "small": run_small,
    "transform": run_transform,
}


if __name__ == "__main__":
    sys.exit(main())
