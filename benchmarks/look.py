"""How the map looks beside umap-learn's: both layouts on the same graph, from the same start.

    python benchmarks/look.py [--data NAME ...] [--seeds 3] [--set n_epochs=500] [--json FILE] [--markdown]
                              [--pictures FOLDER]
    python benchmarks/look.py --shapes [--seeds 5] [--markdown]

daskumap fits the data; umap-learn's own layout then gets the graph and the start of that fit, so that nothing
but the layout differs. Both maps are judged in the same way: neighbours and ranks of sampled rows, and what
the classes of the data look like.

With `--shapes` only the longest aspect of any type of `rare_types` is asked, of fits from few epochs to many
and of all distances.

The exit code is 1 if a class that is compact is drawn as a needle: longer than five times its width.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from compare import render, setting

K = 15
SAMPLE_ROWS = 3_000
# HDBSCAN, silhouettes: what a scatter plot shows, from so many rows.
SEEN_ROWS = 10_000
# A class is compact if at least so much of its edges' weight stays within it.
INSIDE = 0.9
LONGEST_ASPECT = 5.0
SHAPES = {"min_dist": (0.0, 0.1, 0.25, 0.5), "n_epochs": (50, 200, 500, 1_000)}
DATA = ("fashion_mnist", "digits", "rare_types", "hub_heavy", "uneven")
MEASURES = {
    "preservation": "kNN preservation@15",
    "trustworthiness": "trustworthiness@15",
    "silhouette": "silhouette by class",
    "accuracy": "kNN accuracy@15",
    "ami": "HDBSCAN's AMI",
    "aspect": "longest aspect of a compact class",
    "flyaway": "fly-away ratio",
    "extent": "extent",
    "seconds": "layout, s",
}
LAYOUTS = ("daskumap", "umap-learn")
Array = np.ndarray[Any, Any]


def load(name: str) -> Any:
    """Return a data set by its name."""
    from daskumap.testing import cell_types, datasets

    if name == "uneven":
        return datasets.uneven_clusters(100_000)
    makers = {"rare_types": cell_types.rare_types, "hub_heavy": datasets.hub_heavy}
    return makers.get(name, getattr(datasets, name, None))()


def graph_of(run: Any) -> tuple[Any, Array]:
    """Return the symmetrised graph of a run and its start, both in the order of the rows."""
    import scipy.sparse

    from daskumap.planning.sizes import Sizes
    from daskumap.store import schema
    from daskumap.store.graph import read_edges

    sizes = Sizes(**run.store.about["sizes"])
    indptr, tails, weights = read_edges(run.store, sizes, 0, sizes.rows)
    vertex = run.store.read(schema.VERTEX.name)
    graph = scipy.sparse.csr_matrix((weights, tails, indptr), shape=(sizes.rows, sizes.rows))
    return graph[vertex][:, vertex], run.store.read(schema.INITIAL.name)[vertex]


def layout_of_umap_learn(graph: Any, start: Array, params: Any, seed: int) -> tuple[Array, float]:
    """Return umap-learn's layout of a graph and its seconds, prepared as in `simplicial_set_embedding`."""
    from umap.layouts import optimize_layout_euclidean
    from umap.umap_ import make_epochs_per_sample

    n, epochs = graph.shape[0], params.epochs(graph.shape[0])
    graph = graph.tocoo()
    fires = graph.data >= graph.data.max() / epochs
    heads, tails, weights = graph.row[fires], graph.col[fires], graph.data[fires]
    state = np.random.RandomState(seed).randint(-(2**31) + 1, 2**31 - 1, 3).astype(np.int64)
    positions = start.astype(np.float32, copy=True)
    started = time.perf_counter()
    optimize_layout_euclidean(
        positions,
        positions,
        heads,
        tails,
        epochs,
        n,
        make_epochs_per_sample(weights, epochs),
        *params.curve(),
        state,
        params.repulsion_strength,
        params.learning_rate,
        params.negative_sample_rate,
        parallel=False,
        move_other=True,
    )
    return positions, time.perf_counter() - started


