"""umap-learn's estimator as if it had made a run's map, from arrays that a run has."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import numpy as np

from daskumap.errors import DependencyError, ParameterError
from daskumap.params import PRECOMPUTED, Params

Array = np.ndarray[Any, Any]

# Below so many rows umap-learn has no search index: it computes all distances (its fit, 0.5.12).
SMALL = 4096


@dataclass(frozen=True)
class Fitted:
    """What a run found, in memory, in the order of its rows.

    Attributes
    ----------
    rows
        (n, D), in the type that the metric works on.
    embedding
        (n, n_components) float32.
    graph
        `scipy.sparse.csr_matrix` (m, m): m rows are distinct with `unique`, else all.
    knn
        (m, n_neighbors - 1) indices and distances, without the row itself.
    calibration
        rho and sigma, (m,) each.
    inverse
        (n,): the place of each row in the graph.
    """

    rows: Array
    embedding: Array
    graph: Any
    knn: tuple[Array, Array]
    calibration: tuple[Array, Array]
    inverse: Array


def make_umap(params: Params, found: Fitted) -> Any:
    """Return a fitted `umap.UMAP`.

    Raises
    ------
    DependencyError
        If umap-learn is missing.
    """
    umap = _import_umap()
    model = umap.UMAP(**_parameters(params, set(inspect.signature(umap.UMAP).parameters)))
    # As its fit does, in this order: the checks set what the parameters mean.
    model._raw_data = found.rows
    model._a, model._b = map(np.float64, params.curve())  # the types of its own fit
    model._initial_alpha = model.learning_rate
    model.knn_indices = model.knn_dists = model.knn_search_index = None
    model._validate_parameters()
    model._n_neighbors = params.n_neighbors
    model._supervised, model.graph_dists_ = False, None
    model._knn_indices, model._knn_dists = _with_itself(*found.knn)
    model._small_data = len(found.rows) < SMALL
    if not model._small_data:
        model._knn_search_index = _search_index(umap, model)
    model.graph_, model.embedding_ = found.graph, found.embedding
    model._rhos, model._sigmas = (values.astype(np.float32) for values in found.calibration)
    if params.unique:
        model._unique_inverse_ = found.inverse
    model._input_hash = _joblib_hash(found.rows)
    model._n_features_out = found.embedding.shape[1]
    return model


def refuse_foreign(params: Mapping[str, Any]) -> None:
    """Refuse the parameters of a run that umap-learn's estimator cannot have.

    Raises
    ------
    ParameterError
        Naming them.
    """
    names = (("metric", PRECOMPUTED), ("output_metric", "torus"), ("transform_mode", "graph"))
    wrong = [f"{name}={value!r}" for name, value in names if params[name] == value]
    if params["membership"] != "exponential":
        wrong.append(f"membership={params['membership']!r}")
    if wrong:
        raise ParameterError(
            f"to_umap takes a run of rows with a map that umap-learn knows, and this one has "
            f"{' and '.join(wrong)}. Use the run itself."
        )


def _import_umap() -> ModuleType:
    try:
        import umap
    except ImportError as error:
        raise DependencyError(
            f"to_umap needs umap-learn, which is missing ({error}). Install it: pip install umap-learn"
        ) from error
    module: ModuleType = umap
    return module


def _parameters(params: Params, known: set[str]) -> dict[str, Any]:
    """Return the parameters that both have, under their common name."""
    given = {field.name: getattr(params, field.name) for field in fields(params) if field.name in known}
    # A seed of umap-learn's is one of NumPy's, and lowers n_jobs to 1 with a warning.
    given["n_epochs"] = params.given_epochs
    return {**given, "random_state": int(params.random_state or 0) % 2**32, "n_jobs": 1}


def _with_itself(indices: Array, distances: Array) -> tuple[Array, Array]:
    """Return lists of neighbours that begin with the row itself, as umap-learn's do."""
    own = np.arange(len(indices))[:, None]
    return (
        np.hstack([own, indices]).astype(np.int32),
        np.hstack([np.zeros(own.shape), distances]).astype(np.float32),
    )


def _search_index(umap: ModuleType, model: Any) -> Any:
    """Return what umap-learn searches new rows' neighbours with."""
    found = umap.umap_.nearest_neighbors(
        model._raw_data,
        model._n_neighbors,
        model.metric if isinstance(model.metric, str) else model._input_distance_func,
        model._metric_kwds,
        model.angular_rp_forest,
        np.random.RandomState(model.random_state),
        model.low_memory,
        n_jobs=model.n_jobs,
    )
    return found[2]


def _joblib_hash(rows: Array) -> Any:
    import joblib

    return joblib.hash(rows)
