"""Given neighbours: of each row its nearest rows and their distances, instead of a search."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from daskumap.errors import ParameterError
from daskumap.sources.base import Source
from daskumap.sources.find import find
from daskumap.sources.memory import MemorySource
from daskumap.sources.nodes import open_node
from daskumap.sources.specs import public_spec

log = logging.getLogger(__name__)

Spec = dict[str, Any]
KINDS = (
    "a pair (indices, distances) of arrays (n, k), a sparse matrix (n, n) of distances, the path of a Zarr "
    "group with indices and distances, or a run"
)


class Given(NamedTuple):
    """Neighbours that the user has: two tables, (n, k), of row ids and of distances.

    Attributes
    ----------
    itself
        Whether rows are among their own neighbours, as umap-learn and pynndescent give them.
    """

    indices: Source
    distances: Source
    itself: bool

    def specs(self) -> tuple[Spec, Spec] | None:
        """Return what opens both in another process, None where none can."""
        indices, distances = self.indices.spec(), self.distances.spec()
        return None if indices is None or distances is None else (indices, distances)

    def identity(self) -> dict[str, Any]:
        """Return as JSON types what they are and where: what a run store says of them."""
        specs, tables = self.specs(), (self.indices, self.distances)
        content = [table.digest() if specs is None else table.identity() for table in tables]
        return {
            "columns": self.indices.shape[1],
            "itself": self.itself,
            "specs": specs and [public_spec(spec) for spec in specs],
            "digest": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
        }


def open_given(value: Any, rows: int, n_neighbors: int) -> Given:
    """Return the neighbours that a user hands over.

    Raises
    ------
    ParameterError
        If they do not suit the number of rows or of neighbours.
    """
    indices, distances = _tables(value, rows, n_neighbors)
    if indices.shape != distances.shape or indices.shape[0] != rows:
        raise ParameterError(
            f"precomputed_knn has indices {indices.shape} and distances {distances.shape}; both must have as "
            f"many rows as the input, {rows:,}, and the same columns."
        )
    if indices.dtype.kind not in "iu":
        raise ParameterError(
            f"precomputed_knn has indices of type {indices.dtype}; row ids are integers. If the order is "
            "wrong, pass (indices, distances)."
        )
    itself = _has_itself(indices)
    needed = n_neighbors if itself else n_neighbors - 1
    if indices.shape[1] < needed:
        counted = "each row itself counted" if itself else "no row itself among them"
        raise ParameterError(
            f"precomputed_knn has {indices.shape[1]} columns, {counted}; n_neighbors={n_neighbors} needs "
            f"{needed}. Lower n_neighbors to {n_neighbors - needed + indices.shape[1]}, or search more."
        )
    if not itself:
        log.info("precomputed_knn has no row among its own neighbours: all of its columns are others.")
    return Given(indices, distances, itself)


def _tables(value: Any, rows: int, n_neighbors: int) -> tuple[Source, Source]:
    if hasattr(value, "tocsr"):
        return _from_sparse(value.tocsr(), rows, n_neighbors - 1)
    if isinstance(value, str | Path | zarr.Group):
        node = open_node(value) if isinstance(value, str | Path) else value
        names = ("indices", "distances")
        value = tuple(node.get(name) for name in names) if isinstance(node, zarr.Group) else node
    if isinstance(value, tuple | list) and len(value) in (2, 3) and value[0] is not None is not value[1]:
        return find(value[0]), find(value[1])
    raise ParameterError(f"precomputed_knn is a {type(value).__name__} of another kind; it must be {KINDS}.")


def _from_sparse(matrix: Any, rows: int, k: int) -> tuple[Source, Source]:
    """Return the k nearest of each row of a sparse matrix of distances; -1 and inf where it has fewer."""
    if matrix.shape != (rows, rows):
        raise ParameterError(f"precomputed_knn is a matrix {matrix.shape}; of these rows it is {rows, rows}.")
    row = np.repeat(np.arange(rows), np.diff(matrix.indptr))
    if np.isnan(matrix.data).any():
        first = int(row[np.isnan(matrix.data)][0])
        raise ParameterError(f"precomputed_knn has a distance that is NaN, first in row {first}.")
    others = matrix.indices != row
    row, ids, near = row[others], matrix.indices[others], matrix.data[others]
    order = np.lexsort((ids, near, row))
    place = np.arange(len(row)) - np.searchsorted(row, row)
    if place.max(initial=-1) + 1 < k:
        raise ParameterError(
            f"precomputed_knn has at most {place.max(initial=-1) + 1} neighbours a row; n_neighbors={k + 1} "
            f"needs {k}, a row itself not counted. Lower n_neighbors, or search more."
        )
    indices, distances = np.full((rows, k), -1), np.full((rows, k), np.inf, matrix.dtype)
    taken, order = place < k, order[place < k]
    indices[row[taken], place[taken]], distances[row[taken], place[taken]] = ids[order], near[order]
    return MemorySource(indices), MemorySource(distances)


def _has_itself(indices: Source) -> bool:
    """Return whether rows are among their own neighbours, by a few of them."""
    rows = np.linspace(0, indices.shape[0] - 1, indices.fingerprint_rows()).astype(np.int64).tolist()
    return any(bool((indices.read_stored(row, row + 1) == row).any()) for row in rows)
