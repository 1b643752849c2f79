"""The figures of the report and the picture, put together in one task."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np

from daskumap.kernels.quality import figures
from daskumap.kernels.quality.sampled import of_mean
from daskumap.planning import costs, memory
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.report.measures import judge
from daskumap.runtime.context import Context
from daskumap.stages.shared.bits import bits_of
from daskumap.stages.shared.borders import across_borders
from daskumap.stages.shared.distinct import READS
from daskumap.stages.shared.distinct_map import map_of
from daskumap.stages.shared.sample import probe_rows
from daskumap.stages.shared.stored import any_doubted, true_closer, true_neighbors
from daskumap.store import schema

Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)


def plan_summary(context: Context) -> Stage:
    """Plan the one task that puts the report together."""
    s, d, k = context.sizes, context.params.n_components, context.job.neighbors
    return Stage(
        task=summary_task,
        tasks=1,
        memory={
            "radii": s.rows * (8 + d * 4),
            "picture": memory.PICTURE,
            "counts": (1 if context.metric.is_given else s.row_blocks) * s.probe_rows * k * 8,
            "stored neighbors": s.probe_rows * k * 112 if any_doubted(context) else 0,
        },
        read_bytes=s.rows * d * 4,
        work=costs.SUMMARY_ROW * s.rows,
        conclude=tell_verdict,
    )


def summary_task(context: Context, number: int) -> Receipt:
    """Measure the map, draw it, and write both down."""
    from daskumap.report.picture import embedding_png
    from daskumap.report.unrolled import unrolled

    p = context.params
    measures = {**_map_measures(context), **_loss_measures(context), **_graph_measures(context)}
    measures |= {**bits_of(context), **_input_measures(context)}
    if p.undefined != "refuse" and not context.metric.is_given:
        name = "undefined_rows" if p.undefined == "isolate" else "rows_apart"
        measures[name] = int(context.fact(schema.UNDEFINED))
    if p.unique:
        measures["duplicate_rows"] = context.sizes.rows - context.distinct - _left_out(context)
    context.save_fact(schema.MEASURES, measures)
    drawn = unrolled(context.array(schema.EMBEDDING), p.output_metric, p.output_metric_kwds)
    embedding_png(drawn, picture := io.BytesIO())
    context.save_file(schema.PICTURE, picture.getvalue())
    return Receipt(context.sizes.rows)


def tell_verdict(context: Context, receipts: dict[int, Receipt]) -> None:
    """Warn of a map that may not be sound: not everyone reads the report."""
    verdict = judge(context.fact(schema.MEASURES))
    if verdict and not verdict["sound"]:
        log.warning("%s The report says what was seen and what helps.", verdict["sentence"])


def _map_measures(context: Context) -> dict[str, Any]:
    """Compare the probes' neighbours on the map, in the data, and in the graph."""
    k, distinct, probes = context.job.neighbors, context.distinct, probe_rows(context)
    map_ids, exact = context.read(schema.MAP_IDS), true_neighbors(context)
    ranks = true_closer(context) + 1
    ranks[map_ids < 0] = distinct - 1  # A probe off the map is as wrong as can be.
    found = _found(context, probes)
    return {
        "rows": context.sizes.rows,
        "n_neighbors": context.params.n_neighbors,
        "probe_rows": len(probes),
        "recall": figures.recall(found, exact),
        **_border_recall(context, probes, found, exact),
        "cast_recall": figures.recall(context.read(schema.PROBE_IDS), exact),
        "trustworthiness": _trustworthiness(ranks, distinct, k),
        "knn_preservation": figures.preservation(exact, map_ids),
        "intervals": _intervals(context, found, exact, map_ids, ranks),
        **_shape_measures(context),
    }


def _border_recall(context: Context, probes: Array, found: Array, exact: Array) -> dict[str, float]:
    """Return which share of the true neighbours beyond a border of cells was found; nothing without any."""
    beyond = np.where(across_borders(context, probes, exact), exact, -1)
    value = figures.recall(found, beyond)
    return {} if np.isnan(value) else {"border_recall": value}


def _intervals(
    context: Context, found: Array, exact: Array, map_ids: Array, ranks: Array
) -> dict[str, tuple[float, float]]:
    """Return what other probes might have given, in 19 of 20 cases; nothing where all rows are probes."""
    distinct, k = context.distinct, context.job.neighbors
    if len(ranks) == distinct:
        return {}
    each = {
        "recall": [figures.recall(*pair) for pair in zip(found[:, None], exact[:, None], strict=True)],
        "knn_preservation": [
            figures.preservation(*pair) for pair in zip(exact[:, None], map_ids[:, None], strict=True)
        ],
        "trustworthiness": [_trustworthiness(row[None], distinct, k) for row in ranks],
    }
    estimates = {name: of_mean(np.array(values, np.float64)) for name, values in each.items()}
    return {name: (one.low, one.high) for name, one in estimates.items() if not np.isnan(one.value)}


def _shape_measures(context: Context) -> dict[str, Any]:
    """Return how far out the outermost row is; or that the map is no plane, where this means nothing."""
    if context.output_metric is None:
        return {"flyaway_ratio": figures.flyaway_ratio(map_of(context))}
    metric = context.params.output_metric
    return {
        "output_metric": metric if isinstance(metric, str) else getattr(metric, "py_func", metric).__name__
    }


def _input_measures(context: Context) -> dict[str, Any]:
    """Return which chunks the input lacks, and how many of the rows that were looked at are distinct."""
    found = context.fact(schema.CAST)
    names = ("sample_rows", "distinct_rows_stored", "distinct_rows_cast", "missing_chunks")
    return {name: found[name] for name in names if name in found}


