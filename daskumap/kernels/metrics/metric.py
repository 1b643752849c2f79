"""Distances by name, as umap-learn and pynndescent 0.7 call them, and the Euclidean space that some have.

Where a metric is a monotone function of the Euclidean distance between transformed rows (`Metric.space`),
neighbours come from a matrix product and pynndescent is never imported: it costs seconds.

Three metrics differ from `NNDescent.neighbor_graph` on purpose. `cosine`, `dot` and `direct_cosine` go on to
2 beyond a right angle, where pynndescent stops at 1 and loses the order. `inner_product` is minus the product
also where the product is negative. `true_angular` is angle / pi, 0 for equal directions as its documentation
says, not 1 minus that.
"""

import difflib
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.cache import hash_sources
from daskumap.kernels.functions import bind, shortened
from daskumap.kernels.jit import kept_as, uncached
from daskumap.kernels.metrics import spaces
from daskumap.kernels.metrics.functions import FUNCTIONS
from daskumap.kernels.metrics.names import (
    ARRAYS,
    DIRECTIONS,
    DISTRIBUTIONS,
    KEYWORDS,
    NEED_MASS,
    OTHERS,
    SPACES,
)
from daskumap.kernels.neighbors.scores import SQRT, finished, squared_distance

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Metric:
    """One resolved metric.

    Attributes
    ----------
    name
        canonical name, or "callable:<module.qualname>".
    space
        the transform after which rows are Euclidean-comparable: "identity", "scaled", "linear", "unit",
        "centred_unit", "ranked_unit", "root_unit", "root_softmax"; None where there is none, "given" where
        the rows are distances.
    finish
        how a squared distance in the space becomes the distance (`scores.SQRT`, ...).
    dtype
        what rows are cast to: "float32", or "uint8" for the bit metrics.
    keywords
        bound arguments in the order in which the function takes them.
    apart
        whether rows without a direction have a place in the space, as in umap-learn: `spaces`.
    function
        the numba function behind a callable, or behind a name that pynndescent has not.
    """

    name: str
    space: str | None
    finish: int = SQRT
    dtype: str = "float32"
    keywords: tuple[tuple[str, Any], ...] = ()
    apart: bool = False
    function: Callable[..., Any] | None = field(default=None, repr=False)

    @property
    def uses_descent(self) -> bool:
        """Whether pynndescent takes part: where no matrix product gives the distances."""
        return self.space is None

    @property
    def is_given(self) -> bool:
        """Whether the input's rows are distances themselves, so that none is measured."""
        return self.space == "given"

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal metrics within a process: name, keywords and callable."""
        digest = hashlib.sha256()
        for name, value in self.keywords:
            digest.update(f"{name}{np.shape(value)}".encode() + np.asarray(value).tobytes())
        return (self.name, digest.hexdigest(), self.apart, self.function)


def names() -> list[str]:
    """Return every name that `resolve` accepts, sorted."""
    return sorted((*SPACES, *OTHERS))


def resolve(
    metric: str | Callable[..., Any], kwds: dict[str, Any] | None = None, apart: bool = False
) -> Metric:
    """Find the metric behind a name or a function, and check its keywords.

    Parameters
    ----------
    apart
        Whether rows without a direction are to have a place, where the metric compares directions.

    Raises
    ------
    ValueError
        for an unknown name, a missing, unknown or malformed keyword, or a function that numba cannot compile.
    """
    if callable(metric):
        return _resolve_callable(metric, dict(kwds or {}))
    if metric in SPACES:
        name, space, finish = SPACES[metric]
    elif metric == "precomputed":
        name, space, finish = metric, "given", SQRT
    elif metric in OTHERS:
        name, space, finish = OTHERS[metric], None, SQRT
    else:
        close = difflib.get_close_matches(str(metric), names(), 1, 0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        allowed = ", ".join(names())
        raise ValueError(
            f"Unknown metric {metric!r}.{hint} Allowed: {allowed}, 'precomputed', or a numba function."
        )
    keywords = _keywords(name, dict(kwds or {}))
    if name == "minkowski" and keywords[0][1] == 2.0:
        return Metric("euclidean", "identity", SQRT)
    if name == "mahalanobis" and not _is_inner_product(keywords[0][1]):
        space = None
    dtype = "uint8" if name.startswith("bit_") else "float32"
    return Metric(name, space, finish, dtype, keywords, apart and space in DIRECTIONS, FUNCTIONS.get(name))


def _keywords(name: str, given: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    bound = []
    for keyword, spellings, default in KEYWORDS.get(name, ()):
        present = [word for word in (keyword, *spellings) if word in given]
        value = given.pop(present[0]) if present else default
        if value is None:
            example = f"metric_kwds={{{keyword!r}: ...}}"
            raise ValueError(f"Metric {name!r} needs the keyword {keyword!r}: pass {example}.")
        bound.append((keyword, _checked(name, keyword, value)))
    if given:
        allowed = ", ".join(word for word, _, _ in KEYWORDS.get(name, ())) or "none"
        words = ", ".join(map(repr, given))
        raise ValueError(f"Metric {name!r} does not take {words}. Allowed keywords: {allowed}.")
    return tuple(bound)


def _checked(name: str, keyword: str, value: Any) -> Any:
    """Return a keyword's value as numba takes it: a float64 array, a float or an int."""
    try:
        array = np.ascontiguousarray(value, np.float64) if keyword in ARRAYS else np.float64(value)
    except (TypeError, ValueError, OverflowError) as error:
        kind, wanted = type(value).__name__, "numbers" if keyword in ARRAYS else "a number"
        raise ValueError(f"Metric {name!r}: {keyword} is a {kind}, it must be {wanted}.") from error
    if keyword not in ARRAYS:
        return _checked_number(name, keyword, array)
    square = array.ndim == 2 and array.shape[0] != array.shape[1]
    if array.ndim != ARRAYS[keyword] or square or not np.isfinite(array).all():
        wanted = "(D, D)" if ARRAYS[keyword] == 2 else "(D,)"
        raise ValueError(f"Metric {name!r}: {keyword} has shape {array.shape}, must be {wanted} and finite.")
    if (keyword == "V" and (array <= 0).any()) or (keyword == "w" and (array < 0).any()):
        raise ValueError(f"Metric {name!r}: {keyword} has the value {array.min()}, it must be positive.")
    return array


