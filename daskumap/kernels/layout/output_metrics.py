"""Metrics of the map by umap-learn's names, and functions of the user's that return distance and gradient."""

import difflib
import threading
from collections import namedtuple
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np

from daskumap.kernels.functions import bind, shortened
from daskumap.kernels.jit import uncached
from daskumap.kernels.layout import distances
from daskumap.kernels.layout.distances import measure
from daskumap.kernels.layout.sampling import Array

# As umap-learn calls them, beside the Euclidean one; "torus" is that of its documentation.
CLASSES: dict[str, Any] = {
    **dict.fromkeys(("manhattan", "taxicab", "l1"), distances.Manhattan),
    **dict.fromkeys(("chebyshev", "linfinity", "linfty", "linf"), distances.Chebyshev),
    **dict.fromkeys(("minkowski", "wminkowski", "weighted_minkowski"), distances.Minkowski),
    **dict.fromkeys(("seuclidean", "standardised_euclidean"), distances.Minkowski),
    "mahalanobis": distances.Mahalanobis,
    "canberra": distances.Canberra,
    "braycurtis": distances.BrayCurtis,
    "cosine": distances.Cosine,
    "correlation": distances.Correlation,
    "softmax_hellinger": distances.SoftmaxHellinger,
    "haversine": distances.Haversine,
    "torus": distances.Torus,
    "hyperboloid": distances.Hyperboloid,
    "spherical_gaussian_energy": distances.SphericalGaussian,
    "diagonal_gaussian_energy": distances.DiagonalGaussian,
    "gaussian_energy": distances.Gaussian,
}
EUCLIDEAN = ("euclidean", "l2")
# Those that only make sense with so many components, and with so many at least.
COMPONENTS = {
    "haversine": 2,
    "spherical_gaussian_energy": 3,
    "diagonal_gaussian_energy": 4,
    "gaussian_energy": 5,
}
LEAST_COMPONENTS = {"cosine": 2, "correlation": 3, "softmax_hellinger": 2}
# umap-learn has them, but a layout does not keep coordinates from becoming negative.
NOT_NEGATIVE = ("hellinger", "symmetric_kl")
# Keywords by name, and for how many dimensions each is.
KEYWORDS = {
    "minkowski": {"p": 0},
    "wminkowski": {"w": 1, "p": 0},
    "weighted_minkowski": {"w": 1, "p": 0},
    "seuclidean": {"sigma": 1},
    "standardised_euclidean": {"sigma": 1},
    "mahalanobis": {"vinv": 2},
    "torus": {"torus_dimensions": 1},
}
# Pairs of points on which a function is tried, in the range where starts lie.
TRIED, EXTENT = 8, 10.0


def names() -> list[str]:
    """Return every name that `resolve` accepts, sorted."""
    return sorted((*CLASSES, *EUCLIDEAN))


def resolve(metric: Any, kwds: dict[str, Any] | None, components: int) -> Any:
    """Return the metric of a map as `measure` takes it, None for the Euclidean one.

    Raises
    ------
    ValueError
        For an unknown name, a wrong number of components, a wrong keyword, or a function that numba cannot
        compile or that does not return a distance and its gradient.
    """
    given = dict(kwds or {})
    if not isinstance(metric, str):
        return _resolve_function(metric, given, components)
    if metric in NOT_NEGATIVE:
        raise ValueError(
            f"output_metric {metric!r} needs coordinates that are not negative, and a layout keeps none so. "
            "Use 'softmax_hellinger', which takes all numbers."
        )
    if metric not in CLASSES and metric not in EUCLIDEAN:
        close = difflib.get_close_matches(metric, names(), 1, 0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"output_metric is {metric!r}.{hint} Allowed: {', '.join(names())}, or a numba function of two "
            "rows that returns their distance and its gradient by the first."
        )
    _check_components(metric, components)
    unknown = sorted(given.keys() - KEYWORDS.get(metric, {}).keys())
    if unknown:
        allowed = ", ".join(KEYWORDS.get(metric, {})) or "none"
        raise ValueError(f"output_metric {metric!r} does not take {unknown[0]!r}. Allowed: {allowed}.")
    if metric in EUCLIDEAN:
        return None
    return _with_keywords(metric, given, components)


def _check_components(metric: str, components: int) -> None:
    wanted, least = COMPONENTS.get(metric, components), LEAST_COMPONENTS.get(metric, 1)
    if components != wanted or components < least:
        allowed = f"{wanted}" if components != wanted else f"at least {least}"
        raise ValueError(f"n_components is {components}; with output_metric={metric!r} it must be {allowed}.")


