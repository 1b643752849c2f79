"""UMAP for Zarr arrays larger than memory, on Dask.

The public names are loaded when they are first used, so that `import daskumap` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskumap.api import Run, fit, open, plan, resume, verify
    from daskumap.errors import DaskumapError
    from daskumap.pipeline import Plan

__version__ = "0.1.0"
__all__ = ["DaskumapError", "Plan", "Run", "__version__", "fit", "open", "plan", "resume", "verify"]

_MODULES = {
    "DaskumapError": "daskumap.errors",
    "Plan": "daskumap.pipeline",
    "Run": "daskumap.api",
    "fit": "daskumap.api",
    "open": "daskumap.api",
    "plan": "daskumap.api",
    "resume": "daskumap.api",
    "verify": "daskumap.api",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module 'daskumap' has no attribute {name!r}")
    if name == "DaskumapError":
        return import_module(_MODULES[name]).DaskumapError
    # All at once: `daskumap.plan` is a package too, and its import would hide the function.
    loaded = {known: getattr(import_module(module), known) for known, module in _MODULES.items()}
    globals().update(loaded)
    return loaded[name]


def __dir__() -> list[str]:
    return __all__