def _checked_number(name: str, keyword: str, value: Any) -> Any:
    least = 1.0 if keyword in ("p", "max_iter") else 0.0
    if np.ndim(value) or not np.isfinite(value) or value <= 0 or value < least:
        wanted = "at least 1" if least else "above 0"
        raise ValueError(f"Metric {name!r}: {keyword} is {value}, it must be finite and {wanted}.")
    return int(value) if keyword == "max_iter" else float(value)


def _is_inner_product(matrix: NDArray[np.float64]) -> bool:
    """Say whether a matrix is symmetric and positive definite, so that it has a Euclidean space."""
    if not np.allclose(matrix, matrix.T, rtol=1e-6, atol=0.0):
        return False
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _resolve_callable(metric: Callable[..., Any], kwds: dict[str, Any]) -> Metric:
    source = getattr(metric, "py_func", metric)
    name = f"callable:{getattr(source, '__module__', '?')}.{getattr(source, '__qualname__', repr(source))}"
    function = metric if hasattr(metric, "py_func") else _compiled(metric)
    metric_keywords = bind(f"Metric {name!r}", source, kwds)
    resolved = Metric(name, None, keywords=metric_keywords, function=function)
    try:
        distance_function(resolved).compile((numba.float32[::1], numba.float32[::1]))
    except Exception as error:
        raise ValueError(
            f"Metric {name!r} cannot be compiled by numba. Pass a function of two 1-D float32 arrays that "
            "returns a number alone, without a gradient, and uses only what numba supports. It says: "
            f"{shortened(error)}."
        ) from error
    return resolved


def _compiled(metric: Callable[..., Any]) -> Any:
    with _lock:
        if metric not in _functions:
            _functions[metric] = uncached(metric)
        return _functions[metric]


