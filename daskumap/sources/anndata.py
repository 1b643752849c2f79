"""AnnData as it lies in Zarr: the matrix is the array X, if that is dense."""

from __future__ import annotations

from typing import Any

import zarr

from daskumap.errors import SourceError
from daskumap.sources.nodes import list_matrices, refuse_choice

SPARSE = ("csr_matrix", "csc_matrix")


def is_anndata(data: Any) -> bool:
    """Return whether it is a group in which AnnData has written itself, or one of its sparse matrices."""
    return isinstance(data, zarr.Group) and (_encoding(data) == "anndata" or _is_sparse(data))


def matrix_of(group: zarr.Group) -> zarr.Array[Any]:
    """Return the dense X; refuse a sparse one, and list what else there is."""
    matrix = group if _is_sparse(group) or "X" not in group else group["X"]
    if isinstance(matrix, zarr.Array):
        return matrix
    found, listing = list_matrices(group)
    if _is_sparse(matrix):
        other = f"Or append a dense array to the path: {listing}." if found else ""
        raise SourceError(
            f"{matrix.store_path} is sparse; dense is needed for now. Write adata.X.toarray(). {other}"
        )
    raise refuse_choice(group, len(found), listing)


def _encoding(group: zarr.Group) -> str:
    return str(group.attrs.get("encoding-type", ""))


def _is_sparse(group: zarr.Group) -> bool:
    return _encoding(group).endswith(SPARSE)
