"""AnnData in Zarr, in HDF5 and as an object: what the choice of rows works on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from daskumap.errors import ParameterError, SourceError
from daskumap.extras import load
from daskumap.sources.base import Labelled
from daskumap.sources.cells import NAMES, Cells, rows_of
from daskumap.sources.csr import CsrSource
from daskumap.sources.nodes import is_place, node_spec, open_node
from daskumap.sources.objects import comes_from
from daskumap.sources.obs import as_label, columns_in_memory, index_name, stored_columns, stored_names
from daskumap.store.labels import InMemory

# Of what lies in Zarr, for other processes.
KIND = "anndata"
SPARSE = ("csr_matrix", "csc_matrix")


class Members(Mapping[str, Any]):
    """Members of a group of Zarr or HDF5, which may be missing; opened when they are asked for."""

    def __init__(self, group: Any, without: str = "") -> None:
        self._group, self._without = group, without

    def __contains__(self, name: object) -> bool:
        return self._group is not None and name != self._without and name in self._group

    def __getitem__(self, name: str) -> Any:
        return _values(self._group[name])

    def __iter__(self) -> Iterator[str]:
        return iter(() if self._group is None else (name for name in self._group if name != self._without))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _values(node: Any) -> Any:
    """Return booleans of which some may be missing, which are False then; others as stored."""
    if _encoding(node) == "nullable-boolean":
        return np.asarray(node["values"][:]) & ~np.asarray(node["mask"][:])
    return node


# -- in Zarr


def is_anndata(data: Any) -> bool:
    """Return whether it is a group in which AnnData has written itself, or one of its sparse matrices."""
    return isinstance(data, zarr.Group) and (_encoding(data) == "anndata" or is_sparse_group(data))


def is_sparse_group(data: Any) -> bool:
    """Return whether it is a sparse matrix as AnnData writes it."""
    return hasattr(data, "attrs") and _encoding(data).endswith(SPARSE)


def open_group(group: zarr.Group, **options: Any) -> Labelled | CsrSource:
    """Return the rows of an AnnData in Zarr, or of one of its sparse matrices."""
    if is_sparse_group(group):
        _refuse_options(options)
        return open_sparse(group, str(group.store_path))
    place = _group_place(group)
    return rows_of(_stored(group, place and {**place, "kind": KIND}), **options)


def open_sparse(group: Any, name: str) -> CsrSource:
    """Return the rows of a sparse matrix that is stored by rows."""
    if not _encoding(group).startswith("csr"):
        raise SourceError(
            f"{name} is sparse by columns (CSC), of which no row can be read alone. Write it by rows: "
            "adata.X = adata.X.tocsr(), then adata.write_zarr(path)."
        )
    return CsrSource(group, name)


def _refuse_options(options: dict[str, Any]) -> None:
    """Refuse to choose within one matrix of an AnnData."""
    if options:
        raise ParameterError(
            f"The input is one matrix of an AnnData, within which {', '.join(options)} chooses nothing. Give "
            "the path of the AnnData itself."
        )


def _group_place(group: zarr.Group) -> dict[str, Any] | None:
    """Return what opens a group in another process."""
    for _, array in group.arrays():
        found = node_spec(array)
        return found and {**found, "path": found["path"].rpartition("/")[0]}
    for _, inner in group.groups():
        found = _group_place(inner)
        if found is not None:
            return {**found, "path": found["path"].rpartition("/")[0]}
    return None


def _stored(group: Any, place: dict[str, Any] | None, name: str | None = None) -> Cells:
    """Return the parts of an AnnData in Zarr or HDF5."""
    parts = {part: group.get(part) for part in ("X", "obsm", "layers", "var", "obs")}
    var, obs = parts["var"], parts["obs"]
    return Cells(
        name or (place["path"] if place else str(getattr(group, "store_path", group))),
        parts["X"],
        Members(parts["obsm"]),
        Members(parts["layers"]),
        Members(var, index_name(var)),
        as_label(stored_names(obs), NAMES),
        place,
        stored_columns(obs),
        stored_names(var),
    )


def names_of_cells(group: Any) -> Any:
    """Return the names of the cells of an AnnData in Zarr or HDF5; None where they are in no known way."""
    return stored_names(group.get("obs"))


def _encoding(node: Any) -> str:
    return str(getattr(node, "attrs", {}).get("encoding-type", ""))


# -- in HDF5


def is_h5ad(data: Any) -> bool:
    """Return whether it is the path of a file as `adata.write_h5ad` writes it."""
    return isinstance(data, str | Path) and str(data).lower().endswith(".h5ad") and "://" not in str(data)


def open_h5ad(path: Any, **options: Any) -> Labelled:
    """Return the rows of an AnnData in HDF5."""
    h5py = load("h5py", "anndata", "An .h5ad file")
    where = Path(path).expanduser().resolve()
    if not where.exists():
        open_node(path)  # says what lies near it
    try:
        file = h5py.File(where, "r")
    except OSError as error:
        raise SourceError(
            f"{where} cannot be opened as HDF5 ({error}). Check the file, or write it again."
        ) from error
    return rows_of(_stored(file, {"kind": "h5ad", "path": str(where)}, str(where)), **options)


# -- as an object


def is_object(data: Any) -> bool:
    """Return whether it is an AnnData object."""
    return comes_from(data, "anndata", "AnnData", "Raw")


def open_object(data: Any, storage_options: Any = None, **options: Any) -> Labelled | CsrSource:
    """Return the rows of an AnnData in memory, or backed by a file; or of the path of one in Zarr."""
    if is_place(data):
        return _open_place(data, storage_options, options)
    obs, var = getattr(data, "obs", None), getattr(data, "var", None)
    layers = getattr(data, "layers", {})
    return rows_of(
        Cells(
            "the AnnData",
            data.X,
            getattr(data, "obsm", {}),
            {name: layers[name] for name in layers if name is not None},  # anndata 0.13 has X by None
            {} if var is None else {name: var[name].to_numpy() for name in var.columns},
            {} if obs is None else {NAMES: InMemory(np.asarray(obs.index, object))},
            None,
            {} if obs is None else columns_in_memory(obs),
            None if var is None else InMemory(np.asarray(var.index, object)),
        ),
        **options,
    )


def _open_place(where: Any, storage_options: Any, options: dict[str, Any]) -> Labelled | CsrSource:
    node = open_node(where, storage_options)
    if not (isinstance(node, zarr.Group) and is_anndata(node)):
        raise SourceError(f"{where} is no AnnData in Zarr: adata.write_zarr writes one.")
    return open_group(node, **options)
