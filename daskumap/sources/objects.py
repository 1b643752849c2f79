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


def array_of_xarray(data: Any) -> Any:
    """Return the array that a DataArray, a Variable, or a Dataset with one matrix wraps."""
    if hasattr(data, "data_vars"):
        return _only_variable(data)
    if not hasattr(data, "dtype"):
        raise SourceError(
            f"The input is an xarray {type(data).__name__}, which may hold several arrays. Pass one of its "
            "variables, such as data['name']."
        )
    packed = [name for name in PACKED if name in getattr(data, "attrs", ())]
    if packed:
        raise SourceError(
            f"The xarray {type(data).__name__} is packed: it has the attribute {packed[0]}. Unpack it with "
            "xarray.decode_cf(dataset), or open it without mask_and_scale=False."
        )
    return data.data


def _only_variable(data: Any) -> Any:
    """Return the one matrix of a Dataset."""
    names = [str(name) for name, variable in data.data_vars.items() if len(variable.shape) == 2]
    if len(names) == 1:
        return data[names[0]]
    listed = ", ".join(f"data[{name!r}]" for name in names[:LISTED])
    remedy = (
        f"Pass one of them: {listed}" if names else "Pass an array of two, such as data['name'].stack(...)"
    )
    raise SourceError(f"The xarray Dataset holds {len(names)} variables of two dimensions. {remedy}.")
