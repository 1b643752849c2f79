"""A multilayer perceptron as arrays: its start, its passes forward and backward, and its flat vector."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import fast_kernel
from daskumap.kernels.random import uniform

Array = NDArray[Any]
# Rows that `apply` works on at a time, and rows of each of its products. The height of a product decides in
# which order its sums are taken, and with the code for Haswell a row's place among twelve does too. Of eight
# rows all have the same bits wherever they are: at no cost with AVX-512, in 1.7 times the time with Haswell's
# (784 columns, measured).
BLOCK_ROWS, PRODUCT_ROWS = 256, 8


class Layer(NamedTuple):
    """A linear map: rows (m, in) become rows @ weights + bias, (m, out)."""

    weights: Array  # (in, out)
    bias: Array  # (out,)


# A rectifier, max(x, 0), stands between two layers; the last one is linear.
Layers = tuple[Layer, ...]


def initial(widths: tuple[int, ...], key: int) -> Layers:
    """Return layers of so many units, from the input on: Glorot's uniform weights, biases of zero.

    Parameters
    ----------
    key
        64-bit key; a weight is a hash of it, its layer and its place.

    References
    ----------
    Glorot, Bengio (2010).
    """
    layers, first = [], 0
    for rows, columns in pairwise(widths):
        limit = np.sqrt(6.0 / (rows + columns))
        numbers = uniform(key, first, rows * columns, 1).reshape(rows, columns)
        weights = ((2.0 * numbers - 1.0) * limit).astype(np.float32)
        layers.append(Layer(weights, np.zeros(columns, np.float32)))
        first += rows * columns
    return tuple(layers)


def count(widths: tuple[int, ...]) -> int:
    """Return the number of weights and biases.

    >>> count((64, 100, 2))
    6702
    """
    return sum((rows + 1) * columns for rows, columns in pairwise(widths))


def layers_of(vector: Array, widths: tuple[int, ...]) -> Layers:
    """Return views of the layers that a flat vector begins with."""
    layers, at = [], 0
    for rows, columns in pairwise(widths):
        weights = vector[at : at + rows * columns].reshape(rows, columns)
        at += rows * columns
        layers.append(Layer(weights, vector[at : at + columns]))
        at += columns
    return tuple(layers)


def pack(parts: dict[str, Layers]) -> Array:
    """Return the layers of all parts as one flat vector: weights, then bias, layer after layer."""
    return np.concatenate([array.ravel() for layers in parts.values() for layer in layers for array in layer])


def unpack(vector: Array, widths: dict[str, tuple[int, ...]]) -> dict[str, Layers]:
    """Return views of the layers in a flat vector by part, whose widths come in the order of `pack`."""
    parts, at = {}, 0
    for name, units in widths.items():
        parts[name] = layers_of(vector[at:], units)
        at += count(units)
    return parts


class Passes:
    """The room of one network's passes over a batch, which the next batch of as many rows uses again."""

    def __init__(self, widths: tuple[int, ...], rows: int, dtype: Any) -> None:
        self.activations = [np.empty((rows, units), dtype) for units in widths[1:]]
        self.gradients = [np.empty((rows, units), dtype) for units in widths[:-1]]


def forward(layers: Layers, X: Array, passes: Passes | None = None) -> list[Array]:
    """Return the rows and what each layer makes of them.

    Parameters
    ----------
    X
        (m, in), of the type of the weights.
    passes
        The room of the results; fresh by default.
    """
    passes = passes or Passes(_widths(layers), len(X), X.dtype)
    activations = [X, *passes.activations]
    for k, layer in enumerate(layers):
        np.matmul(activations[k], layer.weights, out=activations[k + 1])
        add_bias(activations[k + 1], layer.bias, k < len(layers) - 1)
    return activations


def backward(
    layers: Layers,
    activations: list[Array],
    gradient: Array,
    into: Layers,
    passes: Passes | None = None,
    hidden: tuple[slice, Array] | None = None,
) -> Array:
    """Write the gradient by each layer, and return what is left to do for the rows.

    Parameters
    ----------
    activations
        Of `forward`.
    gradient
        (m, out) gradient by the last layer's output.
    into
        Where the gradients by weights and biases are written.
    hidden
        Rows, and what something else than the last layer adds to their gradient by the last hidden layer.

    Returns
    -------
    gradient
        (m, units) by the output of the first layer: `by_rows` makes that by the rows of it, which nobody
        needs where the rows are data.
    """
    passes = passes or Passes(_widths(layers), len(gradient), gradient.dtype)
    for k in range(len(layers) - 1, -1, -1):
        np.matmul(activations[k].T, gradient, out=into[k].weights)
        sum_rows(gradient, into[k].bias)
        if k:
            gradient = np.matmul(gradient, layers[k].weights.T, out=passes.gradients[k])
            if hidden is not None and k == len(layers) - 1:
                gradient[hidden[0]] += hidden[1]
            rectify(gradient, activations[k])
    return gradient


def by_rows(layers: Layers, gradient: Array) -> Array:
    """Return the gradient by the rows, (m, in), from what `backward` returned."""
    return gradient @ layers[0].weights.T


def apply(layers: Layers, X: Array) -> Array:
    """Map any number of rows: the same bits for a row whatever rows come with it.

    Parameters
    ----------
    X
        (m, in) of any numbers.

    Returns
    -------
    Z
        (m, out) float32.
    """
    Z = np.empty((len(X), layers[-1].bias.size), np.float32)
    passes = Passes(_widths(layers), BLOCK_ROWS, np.float32)
    rows = np.zeros((BLOCK_ROWS, layers[0].weights.shape[0]), np.float32)
    for start in range(0, len(X), BLOCK_ROWS):
        part = X[start : start + BLOCK_ROWS]
        rows[: len(part)] = part
        values = rows
        for k, layer in enumerate(layers):
            out = passes.activations[k]
            np.matmul(_groups(values), layer.weights, out=_groups(out))
            add_bias(out, layer.bias, k < len(layers) - 1)
            values = out
        Z[start : start + BLOCK_ROWS] = values[: len(part)]
    return Z


def _groups(rows: Array) -> Array:
    return rows.reshape(-1, PRODUCT_ROWS, rows.shape[1])


def _widths(layers: Layers) -> tuple[int, ...]:
    return (layers[0].weights.shape[0], *(layer.bias.size for layer in layers))


@fast_kernel
def add_bias(rows, bias, rectified):  # type: ignore[no-untyped-def]
    """Add the bias to each row in place; below zero nothing passes a rectifier."""
    zero = rows.dtype.type(0)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            value = rows[i, j] + bias[j]
            rows[i, j] = zero if rectified and value < zero else value  # and NaN stays


@fast_kernel
def rectify(gradient, activation):  # type: ignore[no-untyped-def]
    """Clear the gradient where the rectifier let nothing pass."""
    zero = gradient.dtype.type(0)
    for i in range(gradient.shape[0]):
        for j in range(gradient.shape[1]):
            if activation[i, j] <= zero:
                gradient[i, j] = zero


@fast_kernel
def sum_rows(rows, out):  # type: ignore[no-untyped-def]
    """Write the sum of all rows."""
    out[:] = 0
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            out[j] += rows[i, j]
