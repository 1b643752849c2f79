"""What a fitted estimator of umap-learn's means here: its rows, its parameters and its map."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from scipy.sparse import issparse

from daskumap.errors import ParameterError
from daskumap.estimator.accept import NO_EFFECT

# What its fit writes over, what has no effect here, and what a search of our own replaces.
LEFT_OUT = ("n_jobs", "precomputed_knn", *NO_EFFECT)


def parameters_of(fitted: Any, estimator: type) -> dict[str, Any]:
    """Return the parameters of an estimator of umap-learn's that one of ours takes."""
    refuse_unfitted(fitted)
    ours = inspect.signature(estimator).parameters
    given = fitted.get_params(deep=False)
    return {name: value for name, value in given.items() if name in ours and name not in LEFT_OUT}


def refuse_unfitted(fitted: Any) -> None:
    """Refuse what has no map of vectors.

    Raises
    ------
    ParameterError
        Naming what is missing.
    """
    if not (hasattr(fitted, "embedding_") and hasattr(fitted, "_raw_data")):
        raise ParameterError(
            f"from_umap takes a fitted estimator of umap-learn's that has a map, not this "
            f"{type(fitted).__name__}. Call its fit first."
        )
    if issparse(fitted._raw_data) or fitted.metric == "precomputed":
        raise ParameterError(
            f"from_umap takes a model of dense rows, and this one was fitted to a "
            f"{type(fitted._raw_data).__name__} with metric={fitted.metric!r}. Fit it to an array of rows."
        )


def map_of(fitted: Any) -> dict[str, Any]:
    """Return the options of a fit that adopts the map: no layout, and the curve that it was laid out by."""
    return {
        "n_epochs": max(fitted.n_epochs) if np.ndim(fitted.n_epochs) else fitted.n_epochs,
        "init": fitted.embedding_,
        "optimizer": "none",
        "n_neighbors": fitted._n_neighbors,
        "a": float(fitted._a),
        "b": float(fitted._b),
    }
