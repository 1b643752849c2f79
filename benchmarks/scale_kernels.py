"""Kernels against what the cores can do: forces, bytes, distances and edges a second, on one thread and all.

On the graph and the rows of a finished fit. The bounds are measured beside them: the bandwidth of a copy, the
layout's own repulsion in a bare loop whose operands stay in the first-level cache, and a bare matrix product
of the search's tile.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import measure
import numpy as np

from daskumap.kernels.layout.components import DRAWS, TwoComponents, repel

# Of the bare rates, on one thread. Less means that a kernel lost what made it fast.
MIN_FORCES, MIN_PRODUCTS = 0.25, 0.45
COPY_BYTES = 1 << 28
ITERATION = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--memory", default="4GB")


def run(arguments: argparse.Namespace) -> measure.Outcome:
    """Fit once, and time the kernels on what the fit left."""
    from daskumap.testing.datasets import uneven_clusters

    data = uneven_clusters(arguments.rows, arguments.columns)
    path = measure.write_rows(data, arguments.folder)
    with measure.run_store(arguments.folder) as place:
        options = {"memory": arguments.memory, **dict(arguments.set)}
        fitted, _ = measure.timed_fit(str(path), place, **options)
        rates = {count: all_rates(fitted, path, count) for count in sorted({1, measure.cores()})}
        stages = stage_table(fitted.report, rates[1])
    one = rates[1]
    promises = [
        measure.at_least("layout's forces / bare", one["forces/s"] / one["bare forces/s"], MIN_FORCES),
        measure.at_least("distances' products / bare", one["GFLOP/s"] / one["bare GFLOP/s"], MIN_PRODUCTS),
    ]
    title = f"{arguments.rows:,} x {arguments.columns}, {measure.machine()}"
    return measure.Outcome(title, [rate_table(rates), stages], promises, [], rates)


def all_rates(fitted: Any, path: Any, threads: int) -> dict[str, float]:
    """Return what so many threads do in a second, all together."""
    return {
        **copies(threads),
        **layout_rates(fitted, threads),
        **neighbor_rates(fitted, path, threads),
        **union_rates(fitted, threads),
    }


def seconds_of(work: Callable[[int], object], threads: int, repeats: int = 5) -> float:
    """Return the least seconds in which some threads do a share each; the first time does not count."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
        best = np.inf
        for _ in range(repeats):
            started = time.perf_counter()
            list(pool.map(work, range(threads)))
            best = min(best, time.perf_counter() - started)
    return float(best)


def copies(threads: int) -> dict[str, float]:
    """Return the bandwidth of copying arrays that fit no cache, bytes read and bytes written."""
    pairs = [(np.ones(COPY_BYTES // 8), np.zeros(COPY_BYTES // 8)) for _ in range(threads)]
    seconds = seconds_of(lambda i: np.copyto(pairs[i][1], pairs[i][0]), threads)
    return {"copied GB/s": threads * 2 * COPY_BYTES / seconds / 1e9}


def layout_rates(fitted: Any, threads: int) -> dict[str, float]:
    """Return forces and streamed bytes a second of one iteration, and of the bare loop."""
    from daskumap.kernels.layout import iterations as layout

    positions, edges, iterations = graph_of(fitted)
    rows = len(positions)
    out = np.empty_like(positions)
    state = layout.State(np.zeros_like(positions), np.zeros_like(positions))
    params = fitted.params
    tables = layout.forces(1.58, 0.9, params["repulsion_strength"], params["negative_sample_rate"])
    pool = layout.negative_pool(positions, 0, ITERATION)
    cuts = np.linspace(0, rows, threads + 1).astype(int)
    masked = layout.mask_edges(edges, 0, 0, ITERATION)

    def iteration(i: int) -> None:
        layout.adam_iteration(
            positions,
            out,
            0,
            int(cuts[i]),
            int(cuts[i + 1]),
            masked,
            state,
            pool,
            tables,
            0,
            ITERATION,
            iterations,
            1.0,
        )

    seconds = seconds_of(iteration, threads)
    fired = float(edges.rates.astype(np.float64).sum()) / 2**32
    forces = fired * (1 + DRAWS * tables.negatives)
    # Tails, masks and row ends; positions; moments read and written; new positions.
    streamed = edges.tails.nbytes + masked.masks.nbytes + rows * (8 + 8 + 2 * 16 + 8)
    small, loop, points, draws = np.ascontiguousarray(pool[:, :1024]), bare_loop(), 20_000, 160
    bare = seconds_of(lambda i: loop(TwoComponents(), small, points, draws, tables.repulsion), threads)
    return {
        "vertices/s": rows / seconds,
        "forces/s": forces / seconds,
        "bare forces/s": threads * points * draws * DRAWS / bare,
        "layout GB/s": streamed / seconds / 1e9,
    }


def bare_loop() -> Any:
    """Return a compiled loop that sums the layout's repulsion of `count` negatives on each of some points."""
    from daskumap.kernels.layout.forces import Forces
    from daskumap.kernels.parts import build

    return build(_bare, TwoComponents, Forces)


def _bare(components, pool, rows, count, table):  # type: ignore[no-untyped-def]
    total, zero = np.float32(0.0), np.float32(0.0)
    for row in range(rows):
        at = row % pool.shape[1]
        position = pool[0, at], pool[1, at]
        gx, gy = repel(components, position, pool, count, np.uint32(row), table, (zero, zero))
        total += gx + gy
    return total


def graph_of(fitted: Any) -> tuple[Any, Any, int]:
    """Return the map in vertex order, all edges with their rates, and the number of iterations."""
    from daskumap.kernels.layout import iterations as layout
    from daskumap.params import make_params

    store = fitted.store
    vertex = store.read("rows/vertex")
    positions = np.empty_like(fitted.embedding[:])
    positions[vertex] = fitted.embedding[:]
    parts = range(len(store.ledger.records("symmetrize")))
    ends, tails, weights = (
        [store.read(f"graph/{part:08d}/{name}") for part in parts] for name in ("indptr", "tails", "weights")
    )
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(end) for end in ends]))])
    joined = np.concatenate(weights)
    iterations = make_params(fitted.params).iterations(len(positions))
    rates = layout.edge_rates(joined, float(joined.max()), iterations)
    return positions, layout.Edges(indptr, np.concatenate(tails), rates), iterations


