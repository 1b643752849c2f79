"""The measures of probes in doubt, from values as stored, in float64: shares of the report's passes.

Most runs have no such probe, since float32 tells the neighbours that there are; then nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from daskumap.kernels.quality.stored import StoredProbes
from daskumap.planning import costs
from daskumap.runtime.context import Context
from daskumap.runtime.rows import STORED_BYTES
from daskumap.stages.shared.distinct import distinct_places
from daskumap.stages.shared.probes import merge_probes
from daskumap.stages.shared.sample import probe_rows
from daskumap.stages.shared.visitors import Share, Visitor
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# A piece of rows while it is measured: in the metric's space, by columns, and what is made on the way.
COPIES = 5


def any_doubted(context: Context) -> bool:
    """Tell whether float32 may not tell the neighbours of some probe."""
    return context.doubted > 0


def doubted_places(context: Context) -> Array:
    """Return the places of the probes in doubt, ascending."""
    return np.flatnonzero(context.read(schema.DOUBTED))


def _wanted_rows(context: Context) -> Array:
    """Return the ids of the probes in doubt and of their nearest rows on the map, ascending, each once."""
    places = doubted_places(context)
    ids = np.unique(np.append(context.read(schema.MAP_IDS)[places], probe_rows(context)[places]))
    return ids[ids >= 0]


def _wanted_bytes(context: Context) -> int:
    return context.doubted * (context.job.neighbors + 1) * context.sizes.columns * 8


def _share_of_gathering(context: Context) -> Share:
    s, wanted = context.sizes, _wanted_bytes(context)
    return Share(
        memory={
            "stored rows": context.stored_bytes(s.row_block),
            "stored, gathered": 2 * min(wanted, s.row_block * s.columns * 8),
        },
        made=(schema.STORED_ROWS.name,),
        made_bytes=wanted,
    )


def gather_stored(context: Context, number: int, block: Any) -> dict[str, Any]:
    """Gather the wanted rows of one block as stored."""
    start, stop = context.sizes.block(number)
    wanted = _wanted_rows(context)
    wanted = wanted[(wanted >= start) & (wanted < stop)]
    gathered = np.empty((len(wanted), context.sizes.columns))
    span = (int(wanted[0]), int(wanted[-1]) + 1) if len(wanted) else (start, start)
    for first, rows in context.rows.stored(*span):
        here = slice(*np.searchsorted(wanted, (first, first + len(rows))))
        gathered[here] = rows[wanted[here] - first]
    context.send(schema.STORED_ROWS, number, np.array([0, len(wanted)]), rows=gathered)
    return {}


def _share_of_measures(context: Context) -> Share:
    s = context.sizes
    return Share(
        outputs=tuple(map(context.output, (*schema.STORED_NEAREST, schema.STORED_CLOSER))),
        memory={
            "stored rows": context.stored_bytes(s.row_block) + COPIES * STORED_BYTES,
            # As read, and batch by batch.
            "stored, gathered": 2 * _wanted_bytes(context),
            "stored neighbors": s.probe_rows * context.job.neighbors * 72,
        },
        work=costs.STORED_VALUE * s.rows * s.columns * context.order("doubted", 0),
    )


def measure_stored(context: Context, number: int, block: Any) -> dict[str, Any]:
    """Compare the probes in doubt with the rows of one block; twins are nobody's neighbours."""
    probes = context.held("probes as stored", lambda: _read_probes(context))
    found = probes.compare(_blocks(context, *context.sizes.block(number)))
    places, empty = doubted_places(context), (-1, np.inf, 0)
    for item, values, none in zip((*schema.STORED_NEAREST, schema.STORED_CLOSER), found, empty, strict=True):
        out = np.full((1, context.probes, context.job.neighbors), none, values.dtype)
        out[0, places] = values
        context.write(item, number, out)
    return {}


def _blocks(context: Context, start: int, stop: int) -> Iterator[tuple[int, Array, Array]]:
    """Yield rows as stored, a few at a time: the first id, the rows, and the places of twins."""
    distinct = np.zeros(stop - start, bool)
    distinct[distinct_places(context, start, stop)] = True
    for first, rows in context.rows.stored(start, stop):
        yield first, rows, np.flatnonzero(~distinct[first - start :][: len(rows)])


def _read_probes(context: Context) -> StoredProbes:
    """Return the probes in doubt beside their nearest rows on the map."""
    known, places = _wanted_rows(context), doubted_places(context)
    rows = context.reader(schema.STORED_ROWS, 0, 1).read(0, 1)["rows"]
    own, near = probe_rows(context)[places], np.maximum(context.read(schema.MAP_IDS)[places], known[0])
    beside = (rows[np.searchsorted(known, ids)] for ids in near)
    return StoredProbes(context.metric, rows[np.searchsorted(known, own)], own, beside)


def true_neighbors(context: Context) -> Array:
    """Return the probes' nearest rows, (p, k): by float32 where that tells them, else by values as stored."""
    ids = context.read(schema.PROBE_IDS)
    if any_doubted(context):
        places = doubted_places(context)
        found, _ = merge_probes(context, schema.STORED_NEAREST, range(context.sizes.row_blocks))
        ids[places] = found[places]
    return ids


def true_closer(context: Context) -> Array:
    """Return how many rows are closer to each probe than its neighbours on the map are, (p, k)."""
    if context.metric.is_given:
        return context.read(schema.GIVEN_CLOSER)
    closer: Array = context.read(schema.CLOSER).sum(axis=0)
    if any_doubted(context):
        places = doubted_places(context)
        closer[places] = context.read(schema.STORED_CLOSER).sum(axis=0)[places]
    return closer


GATHER_STORED = Visitor(gather_stored, _share_of_gathering, when=any_doubted)
MEASURE_STORED = Visitor(measure_stored, _share_of_measures, when=any_doubted)
