"""UMAP for Zarr arrays larger than memory, on Dask.

The public names are loaded when they are first used, so that `import daskumap` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskumap.api import (
        clean,
        diagnose,
        export_onnx,
        fit,
        inverse_transform,
        open,
        plan,
        predict,
        resume,
        transform,
        verify,
    )
    from daskumap.clusters import start_cluster
    from daskumap.encoder import Encoder
    from daskumap.errors import (
        ClusterError,
        DaskumapError,
        DependencyError,
        LockedError,
        ParameterError,
        PlanError,
        ProcessError,
        RunMismatchError,
        SourceError,
        SourceNotFoundError,
        StoreError,
        TaskError,
    )
    from daskumap.estimator.umap import UMAP
    from daskumap.evaluation.measure import evaluate
    from daskumap.evaluation.stability import Stability, stability
    from daskumap.exports.targets import export
    from daskumap.jobs.work import run_job
    from daskumap.parametric import ParametricUMAP
    from daskumap.planning.plan import Plan
    from daskumap.run import Run
    from daskumap.sources.base import Source
    from daskumap.sources.conversion import convert
    from daskumap.sources.find import source
    from daskumap.store.places import place
    from daskumap.training import train
    from daskumap.views import Decoded, Encoded, Inverted, Predicted, Transformed

__version__ = "0.1.0"
__all__ = [
    "UMAP",
    "ClusterError",
    "DaskumapError",
    "Decoded",
    "DependencyError",
    "Encoded",
    "Encoder",
    "Inverted",
    "LockedError",
    "ParameterError",
    "ParametricUMAP",
    "Plan",
    "PlanError",
    "Predicted",
    "ProcessError",
    "Run",
    "RunMismatchError",
    "Source",
    "SourceError",
    "SourceNotFoundError",
    "Stability",
    "StoreError",
    "TaskError",
    "Transformed",
    "__version__",
    "clean",
    "convert",
    "diagnose",
    "evaluate",
    "export",
    "export_onnx",
    "fit",
    "inverse_transform",
    "open",
    "place",
    "plan",
    "predict",
    "resume",
    "run_job",
    "source",
    "stability",
    "start_cluster",
    "train",
    "transform",
    "verify",
]

_MODULES = {
    "ClusterError": "daskumap.errors",
    "DaskumapError": "daskumap.errors",
    "DependencyError": "daskumap.errors",
    "LockedError": "daskumap.errors",
    "ParameterError": "daskumap.errors",
    "PlanError": "daskumap.errors",
    "ProcessError": "daskumap.errors",
    "RunMismatchError": "daskumap.errors",
    "SourceError": "daskumap.errors",
    "SourceNotFoundError": "daskumap.errors",
    "StoreError": "daskumap.errors",
    "TaskError": "daskumap.errors",
    "Plan": "daskumap.planning.plan",
    "Decoded": "daskumap.views",
    "Encoded": "daskumap.views",
    "Encoder": "daskumap.encoder",
    "Inverted": "daskumap.views",
    "ParametricUMAP": "daskumap.parametric",
    "Predicted": "daskumap.views",
    "Run": "daskumap.run",
    "Source": "daskumap.sources.base",
    "Transformed": "daskumap.views",
    "UMAP": "daskumap.estimator.umap",
    "clean": "daskumap.api",
    "convert": "daskumap.sources.conversion",
    "diagnose": "daskumap.api",
    "export": "daskumap.exports.targets",
    "evaluate": "daskumap.evaluation.measure",
    "Stability": "daskumap.evaluation.stability",
    "stability": "daskumap.evaluation.stability",
    "export_onnx": "daskumap.api",
    "fit": "daskumap.api",
    "inverse_transform": "daskumap.api",
    "open": "daskumap.api",
    "place": "daskumap.store.places",
    "plan": "daskumap.api",
    "predict": "daskumap.api",
    "resume": "daskumap.api",
    "start_cluster": "daskumap.clusters",
    "source": "daskumap.sources.find",
    "run_job": "daskumap.jobs.work",
    "train": "daskumap.training",
    "transform": "daskumap.api",
    "verify": "daskumap.api",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "scanpy":  # a module of functions
        return import_module("daskumap.scanpy")
    if name not in _MODULES:
        raise AttributeError(f"module 'daskumap' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    return __all__
