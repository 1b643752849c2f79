"""`ParametricUMAP`: umap-learn's estimator of a network that maps rows, in memory and out of core."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import ClassifierTags, Tags, check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from daskumap.clusters import choose, start_cluster
from daskumap.encoder_params import NAMES, make_encoder_params
from daskumap.errors import ParameterError, SourceError
from daskumap.mixin import OwnEstimator
from daskumap.params import PRECOMPUTED, Params, explicit, make_params

if TYPE_CHECKING:
    from daskumap.encoder import Encoder
    from daskumap.run import Run
    from daskumap.sources.base import Source
    from daskumap.store.model import Model

Array = np.ndarray[Any, Any]

# Of a fit, those of the estimator's parameters that only the layout of a map has, which a warm start needs.
OF_LAYOUT = ("n_epochs", "init")


class ParametricUMAP(OwnEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A network that maps rows, trained on the graph of UMAP: it maps new rows by itself.

    The graph is that of `daskumap.fit`, the training that of `daskumap.train`. With `decoder` there is a way
    back, `inverse_transform`; with labels, `predict` and `predict_proba`. What a network learnt is saved as
    arrays and text, which a later version reads; the code of a module stays the caller's.

    Parameters
    ----------
    n_neighbors, n_components, metric, metric_kwds, min_dist, spread, a, b, set_op_mix_ratio, \
local_connectivity, repulsion_strength, negative_sample_rate, random_state, unique, disconnection_distance, \
precomputed_knn
        As of `daskumap.UMAP`.
    n_epochs, init
        Of the map that `warm_start` regresses to; there is none without.
    verbose
        Show on standard error how far the fit is.
    target_recall, max_overlap, max_cell_rows, missing, undefined, membership, calibration, alpha, \
simplices, vr_delta, report, keep
        As of `daskumap.fit`.
    hidden, encoder, decoder, loss, batch_edges, steps, encoder_learning_rate, input_axes, window_rows, \
encoder_rows, warm_start, replicas, average_every, autoencoder_weight, reconstruction, global_weight, \
label_weight, landmark_weight, device, checkpoint_steps
        As of `daskumap.train`. With label_weight=0 labels are not looked at.

    Attributes
    ----------
    embedding_
        Where the network maps the rows that were fitted, (n, n_components) float32 in their order: in memory,
        or a `zarr.Array` where the rows were not. A model that was loaded has none.
    encoder_
        The network, a `daskumap.Encoder`.
    classes_
        The classes that `predict` tells apart; not there without labels.
    history_
        For each segment of the training its steps, and the mean of each term of the loss in it.
    run_
        The run of the training: its report, graph and neighbours. A model that was loaded has none.
    n_features_in_, feature_names_in_
        As of all estimators.

    References
    ----------
    Sainburg, McInnes, Gentner (2021), Parametric UMAP Embeddings for Representation and Semisupervised
    Learning.
    """

    @explicit
    def __init__(
        self,
        n_neighbors: int = 15,
        n_components: int = 2,
        metric: Any = "euclidean",
        metric_kwds: dict[str, Any] | None = None,
        *,
        min_dist: float = 0.1,
        spread: float = 1.0,
        a: float | None = None,
        b: float | None = None,
        set_op_mix_ratio: float = 1.0,
        local_connectivity: float = 1.0,
        repulsion_strength: float = 1.0,
        negative_sample_rate: int = 5,
        random_state: Any = None,
        unique: bool = False,
        disconnection_distance: float | None = None,
        precomputed_knn: Any = None,
        n_epochs: Any = None,
        init: Any = "pca",
        verbose: bool = False,
        target_recall: float = 0.95,
        max_overlap: int = 6,
        max_cell_rows: int | None = None,
        missing: str = "fill",
        undefined: str = "apart",
        membership: Any = "exponential",
        calibration: str = "exponential",
        alpha: float | None = None,
        simplices: int = 1,
        vr_delta: float = float("inf"),
        report: bool = False,
        keep: str = "graph",
        hidden: Any = (100, 100, 100),
        encoder: Any = "mlp",
        decoder: Any = False,
        loss: str = "logistic",
        batch_edges: int = 1_000,
        steps: int = 6_000,
        encoder_learning_rate: float = 1e-2,
        input_axes: int | None = 64,
        window_rows: int | None = None,
        encoder_rows: int = 2_000_000,
        warm_start: float | None = None,
        replicas: int = 1,
        average_every: int = 25,
        autoencoder_weight: float = 0.0,
        reconstruction: str = "mse",
        global_weight: float = 0.0,
        label_weight: float = 1.0,
        landmark_weight: float = 1.0,
        device: str = "cpu",
        checkpoint_steps: int = 1_000,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        for name, value in given.items():
            setattr(self, name, value)

    def fit(
        self,
        X: Any,
        y: Any = None,
        run: Any = None,
        landmarks: Any = None,
        client: Any = None,
        memory: str | int | None = None,
        threads: int | None = None,
        cluster: Any = None,
    ) -> ParametricUMAP:
        """Train the network on the graph of the rows.

        Parameters
        ----------
        X
            (n, D): an array, a DataFrame or nested lists; or, larger than memory, what `daskumap.fit` takes.
            Or a finished run, or the path of one: the network is trained on its graph, so that what makes a
            graph, from n_neighbors to vr_delta, is the run's.
        y
            (n,) classes, integers or names, -1 for rows whose class is not known: a classifier is trained
            with the encoder, and pulls rows of a class together. None: there is none.
        run
            Path or URL of the run store of the training; its graph is beside it, in a run whose name ends in
            "-graph", for other trainings. An unfinished fit that is there goes on. With keep="graph" the
            training has neighbours and graph as well, for another map; keep="embedding" has them once. None:
            in memory or in temporary folders.
        landmarks
            (n, n_components) where rows are to lie, NaN for rows that are free.
        client, memory, threads, cluster
            As of `daskumap.fit`; a cluster of a file is started once.

        Raises
        ------
        DaskumapError
            As of `daskumap.fit` and `daskumap.train`.
        """
        return self._fit(X, y, None, run, landmarks, client, memory, threads, cluster)

    def fit_transform(self, X: Any, y: Any = None, **options: Any) -> Any:
        """Train the network and return where it maps the rows, `embedding_`. Arguments as in `fit`."""
        return self.fit(X, y, **options).embedding_

    def refit(self, X: Any, y: Any = None, **options: Any) -> ParametricUMAP:
        """Go on from what the network learnt, on the graph of other rows with the same columns.

        Landmarks keep it where it was: rows of the earlier fit among the new ones, with their places,
        `embedding_`. Arguments as in `fit`; of the parameters those of the network must be the same.
        """
        check_is_fitted(self, "encoder_")
        return self._fit(X, y, self.encoder_.model, **options)

    def _fit(
        self,
        X: Any,
        y: Any,
        start: Model | None,
        run: Any = None,
        landmarks: Any = None,
        client: Any = None,
        memory: str | int | None = None,
        threads: int | None = None,
        cluster: Any = None,
    ) -> ParametricUMAP:
        """Fit a graph, and train on it, from a given start if there is one."""
        from daskumap.api import is_run
        from daskumap.train_request import OF_MAP, check_training
        from daskumap.training import train

        if cluster is not None:
            choose(client, cluster)
            with start_cluster(cluster) as started:
                return self._fit(X, y, start, run, landmarks, started, memory, threads)
        of_training = {name: getattr(self, name) for name in NAMES}
        if self.warm_start is False:  # as scikit-learn sets it wherever an estimator has that name
            of_training["warm_start"] = 0.0
        checked = make_encoder_params(of_training)
        where = {"client": client, "memory": memory, "threads": threads, "progress": bool(self.verbose)}
        if is_run(X):
            graph, plain = X, False
            of_training |= {name: getattr(self, name) for name in OF_MAP if self._is_given(name)}
            self.__dict__.pop("feature_names_in_", None)  # of an earlier fit
        else:
            source, plain = self._source(X, reset=start is None)
            params = make_params({"n_components": self.n_components})
            check_training(source, params, checked, y, landmarks, start)
            graph = self._graph(source, run, where, bool(checked.warm_steps(source.shape[0])))
        trained = train(
            graph,
            run,
            labels=y,
            landmarks=landmarks,
            start=start,
            report=self.report,
            keep=self.keep,
            **of_training,
            **where,
        )
        return self._take(trained, plain or trained.store.about["spec"] is None)

    def _is_given(self, name: str) -> bool:
        """Return whether a parameter is to be passed on: without a seed a training has that of its run."""
        return name != "random_state" or self.random_state is not None

    def _graph(self, source: Source, run: Any, where: dict[str, Any], mapped: bool) -> Run:
        """Return the run of the graph of some rows, with a map if the training begins with one."""
        from daskumap.api import fit

        rows = source.shape[0]
        if self.metric == PRECOMPUTED:
            raise ParameterError(
                "metric is 'precomputed', and a network maps rows. Give rows, and neighbours that are known "
                "as precomputed_knn."
            )
        if rows < 3:
            raise SourceError(f"The input has n_samples = {rows} rows; at least 3 are needed.")
        options = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(Params)
            if hasattr(self, field.name) and field.name not in ("encoder", "report", "keep")
        }
        if not mapped:
            options = {name: value for name, value in options.items() if name not in OF_LAYOUT}
            options["transform_mode"] = "graph"
        if options["random_state"] is None and run is None:
            options["random_state"] = check_random_state(None)  # as in scikit-learn NumPy draws the seed
        options["n_neighbors"] = _truncated(self.n_neighbors, rows)
        return fit(source, graph_place(run), report=False, **options, **where)

    def _take(self, run: Run, plain: bool) -> ParametricUMAP:
        """Become the estimator of a trained run."""
        self._run: Run | None = run
        self._take_encoder(run.encoder)
        self.embedding_ = run.embedding[:] if plain else run.embedding
        return self

    def _take_encoder(self, encoder: Encoder) -> None:
        for name in ("embedding_", "classes_"):
            self.__dict__.pop(name, None)  # Of an earlier fit.
        self.encoder_, self.n_features_in_ = encoder, encoder.model.columns
        self.history_ = list(encoder.history)
        if encoder.classes:
            self.classes_ = np.array(encoder.classes)

    def transform(self, X: Any, out: Any = None, **where: Any) -> Any:
        """Map rows by the network.

        Parameters
        ----------
        X
            (m, D): rows as of `fit`.
        out
            Path or URL of a run store for the result; an unfinished one of the same rows goes on.
        **where
            `client`, `cluster`, `memory` and `threads` as of `daskumap.transform`, for rows that are not in
            memory.

        Returns
        -------
        array
            (m, n_components) float32: of NumPy's for rows in memory, a dask array for one of dask's, which
            computes nothing yet, and else, and with `out`, a `zarr.Array`.
        """
        return self._through("encode", X, out, where)

    def inverse_transform(self, X: Any, out: Any = None, **where: Any) -> Any:
        """Decode points of the map, (m, n_components), to rows, (m, D). Arguments as of `transform`.

        Raises
        ------
        ParameterError
            If there is no decoder.
        """
        check_is_fitted(self, "encoder_")
        points = check_array(X, ensure_all_finite=False) if _is_plain(X) else X
        return self.encoder_.made_of("decode", points, out, **self._where(where))

    def predict_proba(self, X: Any, out: Any = None, **where: Any) -> Any:
        """Return the probability of each of `classes_` for rows. Arguments as of `transform`.

        Raises
        ------
        ParameterError
            If there were no labels.
        """
        return self._through("predict", X, out, where)

    def predict(self, X: Any, out: Any = None, **where: Any) -> Any:
        """Return the most probable class of rows. Arguments as of `transform`.

        In a `zarr.Array` classes that have names are numbers: places in `classes_`.

        Raises
        ------
        ParameterError
            If there were no labels.
        """
        check_is_fitted(self, "encoder_")
        return self.encoder_.labels_of(self._checked(X), out, **self._where(where))

    def _through(self, encodes: str, X: Any, out: Any, where: dict[str, Any]) -> Any:
        check_is_fitted(self, "encoder_")
        return self.encoder_.made_of(encodes, self._checked(X), out, **self._where(where))

    def _where(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"progress": bool(self.verbose), **given}

    @property
    def run_(self) -> Run:
        """The run of the training."""
        check_is_fitted(self, "encoder_")
        run: Run | None = self._run
        if run is None:
            raise AttributeError("A model that was loaded has no run, but the network alone.")
        return run

    def save(self, path: Any) -> None:
        """Write the network and the parameters to a Zarr group of arrays and text.

        Parameters
        ----------
        path
            Path or URL, where nothing is yet.
        """
        from daskumap.store.places import find_place

        check_is_fitted(self, "encoder_")
        names = getattr(self, "feature_names_in_", None)
        model = dataclasses.replace(self.encoder_.model, features=None if names is None else tuple(names))
        model.save(find_place(path))

    @classmethod
    def load(cls, path: Any, encoder: Any = None, decoder: Any = None) -> ParametricUMAP:
        """Return the estimator that was saved, or that of a trained run.

        Parameters
        ----------
        path
            Path or URL of what `save` wrote, or of a run of `daskumap.train`.
        encoder, decoder
            The modules, where the network is one of the caller's: a model has no code. None else.

        Raises
        ------
        StoreError
            If there is none, it is damaged, or a later version wrote it.
        ParameterError
            If weights do not fit the module.
        """
        from daskumap.encoder import Encoder

        found = Encoder.open(path, encoder, decoder)
        modules = {"encoder": encoder, "decoder": decoder}
        given = {name: module for name, module in modules.items() if module is not None}
        loaded = cls(**{**_parameters_of(found, inspect.signature(cls).parameters), **given})
        loaded._run = None
        loaded._take_encoder(found)
        if found.model.features is not None:
            loaded.feature_names_in_ = np.array(found.model.features, object)
        return loaded

    def export_onnx(self, path: str | Path) -> list[Path]:
        """Write the network as ONNX, and return the files: see `daskumap.Encoder.export_onnx`."""
        check_is_fitted(self, "encoder_")
        return self.encoder_.export_onnx(path)

    @property
    def _n_features_out(self) -> int:
        return int(self.encoder_.model.components)

    def _source(self, X: Any, reset: bool) -> tuple[Source, bool]:
        """Return the rows, and whether they are in memory; keep the columns' number and names."""
        from daskumap.sources.find import find

        return find(self._checked(X, reset)), _is_plain(X)

    def _checked(self, X: Any, reset: bool = False) -> Any:
        """Return rows with the columns of the fit; whether they are finite is found out as they are read."""
        from daskumap.sources.find import find

        if np.ma.isMaskedArray(X):
            find(X)  # It refuses what scikit-learn would take without its mask.
        if _is_plain(X):
            return validate_data(
                self, X, accept_sparse=True, dtype="numeric", ensure_all_finite=False, reset=reset
            )
        validate_data(self, find(X), skip_check_array=True, reset=reset)
        return X

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.classifier_tags = ClassifierTags()  # It can predict, and is no classifier first.
        tags.input_tags.sparse = True
        return tags


