"""For users of scanpy: neighbours and a map of an AnnData, in memory or backed by a file, in one call.

What is written is laid out as scanpy does it, so that `scanpy.tl.leiden`, `scanpy.tl.paga` and plots go on
from there. scanpy itself is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskumap import api
from daskumap.errors import ParameterError
from daskumap.exports.cells import neighbours_of, write_cells
from daskumap.run import Run
from daskumap.sources.anndata import is_object
from daskumap.sources.find import find


def umap(
    adata: Any,
    n_neighbors: int = 15,
    n_pcs: int | None = None,
    *,
    use_rep: str | None = None,
    layer: str | None = None,
    mask_var: str | bool | None = None,
    metric: Any = "euclidean",
    metric_kwds: Mapping[str, Any] | None = None,
    min_dist: float = 0.5,
    spread: float = 1.0,
    n_components: int = 2,
    random_state: int = 0,
    key_added: str | None = None,
    neighbors_key: str | None = None,
    copy: bool = False,
    run: Any = None,
    **options: Any,
) -> Any:
    """Find neighbours and a map of cells: `scanpy.pp.neighbors` and `scanpy.tl.umap` in one call.

    Parameters
    ----------
    adata
        An AnnData, in memory or backed by a file. What is there under the same keys is replaced, as scanpy
        does it; of a backed one in memory alone: `daskumap.export` writes into files.
    n_neighbors, metric, metric_kwds
        As of `scanpy.pp.neighbors`; metrics are those of `daskumap.fit`.
    n_pcs, use_rep
        As of scanpy: the first columns of what in obsm. By default X_pca, where that is.
    layer, mask_var
        A layer in the place of X, and which genes take part where main axes have to be found (default:
        those that are highly_variable).
    min_dist, spread, n_components, random_state
        As of `scanpy.tl.umap`, with its defaults: min_dist is 0.5 there, and 0.1 in `daskumap.fit`.
    key_added
        As of `scanpy.tl.umap`: the name in obsm and uns instead of X_umap and umap.
    neighbors_key
        As key_added of `scanpy.pp.neighbors`. None: "neighbors", or with `key_added` that and "_neighbors".
    copy
        Return a copy, and leave `adata` as it is.
    run
        Where the run store is to be, as of `daskumap.fit`.
    **options
        All others of `daskumap.fit`, such as `client`, `memory`, `n_epochs`, `init`.

    Returns
    -------
    AnnData or None
        The copy, if one was asked for. It, or `adata`, has obsm["X_umap"], uns["umap"], uns["neighbors"],
        obsp["connectivities"] and obsp["distances"] then.

    Raises
    ------
    SourceError, ParameterError, PlanError, DependencyError
        As of `daskumap.fit`.
    """
    cells = _writable(adata, copy)
    given = _rows_of(n_pcs, use_rep, layer, mask_var)
    made = _fit(
        cells,
        given,
        run,
        n_neighbors=n_neighbors,
        metric=metric,
        metric_kwds=metric_kwds,
        min_dist=min_dist,
        spread=spread,
        n_components=n_components,
        random_state=random_state,
        **options,
    )
    key = neighbors_key or ("neighbors" if key_added is None else f"{key_added}_neighbors")
    write_cells(made, cells, overwrite=True, key_added=key_added, graph=True, neighbors_key=key)
    _remember(cells, key, given)
    return cells if copy else None


def neighbors(
    adata: Any,
    n_neighbors: int = 15,
    n_pcs: int | None = None,
    *,
    use_rep: str | None = None,
    layer: str | None = None,
    mask_var: str | bool | None = None,
    metric: Any = "euclidean",
    metric_kwds: Mapping[str, Any] | None = None,
    random_state: int = 0,
    key_added: str | None = None,
    copy: bool = False,
    run: Any = None,
    **options: Any,
) -> Any:
    """Find neighbours and their graph, without a map: `scanpy.pp.neighbors`, out of core.

    Parameters
    ----------
    adata, n_neighbors, n_pcs, use_rep, layer, mask_var, metric, metric_kwds, random_state, copy, run, options
        As of `umap`.
    key_added
        As of `scanpy.pp.neighbors`: the name in uns, and the beginning of those in obsp.

    Returns
    -------
    AnnData or None
        The copy, if one was asked for. It, or `adata`, has uns["neighbors"], obsp["connectivities"] and
        obsp["distances"] then.

    Raises
    ------
    SourceError, ParameterError, PlanError, DependencyError
        As of `daskumap.fit`.
    """
    cells = _writable(adata, copy)
    given = _rows_of(n_pcs, use_rep, layer, mask_var)
    made = _fit(
        cells,
        given,
        run,
        n_neighbors=n_neighbors,
        metric=metric,
        metric_kwds=metric_kwds,
        random_state=random_state,
        transform_mode="graph",
        **options,
    )
    key = key_added or "neighbors"
    for path, element in neighbours_of(made, key).items():
        part, name = path.split("/")
        getattr(cells, part)[name] = element
    _remember(cells, key, given)
    return cells if copy else None


def _fit(cells: Any, given: dict[str, Any], run: Any, **params: Any) -> Run:
    chosen = {name: value for name, value in params.items() if name != "metric_kwds" or value}
    if chosen.get("metric_kwds"):
        chosen["metric_kwds"] = dict(chosen["metric_kwds"])
    return api.fit(find(cells, given), run, **chosen)


def _rows_of(n_pcs: Any, use_rep: Any, layer: Any, mask_var: Any) -> dict[str, Any]:
    """Return what was given of the options that choose rows."""
    options = {"n_pcs": n_pcs, "use_rep": use_rep, "layer": layer, "mask_var": mask_var}
    return {name: value for name, value in options.items() if value is not None}


def _remember(cells: Any, key: str, given: dict[str, Any]) -> None:
    """Say of neighbours what they are of, as scanpy does where it was told."""
    cells.uns[key]["params"].update({name: given[name] for name in ("use_rep", "n_pcs") if name in given})


def _writable(adata: Any, copy: bool) -> Any:
    """Return the AnnData that is written to."""
    if not is_object(adata) or not hasattr(adata, "obsm"):
        raise ParameterError(
            f"adata is a {type(adata).__name__}; it must be an AnnData. Of a path: daskumap.fit(path, run), "
            "and daskumap.export(run, path, graph=True)."
        )
    if copy and getattr(adata, "isbacked", False):
        raise ParameterError(
            "The AnnData is backed by a file, of which there is no copy in memory. Leave copy out, or pass "
            "adata.to_memory()."
        )
    if copy:
        return adata.copy()
    if adata.is_view:  # as scanpy does: what is written to a view would make a copy of it each time
        adata._init_as_actual(adata.to_memory() if adata.isbacked else adata.copy())
    return adata
