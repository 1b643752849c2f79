"""Kernels from parts: functions with versions, which are chosen by the classes that a kernel is built for.

The versions are inlined where the kernel calls them, so a choice costs nothing where it runs, and the kernel
is kept on disk as any other. What was measured on the layout's kernels (numba 0.68.1):

- With `numba.extending.overload(inline="always")` in place of this each part is compiled alone as well: 9 s
  for an iteration in place of 1, which then takes 2.5 times as long.
- Numba counts references to the arrays of named tuples, and to arrays that inlined functions get. In an inner
  loop that ends its vectorisation, which takes a fifth to a half, and changes bits. So arrays are read from
  named tuples outside of it, and parts that are called within it are `element_part`s: LLVM inlines them.
- Parts that take arrays are called by the kernel itself: below another part references are counted each time.
"""

import threading
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import numba

from daskumap.kernels.jit import FAST, compiled, fast_kernel, inlined, is_ours, kernel, uncached

inlined_by_llvm = compiled(fastmath=FAST, forceinline=True)


class Part:
    """A function that is known by its versions alone; the one decorated says what they do."""

    def __init__(self, function: Callable[..., Any], decorate: Callable[..., Any]) -> None:
        self.name, self.decorate = function.__name__, decorate
        self.__doc__ = function.__doc__
        self.versions: dict[type, Callable[..., Any]] = {}

    def version(self, class_: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that registers the version for kernels that are built for a class."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self.versions[class_] = function
            return function

        return register

    def choose(self, classes: tuple[type, ...]) -> Callable[..., Any]:
        """Return the version for one of the classes."""
        for class_ in classes:
            if class_ in self.versions:
                return self.versions[class_]
        has = ", ".join(class_.__name__ for class_ in self.versions)
        given = ", ".join(class_.__name__ for class_ in classes)
        raise TypeError(f"{self.name!r} has versions for {has}, not for {given}: register one.")


def part(function: Callable[..., Any]) -> Any:
    """Make a function a part. Kernels and versions find it by its name, among the globals of their module."""
    return Part(function, inlined)


def element_part(function: Callable[..., Any]) -> Any:
    """Make a function a part for use in an inner loop."""
    return Part(function, inlined_by_llvm)


def exact_part(function: Callable[..., Any]) -> Any:
    """Make a function a part whose sums keep their order, for kernels that are built exact."""
    return Part(function, compiled(inline="always"))


def exact_element_part(function: Callable[..., Any]) -> Any:
    """Make a function such a part for use in an inner loop."""
    return Part(function, compiled(forceinline=True))


def build(function: Callable[..., Any], *classes: Any, exact: bool = False) -> Any:
    """Return a function compiled for some classes, with their versions of all parts that it calls.

    Parameters
    ----------
    exact
        Whether sums keep their order, as the parts have to be made too.
    """
    with _building:  # or threads that start together would each compile their own
        return _build(function, *classes, exact=exact)


_building = threading.Lock()


@cache
def _build(function: Callable[..., Any], *classes: Any, exact: bool) -> Any:
    whole = _with_versions(function, classes)
    whole.__qualname__ = "_".join((function.__name__, *(class_.__name__ for class_ in classes)))
    # The cache knows the source of this package alone: with a user's class there would be no telling.
    ours = all(is_ours(class_) for class_ in classes)
    if exact:
        return kernel(whole) if ours else uncached(whole)
    return fast_kernel(whole) if ours else numba.njit(nogil=True, fastmath=FAST)(whole)


def _with_versions(function: Any, classes: tuple[type, ...]) -> FunctionType:
    """Return a copy of a function that finds versions under the names of parts, and all else where it was."""
    names = {**function.__globals__}
    for name in function.__code__.co_names:
        called = names.get(name)
        if isinstance(called, Part):
            names[name] = called.decorate(_with_versions(called.choose(classes), classes))
    return FunctionType(function.__code__, names, function.__name__)
