"""daskumap beside umap-learn on a million rows: time, memory and the map.

One fit each in a fresh process, after a small fit that compiles. umap-learn runs with its own spectral start
and with `init="pca"`, without a seed, so that it uses all cores. Its rows are in memory, as it needs them;
daskumap reads a Zarr array within `memory`. The peak is VmHWM of the process, counted from the start of the
fit. The maps are judged as in `compare.py`, from the same exact neighbours of the same rows.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import compare
import measure
import numpy as np

MAX_TIME_RATIO, MAX_MEMORY_RATIO = 0.40, 0.30
PEERS = {"umap-learn": "spectral", "umap-learn, pca": "pca"}
TOOLS = ("daskumap", *PEERS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--memory", default="1500MB", help="memory given to daskumap")
    parser.add_argument("--threads", type=int, help="of daskumap; all cores by default")


def run(arguments: argparse.Namespace) -> measure.Outcome:
    """Fit with each tool and judge all maps."""
    from daskumap.testing.datasets import uneven_clusters

    data = uneven_clusters(arguments.rows, arguments.columns)
    options = {"memory": arguments.memory, "threads": arguments.threads, **dict(arguments.set)}
    with tempfile.TemporaryDirectory(prefix="peer-", dir=arguments.folder) as name:
        folder = Path(name)
        compare.prepare(data, folder)
        figures = {
            tool: measure.fresh("peer", {"tool": tool, "folder": name, "options": options}) for tool in TOOLS
        }
        judge = compare.Judge(folder, data.labels())
        for found in figures.values():
            found["quality"] = judge.measure(found["place"])
    title = (
        f"{data.name}, {arguments.rows:,} x {arguments.columns}, daskumap with memory {arguments.memory}, "
        f"{measure.machine()}"
    )
    return measure.Outcome(title, [table(figures), stage_table(figures)], promises(figures), [], figures)


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Fit with one tool and leave the map and the sampled rows' neighbours; called in a fresh process."""
    warnings.simplefilter("ignore")
    folder = Path(task["folder"])
    place = Path(tempfile.mkdtemp(dir=folder))
    ours = task["tool"] == "daskumap"
    found = fit_ours(folder, task["options"]) if ours else fit_theirs(folder, PEERS[task["tool"]])
    np.save(place / "embedding.npy", found.pop("embedding"))
    np.save(place / "found.npy", found.pop("neighbors")[np.load(folder / "sample.npy")])
    return {**found, "place": str(place)}


def fit_ours(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Fit with daskumap. Its engine resets the process' peak at each step, so the largest of them counts."""
    import zarr

    columns = zarr.open_array(folder / "data.zarr", mode="r").shape[1]
    measure.warm_up(columns, folder, **options)
    with measure.run_store(folder) as place:
        fitted, seconds = measure.timed_fit(
            str(folder / "data.zarr"), place, n_neighbors=compare.NEIGHBORS, **options
        )
        return {
            **measure.record(fitted, seconds),
            "peak": max(step["peak_bytes"] for step in fitted.report["steps"].values()),
            "embedding": fitted.embedding[:],
            "neighbors": fitted.knn()[0],
        }


def fit_theirs(folder: Path, init: str) -> dict[str, Any]:
    """Fit with umap-learn."""
    import umap

    data = np.load(folder / "data.npy")
    umap.UMAP(n_neighbors=compare.NEIGHBORS, init=init).fit(data[: measure.WARM_ROWS])
    measure.forget_peak()
    begin = time.perf_counter()
    model = umap.UMAP(n_neighbors=compare.NEIGHBORS, init=init).fit(data)
    seconds = time.perf_counter() - begin
    return {
        "wall": seconds,
        "peak": measure.status_bytes("VmHWM"),
        "embedding": model.embedding_,
        "neighbors": model._knn_indices,
    }


def table(figures: dict[str, Any]) -> measure.Table:
    """Return time, memory and quality of each tool."""
    rows = [["", *TOOLS]]
    rows.append(["whole fit, s", *(f"{figures[tool]['wall']:,.1f}" for tool in TOOLS)])
    rows.append(["peak memory, MB", *(measure.megabytes(figures[tool]["peak"]) for tool in TOOLS)])
    for name, title in compare.QUALITY.items():
        rows.append([title, *(f"{figures[tool]['quality'][name]:.4f}" for tool in TOOLS)])
    return rows


def stage_table(figures: dict[str, Any]) -> measure.Table:
    """Return daskumap's seconds by stage."""
    stages = measure.in_order(figures["daskumap"]["report"]["stages"])
    return [["daskumap", "seconds"], *([name, f"{stage['seconds']:,.1f}"] for name, stage in stages.items())]


def promises(figures: dict[str, Any]) -> list[measure.Promise]:
    """Hold daskumap against umap-learn as it comes; its other start is reported, and judges nothing."""
    ours, theirs = figures["daskumap"], figures["umap-learn"]
    mine, other = ours["quality"], theirs["quality"]
    return [
        measure.at_most("time / umap-learn's", ours["wall"] / theirs["wall"], MAX_TIME_RATIO),
        measure.at_most("peak memory / umap-learn's", ours["peak"] / theirs["peak"], MAX_MEMORY_RATIO),
        measure.at_least("trustworthiness", mine["trustworthiness"], other["trustworthiness"] - 0.005),
        measure.at_least("kNN preservation", mine["preservation"], other["preservation"] - 0.003),
        measure.at_least("recall", mine["recall"], 0.95),
        measure.within_plan(ours["report"]["steps"]),
    ]
