"""Look: a few rows as stored decide how all are cast to float32, and whether the metric can measure them.

Distances are evaluated in float32. Where that resolves them only about another origin or at another scale,
and the metric allows it, the rows are moved there; where it does not, the run is refused.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.kernels.metrics import exact
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.metrics.names import DEGREES, TRANSLATED
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.sources.move import Move
from daskumap.stages.shared.checks import broken_rows, count_missing, refuse_missing
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# Stretches of consecutive rows: neighbours in sorted data, a sample of others. As few as a fingerprint reads.
STRETCHES, STRETCH_ROWS = 16, 128
SAMPLE_BYTES = 4 << 20
# As stored, moved, cast, in the metric's space, and differences of them.
COPIES = 8
# Rows whose neighbours are compared, and pairs that a metric without a space is tried on.
PROBES, PAIRS = 128, 512
# Values between these are as well off where they are: squares of differences of 2^-24 of them are normal
# numbers of float32, and sums of squares finite.
SMALL, LARGE = 2.0**-30, 2.0**30
# Rounding by more than this share of the distance to a neighbour is worth a centre.
COARSE = 1e-3
# Below so many kept neighbours the map would be that of the rounding.
LEAST_KEPT = 0.95
NAMED = 5


def plan_look(context: Context) -> Stage:
    """Plan the one task."""
    rows = look_rows(context)
    sample = rows.size * context.sizes.columns * 8
    return Stage(
        task=look_task,
        tasks=1,
        memory={"input block": context.source.read_bytes(rows.shape[1]), "rows": COPIES * sample},
        read_bytes=sample,
        conclude=keep_look,
    )


def look_rows(context: Context) -> Array:
    """Return the rows that are looked at, (stretches, rows each), ascending; all where there are few."""
    s = context.sizes
    most = max(STRETCHES, SAMPLE_BYTES // (8 * s.columns))
    if s.rows <= min(most, STRETCHES * STRETCH_ROWS):
        return np.arange(s.rows)[None]
    stretches = min(STRETCHES, context.source.fingerprint_rows())
    each = max(1, min(STRETCH_ROWS, most // stretches))
    starts = np.linspace(0, s.rows - each, stretches).astype(np.int64)
    return starts[:, None] + np.arange(each)


def look_task(context: Context, number: int) -> Receipt:
    """Choose the move, and try the cast and the metric on the rows that can take part."""
    missing = count_missing(context)
    rows = look_rows(context)
    block = np.concatenate(
        [context.rows.source.read_stored(int(part[0]), int(part[-1]) + 1) for part in rows]
    )
    rows = rows.ravel()
    good = ~broken_rows(context, block)
    block, rows = block[good], rows[good]
    if context.metric.dtype != "float32" or len(block) < 3:
        return Receipt(len(rows), {**Move().as_dict(), "degree": 0, "missing_chunks": missing})
    move, found = choose_move(block, context.metric, context.job.neighbors)
    found |= {"degree": DEGREES.get(context.metric.name, 0), "rows": rows[found.pop("changed")].tolist()}
    found |= {"sample_rows": len(rows), "missing_chunks": missing}
    cast = move.apply(block)
    good = ~broken_rows(context, cast)
    found["unmeasured"] = rows[good][_unmeasured(cast[good], context.metric)][:NAMED].tolist()
    return Receipt(len(rows), {**move.as_dict(), **found})


def choose_move(block: Array, metric: metrics.Metric, k: int) -> tuple[Move, dict[str, Any]]:
    """Return the least move under which float32 resolves some rows as stored, and what it makes of them.

    Rows stay where they are if they are well off there, so that nothing changes for usual data.
    """
    move = _scaled(Move(), block, metric)
    found, rounding = _try(move, block, metric, k)
    if rounding > COARSE and metric.name in TRANSLATED:
        centre = np.sort(block, axis=0)[len(block) // 2]
        move = _scaled(Move(0, centre), block, metric)
        found, _ = _try(move, block, metric, k)
    return move, found


def _scaled(move: Move, block: Array, metric: metrics.Metric) -> Move:
    """Return the move with the power of two that brings a usual row near 1, where it is far from that."""
    if metric.name not in DEGREES:
        return move
    values = move.values(block)
    flat = exact.to_space(values, metric) if metric.space in ("scaled", "linear") else values
    sizes = np.abs(flat).max(axis=1)
    if not sizes.any():
        return move
    usual = float(np.median(sizes[sizes > 0]))
    return move if SMALL <= usual <= LARGE else move._replace(exponent=-math.floor(math.log2(usual)))


def _try(move: Move, block: Array, metric: metrics.Metric, k: int) -> tuple[dict[str, Any], float]:
    """Return what the cast does to some rows, and its rounding as a share of the distance to a neighbour."""
    cast, stored = move.apply(block), move.values(block)
    seen = cast.astype(np.float64)
    whole = np.isfinite(seen).all(axis=1)
    found = {
        "distinct_rows_stored": len(np.unique(block, axis=0)),
        "distinct_rows_cast": len(np.unique(cast, axis=0)),
        "cast_recall": 1.0,
        "changed": np.zeros(0, np.int64),
    }
    if (seen == stored)[whole].all() or whole.sum() < 3:
        return found, 0.0
    places = np.flatnonzero(whole)
    true, near = exact.to_space(stored[whole], metric), exact.to_space(seen[whole], metric)
    probes = np.linspace(0, len(places) - 1, min(PROBES, len(places))).astype(np.int64)
    kept, farthest = exact.kept_neighbors(true, near, probes, min(k, len(places) - 1))
    found |= {"cast_recall": float(kept.mean()), "changed": places[probes[kept < LEAST_KEPT]][:NAMED]}
    away = farthest[farthest > 0]
    error = float(np.median(np.abs(true - near).max(axis=1)))
    return found, error / float(np.median(away)) if len(away) else 0.0


def _unmeasured(X: Array, metric: metrics.Metric) -> Array:
    """Return places of rows of which a metric without a space makes NaN, infinity or less than nothing."""
    X = X[~metrics.invalid_rows(X, metric) & ~metrics.misplaced_rows(X, metric)]
    if metric.space is not None or len(X) < 2:
        return np.zeros(0, np.int64)
    distance = metrics.distance_function(metric)
    ones: Array = np.linspace(0, len(X) - 1, min(PAIRS, len(X))).astype(np.int64)
    # Odd steps, so that each row meets near and far ones.
    others = (ones + 1 + 2 * np.arange(len(ones))) % len(X)
    measured = np.array([distance(X[i], X[j]) for i, j in zip(ones, others, strict=True)])
    bad = ~np.isfinite(measured) | ((measured < 0) & (metric.name != "inner_product"))
    return np.asarray(ones[bad])


def keep_look(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep the move; raise where float32 or the metric cannot tell the rows apart.

    Raises
    ------
    SourceError
        Naming some of the rows, and what to do.
    """
    found, name = receipts[0].found, context.metric.name
    refuse_missing(context, found["missing_chunks"])
    if found.get("unmeasured"):
        raise SourceError(
            f"The metric {name!r} returns NaN, infinity or a negative number for sampled pairs, such as "
            f"those of rows {_listed(found['unmeasured'])}. A distance is finite and at least 0: mend the "
            "metric, or these rows."
        )
    if found.get("cast_recall", 1.0) < LEAST_KEPT:
        raise SourceError(
            f"float32 is too coarse for these rows under the metric {name!r}: of {found['sample_rows']:,} "
            f"sampled ones {found['distinct_rows_stored']:,} are distinct as stored and "
            f"{found['distinct_rows_cast']:,} after the cast, and {found['cast_recall']:.0%} of their "
            f"nearest neighbours stay, where {LEAST_KEPT:.0%} must; rows with other neighbours: "
            f"{_listed(found['rows'])}. {_advice(name)}"
        )
    context.save_fact(schema.CAST, found)


def _listed(rows: list[int]) -> str:
    return ", ".join(map(str, rows))


def _advice(name: str) -> str:
    if name in TRANSLATED:
        return (
            "Differences that matter must be above 1e-7 of the largest value of their column, once its "
            "middle is subtracted: scale the columns, or leave out those that only count or date the rows."
        )
    return (
        "Subtract what all rows share, such as data - data.mean(axis=0), if that is right for your data, or "
        "take 'euclidean', for which it is done."
    )


LOOK = Step("scan.look", plan_look, reads=(schema.SOURCE,), writes=(schema.CAST,))
