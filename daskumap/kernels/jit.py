"""One place for the jit defaults.

Kernels are serial and release the GIL: a thread per core runs one kernel each, and no parallel layer can
abort the process.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numba

from daskumap.kernels.cache import KernelCache, cached_names, source_digest

# "reassoc" and friends let reductions vectorise; NaN and inf keep their meaning ("nnan", "ninf" are absent).
FAST = {"reassoc", "contract", "arcp", "nsz"}

# Each fit runs these; the first two are not among those that a plan compiles to measure the machine.
MAIN_KERNELS = ("graph.calibrate._calibrate_", "graph.union.fuzzy_union", "layout.iterations.")


def is_ours(thing: Any) -> bool:
    """Return whether a function or class is of this package, whose source decides where the cache lies."""
    return str(thing.__module__).startswith("daskumap.kernels.")


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles with options of `numba.njit` and keeps the machine code on disk.

    Only for functions of a module: what closes over functions is compiled by `kept_as`, and what takes them
    by `uncached`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(nogil=True, **options)(function)
        if dispatcher is not function and is_ours(function):  # The same with NUMBA_DISABLE_JIT.
            dispatcher._cache = KernelCache(function)
        return dispatcher

    return decorate


# Exact floating point.
kernel = compiled()
# Sums may be reordered, so that they vectorise.
fast_kernel = compiled(fastmath=FAST)
# Inlined by numba, before LLVM: a call with array arguments costs 10 ns, a force from the table 1 ns.
inlined = compiled(fastmath=FAST, inline="always")
# Compiled once a process, for functions of the user's and for all that they are passed to.
uncached = numba.njit(nogil=True)


def kept_as(name: str | None) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator for a function that closes over others.

    Parameters
    ----------
    name
        What tells these others in any process, so that the machine code is kept on disk; None where nothing
        does, and each process compiles its own.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if name is None:
            return uncached(function)
        # Machine code is linked by such names: what two processes compiled under one would take turns.
        function.__qualname__ = f"{function.__name__.strip('<>')}_{name}"
        return kernel(function)

    return decorate


@cache
def is_compiled() -> bool:
    """Say whether this process loads the kernels of a usual fit; asked first before it compiles any.

    Other metrics, optimizers and numbers of components than those of the fit before compile a few more. It
    looks at the names of files only.
    """
    names = cached_names()
    return all(any(f"daskumap.kernels.{main}" in name for name in names) for main in MAIN_KERNELS)


def digest() -> str:
    """Return a digest of the source of all kernels."""
    return source_digest()[:12]
