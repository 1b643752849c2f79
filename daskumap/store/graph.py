"""The graph by vertex range, whatever the partitions that wrote it: one CSR block row a partition."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.planning.sizes import Sizes
from daskumap.store import schema
from daskumap.store.exchange import batch_name
from daskumap.store.run import RunStore

Array = np.ndarray[Any, Any]


def read_blocks(store: RunStore, blocks: int) -> tuple[Array, Array, Array]:
    """Return indptr, tails and weights of the edges of new rows: one CSR block row a row block."""
    parts = []
    for number in range(blocks):
        batch = batch_name(schema.NEW_GRAPH, number)
        indptr, *columns = (store.read(f"{batch}/{name}") for name in ("indptr", "tails", "weights"))
        parts.append([np.diff(indptr), *columns])
    degrees, tails, weights = map(np.concatenate, zip(*parts, strict=True))
    return np.append(0, np.cumsum(degrees)), tails, weights


def read_edges(
    store: RunStore, sizes: Sizes, start: int, stop: int, graph: schema.Exchange = schema.GRAPH
) -> tuple[Array, Array, Array]:
    """Return indptr, tails and weights of a range of vertices, which may cross partitions."""
    parts = []
    for number in range(start // sizes.partition_rows, -(-stop // sizes.partition_rows)):
        first, last = sizes.partition(number)
        low, high = max(start, first) - first, min(stop, last) - first
        batch = batch_name(graph, number)
        indptr = store.read(f"{batch}/indptr", low, high + 1)
        edges = (int(indptr[0]), int(indptr[-1]))
        columns = (store.read(f"{batch}/{name}", *edges) for name in ("tails", "weights"))
        parts.append([np.diff(indptr), *columns])
    degrees, tails, weights = (
        np.concatenate(column) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True)
    )
    return np.concatenate([[0], np.cumsum(degrees)]), tails, weights
