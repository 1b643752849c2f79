"""What becomes of the estimator's parameters: passed on, refused for now, or accepted without effect."""

from __future__ import annotations

import dataclasses
import reprlib
import warnings
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from daskumap.errors import ParameterError
from daskumap.params import Params

# What is not there yet: the one value that is accepted, which is umap-learn's default, and what it would be.
NOT_YET: dict[str, tuple[Any, str]] = {
    "target_n_neighbors": (-1, "supervision"),
    "target_metric": ("categorical", "supervision"),
    "target_metric_kwds": (None, "supervision"),
    "target_weight": (0.5, "supervision"),
    "densmap": (False, "densMAP"),
    "dens_lambda": (2.0, "densMAP"),
    "dens_frac": (0.3, "densMAP"),
    "dens_var_shift": (0.1, "densMAP"),
    "output_dens": (False, "densMAP"),
}
# What tunes a search, a seed or a bar that umap-learn has and daskumap has not, by umap-learn's default.
NO_EFFECT: dict[str, Any] = {
    "low_memory": True,
    "angular_rp_forest": False,
    "force_approximation_algorithm": False,
    "tqdm_kwds": None,
    "transform_queue_size": 4.0,
    "transform_seed": 42,
}


def fit_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `daskumap.fit` that the estimator's parameters mean.

    Raises
    ------
    ParameterError
        For a value that is not there yet, naming the parameter and what is allowed.
    """
    _refuse_not_yet(given)
    _warn_of_no_effect(given)
    names = {field.name for field in dataclasses.fields(Params)}
    options = {name: value for name, value in given.items() if name in names}
    if given["random_state"] is None and given["run"] is None:
        # As in scikit-learn the seed is drawn by NumPy; but an unfinished run goes on with its own.
        options["random_state"] = check_random_state(None)
    if _is_same(given["precomputed_knn"], (None, None, None)):
        options["precomputed_knn"] = None
    threads = _threads(given["n_jobs"])
    here = threads is not None and given["client"] is None and given["cluster"] is None
    return {
        **options,
        "run": given["run"],
        "client": "threads" if here else given["client"],
        "cluster": given["cluster"],
        "memory": given["memory"],
        "threads": threads,
        "progress": bool(given["verbose"]),
    }


def _refuse_not_yet(given: dict[str, Any]) -> None:
    for name, (allowed, what) in NOT_YET.items():
        if name in given and not _is_same(given[name], allowed):
            raise ParameterError(
                f"{name} is {reprlib.repr(given[name])}; allowed is {allowed!r}, since {what} is not in this "
                "version of daskumap."
            )


def _warn_of_no_effect(given: dict[str, Any]) -> None:
    found = [name for name, usual in NO_EFFECT.items() if not _is_same(given[name], usual)]
    if found:
        warnings.warn(
            f"{', '.join(found)}: without effect in daskumap, which plans its memory, searches without "
            "random projection forests and queues, places new rows by the fit's seed and has a progress "
            "display of its own. Leave it out.",
            UserWarning,
            stacklevel=4,
        )


def _is_same(value: Any, usual: Any) -> bool:
    """Return whether a parameter of any kind, arrays among them, has its usual value."""
    if isinstance(usual, tuple):
        return isinstance(value, tuple | list) and all(map(_is_same, value, usual))
    return np.ndim(value) == 0 and bool(value == usual)


def _threads(n_jobs: Any) -> int | None:
    """Return the threads of this process that `n_jobs` means; None for what suits the data."""
    if isinstance(n_jobs, int | np.integer) and not isinstance(n_jobs, bool) and (n_jobs == -1 or n_jobs > 0):
        return None if n_jobs == -1 else int(n_jobs)
    raise ParameterError(
        f"n_jobs is {n_jobs!r}; it must be a number of threads, or -1 for as many as suit the data."
    )
