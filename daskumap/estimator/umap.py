"""`UMAP`: umap-learn's estimator over daskumap's fits, in memory and out of core."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted, validate_data

from daskumap.api import fit, is_run
from daskumap.estimator.accept import fit_options
from daskumap.estimator.adopt import map_of, parameters_of
from daskumap.mixin import OwnEstimator
from daskumap.params import PRECOMPUTED, Params, explicit
from daskumap.run import Run
from daskumap.sources.base import Source
from daskumap.sources.distances import find_distances
from daskumap.sources.find import find, is_plain
from daskumap.sources.objects import is_sparse
from daskumap.views import Transformed, View

Array = np.ndarray[Any, Any]


class UMAP(OwnEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Uniform Manifold Approximation and Projection, with umap-learn's names, order, meanings and defaults.

    `docs/compatibility.md` goes through them one by one. In this version those about supervision and
    densMAP are refused with another value than the default.

    Parameters
    ----------
    n_neighbors
        Neighbours a row is joined to, itself counted. Lowered, with a warning, to one less than there are
        rows.
    n_components
        Columns of the map.
    metric, metric_kwds
        A name, or a function of two rows that numba can compile; and its keywords, by name. "precomputed":
        rows are distances, (n, n), and new ones are distances to all rows that were fitted, (m, n).
    n_epochs
        Epochs of the layout; None: 500 up to 10,000 rows and 200 above. 0: the start is the map. A list: the
        map after each of these epochs is kept.
    output_metric, output_metric_kwds
        Metric of the map: a name, or a function of two rows that returns distance and gradient; and its
        keywords. See `daskumap.fit`.
    learning_rate
        Scales the steps of the layout.
    init
        "spectral", "tswspectral" (the same), "pca", "random", an array (n, n_components), or a run or where
        one is, whose map is the start.
    min_dist, spread, a, b
        How close points may lie, and the scale of the map; or the curve 1 / (1 + a r^2b) itself.
    set_op_mix_ratio, local_connectivity
        1 is the fuzzy union of both directions of an edge, 0 the intersection; and the neighbours that count
        as fully connected.
    repulsion_strength, negative_sample_rate
        Factor of the repulsion; and random rows that push, for each edge that pulls.
    random_state
        The seed, a NumPy generator, or None for NumPy's own one. The same seed gives the same bits whatever
        `n_jobs` is.
    n_jobs
        Threads of this process; -1: as many as suit the data, or the workers of the active Dask client.
    verbose
        Show on standard error how far the fit is.
    transform_mode
        "graph": the result is `graph_`, without `embedding_`, and `transform` returns the memberships of new
        rows' edges to those that were fitted, `scipy.sparse.csr_matrix` (m, n).
    unique
        Exact copies of a row cost no neighbours and get the place of the first one.
    disconnection_distance
        From this distance on two rows are not joined.
    precomputed_knn
        Neighbours that are known: (indices, distances), (n, k) arrays with each row itself first or without;
        a sparse matrix of distances; the path of a Zarr group with both; or a run of the same rows. A third
        member of a tuple, umap-learn's search index, is not needed.
    low_memory, angular_rp_forest, force_approximation_algorithm, tqdm_kwds, transform_queue_size, \
transform_seed
        Accepted with a warning: without effect.
    target_n_neighbors, target_metric, target_metric_kwds, target_weight, densmap, dens_lambda, dens_frac, \
dens_var_shift, output_dens
        Not in this version.
    run
        Path or URL of the run store that a fit makes or goes on with; None: in memory, or in a temporary
        folder that goes with the estimator. See `daskumap.fit`.
    client
        Address or file of a Dask scheduler; "threads" or "sequential"; None: the active client, or this
        process.
    cluster
        In place of `client`: a cluster file, or its content as a dict, which is started for each call.
    memory
        Bytes a worker process may use, such as "4GB".
    optimizer, reconcile_every, target_recall, max_overlap, max_cell_rows, checkpoint_every, report, keep, \
missing
        As of `daskumap.fit`.
    undefined
        What becomes of rows on which the metric is not defined, such as rows of zeros under "cosine": "apart"
        follows umap-learn's rule, with a warning; "isolate" makes them NaN; "refuse" refuses them.
    membership, calibration
        How memberships fall with distance: "exponential" as in umap-learn, "gaussian", "quadratic", "morse",
        "harmonic", "constant", or a pair of numba functions; and whether the "exponential" or the "kernel"
        itself sets the bandwidths. See `daskumap.fit`.
    alpha
        The weight of the repulsion in the loss, in place of `repulsion_strength`. See `daskumap.fit`.
    simplices, vr_delta
        Weigh the edges of `graph_` by the triangles, or tetrahedra too, that they are in. As of
        `daskumap.fit`.

    Attributes
    ----------
    embedding_
        The map, (n, n_components) float32 in the rows' order: in memory, or a `zarr.Array` where the rows
        were not. Rows without any neighbour are NaN.
    embedding_list_
        Where `n_epochs` is a list, the map after each of these epochs, ascending; (m, n, n_components) as a
        `zarr.Array` where the rows were not in memory.
    run_
        The run that the fit made: its report, neighbours, `save`, and `fit_distance` of new rows.
    graph_
        The memberships of edges, `scipy.sparse.csr_matrix`, read from the run at each access.
    n_features_in_, feature_names_in_
        As of all estimators.
    """

    @explicit
    def __init__(
        self,
        n_neighbors: int = 15,
        n_components: int = 2,
        metric: Any = "euclidean",
        metric_kwds: dict[str, Any] | None = None,
        output_metric: Any = "euclidean",
        output_metric_kwds: dict[str, Any] | None = None,
        n_epochs: Any = None,
        learning_rate: float = 1.0,
        init: str | Array = "spectral",
        min_dist: float = 0.1,
        spread: float = 1.0,
        low_memory: bool = True,
        n_jobs: int = -1,
        set_op_mix_ratio: float = 1.0,
        local_connectivity: float = 1.0,
        repulsion_strength: float = 1.0,
        negative_sample_rate: int = 5,
        transform_queue_size: float = 4.0,
        a: float | None = None,
        b: float | None = None,
        random_state: Any = None,
        angular_rp_forest: bool = False,
        target_n_neighbors: int = -1,
        target_metric: Any = "categorical",
        target_metric_kwds: dict[str, Any] | None = None,
        target_weight: float = 0.5,
        transform_seed: int = 42,
        transform_mode: str = "embedding",
        force_approximation_algorithm: bool = False,
        verbose: bool = False,
        tqdm_kwds: dict[str, Any] | None = None,
        unique: bool = False,
        densmap: bool = False,
        dens_lambda: float = 2.0,
        dens_frac: float = 0.3,
        dens_var_shift: float = 0.1,
        output_dens: bool = False,
        disconnection_distance: float | None = None,
        precomputed_knn: Any = (None, None, None),
        *,
        run: Any = None,
        client: Any = None,
        cluster: Any = None,
        memory: str | int | None = None,
        optimizer: str = "adam",
        reconcile_every: int = 1,
        target_recall: float = 0.95,
        max_overlap: int = 6,
        max_cell_rows: int | None = None,
        checkpoint_every: int = 50,
        report: bool = False,
        keep: str = "graph",
        missing: str = "fill",
        undefined: str = "apart",
        membership: Any = "exponential",
        calibration: str = "exponential",
        alpha: float | None = None,
        simplices: int = 1,
        vr_delta: float = math.inf,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.n_components = n_components
        self.metric = metric
        self.metric_kwds = metric_kwds
        self.output_metric = output_metric
        self.output_metric_kwds = output_metric_kwds
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.init = init
        self.min_dist = min_dist
        self.spread = spread
        self.low_memory = low_memory
        self.n_jobs = n_jobs
        self.set_op_mix_ratio = set_op_mix_ratio
        self.local_connectivity = local_connectivity
        self.repulsion_strength = repulsion_strength
        self.negative_sample_rate = negative_sample_rate
        self.transform_queue_size = transform_queue_size
        self.a = a
        self.b = b
        self.random_state = random_state
        self.angular_rp_forest = angular_rp_forest
        self.target_n_neighbors = target_n_neighbors
        self.target_metric = target_metric
        self.target_metric_kwds = target_metric_kwds
        self.target_weight = target_weight
        self.transform_seed = transform_seed
        self.transform_mode = transform_mode
        self.force_approximation_algorithm = force_approximation_algorithm
        self.verbose = verbose
        self.tqdm_kwds = tqdm_kwds
        self.unique = unique
        self.densmap = densmap
        self.dens_lambda = dens_lambda
        self.dens_frac = dens_frac
        self.dens_var_shift = dens_var_shift
        self.output_dens = output_dens
        self.disconnection_distance = disconnection_distance
        self.precomputed_knn = precomputed_knn
        self.run = run
        self.client = client
        self.cluster = cluster
        self.memory = memory
        self.optimizer = optimizer
        self.reconcile_every = reconcile_every
        self.target_recall = target_recall
        self.max_overlap = max_overlap
        self.max_cell_rows = max_cell_rows
        self.checkpoint_every = checkpoint_every
        self.report = report
        self.keep = keep
        self.missing = missing
        self.undefined = undefined
        self.membership = membership
        self.calibration = calibration
        self.alpha = alpha
        self.simplices = simplices
        self.vr_delta = vr_delta

    def fit(self, X: Any, y: Any = None, ensure_all_finite: bool = True) -> UMAP:
        """Find the map of the rows.

        Parameters
        ----------
        X
            (n, D): an array, a DataFrame or nested lists; or, larger than memory, what `daskumap.fit` takes:
            the path or URL of a Zarr array, a `zarr.Array`, a dask array, and SciPy's sparse ones. A finished
            run, or the path of one, stands for its rows and its neighbours, which are not searched again; the
            parameters are those of the estimator.
        y
            Accepted, as scikit-learn's pipelines pass it, with a warning: the map does not depend on it.
        ensure_all_finite
            True refuses NaN and infinity. "allow-nan" leaves rows with NaN, and False those with infinity
            too, to a metric that is a function; it has to return a finite number for them.

        Raises
        ------
        DaskumapError
            As of `daskumap.fit`; also for a parameter with a value that is not in this version.
        """
        options = fit_options({**self.get_params(deep=False), "ensure_all_finite": ensure_all_finite})
        if is_run(X):
            return self._fit_neighbors(X, y, options)
        source, plain = self._source(X)
        rows = source.shape[0]
        if y is not None:
            _warn_of_labels(y, rows)
        if rows == 1 and plain:  # as umap-learn: a map of one row is its origin
            self._run: Run | None = None
            self.embedding_ = np.zeros((1, self.n_components), np.float32)
            return self
        options["n_neighbors"] = _truncated(self.n_neighbors, rows)
        run = fit(source, **options)
        self._warn_of_undefined(run, rows)
        return self._take(run, options, plain)

    def _fit_neighbors(self, run: Any, y: Any, options: dict[str, Any]) -> UMAP:
        """Find the map of a run's rows by its neighbours."""
        del options["undefined"]  # What became of such rows is of the search, as that run has it.
        made = fit(run, **options)
        sizes = made.store.about["sizes"]
        if y is not None:
            _warn_of_labels(y, sizes["rows"])
        self.n_features_in_ = sizes["columns"]
        return self._take(made, options, plain=made.store.about["spec"] is None)

    def _take(self, run: Run, options: dict[str, Any], plain: bool) -> UMAP:
        """Become the estimator of a run."""
        self._run, self._n_neighbors = run, options["n_neighbors"]
        curve = {name: options[name] for name in ("a", "b", "min_dist", "spread")}
        self._a, self._b = Params(**curve).curve()
        for name in ("embedding_", "embedding_list_", "n_epochs_list"):
            self.__dict__.pop(name, None)  # Of an earlier fit.
        if self.transform_mode == "graph":
            return self
        self.embedding_ = run.embedding[:] if plain else run.embedding
        if isinstance(run.params["n_epochs"], list):
            self.n_epochs_list = list(self.n_epochs)
            self.embedding_list_ = list(run.embedding_list[:]) if plain else run.embedding_list
        return self

    def fit_transform(self, X: Any, y: Any = None, ensure_all_finite: bool = True) -> Any:
        """Find the map of the rows and return it: `embedding_`, or `graph_`. Arguments as in `fit`."""
        self.fit(X, y, ensure_all_finite)
        return self.graph_ if self.transform_mode == "graph" else self.embedding_

    def transform(self, X: Any, ensure_all_finite: bool = True) -> Any:
        """Place new rows into the map: see `daskumap.transform`. Arguments as in `fit`."""
        check_is_fitted(self)
        options = fit_options({**self.get_params(deep=False), "ensure_all_finite": ensure_all_finite})
        source, plain = self._source(X, reset=False)
        where = {name: options[name] for name in ("client", "cluster", "memory", "threads", "progress")}
        run = self._fitted()
        placed = run.transform(source, ensure_all_finite=ensure_all_finite, **where)
        self._warn_of_undefined(placed, source.shape[0])
        if isinstance(placed, Transformed) and run.params["transform_mode"] == "graph":
            return placed.graph()
        return placed.embedding[:] if plain else placed.embedding

    def inverse_transform(self, X: Any) -> Any:
        """Find a row of the data for each point of the map: see `daskumap.inverse_transform`.

        Parameters
        ----------
        X
            (m, n_components): points of the map, as `fit` takes rows.
        """
        check_is_fitted(self)
        options = fit_options(self.get_params(deep=False))
        plain = is_plain(X)
        points = find(check_array(X, ensure_all_finite=False) if plain else X)
        where = {name: options[name] for name in ("client", "cluster", "memory", "threads", "progress")}
        found = self._fitted().inverse_transform(points, **where)
        return found.rows[:] if plain else found.rows

    def to_umap(self) -> Any:
        """Return a fitted `umap.UMAP` of umap-learn's with this map: see `daskumap.Run.to_umap`."""
        return self._fitted().to_umap()

    @classmethod
    def from_umap(cls, fitted: Any, **own: Any) -> UMAP:
        """Return an estimator with the map of a fitted one of umap-learn's, whose `transform` is ours.

        Cells and neighbours are found from its rows; its map is taken as it is.

        Parameters
        ----------
        fitted
            A fitted `umap.UMAP` of dense rows.
        **own
            Keywords of daskumap's own, such as `run`, `client` and `memory`; and parameters to change.

        Raises
        ------
        ParameterError
            If it is not fitted, or not to dense rows; or for a parameter that is not in this version.
        """
        model = cls(**{**parameters_of(fitted, cls), **own})
        options = fit_options({**model.get_params(deep=False), "ensure_all_finite": True}) | map_of(fitted)
        source, plain = model._source(fitted._raw_data)
        return model._take(fit(source, **options), options, plain)

    @property
    def run_(self) -> Run:
        """The run that the fit made."""
        return self._fitted()

    @property
    def graph_(self) -> Any:
        """The memberships of edges: see `daskumap.Run.graph`."""
        return self._fitted().graph()

    @property
    def _rhos(self) -> Array:
        return self._fitted().calibration()[0]

    @property
    def _sigmas(self) -> Array:
        return self._fitted().calibration()[1]

    @property
    def _knn_indices(self) -> Array:
        return self._knn()[0]

    @property
    def _knn_dists(self) -> Array:
        return self._knn()[1]

    @property
    def knn_indices(self) -> Array | None:
        """The neighbours that were given, as many as count, each row itself first; None if searched."""
        return self._knn()[0] if self._has_given() else None

    @property
    def knn_dists(self) -> Array | None:
        """The distances of the neighbours that were given; None if they were searched."""
        return self._knn()[1] if self._has_given() else None

    def _knn(self) -> tuple[Array, Array]:
        """Return neighbours and distances, (n, n_neighbors), as umap-learn has them: the row itself first."""
        indices, distances = self._fitted().knn()
        own, zero = np.arange(len(indices))[:, None], np.zeros((len(indices), 1), distances.dtype)
        return np.hstack([own, indices]), np.hstack([zero, distances])

    def _has_given(self) -> bool:
        return self._fitted().params.get("precomputed_knn") is not None

    @property
    def _unique_inverse_(self) -> Array:
        return self._fitted().inverse()

    @property
    def _n_features_out(self) -> int:
        return int((self.embedding_ if hasattr(self, "embedding_") else self.graph_).shape[1])

    def _source(self, X: Any, reset: bool = True) -> tuple[Source, bool]:
        """Return the rows, and whether they are a plain array in memory; keep the columns' number and names.

        Whether all values are finite is found out by the fit, in the pass that it makes anyway.
        """
        plain = is_plain(X)
        if np.ma.isMaskedArray(X):
            find(X)  # It refuses what scikit-learn would take without its mask.
        if self.metric == PRECOMPUTED and is_sparse(X):
            source = find_distances(X)
            validate_data(self, source, skip_check_array=True, reset=reset)
            return source, True
        if plain:
            checked = validate_data(
                self, X, accept_sparse=True, dtype="numeric", ensure_all_finite=False, reset=reset
            )
            return find(checked), True
        source = find(X)
        validate_data(self, source, skip_check_array=True, reset=reset)
        return source, False

    def _warn_of_undefined(self, found: View, rows: int) -> None:
        """Say how many rows the metric is not defined on, and what became of them."""
        count = found.undefined_rows
        if count:
            alone = self.undefined == "isolate"
            place = "have no place on the map" if alone else "are 0 from one another and 1 from all others"
            warnings.warn(
                f"The metric {self.metric!r} is not defined on {count:,} of {rows:,} rows, as on rows of "
                f"zeros: they {place}. Leave them out, or see the parameter undefined.",
                UserWarning,
                stacklevel=3,
            )

    def _fitted(self) -> Run:
        check_is_fitted(self)
        run: Run | None = self._run
        if run is None:
            raise AttributeError("A map of one row has no graph. Fit 3 rows or more.")
        return run

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == PRECOMPUTED
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.sparse = True
        return tags


def _warn_of_labels(y: Any, rows: int) -> None:
    check_consistent_length(range(rows), y)
    warnings.warn(
        "y has no effect: supervision is not in this version of daskumap, and the map is that of X alone. "
        "Leave y out, or use umap-learn for a supervised map.",
        UserWarning,
        stacklevel=3,
    )


def _truncated(n_neighbors: Any, rows: int) -> Any:
    """Return the neighbours that so many rows can have, with umap-learn's warning where these are fewer."""
    if isinstance(n_neighbors, int | np.integer) and rows <= n_neighbors:
        warnings.warn(
            f"n_neighbors is larger than the dataset size ({n_neighbors} of {rows} rows); truncating to "
            f"X.shape[0] - 1.",
            UserWarning,
            stacklevel=3,
        )
        return max(2, rows - 1)
    return n_neighbors