def _with_keywords(metric: str, given: dict[str, Any], components: int) -> Any:
    known = KEYWORDS.get(metric, {})
    defaults: dict[str, Any] = {
        "p": 2.0,
        "w": np.ones(components),
        "sigma": np.ones(components),
        "vinv": np.eye(components),
        "torus_dimensions": np.full(components, 2 * np.pi),
    }
    values = {
        name: _checked(metric, name, given.get(name, defaults[name]), (components,) * dims)
        for name, dims in known.items()
    }
    if CLASSES[metric] is not distances.Minkowski:
        return CLASSES[metric](**values)
    weights = 1.0 / values["sigma"] if "sigma" in values else values.get("w", defaults["w"])
    power = float(values.get("p", 2.0))
    return None if power == 2.0 and (weights == 1.0).all() else distances.Minkowski(weights, power)


def _checked(metric: str, name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Return a keyword as a float64 array of a shape, or refuse it."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"output_metric {metric!r}: {name} is a {type(value).__name__}, it must be numbers."
        ) from error
    least = 1.0 if name == "p" else 0.0
    good = array.shape == shape and bool(np.isfinite(array).all())
    if good and name == "vinv":
        good = np.allclose(array, array.T) and bool((np.linalg.eigvalsh(array) > 0).all())
    elif good:
        good = bool((array > 0).all() and (array >= least).all())
    if not good:
        wanted = (
            "symmetric and positive definite"
            if name == "vinv"
            else f"{'at least 1' if least else 'positive'}"
        )
        raise ValueError(
            f"output_metric {metric!r}: {name} is {value!r}; it must have the shape {shape}, and be finite "
            f"and {wanted}."
        )
    return array


_classes: dict[Any, Any] = {}
_lock = threading.RLock()


def _resolve_function(metric: Callable[..., Any], given: dict[str, Any], components: int) -> Any:
    source: Any = getattr(metric, "py_func", metric)
    name = f"{source.__module__}.{source.__qualname__}"
    arguments = tuple(value for _, value in bind(f"output_metric {name}", source, given))
    key = (metric, components, tuple((np.shape(one), np.asarray(one).tobytes()) for one in arguments))
    with _lock:
        if key not in _classes:
            function = metric if hasattr(metric, "py_func") else uncached(metric)
            _try(name, function, arguments, components)
            _classes[key] = _class_of(function, arguments)
        return _classes[key]()


def _try(name: str, function: Any, arguments: tuple[Any, ...], components: int) -> None:
    """Compile a function, and refuse one that does not return a distance and its gradient."""
    wanted = (
        "Pass a function of two 1-D float32 arrays that numba compiles and that returns (distance, "
        "gradient): a number, and an array "
        f"of {components} numbers, the derivatives by the first one's coordinates."
    )

    def measured(x, y):  # type: ignore[no-untyped-def]
        return function(x, y, *arguments)

    try:
        compiled = uncached(measured)
        compiled.compile((numba.float32[::1], numba.float32[::1]))
        returned = compiled.nopython_signatures[0].return_type
    except Exception as error:
        says = f"{wanted} Numba says: {shortened(error)}."
        raise ValueError(f"output_metric {name} cannot be compiled. {says}") from error
    kinds = tuple(returned) if isinstance(returned, numba.types.BaseTuple) else ()
    numbers = len(kinds) == 2 and isinstance(kinds[0], numba.types.Number)
    if not (numbers and isinstance(kinds[1], numba.types.Array) and kinds[1].ndim == 1):
        raise ValueError(f"output_metric {name} returns {returned}. {wanted}")
    points = np.random.default_rng(0).uniform(0.0, EXTENT, (2, TRIED, components)).astype(np.float32)
    for x, y in zip(*points, strict=True):
        try:
            distance, gradient = compiled(x.copy(), y.copy())
        except Exception as error:
            raise ValueError(f"output_metric {name} raises {error!r} for {x} and {y}. {wanted}") from error
        if gradient.shape != (components,) or not (np.isfinite(distance) and np.isfinite(gradient).all()):
            raise ValueError(f"output_metric {name} returns {distance}, {gradient} for {x} and {y}. {wanted}")


def _class_of(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return a class whose version of `measure` is a function of the user's.

    Its module is not ours, so what is built for it is not kept on disk.
    """
    class_ = namedtuple("Own", (), module="output_metric")  # type: ignore[name-match]
    given = {"_function": function, "_arguments": arguments, "np": np, "__name__": "output_metric"}
    measure.version(class_)(FunctionType(_measure_own.__code__, given, "measure_own"))
    return class_


# What `_class_of` gives to each copy of the next function.
_function: Any = None
_arguments: tuple[Any, ...] = ()


def _measure_own(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    distance, slopes = _function(x, y, *_arguments)
    for c in range(gradient.size):
        gradient[c] = slopes[c]
    return np.float64(distance)
