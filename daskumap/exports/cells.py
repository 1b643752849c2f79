"""Maps, and graphs where they are asked for, into an AnnData, as scanpy lays them out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from daskumap.errors import ParameterError, SourceError, StoreError
from daskumap.exports.files import whole_file
from daskumap.exports.swap import put_elements
from daskumap.extras import load
from daskumap.run import Run
from daskumap.sources.anndata import is_anndata, is_h5ad, is_object, names_of_cells
from daskumap.sources.cells import NAMES
from daskumap.sources.nodes import is_place, open_node
from daskumap.sources.obs import refuse_other_names
from daskumap.store.trouble import is_url
from daskumap.views import Mapped

Elements = dict[str, Any]

OPTIONS = ("key_added", "graph", "neighbors_key")
# Rows of a chunk of the map: 1 MB in two dimensions.
CHUNK_ROWS = 1 << 17


def is_cells(target: Any) -> bool:
    """Return whether it is an AnnData object, an .h5ad file, or a Zarr group that AnnData wrote."""
    if is_object(target) or is_h5ad(target):
        return True
    if not is_place(target) or (isinstance(target, str | os.PathLike) and not _is_there(target)):
        return False
    try:
        return is_anndata(open_node(target))
    except SourceError:
        return False


def write_cells(
    run: Mapped,
    target: Any,
    *,
    overwrite: bool,
    key_added: str | None = None,
    graph: bool = False,
    neighbors_key: str | None = None,
) -> Any:
    """Write the map of a run into an AnnData: an object, a file or a Zarr store.

    Parameters
    ----------
    key_added
        As scanpy has it: the name in obsm and uns. None: X_umap in obsm, umap in uns.
    graph
        Write the neighbours too, which leiden and PAGA need: obsp/connectivities, obsp/distances and
        uns/neighbors.
    neighbors_key
        As scanpy's key_added of neighbours. None: "neighbors", or with key_added that and "_neighbors".

    Raises
    ------
    ParameterError
        If any of the keys is there, unless it may be overwritten; or the cells are other ones.
    """
    for name, value in (("key_added", key_added), ("neighbors_key", neighbors_key)):
        if value is not None and (not isinstance(value, str) or not value or "/" in value):
            raise ParameterError(f"{name} is {value!r}; it must be a name without a slash.")
    load("anndata", "anndata", "An AnnData")
    if is_object(target):
        _write_object(run, target, elements_of(run, key_added, graph, neighbors_key), overwrite)
        return target
    if is_h5ad(target):
        return _write_h5ad(run, Path(target).expanduser(), overwrite, key_added, graph, neighbors_key)
    group = open_node(target)
    assert isinstance(group, zarr.Group)
    _check_cells(run, group, str(target))
    elements = elements_of(run, key_added, graph, neighbors_key)
    _refuse_there([key for key in elements if key in group], str(target), overwrite)
    put_elements(target, elements)
    return target


def refuse_no_room(
    target: Any,
    *,
    overwrite: bool = False,
    key_added: str | None = None,
    graph: bool = False,
    neighbors_key: str | None = None,
) -> None:
    """Refuse, before there is a map, an input into which none can be written.

    Raises
    ------
    ParameterError
        If it is no AnnData, or has the keys, which may not be overwritten.
    """
    if not is_cells(target):
        raise ParameterError(
            f"{target} is no AnnData, into which a map could be written back. Leave --write-back out, and "
            "name a run store."
        )
    keys = [f"uns/{key_added or 'umap'}", f"obsm/{key_added or 'X_umap'}"]
    if graph:
        key = neighbors_key or _neighbours_beside(key_added)
        prefix = "" if key == "neighbors" else f"{key}_"
        keys += [f"uns/{key}", f"obsp/{prefix}connectivities", f"obsp/{prefix}distances"]
    if is_h5ad(target):
        with load("h5py", "anndata", "An .h5ad file").File(Path(target).expanduser(), "r") as file:
            there = [key for key in keys if key in file]
    else:
        group: Any = open_node(target)
        there = [key for key in keys if key in group]
    _refuse_there(there, str(target), overwrite)


def elements_of(run: Mapped, key_added: str | None, graph: bool, neighbors_key: str | None) -> Elements:
    """Return what is written, by path in the AnnData; it is in memory.

    The map takes 4 bytes a row and dimension, the graph some 450 bytes a row.

    Raises
    ------
    ParameterError, StoreError
        If a run has no graph, or none of all its rows.
    """
    a, b = run.curve()
    params: Elements = {"a": float(a), "b": float(b)}
    if run.params["random_state"]:  # scanpy leaves out 0
        params["random_state"] = int(run.params["random_state"])
    found: Elements = {}
    if graph:
        found |= neighbours_of(run, neighbors_key or _neighbours_beside(key_added))
    found[f"uns/{key_added or 'umap'}"] = {"params": params}
    found[f"obsm/{key_added or 'X_umap'}"] = np.asarray(run.embedding[:])
    return found


def neighbours_of(run: Mapped, key: str) -> Elements:
    """Return the graph and the distances of a run's neighbours, and what scanpy says of them."""
    from scipy.sparse import csr_matrix

    if not isinstance(run, Run):
        raise ParameterError(
            f"The {type(run).__name__} has no neighbours among its own rows. Leave graph (--graph) out."
        )
    if run.params.get("unique"):
        raise ParameterError(
            "The run has unique=True, so that its graph is that of distinct rows. Fit without it, or leave "
            "graph (--graph) out."
        )
    prefix = "" if key == "neighbors" else f"{key}_"
    names = (f"{prefix}connectivities", f"{prefix}distances")
    indices, distances = run.knn()
    there = indices >= 0
    starts = np.append(0, np.cumsum(there.sum(axis=1)))
    small = max(len(indices), int(starts[-1])) < 2**31
    kind = np.int32 if small else np.int64
    matrix = csr_matrix(
        (distances[there].astype(np.float64), indices[there].astype(kind), starts.astype(kind)),
        shape=(len(indices), len(indices)),
    )
    return {
        f"obsp/{names[1]}": matrix,
        f"obsp/{names[0]}": run.graph(),
        f"uns/{key}": {
            "connectivities_key": names[0],
            "distances_key": names[1],
            "params": _about_neighbours(run),
        },
    }