class Judge:
    """Measures maps of one data set."""

    def __init__(self, X: Array, labels: Array, graph: Any) -> None:
        from daskumap.kernels.quality.neighbors import exact_neighbors

        rng = np.random.default_rng(0)
        self.X, self.labels = X, labels
        self.sample = np.sort(rng.choice(len(X), min(len(X), SAMPLE_ROWS), replace=False))
        self.seen = np.sort(rng.choice(len(X), min(len(X), SEEN_ROWS), replace=False))
        self.exact, _ = exact_neighbors(X, self.sample, K)
        edges = graph.tocoo()
        inside = labels[edges.row] == labels[edges.col]
        total = np.bincount(labels[edges.row], edges.data)
        kept = np.bincount(labels[edges.row][inside], edges.data[inside], len(total))
        self.compact = kept >= INSIDE * total

    def measure(self, embedding: Array) -> dict[str, float]:
        """Return the measures of a map by name."""
        from sklearn.cluster import HDBSCAN
        from sklearn.metrics import adjusted_mutual_info_score, silhouette_score

        from daskumap.kernels.quality import figures, neighbors
        from daskumap.testing.cell_types import aspects

        close, _ = neighbors.embedding_neighbors(embedding, self.sample, K)
        ranks = neighbors.exact_ranks(self.X, self.sample, close)
        seen, labels = embedding[self.seen].astype(np.float64), self.labels[self.seen]
        clusters = HDBSCAN(min_cluster_size=max(15, len(seen) // 200), copy=True).fit_predict(seen)
        long = [ratio for kind, ratio in aspects(embedding, self.labels).items() if self.compact[kind]]
        low, high = np.percentile(embedding, [0.5, 99.5], axis=0)
        return {
            "preservation": figures.preservation(self.exact, close),
            "trustworthiness": figures.trustworthiness_from_ranks(ranks, len(self.X), K),
            "silhouette": float(silhouette_score(seen, labels)),
            "accuracy": figures.knn_accuracy(embedding, self.labels, K, self.sample),
            "ami": float(adjusted_mutual_info_score(labels, clusters)),
            "aspect": max(long, default=float("nan")),
            "flyaway": figures.flyaway_ratio(embedding),
            "extent": float((high - low).max()),
        }


def look(name: str, seeds: int, options: dict[str, Any], pictures: Path | None) -> dict[str, list[Any]]:
    """Return the measures of both layouts on one data set, a dictionary a seed."""
    import daskumap
    from daskumap.params import make_params
    from daskumap.report.picture import embedding_png

    data = load(name)
    X, labels = data.rows(), data.labels()
    found: dict[str, list[Any]] = {tool: [] for tool in LAYOUTS}
    params, judge = make_params(options), None
    for seed in range(seeds):
        fixed = {"random_state": seed, "progress": False, "keep": "all", "report": False}
        run = daskumap.fit(X, **fixed, **options)
        graph, start = graph_of(run)
        judge = judge or Judge(X, labels, graph)
        maps = {
            "daskumap": (run.embedding[:], run.report["stages"]["layout"]["seconds"]),
            "umap-learn": layout_of_umap_learn(graph, start, params, seed),
        }
        for tool, (embedding, seconds) in maps.items():
            found[tool].append({**judge.measure(embedding), "seconds": seconds})
            print(name, seed, tool, found[tool][-1], file=sys.stderr)
            if pictures and seed == 0:
                embedding_png(embedding, pictures / f"{name}-{tool}.png")
    return found


def table(results: dict[str, Any]) -> list[list[str]]:
    """Return means over the seeds: ours / umap-learn's."""
    rows = [["", *MEASURES.values()]]
    for name, tools in results.items():
        means = {m: [float(np.mean([seed[m] for seed in tools[t]])) for t in LAYOUTS] for m in MEASURES}
        means["aspect"] = [max(seed["aspect"] for seed in tools[tool]) for tool in LAYOUTS]
        rows.append([name, *(f"{_short(ours)} / {_short(theirs)}" for ours, theirs in means.values())])
    return rows


def shapes(seeds: int) -> dict[tuple[float, int], float]:
    """Return the longest aspect of a type of `rare_types`, of several seeds, by parameters."""
    import daskumap
    from daskumap.testing.cell_types import aspects, rare_types

    longest = dict.fromkeys(itertools.product(*SHAPES.values()), 0.0)
    for seed in range(seeds):
        data = rare_types(seed=seed)
        X, labels = data.rows(), data.labels()
        for pair in longest:
            options = {**dict(zip(SHAPES, pair, strict=True)), "report": False, "progress": False}
            map_ = daskumap.fit(X, random_state=seed, **options).embedding[:]
            longest[pair] = max(longest[pair], *aspects(map_, labels).values())
    return longest


def shape_table(longest: dict[tuple[float, int], float]) -> list[list[str]]:
    """Return a row for each distance and a column for each number of epochs."""
    head = ["min_dist", *(f"{epochs:,} epochs" for epochs in SHAPES["n_epochs"])]
    return [head] + [
        [str(distance), *(f"{longest[distance, epochs]:.1f}" for epochs in SHAPES["n_epochs"])]
        for distance in SHAPES["min_dist"]
    ]


def _short(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 2 else f"{value:.4f}"


def main() -> int:
    """Measure, print, and say whether no compact class is a needle."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--seeds", type=int, help="3, or 5 with --shapes")
    parser.add_argument("--shapes", action="store_true", help="the longest aspects of `rare_types` alone")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--pictures", type=Path, help="a folder for the maps of the first seed")
    options = parser.parse_args()
    if options.shapes:
        longest = shapes(options.seeds or 5)
        print(render(shape_table(longest), options.markdown))
        return int(max(longest.values()) > LONGEST_ASPECT)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    results = {
        name: look(name, options.seeds or 3, dict(options.set), options.pictures) for name in options.data
    }
    print(render(table(results), options.markdown))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    needles = {
        name: longest
        for name, tools in results.items()
        if (longest := max(seed["aspect"] for seed in tools["daskumap"])) > LONGEST_ASPECT
    }
    for name, longest in needles.items():
        print(f"{name}: a compact class is {longest:.1f} times as long as wide, promised {LONGEST_ASPECT:g}")
    return 1 if needles else 0


if __name__ == "__main__":
    sys.exit(main())