def _loss_measures(context: Context) -> dict[str, Any]:
    """Return how well the map fits its graph, at the end and on the way; the losses are of ordered pairs."""
    loss = dict(context.fact(schema.LOSS))
    cut = {"cut_edge_share": loss.pop("cut_edges") / max(1, loss.pop("edges"))}
    if not loss:
        return cut
    repulsion = loss["edge_repulsion"] + loss["non_edge_repulsion"]
    ordered = {"attractive_loss": 2 * loss["attraction"], "repulsive_loss": 2 * repulsion}
    # Of a network the history tells how the training went.
    course = {} if context.params.encoder else {"loss_course": context.fact(schema.COURSE)}
    return {**cut, **ordered, **loss, **course}


def _trustworthiness(ranks: Array, rows: int, k: int) -> float | None:
    """Return trustworthiness, None where it is not defined.

    So it is with fewer than 1.5 rows for each neighbour, and where a rank, 0, is not known.
    """
    defined = 2 * rows - 3 * k - 1 > 0 and bool((ranks > 0).all())
    return figures.trustworthiness_from_ranks(ranks, rows, k) if defined else None


def _found(context: Context, probes: Array) -> Array:
    """Return the neighbours that the run found for the probes, as row ids."""
    step = context.sizes.vertex_chunk
    vertices = context.take(schema.VERTEX, probes)
    found = np.empty((len(probes), context.job.neighbors), np.int64)
    for chunk in np.unique(vertices // step):
        start = int(chunk) * step
        here = np.flatnonzero(vertices // step == chunk)
        found[here] = context.read(schema.INDICES, start, start + step)[vertices[here] - start]
    return to_rows(context, found)


def to_rows(context: Context, vertices: Array) -> Array:
    """Return the rows of some vertices (any shape, -1 stays -1), by one pass over the numbering."""
    s = context.sizes
    wanted, inverse = np.unique(vertices, return_inverse=True)
    rows = np.full(len(wanted), -1, np.int64)
    for start, stop in map(s.block, range(s.row_blocks)):
        numbers = context.read(schema.VERTEX, start, stop)
        order = np.argsort(numbers)
        place = np.minimum(np.searchsorted(numbers[order], wanted), len(numbers) - 1)
        hit = numbers[order][place] == wanted
        rows[hit] = order[place[hit]] + start
    return rows[inverse].reshape(vertices.shape)


def _graph_measures(context: Context) -> dict[str, Any]:
    """Count edges and rows without neighbours, which twins are not, and say how cells were joined."""
    s, distinct = context.sizes, context.distinct
    graph, order = context.fact(schema.GRAPH_FACTS), context.fact(schema.ORDER)
    return {
        **_kernel_measures(context),
        "implied_alpha": context.fact(schema.REPULSION)["alpha"],
        **context.fact(schema.PIECES),
        "isolated_rows": graph["isolated"] - (s.rows - distinct) + _left_out(context),
        "edges": graph["edges"],
        "largest_degree": graph["largest_degree"],
        "cells_a_row": round(order["copies"] * s.rows / distinct, 2),
        "probe_recall": order["recall"][order["level"]],
        "largest_cell": order["largest_cell"],
        "sliced_cells": order["sliced_cells"],
        **(context.fact(schema.SIMPLICES) if context.params.simplices > 1 else {}),
    }


def _kernel_measures(context: Context) -> dict[str, Any]:
    """Return what only kernels have whose memberships may be above 1, or compare distances with 1."""
    kernel, graph = context.memberships.weights, context.fact(schema.GRAPH_FACTS)
    found: dict[str, Any] = {}
    if not kernel.bounded:
        found |= {name: graph[name] for name in ("weights_above_1", "edges_dropped_negative")}
    if kernel.in_units:
        bits = context.fact(schema.BITS)
        found |= {"median_gap": bits["median_gap"], "vanished_rows": bits["vanished"]}
    return found


def _left_out(context: Context) -> int:
    """Return how many rows are not on the map since the metric is not defined on them."""
    return int(context.fact(schema.UNDEFINED)) if context.params.undefined == "isolate" else 0


# What it reads of any run.
READ = (
    schema.CAST,
    schema.EMBEDDING,
    schema.PROBE_ROWS,
    schema.PROBE_IDS,
    schema.MAP_IDS,
    schema.VERTEX,
    schema.INDICES,
    schema.BITS,
    schema.GRAPH_FACTS,
    schema.REPULSION,
    schema.SIMPLICES,
    schema.ORDER,
    schema.CELL_STARTS,
    schema.LOSS,
    schema.PIECES,
)
# And of one of rows.
OF_ROWS = (
    schema.UNDEFINED,
    *READS,
    schema.DOUBTED,
    *schema.STORED_NEAREST,
    schema.STORED_CLOSER,
    schema.CLOSER,
)
WRITTEN = (schema.MEASURES, schema.PICTURE)
SUMMARY = Step(
    "report.summary",
    plan_summary,
    reads=(*READ, schema.COURSE, *OF_ROWS),
    writes=WRITTEN,
)
GIVEN_SUMMARY = Step(
    "report.summary", plan_summary, reads=(*READ, schema.COURSE, schema.GIVEN_CLOSER), writes=WRITTEN
)
# Of a map that a network made.
TRAINED_SUMMARY = Step("report.summary", plan_summary, reads=(*READ, *OF_ROWS), writes=WRITTEN)
