"""Which rows are copies of an earlier one, in plain NumPy and without a hash."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first_rows(X: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each row the first row equal to it, (n,) int64.

    >>> first_rows(np.array([[1.0, 0.0], [2.0, 0.0], [1.0, -0.0]])).tolist()
    [0, 1, 0]
    """
    _, first, kind = np.unique(X, axis=0, return_index=True, return_inverse=True)
    return first[kind.reshape(-1)].astype(np.int64)
