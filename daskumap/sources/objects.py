"""Objects of other libraries, known by their names, so that none is imported; and what to pass instead."""

from __future__ import annotations

from typing import Any

from daskumap.errors import SourceError

LISTED = 12


def comes_from(data: Any, library: str, *names: str) -> bool:
    """Return whether an object's class, or one that it inherits from, is of a library, and of such a name."""
    return any(
        kind.__module__.partition(".")[0] == library and (not names or kind.__name__ in names)
        for kind in type(data).__mro__
    )


def is_sparse(data: Any) -> bool:
    """Return whether it is a sparse matrix or array: of SciPy, of `sparse`, or AnnData's on disk."""
    return (
        hasattr(data, "tocsr")
        or hasattr(data, "todense")
        or comes_from(data, "anndata", "BaseCompressedSparseDataset", "CSRDataset", "CSCDataset")
    )


def is_sparse_matrix(data: Any) -> bool:
    """Return whether it is one of SciPy's sparse matrices or arrays, which are in memory."""
    return comes_from(data, "scipy") and hasattr(data, "tocoo")


# -- what is no array at all


def is_several(data: Any) -> bool:
    """Return whether it is a list of paths, of arrays with two dimensions, or of frames."""
    return isinstance(data, list | tuple) and len(data) > 0 and all(map(_is_whole, data[:2]))


def _is_whole(item: Any) -> bool:
    return isinstance(item, str) or hasattr(item, "__fspath__") or len(getattr(item, "shape", ())) == 2


def refuse_several(data: Any) -> Any:
    """Say how several arrays become one."""
    kind = type(data[0]).__name__
    paths = isinstance(data[0], str) or hasattr(data[0], "__fspath__")
    line = (
        "dask.array.concatenate([dask.array.from_zarr(path) for path in paths])"
        if paths
        else "numpy.concatenate(arrays), or dask.array.concatenate(arrays) for arrays of Zarr or Dask"
    )
    raise SourceError(
        f"The input is a {type(data).__name__} of {len(data)} ({kind}); it must be one array. Pass {line}."
    )


# -- xarray

# What xarray leaves among the attributes of values that it did not unpack.
PACKED = ("scale_factor", "add_offset", "_FillValue", "missing_value")


def is_xarray(data: Any) -> bool:
    """Return whether it is one of xarray's objects."""
    return comes_from(data, "xarray")
