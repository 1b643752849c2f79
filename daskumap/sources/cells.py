"""Which numbers of an AnnData are the rows, as scanpy chooses them; in memory, in Zarr and in HDF5."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from daskumap.errors import ParameterError, SourceError
from daskumap.secrets import hide_secrets
from daskumap.sources.axes import AxesSource, without_part
from daskumap.sources.base import Array, Labelled, Source
from daskumap.sources.csr import CsrSource
from daskumap.sources.first_columns import FirstColumns
from daskumap.sources.objects import is_sparse
from daskumap.sources.obs import Columns, chosen_columns
from daskumap.sources.part import Part, column_of_part
from daskumap.sources.specs import public_spec
from daskumap.store.labels import Column, Labels

log = logging.getLogger(__name__)

# What says which numbers are meant.
OPTIONS = ("use_rep", "layer", "n_pcs", "pca", "mask_var", "labels")
PCA = "X_pca"
# As scanpy: a matrix of more columns goes on as many main axes, found among the genes that vary most.
N_PCS = 50
VARIABLE = "highly_variable"
LISTED = 12
# Names of rows, as a label.
NAMES = "obs_names"


class Cells(NamedTuple):
    """An AnnData, wherever it lies.

    Attributes
    ----------
    name
        What messages call it.
    matrix
        Its X; None where there is none.
    obsm, layers, var
        Arrays of cells by name, matrices like X, and columns of genes.
    labels
        Names of its cells.
    place
        Path or URL of all of it, with which another process finds it; None where none does.
    obs
        Columns of its cells, none read yet.
    genes
        Names of the columns of X; None where they are in no known way.
    """

    name: str
    matrix: Any
    obsm: Mapping[str, Any]
    layers: Mapping[str, Any]
    var: Mapping[str, Any]
    labels: Labels
    place: dict[str, Any] | None
    obs: Mapping[str, Column]
    genes: Column | None = None


class Origin(NamedTuple):
    """Which numbers of an AnnData the rows are.

    Attributes
    ----------
    options
        Of `rows_of`, for the same numbers of another AnnData; without the main axes of them that are found.
    named
        Whether the caller named them, and they are not those that scanpy would take.
    """

    cells: Cells
    options: dict[str, Any]
    named: bool

    @property
    def element(self) -> str:
        """Their path in the AnnData."""
        layer, name = self.options.get("layer"), self.options.get("use_rep", "X")
        return f"layers/{layer}" if layer is not None else name if name == "X" else f"obsm/{name}"

    def about(self, source: Source) -> dict[str, Any]:
        """Return what a run store says of it, as JSON types; the source may be a part of the rows."""
        start = source.start if isinstance(source, Part) else 0
        found: dict[str, Any] = {
            "rows": [start, start + source.shape[0]],
            "element": self.element,
            "of": hide_secrets(self.cells.name),
            "options": self.options,
            "named": self.named,
            "place": public_spec(self.cells.place),
        }
        source = without_part(source)
        if isinstance(source, AxesSource):
            found["axes"], found["columns"] = source.shape[1], source.taken
            found["all_columns"] = source.inner.shape[1]
        return found


def of_rows(source: Source) -> Labels:
    """Return what obs says of the rows of a source, which may be a part of those of an AnnData."""
    obs, start = source.origin.cells.obs, source.start if isinstance(source, Part) else 0
    stop = start + source.shape[0]
    return Columns(lambda: list(obs), lambda name: column_of_part(obs[name], start, stop))


def rows_of(
    cells: Cells,
    use_rep: str | None = None,
    layer: str | None = None,
    n_pcs: int | None = None,
    pca: int | None = None,
    mask_var: str | bool | None = None,
    labels: Any = None,
) -> Labelled:
    """Return the rows that options mean, and what says so as their `origin`.

    Parameters
    ----------
    use_rep
        Name in obsm, or "X". None: X_pca where that is, as scanpy does it; else X.
    layer
        Name of a layer, in the place of X.
    n_pcs
        How many of the first columns of obsm; 0 for X, as scanpy has it. Where axes have to be found: how
        many.
    pca
        Find that many main axes of X, the layer or what `use_rep` names, now. 0: none.
    mask_var
        Name of a column of var that says which genes take part in `pca`; False for all. None: those that
        are highly_variable, where var says so.
    labels
        Name of a column of obs, or several, which go into the run store as labels of its rows.

    Raises
    ------
    ParameterError, SourceError
        Listing what there is.
    """
    _check(use_rep, layer, n_pcs, pca, mask_var)
    found = dict(cells.labels)
    if labels is not None:
        found |= chosen_columns(cells.obs, labels, cells.name)
    if n_pcs == 0:
        use_rep, n_pcs = use_rep or "X", None
    named = use_rep is not None or layer is not None
    plain = not named and pca is None and mask_var is None
    if plain and PCA in cells.obsm:
        log.info("obsm/%s of %s is read, as scanpy does it; another one by use_rep.", PCA, cells.name)
        use_rep = PCA
    if use_rep is not None and use_rep != "X":
        source = _first(cells, _representation(cells, use_rep), use_rep, n_pcs)
        options = {"use_rep": use_rep, **({} if n_pcs is None else {"n_pcs": int(n_pcs)})}
        source = AxesSource(source, pca) if pca else source
    else:
        source = _on_axes(cells, use_rep, layer, pca if pca is not None else n_pcs, mask_var)
        options = {"use_rep": "X"} if layer is None else {"layer": layer, "pca": 0}
    source.origin = Origin(cells, options, named)
    return Labelled(source, found)


def _on_axes(
    cells: Cells, use_rep: str | None, layer: str | None, axes: int | None, mask_var: str | bool | None
) -> Source:
    """Return X or a layer, on its main axes where these are asked for, or it is sparse and wide."""
    source = _matrix(cells, layer)
    as_it_is = use_rep == "X" or not _is_sparse(source) or source.shape[1] <= N_PCS
    if axes == 0 or (axes is None and as_it_is):
        if mask_var:
            raise ParameterError(
                f"mask_var is {mask_var!r}, and no main axes are found that it could be for. Give pca too."
            )
        return source
    mask = _mask(cells, mask_var, source.shape[1])
    if axes is None:
        axes = min(N_PCS, source.shape[0] - 1, (source.shape[1] if mask is None else len(mask)) - 1)
        log.info(
            "%s is sparse, of %s columns: its rows are read on their first %d main axes, as scanpy has it. "
            'As they are: use_rep="X", or pca=0 for a layer.',
            source.name,
            f"{source.shape[1]:,}",
            axes,
        )
    return AxesSource(source, axes, mask, cells.genes)


def _check(use_rep: Any, layer: Any, n_pcs: Any, pca: Any, mask_var: Any) -> None:
    for name, value in (("use_rep", use_rep), ("layer", layer)):
        if value is not None and not isinstance(value, str):
            raise ParameterError(f"{name} is {value!r}; it must be a name.")
    for name, value in (("n_pcs", n_pcs), ("pca", pca)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if value is not None and not (whole and value >= 0):
            raise ParameterError(f"{name} is {value!r}; it must be a number of axes, or 0 for none.")
    if mask_var is not None and mask_var is not False and not isinstance(mask_var, str):
        raise ParameterError(f"mask_var is {mask_var!r}; it must be the name of a column of var, or False.")
    if layer is not None and use_rep is not None:
        raise ParameterError(f"use_rep is {use_rep!r} and layer is {layer!r}. Give one of them.")
    if n_pcs and pca:
        raise ParameterError(f"n_pcs is {n_pcs} and pca is {pca}, which say the same. Give one of them.")


def _representation(cells: Cells, name: str) -> Any:
    if name not in cells.obsm:
        raise SourceError(
            f"{cells.name} has no obsm/{name}. It has {_listed(cells)}. Choose by use_rep or layer; "
            "main axes are found by pca."
        )
    return cells.obsm[name]


def _listed(cells: Cells) -> str:
    names = ["X"] if cells.matrix is not None else []
    names += [f"obsm/{name}" for name in sorted(cells.obsm)]
    names += [f"layers/{name}" for name in sorted(cells.layers)]
    return ", ".join(names[:LISTED]) or "neither X, nor obsm, nor layers"


def _first(cells: Cells, found: Any, name: str, n_pcs: int | None) -> Source:
    """Return what obsm has under a name, or its first columns."""
    source = _as_source(found, f"{cells.name}/obsm/{name}", _spec(cells, use_rep=name))
    if n_pcs is None or n_pcs == source.shape[1]:
        return source
    if n_pcs > source.shape[1]:
        raise ParameterError(
            f"n_pcs is {n_pcs}, and obsm/{name} of {cells.name} has {source.shape[1]} columns. Lower "
            "n_pcs, or find more axes by pca."
        )
    spec = _spec(cells, use_rep=name, n_pcs=int(n_pcs)) if source.spec() is not None else None
    return FirstColumns(source, int(n_pcs), spec)


def _spec(cells: Cells, **options: Any) -> dict[str, Any] | None:
    """Return what opens a part of the same AnnData in another process."""
    return cells.place and {**cells.place, "options": options}


def _matrix(cells: Cells, layer: str | None) -> Source:
    """Return X, or a layer."""
    if layer is not None:
        if layer not in cells.layers:
            raise SourceError(f"{cells.name} has no layers/{layer}. It has {_listed(cells)}.")
        return _as_source(
            cells.layers[layer], f"{cells.name}/layers/{layer}", _spec(cells, layer=layer, pca=0)
        )
    if cells.matrix is None:
        raise SourceError(f"{cells.name} has no X. It has {_listed(cells)}. Choose by use_rep or layer.")
    return _as_source(cells.matrix, f"{cells.name}/X", _spec(cells, use_rep="X"))


def _as_source(element: Any, name: str, spec: dict[str, Any] | None) -> Source:
    """Return the source of an element, stored or in memory."""
    from daskumap.sources.find import find

    element = getattr(element, "group", element) if is_sparse(element) else element  # backed by a file
    encoding = str(getattr(element, "attrs", {}).get("encoding-type", ""))
    if encoding.startswith("csr"):
        return CsrSource(element, name, spec)
    if encoding.startswith("csc"):
        raise SourceError(
            f"{name} is sparse by columns (CSC), of which no row can be read alone. Write it by rows: "
            "adata.X = adata.X.tocsr(), then adata.write_zarr(path); or name another one by use_rep."
        )
    return find(element)


def _is_sparse(source: Source) -> bool:
    from daskumap.sources.sparse import SparseSource

    return isinstance(source, CsrSource | SparseSource)


def _mask(cells: Cells, name: str | bool | None, columns: int) -> Array | None:
    """Return which genes take part in the main axes; None for all."""
    if name is False or (name is None and VARIABLE not in cells.var):
        return None
    name = VARIABLE if name is None else str(name)
    if name not in cells.var:
        listed = ", ".join(sorted(cells.var)[:LISTED]) or "no columns"
        raise SourceError(f"{cells.name} has no var/{name}; var has {listed}. Name one, or mask_var=False.")
    mask = np.asarray(cells.var[name])
    if mask.dtype != bool or mask.shape != (columns,):
        raise SourceError(
            f"var/{name} of {cells.name} has type {mask.dtype} and shape {mask.shape}; it must say of each "
            f"of {columns:,} genes, by True or False, whether it takes part."
        )
    if not mask.any():
        raise SourceError(f"var/{name} of {cells.name} has no gene that takes part. Pass mask_var=False.")
    log.info("%s of %s genes take part, by var/%s.", f"{int(mask.sum()):,}", f"{columns:,}", name)
    return np.flatnonzero(mask)
