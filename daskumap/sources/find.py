"""Which source the user means, by a table of openers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daskumap.sources import anndata, dask, memory, nodes, objects, sparse
from daskumap.sources import zarr as stored
from daskumap.sources.base import Source

# Each opener knows its kind without importing the library, and returns a source or what lies inside: a path
# leads to a Zarr group, the group to its array. The first that knows the data opens it, so that a kind comes
# before the more general one that it belongs to.
OPENERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (nodes.is_place, nodes.open_node),
    (anndata.is_anndata, anndata.matrix_of),
    (nodes.is_group, nodes.only_array),
    (stored.is_array, stored.ZarrSource),
    (objects.is_anndata, objects.matrix_of_anndata),
    (objects.is_xarray, objects.array_of_xarray),
    (objects.is_hdf5, objects.refuse_hdf5),
    (dask.is_dask, dask.open_dask),
    (objects.is_several, objects.refuse_several),
    (objects.is_sparse_matrix, sparse.SparseSource),
    (memory.is_object, memory.open_object),
)


def find(data: Any) -> Source:
    """Return the source that a path, a URL, a Zarr array or group, or an array in memory stands for.

    Raises
    ------
    SourceNotFoundError
        If there is nothing at the path.
    SourceError
        If it is no two-dimensional numeric array, or several are possible.
    DependencyError
        If a URL needs a package that is missing.
    """
    found = data
    while not isinstance(found, Source):
        found = _opener(found)(found)
    return found


def is_plain(data: Any) -> bool:
    """Return whether it is an array, a frame or a sparse matrix in memory, or nested lists."""
    return not isinstance(data, Source) and _opener(data) in (memory.open_object, sparse.SparseSource)


def _opener(data: Any) -> Callable[[Any], Any]:
    return next(opened for is_kind, opened in OPENERS if is_kind(data))


def open_spec(spec: dict[str, Any]) -> Source:
    """Open what `Source.spec` describes, in any process."""
    return find(nodes.open_node(spec["path"], spec.get("storage_options")))
