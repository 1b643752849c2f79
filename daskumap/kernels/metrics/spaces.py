"""Row transforms after which a metric is a function of the Euclidean distance.

Each row is transformed alone, in float64 and in a fixed order, so its bits do not depend on the block it is
in.

Rows without a direction, such as rows of zeros, have no place there. With `apart` the space has one more
column, 0 for all others and 1 for these: they are 0 from one another and at right angles to all others.
"""

import numpy as np

from daskumap.kernels.jit import kernel


@kernel
def unit(X, centred, apart):  # type: ignore[no-untyped-def]
    """Return the rows at length 1 (float32), less each row's mean if `centred`; zero rows stay zero."""
    out = np.zeros((X.shape[0], X.shape[1] + apart), np.float32)
    for i in range(X.shape[0]):
        mean = 0.0
        if centred:
            for c in range(X.shape[1]):
                mean += np.float64(X[i, c])
            mean /= X.shape[1]
        total = 0.0
        for c in range(X.shape[1]):
            total += (X[i, c] - mean) ** 2
        if apart and (total == 0.0 or (centred and X[i].min() == X[i].max())):
            out[i, X.shape[1]] = 1.0
            continue
        scale = 1.0 / np.sqrt(total) if total > 0.0 else 0.0
        for c in range(X.shape[1]):
            out[i, c] = np.float32((X[i, c] - mean) * scale)
    return out


@kernel
def root_unit(X, apart):  # type: ignore[no-untyped-def]
    """Return sqrt(x / sum x) (float32): distributions as unit vectors; rows without mass become zero."""
    out = np.zeros((X.shape[0], X.shape[1] + apart), np.float32)
    for i in range(X.shape[0]):
        total = 0.0
        for c in range(X.shape[1]):
            total += np.float64(X[i, c])
        if total > 0.0:
            for c in range(X.shape[1]):
                out[i, c] = np.float32(np.sqrt(X[i, c] / total))
        elif apart:
            out[i, X.shape[1]] = 1.0
    return out


@kernel
def root_softmax(X):  # type: ignore[no-untyped-def]
    """Return the roots of each row's softmax (float32): unit vectors."""
    out = np.empty(X.shape, np.float32)
    for i in range(X.shape[0]):
        largest, total = np.float64(X[i].max()), 0.0
        for c in range(X.shape[1]):
            total += np.exp(X[i, c] - largest)
        for c in range(X.shape[1]):
            out[i, c] = np.float32(np.exp(0.5 * (X[i, c] - largest)) / np.sqrt(total))
    return out


@kernel
def ranks(X):  # type: ignore[no-untyped-def]
    """Return each row's ranks (float32), equal values sharing their mean rank."""
    out = np.empty(X.shape, np.float32)
    columns = X.shape[1]
    for i in range(X.shape[0]):
        order = np.argsort(X[i])
        start = 0
        while start < columns:
            stop = start + 1
            while stop < columns and X[i, order[stop]] == X[i, order[start]]:
                stop += 1
            for place in range(start, stop):
                out[i, order[place]] = np.float32(0.5 * (start + stop - 1))
            start = stop
    return out


@kernel
def linear(X, matrix):  # type: ignore[no-untyped-def]
    """Return X @ matrix (float32), summed over rows of the matrix in order: BLAS bits depend on the block."""
    out = np.empty((X.shape[0], matrix.shape[1]), np.float32)
    total = np.empty(matrix.shape[1])
    for i in range(X.shape[0]):
        total[:] = 0.0
        for c in range(X.shape[1]):
            for j in range(matrix.shape[1]):
                total[j] += X[i, c] * matrix[c, j]
        for j in range(matrix.shape[1]):
            out[i, j] = np.float32(total[j])
    return out
