"""What tells functions and modules of the user's from each other: a digest of all that they compute with."""

from __future__ import annotations

import hashlib
from types import CodeType, FunctionType
from typing import Any

import numpy as np

PLAIN = (bool, int, float, complex, str, bytes, np.generic, type(None))


def digest_of(function: Any) -> str:
    """Return a digest of a function of Python's, the same in any process.

    It covers the code, the defaults, and what the function finds around it: variables that it closes over,
    and globals that are functions or values, as numba compiles them in.
    """
    return hashlib.sha256(repr(_told(function, ())).encode()).hexdigest()[:16]


def digest_of_module(module: Any) -> str:
    """Return a digest of a torch module, the same in any process.

    It covers the kind and the plain settings of each layer, the code by which the user's own layers map rows,
    and all values: parameters, and buffers that belong to the state.
    """
    layers = [(name, _told_layer(layer)) for name, layer in module.named_modules()]
    values = [(name, _told(one.detach().cpu().numpy(), ())) for name, one in module.state_dict().items()]
    return hashlib.sha256(repr((layers, values)).encode()).hexdigest()[:16]


def _told_layer(layer: Any) -> Any:
    kind = type(layer)
    settings = {name: _told(one, ()) for name, one in sorted(vars(layer).items()) if not name.startswith("_")}
    # Training is a state, in which it is whatever the caller left it in.
    settings.pop("training", None)
    theirs = kind.__module__.partition(".")[0] == "torch"
    return kind.__qualname__, settings, None if theirs else _told(kind.forward, ())


def _told(value: Any, callers: tuple[FunctionType, ...]) -> Any:
    """Return what tells a value, such that its repr has no address and no order of a hash."""
    value = getattr(value, "py_func", value)
    if isinstance(value, PLAIN):
        return type(value).__name__, repr(value)
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, _told(value.co_consts, callers)
    if isinstance(value, FunctionType):
        # One that calls itself is told by which of its callers it is.
        return callers.index(value) if value in callers else _told_function(value, callers)
    if isinstance(value, tuple | list):
        return [_told(one, callers) for one in value]
    if isinstance(value, frozenset):
        return sorted(repr(_told(one, callers)) for one in value)
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return value.shape, value.dtype.str, content
    return getattr(value, "__name__", type(value).__name__)


def _told_function(function: FunctionType, callers: tuple[FunctionType, ...]) -> Any:
    code, cells = function.__code__, function.__closure__ or ()
    around = [cell.cell_contents for cell in cells]
    around += [function.__globals__[name] for name in _names(code) if name in function.__globals__]
    found = [function.__defaults__, *around]
    return _told(code, callers), [_told(one, (*callers, function)) for one in found]


def _names(code: CodeType) -> list[str]:
    """Return the names that a function and those within it look up, in their order."""
    within = [name for one in code.co_consts if isinstance(one, CodeType) for name in _names(one)]
    return [*code.co_names, *within]