def neighbor_rates(fitted: Any, path: Any, threads: int) -> dict[str, float]:
    """Return distances a second in one cell, and the products in them beside those of a bare product."""
    import zarr

    from daskumap.engine.process import one_thread
    from daskumap.kernels.neighbors import products
    from daskumap.kernels.neighbors.scores import SQRT

    order = fitted.store.documents.load("facts/order")
    sizes = fitted.report["sizes"]
    rows = int(min(sizes["rows"], order["copies"] * sizes["rows"] / sizes["cells"]))
    vertex = fitted.store.read("rows/vertex")
    chosen = np.flatnonzero(vertex < rows)
    X = np.ascontiguousarray(zarr.open_array(path).oindex[chosen], np.float32)
    k = fitted.params["n_neighbors"] - 1
    queries, others = X[: products.TILE_ROWS], X[: products.TILE_COLUMNS]
    out = np.empty((threads, len(queries), len(others)), np.float32)
    with one_thread():
        seconds = seconds_of(lambda i: products.nearest_others(X, k, SQRT), threads, 3)
        bare = seconds_of(lambda i: np.matmul(queries, others.T, out=out[i]), threads, 50)
    flops = 2.0 * X.shape[1] * threads
    return {
        "distances/s": threads * len(X) ** 2 / seconds,
        "GFLOP/s": flops * len(X) ** 2 / seconds / 1e9,
        "bare GFLOP/s": flops * len(queries) * len(others) / bare / 1e9,
    }


def union_rates(fitted: Any, threads: int) -> dict[str, float]:
    """Return edges and bytes a second of joining a partition's lists with the edges that point at it."""
    from daskumap.kernels.graph.union import fuzzy_union, sort_by_tail

    store, rows = fitted.store, fitted.report["sizes"]["partition_rows"]
    indices = store.read("knn/indices")
    weights = np.random.default_rng(0).uniform(0.01, 1.0, indices.shape).astype(np.float32)
    tails, heads, values, ends = sort_by_tail(indices, weights, 0, rows, -(-len(indices) // rows))
    here = slice(0, int(ends[1]))
    given = (indices[:rows], weights[:rows], 0, tails[here], heads[here], values[here], 1.0, 1.0)
    seconds = seconds_of(lambda i: fuzzy_union(*given), threads, 3)
    indptr, joined, _, _ = fuzzy_union(*given)
    touched = sum(a.nbytes for a in given if isinstance(a, np.ndarray)) + indptr.nbytes + 12 * len(joined)
    return {
        "edges/s": threads * len(joined) / seconds,
        "union GB/s": threads * touched / seconds / 1e9,
    }


# What a rate is held against, where there is a bound.
BOUNDS = {
    "forces/s": "bare forces/s",
    "layout GB/s": "copied GB/s",
    "GFLOP/s": "bare GFLOP/s",
    "union GB/s": "copied GB/s",
}


def rate_table(rates: dict[int, dict[str, float]]) -> measure.Table:
    """Return the rates by number of threads, and the share of the bound that one thread reaches."""
    rows = [["rate", *(f"{count} thread(s)" for count in rates), "bound", "share of it, 1 thread"]]
    for name, one in rates[1].items():
        bound = BOUNDS.get(name, "")
        share = f"{one / rates[1][bound]:.2f}" if bound else ""
        rows.append([name, *(f"{found[name]:,.4g}" for found in rates.values()), bound, share])
    return rows


def stage_table(report: dict[str, Any], one: dict[str, float]) -> measure.Table:
    """Return how much of the stages' task seconds their kernels take; the rest reads and writes the store."""
    from daskumap.params import make_params

    sizes, measures, stages = report["sizes"], report["measures"], report["stages"]
    iterations = make_params(report["params"]).iterations(sizes["rows"])
    kernels = {
        "layout": iterations * sizes["rows"] / one["vertices/s"],
        "symmetrize": measures["edges"] / one["edges/s"],
    }
    rows = [["stage", "task seconds", "in its kernel at the rate of one thread", "share"]]
    for name, seconds in kernels.items():
        taken = stages[name]["task_seconds"]
        rows.append([name, f"{taken:,.1f}", f"{seconds:,.1f}", f"{seconds / taken:.2f}"])
    return rows
