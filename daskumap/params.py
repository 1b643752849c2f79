"""The user's parameters: frozen, validated, with umap-learn's names and meanings."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
import secrets
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from daskumap.errors import ParameterError
from daskumap.functions import digest_of
from daskumap.hints import hint

P = ParamSpec("P")
R = TypeVar("R")

INITS = ("pca", "spectral", "tswspectral", "random")
# Optimizers, and their iterations an epoch: with one, 50 epochs of Adam fall below umap-learn's (record 17).
# None at all leave the map as `init` has it.
OPTIMIZERS = {"adam": 2, "sgd": 1, "none": 0}
MOST_EPOCHS = 1_000_000
MISSING = ("fill", "refuse")
UNDEFINED = ("refuse", "isolate", "apart")
FINITE = (True, False, "allow-nan")
# What a fit ends with, and what becomes of new rows: their places, or their edges to rows that were fitted.
TRANSFORM_MODES = ("embedding", "graph")
# The metric of an input that is itself a matrix of distances.
PRECOMPUTED = "precomputed"
# Each draw's force is clipped at 4, of which a factor above this leaves nothing but its sign.
MOST_REPULSION = 100.0
# Which equation sets the bandwidths: that of the exponential, or that of the membership itself.
CALIBRATIONS = ("exponential", "kernel")
KEEP = ("all", "graph", "model", "embedding")
# What no caller of a fit sets: a training does.
INNER = {"encoder"}
# What stands for infinity where a run's parameters are written, since JSON has none.
INFINITE = "inf"
# As in umap-learn: at these distances two rows share nothing, and no edge joins them.
DISCONNECTION_DISTANCES = {
    "correlation": 2.0,
    "cosine": 2.0,
    "hellinger": 1.0,
    "jaccard": 1.0,
    "bit_jaccard": 1.0,
    "dice": 1.0,
}


@dataclasses.dataclass(frozen=True)
class Params:
    """All parameters of one fit; `None` means the default that the docstring of `daskumap.fit` gives.

    Attributes
    ----------
    encoder
        Of a training its own parameters, `encoder_params.EncoderParams`; None where a layout makes the map.
    """

    n_neighbors: int = 15
    n_components: int = 2
    metric: str | Callable[..., float] = "euclidean"
    metric_kwds: dict[str, Any] | None = None
    output_metric: str | Callable[..., tuple[float, Any]] = "euclidean"
    output_metric_kwds: dict[str, Any] | None = None
    n_epochs: int | tuple[int, ...] | None = None
    learning_rate: float = 1.0
    init: str | np.ndarray[Any, Any] = "pca"
    min_dist: float = 0.1
    spread: float = 1.0
    a: float | None = None
    b: float | None = None
    set_op_mix_ratio: float = 1.0
    local_connectivity: float = 1.0
    repulsion_strength: float = 1.0
    negative_sample_rate: int = 5
    disconnection_distance: float | None = None
    random_state: int | None = None
    optimizer: str = "adam"
    reconcile_every: int = 1
    target_recall: float = 0.95
    max_overlap: int = 6
    max_cell_rows: int | None = None
    checkpoint_every: int = 50
    unique: bool = False
    report: bool = True
    keep: str = "graph"
    missing: str = "fill"
    precomputed_knn: Any = None
    undefined: str = "refuse"
    ensure_all_finite: bool | str = True
    transform_mode: str = "embedding"
    membership: str | tuple[Callable[..., float], Callable[..., float] | None] = "exponential"
    calibration: str = "exponential"
    alpha: float | None = None
    simplices: int = 1
    vr_delta: float = math.inf
    encoder: Any = None

    @property
    def listed_epochs(self) -> tuple[int, ...]:
        """The epochs after which the map is kept, ascending, each once; none unless `n_epochs` lists some."""
        return self.n_epochs if isinstance(self.n_epochs, tuple) else ()

    @property
    def given_epochs(self) -> int | None:
        """The number of epochs as given; of a list the largest."""
        return max(self.n_epochs) if isinstance(self.n_epochs, tuple) else self.n_epochs

    @property
    def uses_torch(self) -> bool:
        """Whether a module of torch's is trained."""
        return self.encoder is not None and not self.encoder.built_in

    def epochs(self, rows: int) -> int:
        """Return the number of epochs: as given, else 500 up to 10,000 rows and 200 above."""
        if self.given_epochs is not None:
            return self.given_epochs
        return 500 if rows <= 10_000 else 200

    def iterations(self, rows: int) -> int:
        """Return how often every vertex moves: Adam moves all of them twice an epoch."""
        return OPTIMIZERS[self.optimizer] * self.epochs(rows)

    def curve(self) -> tuple[float, float]:
        """Return `a` and `b` of the low-dimensional membership curve 1 / (1 + a r^2b)."""
        if self.a is not None and self.b is not None:
            return self.a, self.b
        return fit_curve(self.spread, self.min_dist)

    def cutoff(self) -> float:
        """Return the distance from which on two rows are not joined; inf for no limit."""
        if self.disconnection_distance is not None:
            return self.disconnection_distance
        return (
            DISCONNECTION_DISTANCES.get(self.metric, math.inf) if isinstance(self.metric, str) else math.inf
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return the parameters as JSON values, a callable or an array by a digest of its content."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def make_params(values: dict[str, Any]) -> Params:
    """Build validated parameters from keyword arguments.

    Raises
    ------
    ParameterError
        For an unknown name or a value outside its range; the message gives both.
    """
    refuse_unknown(values, {f.name for f in dataclasses.fields(Params)})
    values = {name: _from_text(from_numpy(value)) for name, value in values.items()}
    values["random_state"] = _seed(values.get("random_state"))
    values["n_epochs"] = _listed(values.get("n_epochs"))
    if isinstance(values.get("membership"), list):
        values["membership"] = tuple(values["membership"])
    params = Params(**values)
    for epochs in params.listed_epochs or (params.n_epochs,):
        _check("n_epochs", epochs, int, 0, MOST_EPOCHS)
    for name, kind, low, high in _RANGES:
        _check(name, getattr(params, name), kind, low, high)
    _check_rest(params)
    return params


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that no parameter has; say which one is meant where one is near.

    Raises
    ------
    ParameterError
        Listing all names there are.
    """
    allowed = sorted(known)
    unknown = sorted(set(given).difference(allowed))
    if not unknown:
        return
    raise ParameterError(
        f"Unknown parameter {', '.join(map(repr, unknown))}. {hint(unknown, allowed)}Allowed are "
        f"{', '.join(allowed)}."
    )


def explicit(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function say in its signature all that it takes, and refuse what it does not take.

    Where it passes `**params` on to a fit, the fields of `Params` stand in their place: completion and `help`
    show names, types and defaults.
    """
    return explicit_with((Params, lambda name: name not in INNER))(function)


def explicit_with(*kinds: tuple[Any, Callable[[str], bool]]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return what lets a function say all that it takes: fields of dataclasses in place of `**params`.

    Parameters
    ----------
    kinds
        A dataclass, and which of its fields, by name, each.
    """

    def explicit_(function: Callable[P, R]) -> Callable[P, R]:
        own = inspect.signature(function)
        taken = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        if len(taken) < len(own.parameters):
            taken += [
                inspect.Parameter(
                    f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
                )
                for kind, has in kinds
                for f in dataclasses.fields(kind)
                if has(f.name)
            ]
        names = {one.name for one in taken} - {"self"}

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            refuse_unknown(kwargs, names)
            return function(*args, **kwargs)

        checked.__signature__ = own.replace(parameters=taken)  # type: ignore[attr-defined]
        return checked

    return explicit_


# name, type, smallest and largest value allowed; None as a value is always the default.
_RANGES: tuple[tuple[str, type, float, float], ...] = (
    ("n_neighbors", int, 2, 10_000),
    ("n_components", int, 1, 1_000),
    ("learning_rate", float, 1e-12, 1e6),
    ("min_dist", float, 0.0, 1e6),
    ("spread", float, 1e-6, 1e6),
    ("a", float, 1e-12, 1e12),
    ("b", float, 1e-3, 100.0),
    ("set_op_mix_ratio", float, 0.0, 1.0),
    ("local_connectivity", float, 0.0, 10_000),
    ("repulsion_strength", float, 0.0, 1e6),
    ("negative_sample_rate", int, 0, 1_000),
    ("alpha", float, 0.0, 1e6),
    ("disconnection_distance", float, 0.0, math.inf),
    ("reconcile_every", int, 1, 1_000),
    ("target_recall", float, 0.0, 1.0),
    ("max_overlap", int, 1, 32),
    ("max_cell_rows", int, 64, 10_000_000),
    ("checkpoint_every", int, 1, 1_000_000),
    ("simplices", int, 1, 3),
    ("vr_delta", float, 0.0, math.inf),
)


def _listed(epochs: Any) -> Any:
    """Return a list of epochs as a tuple, ascending and each once, as umap-learn keeps them; or what it is.

    Raises
    ------
    ParameterError
        For an empty list, and for what is in it and is no integer.
    """
    if not isinstance(epochs, list | tuple | np.ndarray):
        return epochs
    numbers = [from_numpy(epoch) for epoch in epochs]
    if not numbers or any(isinstance(one, bool) or not isinstance(one, int) for one in numbers):
        raise ParameterError(
            f"n_epochs is {epochs!r}; a list of epochs must have one at least, and integers from 0 to "
            f"{MOST_EPOCHS:g} alone."
        )
    return tuple(sorted(set(numbers)))


def from_numpy(value: Any) -> Any:
    """Return a number of NumPy's, as of a grid of parameters, as Python's; all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _from_text(value: Any) -> Any:
    """Return a parameter as it was before `_plain`: no infinity is a number of JSON's."""
    return math.inf if isinstance(value, str) and value == INFINITE else value


def _check(name: str, value: Any, kind: type, low: float, high: float) -> None:
    if value is None and Params.__dataclass_fields__[name].default is None:
        return
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int and isinstance(value, float):
        right = False
    if not right or not low <= value <= high:  # NaN fails the comparison
        what = "an integer" if kind is int else "a number"
        raise ParameterError(f"{name} is {value!r}; it must be {what} from {low:g} to {high:g}.")


def _check_rest(params: Params) -> None:
    if params.min_dist > params.spread:
        raise ParameterError(
            f"min_dist is {params.min_dist:g}, above spread, which is {params.spread:g}. "
            "Lower min_dist or raise spread."
        )
    each = OPTIMIZERS.get(params.optimizer, 1) if isinstance(params.optimizer, str) else 1
    split = [epochs for epochs in params.listed_epochs[:-1] if epochs * each % params.reconcile_every]
    if split:
        raise ParameterError(
            f"n_epochs lists {split[0]}, and with reconcile_every={params.reconcile_every} partitions agree "
            f"on a map only every {params.reconcile_every / each:g} epochs. List multiples of it, or leave "
            "reconcile_every at 1."
        )
    if (params.a is None) != (params.b is None):
        raise ParameterError(
            "a and b go together: give both, or neither and let min_dist and spread set them."
        )
    check_finite(params)
    words = {
        "optimizer": OPTIMIZERS,
        "keep": KEEP,
        "missing": MISSING,
        "undefined": UNDEFINED,
        "transform_mode": TRANSFORM_MODES,
        "calibration": CALIBRATIONS,
    }
    for name, allowed in words.items():
        value = getattr(params, name)
        if not isinstance(value, str) or value not in allowed:
            raise ParameterError(f"{name} is {value!r}; allowed are {', '.join(allowed)}.")
    _check_membership(params.membership)
    _check_alpha(params)
    if isinstance(params.init, str) and params.init not in INITS:
        raise ParameterError(
            f"init is {params.init!r}; allowed are {', '.join(INITS)}, an array (n, n_components), or a run "
            "or the path of one."
        )
    if not isinstance(params.init, str | np.ndarray):
        raise ParameterError(
            f"init is a {type(params.init).__name__}; allowed are {', '.join(INITS)}, a NumPy array, or a "
            "run."
        )
    for name in ("metric", "output_metric"):
        _check_metric(name, getattr(params, name), getattr(params, f"{name}_kwds"))
    for name in ("unique", "report"):
        if not isinstance(getattr(params, name), bool):
            raise ParameterError(f"{name} is {getattr(params, name)!r}; it must be True or False.")
    if params.unique and params.metric == PRECOMPUTED:
        raise ParameterError(
            "unique is True and the input is distances, which do not tell whether rows are copies: rows at "
            "distance 0 may differ. Leave unique out, or leave out rows and columns of copies."
        )
    if params.precomputed_knn is not None and params.metric == PRECOMPUTED:
        raise ParameterError(
            "precomputed_knn is given and the input is distances, of which the nearest are taken. Leave one "
            "of them out."
        )


def _check_metric(name: str, metric: Any, words: Any) -> None:
    if not isinstance(metric, str) and not _is_function(metric):
        raise ParameterError(
            f"{name} is a {type(metric).__name__}; it must be a name, or a function of two rows that numba "
            f"can compile. Pass def metric(x, y, p): ..., and {name}_kwds={{'p': ...}} for what is bound."
        )
    if words is not None and not (isinstance(words, dict) and all(isinstance(word, str) for word in words)):
        raise ParameterError(
            f"{name}_kwds is a {type(words).__name__}; it must be a dict of keyword arguments by their names."
        )


def _check_membership(membership: Any) -> None:
    pair = membership if isinstance(membership, tuple) and len(membership) == 2 else (None, None)
    functions = _is_function(pair[0]) and (pair[1] is None or _is_function(pair[1]))
    if not (isinstance(membership, str) or functions):
        raise ParameterError(
            f"membership is a {type(membership).__name__}; it must be a name, or a pair of functions that "
            "numba can compile: weight(x, y), and solve(gaps, target) or None."
        )


def _check_alpha(params: Params) -> None:
    if params.alpha is None:
        return
    if params.repulsion_strength != Params.repulsion_strength:
        raise ParameterError(
            f"alpha is {params.alpha:g} and repulsion_strength is {params.repulsion_strength:g}; one sets "
            "the other. Leave one of them out."
        )
    if params.negative_sample_rate == 0:
        raise ParameterError(
            f"alpha is {params.alpha:g} and negative_sample_rate is 0, with which nothing repels. Leave one "
            "of them out."
        )


def check_finite(params: Params) -> None:
    """Refuse to let through what is not finite where the metric cannot measure it.

    Raises
    ------
    ParameterError
        Saying what to do.
    """
    wanted = params.ensure_all_finite
    if not any(wanted is one or (isinstance(wanted, str) and wanted == one) for one in FINITE):
        raise ParameterError(f"ensure_all_finite is {wanted!r}; it must be True, False or 'allow-nan'.")
    if wanted is not True and isinstance(params.metric, str) and params.metric != "precomputed":
        raise ParameterError(
            f"ensure_all_finite is {wanted!r}, and the metric {params.metric!r} makes NaN of rows with NaN "
            "or infinity. Pass a function that measures such rows as metric, or impute them."
        )


def _is_function(metric: Any) -> bool:
    """Return whether it is a function of Python's, as it stands or compiled by numba."""
    return isinstance(getattr(metric, "py_func", metric), FunctionType)


def _seed(state: Any) -> int:
    """Turn umap-learn's kinds of random_state into one integer seed; None draws one."""
    if state is None:
        return secrets.randbelow(2**31)
    if isinstance(state, np.random.RandomState):
        return int(state.randint(2**31 - 1))
    if isinstance(state, np.random.Generator):
        return int(state.integers(2**31 - 1))
    if isinstance(state, int) and not isinstance(state, bool) and 0 <= state < 2**63:
        return state
    raise ParameterError(
        f"random_state is {state!r}; it must be an integer from 0 to 2**63 - 1, a NumPy generator, or None."
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value == math.inf:
        return INFINITE
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        return f"array{value.shape}:{digest}"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in sorted(value.items())}
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "fingerprint"):
        return value.fingerprint()
    if callable(value):
        function = getattr(value, "py_func", value)
        digest = digest_of(function) if isinstance(function, FunctionType) else "builtin"
        return f"callable:{function.__module__}.{function.__qualname__}:{digest}"
    return value


@lru_cache(maxsize=32)
def fit_curve(spread: float, min_dist: float) -> tuple[float, float]:
    """Fit `a` and `b` of 1 / (1 + a r^2b) to the wanted membership curve.

    Least squares against 1 up to `min_dist` and exp(-(r - min_dist) / spread) beyond, on 300 points of
    [0, 3 spread].

    References
    ----------
    McInnes, Healy, Melville (2018), section 4.3; umap-learn's `find_ab_params`.
    """
    from scipy.optimize import curve_fit

    r = np.linspace(0, spread * 3, 300)
    wanted = np.where(r < min_dist, 1.0, np.exp(-(r - min_dist) / spread))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (a, b), _ = curve_fit(lambda x, a, b: 1.0 / (1.0 + a * x ** (2 * b)), r, wanted)
    if spread != 1.0 and not (a > 0.0 and b > 0.0):
        # The search begins with a = b = 1 and did not find its way: it does in units of the spread.
        a, b = fit_curve(1.0, min_dist / spread)
        a /= spread ** (2 * b)
    return float(a), float(b)