def _about_neighbours(run: Mapped) -> Elements:
    """Return what scanpy says of neighbours: of a metric that is a function its name."""
    known = run.params
    metric = known["metric"]
    about = {
        "n_neighbors": int(known["n_neighbors"]),
        "method": "umap",
        "random_state": int(known["random_state"] or 0),
        "metric": metric if isinstance(metric, str) else "callable",
    }
    if known.get("metric_kwds"):
        about["metric_kwds"] = dict(known["metric_kwds"])
    return about


def _neighbours_beside(key_added: str | None) -> str:
    return "neighbors" if key_added is None else f"{key_added}_neighbors"


def _write_object(run: Mapped, cells: Any, elements: Elements, overwrite: bool) -> None:
    rows = run.embedding.shape[0]
    if cells.n_obs != rows:
        raise ParameterError(_other_rows("The AnnData", int(cells.n_obs), rows))
    _refuse_other_names(run, np.asarray(cells.obs_names, object), "The AnnData")
    parts = [(key, *key.split("/")) for key in elements]
    _refuse_there(
        [key for key, part, name in parts if name in getattr(cells, part)], "The AnnData", overwrite
    )
    for key, part, name in parts:
        getattr(cells, part)[name] = elements[key]


def _write_h5ad(
    run: Mapped, path: Path, overwrite: bool, key_added: str | None, graph: bool, neighbors_key: str | None
) -> Path:
    """Write a copy of the file, which takes its place once it is whole."""
    h5py = load("h5py", "anndata", "An .h5ad file")
    anndata = load("anndata", "anndata", "An AnnData")
    if not path.exists():
        raise ParameterError(f"There is no {path}. A map is written into an AnnData that is there.")
    with h5py.File(path, "r") as file:
        _check_cells(run, file, str(path))
        elements = elements_of(run, key_added, graph, neighbors_key)
        _refuse_there([key for key in elements if key in file], str(path), overwrite)
    needed = path.stat().st_size + sum(_bytes_of(element) for element in elements.values())
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise StoreError(
            f"{path} is written as a copy, which takes its place: {needed / 1e6:,.0f} MB are needed and "
            f"{free / 1e6:,.0f} MB are free. Free some, or use Zarr (adata.write_zarr), which needs no copy."
        )
    with whole_file(path.resolve(), True) as made:
        shutil.copyfile(path, made)
        shutil.copymode(path, made)
        with h5py.File(made, "r+") as file:
            for key, element in elements.items():
                part, _, name = key.partition("/")
                if part not in file:
                    anndata.io.write_elem(file, part, {})
                if key in file:
                    del file[key]
                anndata.io.write_elem(file[part], name, element)
    return path


def _bytes_of(element: Any) -> int:
    if hasattr(element, "indptr"):
        return int(element.data.nbytes + element.indices.nbytes + element.indptr.nbytes)
    return int(getattr(element, "nbytes", 1 << 12))


def _check_cells(run: Mapped, group: Any, name: str) -> None:
    """Refuse an AnnData of other cells, by number and by name."""
    if str(group.attrs.get("encoding-type", "")) != "anndata":
        raise ParameterError(f"{name} holds no AnnData that anndata 0.8 or later wrote. Write it again.")
    names = names_of_cells(group)
    rows = run.embedding.shape[0]
    if names is None:
        return
    if len(names) != rows:
        raise ParameterError(_other_rows(name, len(names), rows))
    _refuse_other_names(run, names, name)


def _other_rows(name: str, there: int, rows: int) -> str:
    return f"{name} has {there:,} cells, and the map has {rows:,} rows. Name the AnnData that was fitted."


def _refuse_other_names(run: Mapped, names: Any, where: str) -> None:
    """Compare names of cells with those that came with the run's input, where some did."""
    if NAMES in run.labels:
        refuse_other_names(run.labels[NAMES], names, where)


def _refuse_there(keys: list[str], where: str, overwrite: bool) -> None:
    if keys and not overwrite:
        raise ParameterError(
            f"{where} has {', '.join(sorted(keys))} already. Pass overwrite (--overwrite) to replace what is "
            "there, or key_added (--key-added) for another name."
        )


def _is_there(target: Any) -> bool:
    return is_url(target) or Path(os.fspath(target)).expanduser().exists()