def check_shape(metric: Metric, columns: int) -> None:
    """Raise ValueError where rows of `columns` numbers do not fit the metric or its keywords."""
    if metric.name == "haversine" and columns != 2:
        raise ValueError(f"Metric 'haversine' takes 2 columns (latitude, longitude), not {columns}.")
    for keyword, value in metric.keywords:
        if metric.function is None and keyword in ARRAYS and len(value) != columns:
            fits = len(value)
            raise ValueError(f"Metric {metric.name!r}: {keyword} is for {fits} columns, not {columns}.")


def rows_apart(X: Array, metric: Metric) -> NDArray[np.bool_]:
    """Return (r,) bool: rows without a direction that have a place all the same."""
    if not metric.apart:
        return np.zeros(len(X), bool)
    if metric.space in ("centred_unit", "ranked_unit"):
        return np.asarray(X.max(axis=1) == X.min(axis=1))
    return np.asarray(~X.any(axis=1))


def invalid_rows(X: Array, metric: Metric) -> NDArray[np.bool_]:
    """Return (r,) bool: rows on which the metric is not defined, and that have no place.

    Zero rows where directions are compared, constant rows where correlations are, negative or missing mass
    where distributions are; the transport plan of `sinkhorn` needs every bin above zero, and `poincare` rows
    shorter than 1.
    """
    invalid = np.zeros(len(X), bool)
    if metric.space == "unit" or metric.name == "tsss":
        invalid |= ~X.any(axis=1)
    if metric.space in ("centred_unit", "ranked_unit"):
        invalid |= X.max(axis=1) == X.min(axis=1)
    if metric.name in DISTRIBUTIONS:
        invalid |= (X <= 0 if metric.name == "sinkhorn" else X < 0).any(axis=1)
    if metric.name in NEED_MASS:
        invalid |= ~X.any(axis=1)
    if metric.name == "poincare":
        invalid |= np.square(X, dtype=np.float64).sum(axis=1) >= 1.0
    return np.asarray(invalid & ~rows_apart(X, metric))


def misplaced_rows(X: Array, metric: Metric) -> NDArray[np.bool_]:
    """Return (r,) bool: rows that are no latitude and longitude in radians, under `haversine`.

    Degrees are in range about the equator alone, and would be measured as radians elsewhere.
    """
    if metric.name != "haversine":
        return np.zeros(len(X), bool)
    slack = 1.0 + 1e-6  # pi / 2 is rounded up in float32.
    return np.asarray((np.abs(X) > np.array([np.pi / 2, 2 * np.pi]) * slack).any(axis=1))


def far_rows(X: Array, metric: Metric) -> NDArray[np.bool_]:
    """Return (r,) bool: rows so far from the origin that squared distances to them may pass float32.

    Where directions are compared, every row has length one. A block without such values costs two passes.
    """
    if metric.space not in ("identity", "scaled", "linear"):
        return np.zeros(len(X), bool)
    rows = to_space(X, metric)
    limit = float(np.finfo(np.float32).max) / 4  # Two rows are at most twice as far from each other.
    if max(rows.max(), -rows.min()) <= (limit / rows.shape[1]) ** 0.5:
        return np.zeros(len(X), bool)
    return np.asarray(np.square(rows, dtype=np.float64).sum(axis=1) > limit)


def to_space(X: Array, metric: Metric) -> NDArray[np.float32]:
    """Transform rows to the metric's Euclidean space.

    Parameters
    ----------
    X
        (r, D) float32.

    Returns
    -------
    :
        (r, D) float32 C array: X itself for "identity", a new one otherwise; (r, D + 1) with `metric.apart`.
        Rows that `invalid_rows` marks become zero. A row's bits depend on that row alone.
    """
    rows = np.ascontiguousarray(X, np.float32)
    values = dict(metric.keywords)
    match metric.space:
        case "identity":
            return rows
        case "scaled":
            return (rows / np.sqrt(values["V"])).astype(np.float32)  # type: ignore[no-any-return]
        case "linear":
            return spaces.linear(rows, np.linalg.cholesky(values["VI"]))  # type: ignore[no-any-return]
        case "unit":
            return spaces.unit(rows, False, metric.apart)  # type: ignore[no-any-return]
        case "centred_unit":
            return spaces.unit(rows, True, metric.apart)  # type: ignore[no-any-return]
        case "ranked_unit":
            return spaces.unit(spaces.ranks(rows), True, metric.apart)  # type: ignore[no-any-return]
        case "root_unit":
            return spaces.root_unit(rows, metric.apart)  # type: ignore[no-any-return]
        case "root_softmax":
            return spaces.root_softmax(rows)  # type: ignore[no-any-return]
    raise ValueError(f"Metric {metric.name!r} has no Euclidean space: use distance_function().")


