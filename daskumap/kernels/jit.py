"""One place for the jit defaults."""

from collections.abc import Callable
from typing import Any

import numba

# Serial and nogil: a thread per core runs one kernel each, and no parallel layer can abort the process.
# "reassoc" and friends let reductions vectorise; NaN and inf keep their meaning ("nnan", "ninf" are absent).
FAST = {"reassoc", "contract", "arcp", "nsz"}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` to a serial, GIL-free, cached kernel with exact floating point."""
    return numba.njit(nogil=True, cache=True)(function)


def fast_kernel(function: Callable[..., Any]) -> Any:
    """Compile like `kernel`, and allow sums to be reordered so that they vectorise."""
    return numba.njit(nogil=True, cache=True, fastmath=FAST)(function)
