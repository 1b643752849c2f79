"""From a Zarr group, or an object of xarray's, to a cube."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import zarr

from daskumap.errors import ParameterError, SourceError
from daskumap.secrets import printable
from daskumap.sources.codecs import refuse_codecs
from daskumap.sources.cubes.coordinates import Coordinate
from daskumap.sources.cubes.grid import Box
from daskumap.sources.cubes.layout import Names, lay_out
from daskumap.sources.cubes.masked import Masked
from daskumap.sources.cubes.source import CubeSource, Opened
from daskumap.sources.cubes.variables import Variable, XarrayVariable, ZarrVariable, dimension_names
from daskumap.sources.nodes import only_array, open_node
from daskumap.sources.objects import comes_from
from daskumap.sources.packing import NAMES, find_packing

LISTED = 12
# The names of what a caller may say of a cube.
OPTIONS = ("variables", "sample_dims", "feature_dim")
# What a spec has beside.
BY_PATH = ("storage_options", *OPTIONS, "masked")


def is_cube(data: Any) -> bool:
    """Return whether it is a Zarr group in which arrays of more than two dimensions have names for them."""
    if not isinstance(data, zarr.Group):
        return False
    try:
        return any(array.ndim > 2 and dimension_names(array) for _, array in _arrays(data))
    except SourceError:
        return False


def is_never(data: Any) -> bool:
    """Return False: a path is a cube where a spec, or the option `kind`, says so."""
    return False


def open_group(group: zarr.Group, **options: Any) -> Any:
    """Return what a Zarr group without options holds, its only matrix or a cube; with options the cube."""
    return open_cube(group, **options) if options or is_cube(group) else only_array(group)


def open_cube_at(where: Any, storage_options: dict[str, Any] | None = None, **options: Any) -> CubeSource:
    """Return the rows of a cube at a path or URL."""
    node = open_node(where, storage_options)
    if isinstance(node, zarr.Group):
        return open_cube(node, **options)
    raise ParameterError(
        f"{node.store_path} is one array, without the coordinates beside it. Name its group, and the array "
        "with the option variables."
    )


def open_cube(
    data: Any,
    variables: Names = None,
    sample_dims: Names = None,
    feature_dim: Names = None,
    masked: dict[str, Any] | None = None,
) -> CubeSource:
    """Return the rows of a cube.

    Parameters
    ----------
    data
        A Zarr group whose arrays name their dimensions, or a DataArray, Dataset or DataTree of xarray's.
    variables
        Names of the variables that are features, with a path where they lie deeper; None for all data
        variables.
    sample_dims, feature_dim
        Dimensions whose points are rows, and those whose points are columns; one of both is enough. With
        neither, a matrix has samples first, and several variables of the same dimensions are the features.
    masked
        How many points are rows, where that is known: all values are read to count them otherwise.

    Raises
    ------
    SourceError
        If variables or dimensions are not there or do not fit; the message lists what there is.
    """
    opened = _of_group if isinstance(data, zarr.Group) else _of_xarray
    found, name = opened(data, _as_names(variables))
    matrices = [variable for variable in found if len(variable.dims) == 2]
    if (variables, sample_dims, feature_dim) == (None, None, None) and len(matrices) == 1:
        found = matrices if all(len(variable.dims) <= 2 for variable in found) else found
    layout = lay_out(found, sample_dims, feature_dim)
    features = dict.fromkeys(dim for dims in layout.feature_dims for dim in dims)
    options = {
        "variables": [variable.name for variable in found],
        "sample_dims": list(layout.sample_dims),
        "feature_dim": list(features),
    }
    group = data if isinstance(data, zarr.Group) else None
    known = None if masked is None else Masked.from_json(masked)
    coordinates = _of_arrays(group, options["variables"]) if group is not None else _of_objects(found)
    source = CubeSource(Opened(name, group, options), found, layout, coordinates, known)
    if source.masked is not None and sample_dims is None and feature_dim is None and len(found) == 1:
        raise SourceError(
            f"{layout.points - source.shape[0]:,} of {layout.points:,} rows of {source.name} miss a value. "
            "To leave them out of the fit, and have them as NaN in the result, name the dimensions: "
            f"daskumap.source(data, sample_dims={layout.sample_dims[0]!r})."
        )
    return source


def _as_names(variables: Names) -> tuple[str, ...] | None:
    if variables is None:
        return None
    names = (variables,) if isinstance(variables, str) else tuple(map(str, variables))
    if not names or len(set(names)) < len(names):
        raise SourceError(f"variables is {names}; it must name each variable once, and at least one.")
    return names


# -- Zarr


def _of_group(group: zarr.Group, names: tuple[str, ...] | None) -> tuple[list[Variable], str]:
    name = str(group.store_path)
    if names is None:
        names = tuple(_data_names(dict(_arrays(group))))
        if not names:
            raise _nothing(name, [path for path, _ in group.members(max_depth=None)])
    return [ZarrVariable(_member(group, path), path) for path in names], name


def _member(group: zarr.Group, path: str) -> zarr.Array[Any]:
    try:
        found = group[path.strip("/")]
    except KeyError:
        found = None
    if not isinstance(found, zarr.Array):
        there = [name for name, _ in _arrays(group, deep=True)]
        raise _unknown(path, str(group.store_path), there)
    return found


def _arrays(group: zarr.Group, deep: bool = False) -> Iterator[tuple[str, zarr.Array[Any]]]:
    """Yield the arrays of a group by name, of its own level or of all."""
    try:
        listed = group if group.store.supports_listing else zarr.open_group(group.store_path, mode="r")
        members = sorted(listed.members(max_depth=None if deep else 0), key=lambda item: item[0])
    except Exception as error:
        raise SourceError(
            f"The group {group.store_path} cannot be listed ({type(error).__name__}: {error}). Name the "
            "variables with the option variables."
        ) from printable(error)
    yield from ((path, node) for path, node in members if isinstance(node, zarr.Array))


def is_readable(array: zarr.Array[Any]) -> bool:
    """Return whether the values of a coordinate are numbers or texts, and nothing that runs code."""
    try:
        refuse_codecs(array, also=("vlen-utf8",))
    except SourceError:
        return False
    return True


def coordinate_names(arrays: dict[str, zarr.Array[Any]], attrs: Any = ()) -> set[str]:
    """Return which arrays are coordinates, as CF says: named as their dimension, or by an attribute."""
    named = {path for path, array in arrays.items() if dimension_names(array) == (path,)}
    for holder in (attrs, *(array.attrs for array in arrays.values())):
        named.update(str(dict(holder).get("coordinates", "")).split())
    return named & arrays.keys()


def _data_names(arrays: dict[str, zarr.Array[Any]]) -> list[str]:
    """Return the data variables: what is no coordinate, no bounds of one, and has dimensions."""
    beside = coordinate_names(arrays)
    for array in arrays.values():
        beside.update(str(array.attrs.get(word, "")) for word in ("bounds", "climatology", "grid_mapping"))
    return [path for path, array in arrays.items() if path not in beside and array.ndim]


def _of_arrays(group: zarr.Group, variables: Sequence[str]) -> dict[str, Coordinate]:
    """Return the coordinates in the groups of some variables, and in those above them."""
    folders = {""}
    for path in variables:
        parts = path.strip("/").split("/")[:-1]
        folders.update("/".join(parts[: end + 1]) for end in range(len(parts)))
    found: dict[str, Coordinate] = {}
    for folder in sorted(folders):
        own = group[folder] if folder else group
        arrays = dict(_arrays(own)) if isinstance(own, zarr.Group) else {}
        named = coordinate_names(arrays, own.attrs)
        found |= {name: _of_array(name, arrays[name]) for name in named if is_readable(arrays[name])}
    return dict(sorted(found.items()))


def _of_array(name: str, array: zarr.Array[Any]) -> Coordinate:
    packing = find_packing(array) if array.dtype.kind in "iuf" else None

    def read(window: Box) -> Any:
        values = np.asarray(array[window])
        return values if packing is None else packing.decode(values)

    attrs = {key: value for key, value in array.attrs.items() if key not in (*NAMES, "_ARRAY_DIMENSIONS")}
    return Coordinate(name, dimension_names(array) or (), read, array.shape, attrs)


# -- xarray


def _of_objects(variables: Sequence[Variable]) -> dict[str, Coordinate]:
    found: dict[str, Coordinate] = {}
    for variable in variables:
        if isinstance(variable, XarrayVariable):
            for name, values in variable.data.coords.items():
                found.setdefault(str(name), _of_coordinate(str(name), values))
    return found


def _of_coordinate(name: str, data: Any) -> Coordinate:
    def read(window: Box) -> Any:
        return np.asarray(data.variable[window].values)

    return Coordinate(name, tuple(map(str, data.dims)), read, tuple(data.shape), dict(data.attrs))


def _of_xarray(data: Any, names: tuple[str, ...] | None) -> tuple[list[Variable], str]:
    kind = f"the xarray {type(data).__name__}"
    if comes_from(data, "xarray", "DataArray"):
        if names is not None and names != (str(data.name),):
            raise SourceError(f"The input is one DataArray, {data.name!r}; leave variables out.")
        return [XarrayVariable(data, str(data.name or "values"))], kind
    if comes_from(data, "xarray", "Variable"):
        raise SourceError("The input is an xarray Variable. Pass xarray.DataArray(data).")
    tree = comes_from(data, "xarray", "DataTree")
    there = _paths_of_tree(data) if tree else list(map(str, data.data_vars))
    if names is None:
        names = tuple(there)
        if tree and len({path.rpartition("/")[0] for path in there}) > 1:
            raise SourceError(
                f"The DataTree has variables in several groups: {_listed(there)}. Choose some with the "
                f"option variables, such as daskumap.source(tree, variables={there[:1]})."
            )
        names = tuple(name for name in names if data[name].ndim)
        if not names:
            raise _nothing(kind, there)
    return [XarrayVariable(_member_of_xarray(data, path, kind, there), path) for path in names], kind


def _member_of_xarray(data: Any, path: str, kind: str, there: Sequence[str]) -> Any:
    try:
        found = data[path]
    except KeyError:
        found = None
    if not comes_from(found, "xarray", "DataArray"):
        raise _unknown(path, kind, there)
    return found


def _paths_of_tree(tree: Any) -> list[str]:
    paths = []
    for node in tree.subtree:
        below = node.path.removeprefix(tree.path).strip("/")
        paths += [f"{below}/{name}" if below else str(name) for name in node.data_vars]
    return paths


def _nothing(name: str, there: Sequence[str]) -> SourceError:
    return SourceError(
        f"{name} has no data variable with dimensions; it has {_listed(there)}. Name what is meant with the "
        "option variables, or pass the group in which it lies."
    )


def _unknown(path: str, name: str, there: Sequence[str]) -> SourceError:
    return SourceError(f"{name} has no variable {path!r}; it has {_listed(there)}. Name some of these.")


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > LISTED else ""
    return ", ".join(map(str, names[:LISTED])) + more if names else "nothing"