_functions: dict[Any, Any] = {}
_lock = threading.RLock()


def distance_function(metric: Metric) -> Any:
    """Return the numba function (x, y) -> float32 of two raw rows of dtype `metric.dtype`, keywords bound.

    One function per metric and process, so that what takes it as an argument compiles once. For a metric with
    a space it evaluates both transforms each time: right, and slow.
    """
    with _lock:
        if metric.key not in _functions:
            _functions[metric.key] = _in_space(metric) if metric.space else _bound(metric)
        return _functions[metric.key]


def _bound(metric: Metric) -> Any:
    if metric.function is None:
        from pynndescent.distances import named_distances  # seconds, and only metrics without a space need it

        inner = named_distances[metric.name]
    else:
        inner = metric.function
    arguments = tuple(value for _, value in metric.keywords)

    @kept_as(lasting_name(metric))
    def distance(x, y):  # type: ignore[no-untyped-def]
        return np.float32(inner(x, y, *arguments))

    return distance


def kernel_of(make: Callable[[Any, str | None], Any], metric: Metric) -> Any:
    """Return the kernel that a function makes of a metric's `distance_function` and `lasting_name`.

    One kernel per metric and process.
    """
    with _lock:
        key = (make, metric.key)
        if key not in _functions:
            _functions[key] = make(distance_function(metric), lasting_name(metric))
        return _functions[key]


def lasting_name(metric: Metric) -> str | None:
    """Return what tells a metric's distance in any process, or None: functions of the user's, and keywords.

    Keywords are numbers in the machine code, and files of all that a user tries would pile up.
    """
    if metric.keywords or metric.name.startswith("callable:"):
        return None
    if metric.space is None and metric.function is None:
        return f"{metric.name}_{_source_of_pynndescent()}"
    return f"{metric.name}_apart" if metric.apart else metric.name


@cache
def _source_of_pynndescent() -> str:
    import pynndescent

    return hash_sources(Path(pynndescent.__file__).parent)[:12]


def _in_space(metric: Metric) -> Any:
    transform = _row_transform(metric)
    finish = metric.finish

    @kept_as(lasting_name(metric))
    def distance(x, y):  # type: ignore[no-untyped-def]
        a = transform(x.reshape((1, x.shape[0])))
        b = transform(y.reshape((1, y.shape[0])))
        return finished(squared_distance(a[0], b[0]), finish)

    return distance


def _row_transform(metric: Metric) -> Any:
    """Return `to_space` of this metric as a numba function of (1, D) arrays."""
    values, apart, keep = dict(metric.keywords), metric.apart, kept_as(lasting_name(metric))
    if metric.space == "identity":
        return keep(lambda rows: rows)
    if metric.space == "scaled":
        root = np.sqrt(values["V"])
        return keep(lambda rows: (rows / root).astype(np.float32))
    if metric.space == "linear":
        factor = np.linalg.cholesky(values["VI"])
        return keep(lambda rows: spaces.linear(rows, factor))
    if metric.space == "ranked_unit":
        return keep(lambda rows: spaces.unit(spaces.ranks(rows), True, apart))
    if metric.space == "root_unit":
        return keep(lambda rows: spaces.root_unit(rows, apart))
    if metric.space == "root_softmax":
        return keep(lambda rows: spaces.root_softmax(rows))
    centred = metric.space == "centred_unit"
    return keep(lambda rows: spaces.unit(rows, centred, apart))