def graph_place(run: Any) -> Any:
    """Return where the graph of a fit lies, by where its training lies: beside it; in memory for the rest.

    >>> graph_place("runs/a.zarr"), graph_place("s3://bucket/a/")
    ('runs/a-graph.zarr', 's3://bucket/a-graph')
    """
    if not isinstance(run, str | Path):
        return None
    text = str(run).rstrip("/")
    stem = text.removesuffix(".zarr")
    return f"{stem}-graph{text[len(stem) :]}"


def _is_plain(X: Any) -> bool:
    from daskumap.sources.find import is_plain

    return is_plain(X)


def _truncated(n_neighbors: Any, rows: int) -> Any:
    """Return the neighbours that so many rows can have, with umap-learn's warning where these are fewer."""
    if not isinstance(n_neighbors, int | np.integer) or rows > n_neighbors:
        return n_neighbors
    warnings.warn(
        f"n_neighbors is larger than the dataset size ({n_neighbors} of {rows} rows); truncating to "
        f"X.shape[0] - 1.",
        UserWarning,
        stacklevel=5,
    )
    return max(2, rows - 1)


def _parameters_of(encoder: Encoder, known: Any) -> dict[str, Any]:
    """Return the parameters of the training, but for functions and arrays, which a model does not keep."""
    given = {**encoder.params, **encoder.params["encoder"]}
    given |= {"hidden": tuple(given["hidden"]), "vr_delta": float(given["vr_delta"])}
    lost = [name for name, value in given.items() if name in known and _is_lost(name, value)]
    if set(lost) - {"encoder", "decoder"}:
        warnings.warn(
            f"A model has no functions and arrays: {', '.join(lost)} have their defaults. What the network "
            "does is the same; set them before refit.",
            UserWarning,
            stacklevel=3,
        )
    return {name: given[name] for name in known if name in given and name not in lost}


def _is_lost(name: str, value: Any) -> bool:
    """Return whether a parameter is what stands for a function, a module or arrays in JSON."""
    parts = value if isinstance(value, list) else [value]
    return (name == "precomputed_knn" and value is not None) or any(
        str(part).startswith(("callable:", "module:", "array(")) for part in parts
    )
