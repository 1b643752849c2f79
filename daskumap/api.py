"""What a script calls: `fit`, `transform`, `inverse_transform`, `diagnose`, `plan`, `open`, `resume`, ..."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.cleaning import Kept, clean_run, kept_by
from daskumap.clusters import choose, resources_of
from daskumap.driver import survey
from daskumap.encoder import Encoder
from daskumap.engine.clusters import make_engine
from daskumap.engine.machine import parse_memory, plan_resources
from daskumap.errors import ParameterError, StoreError
from daskumap.kernels.speed import measure_speed
from daskumap.opening import (
    find_damaged_copy,
    forget_copy,
    open_to_look,
    steps_in,
    without_init,
)
from daskumap.params import PRECOMPUTED, explicit
from daskumap.planning.plan import Plan
from daskumap.report.progress import Progress, choose_progress
from daskumap.request import Request, make_again_request, make_request
from daskumap.run import Run, start_of, view
from daskumap.session import (
    fit_request,
    resume_run,
)
from daskumap.store import schema
from daskumap.store.lock import alone
from daskumap.store.model import find_model
from daskumap.store.places import find_place
from daskumap.store.run import RunStore, is_run_store
from daskumap.train_request import make_train_request
from daskumap.views import Decoded, Encoded, Inverted, Predicted, Transformed, View


@explicit
def fit(
    data: Any,
    run: Any = None,
    *,
    client: Any = None,
    cluster: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    partitions: int | None = None,
    progress: bool | Progress = True,
    restart: bool = False,
    take_over: bool = False,
    trust_input: bool = False,
    **params: Any,
) -> Run:
    """Embed the rows of an array, which may be larger than memory.

    Parameters
    ----------
    data
        (n, D): path or URL of a Zarr array (v2 or v3, any chunks), a `zarr.Array`, a NumPy array, a sparse
        matrix or array of SciPy's, whose rows are made dense block by block, or a dask array. Or a finished
        `Run`, or its path or URL: then its neighbours are not searched again, and parameters that are not
        given are those of that run. What is the same is copied, so that either run may be deleted afterwards;
        the graph is made anew with another `set_op_mix_ratio`, `local_connectivity`, `membership`,
        `calibration`, `simplices` or `vr_delta`, fewer `n_neighbors` or a lower `disconnection_distance`.
        Parameters of the search cannot be others.
        With metric="precomputed" (n, n): the distances between all rows, sparse ones too. Pairs at distance
        inf, or of which none is stored, are no neighbours.
    run
        Path or URL of the run store, or a Zarr store. If it holds an unfinished run of the same input and
        parameters, that run goes on. None: for an array in memory the run store is in memory while it takes
        at most a quarter of what the process may use; else it is a temporary folder, which goes when the
        returned object does.
    client
        `distributed.Client`, cluster, scheduler address or scheduler file; "threads" or "sequential" for this
        process. None: the active Dask client, or else the threads of this process. The result is the same,
        bit for bit.
    cluster
        In place of `client`: a cluster file, or its content as a dict. What it describes is started, and
        closed when the run ends.
    memory
        Bytes a worker process may use, such as "4GB". None: the workers' own limits; in this process, 60 % of
        the machine.
    threads
        Threads of this process.
    partitions
        Vertex partitions of the layout. None: over as many workers as make it fastest.
    progress
        Show how far the run is on standard error; or an object with `start`, `advance` and `finish`.
    restart
        Delete the run that is there, if any, and start over. Refused where another process works on it, and
        where something else than a run store lies.
    take_over
        Take the run store from another process, which may be alive: what that one does from now on does not
        count, and it stops. Needed where its lock is dated by a wrong clock.
    trust_input
        Go on with a run, or return a finished one, without reading the input again to see that no value of it
        changed since it was scanned.
    **params
        umap-learn's `n_neighbors`, `n_components`, `metric`, `metric_kwds`, `output_metric`,
        `output_metric_kwds`, `n_epochs`, `learning_rate`, `init` ("pca", "spectral", "tswspectral", "random",
        an array, or a run, whose map is the start; a text with a slash or an end of .zarr, and a `Path`, is
        where a run is),
        `min_dist`, `spread`, `a`, `b`, `set_op_mix_ratio`, `local_connectivity`, `repulsion_strength`,
        `negative_sample_rate`, `disconnection_distance`, `transform_mode`, `random_state`; and `optimizer`
        ("adam", "sgd", or "none" for the map that `init` is, so that `transform` places rows into any map),
        `reconcile_every`, `target_recall`, `max_overlap`, `max_cell_rows`, `checkpoint_every`. Adam moves all
        vertices twice an epoch, each time as an iteration; with `reconcile_every` iterations above 1 the
        result depends on `partitions`.
        `n_epochs=0` leaves rows where they start, and a list keeps the map after each of these epochs
        (`Run.embedding_list`). `output_metric` is the metric of the map: "haversine" (angle from the pole and
        longitude), "hyperboloid", "torus" (with `torus_dimensions`, the length of each way round) and all
        others that umap-learn has gradients of but "hellinger" and "symmetric_kl"; or a function of two rows
        that numba can compile, which returns their distance and its gradient by the first one's coordinates.
        A run with a function is continued by `fit` alone. And umap-learn's `unique`: exact duplicates of a
        row cost no neighbours; the map is that of the distinct rows, and each duplicate gets the position of
        its first occurrence.
        With `transform_mode="graph"` a run ends with `Run.graph`, and so does a transform of new rows.
        `report=False` leaves out the measures and the picture. `keep` says what stays in the run store:
        "graph" (default) all but scratch, which goes when its last reader is done; "model" what `transform`
        needs, without neighbours and graph; "embedding" the map and the report alone; or "all".
        `missing="refuse"` refuses a Zarr array that lacks chunks; "fill" (default) reads them as its fill
        value, since Zarr leaves out what is all fill value, and the report counts them.
        `precomputed_knn` are neighbours that are known: a pair of row ids and distances, (n, k) each,
        ascending and with each row itself first, as umap-learn has them, or without; a sparse matrix (n, n)
        of distances; the path of a Zarr group with the arrays indices and distances, read by block; or a run
        of the same data, as in the place of data.
        `undefined` says what becomes of rows on which the metric is not defined, such as rows of zeros under
        "cosine": "refuse" (default); "isolate" leaves them out of the map, where they are NaN, and the report
        counts them; "apart" puts those without a direction at distance 0 from one another and 1 from all
        others, as umap-learn does. `ensure_all_finite="allow-nan"`, or False for infinity too, leaves rows
        with such values to a metric that is a function.
        `membership` says how the membership p of a neighbour falls with x, which is how much farther than the
        nearest one it is, for a row of bandwidth y: "exponential" (umap-learn's, e^(-x/y)), "gaussian",
        "quadratic" (y^2 / (x^2 + y^2)), "morse" (y e^-x (2 - e^-x)), "harmonic" (1 + y x^2 / 2), "constant"
        (1); or a pair of functions that numba can compile, `weight(x, y)` and `solve(gaps, target)`, which
        returns y, with None in the place of the second where p grows with y. Memberships of "morse" and
        "harmonic" may be above 1, and compare distances with 1: scale the data. `calibration` says whose
        memberships y makes sum to log2(n_neighbors): "exponential" (default), or those of the "kernel"
        itself, which "harmonic" cannot. `alpha`, in place of `repulsion_strength`, is the weight of pairs
        that no edge joins in the loss H(X, Y) + alpha H(not X, Y); the report has what it is without
        (`implied_alpha`).
        `simplices=2` weighs each edge by the triangles of the graph that it is in, 3 by tetrahedra too; 1
        (default) leaves the fuzzy union. A simplex weighs 1 - prod(1 - w) over its edges, and an edge the
        geometric mean over its simplices, so that what many neighbours share pulls harder and what bridges
        two parts keeps its weight. `vr_delta` bounds the local distance -log(w) of edges that form simplices;
        inf (default): all do; without simplices it has no effect and is refused. Of a row with more than 512
        neighbours the heaviest edges do, and the report counts such rows. It is there to study weights from
        the Vietoris-Rips complex: on digits and Fashion-MNIST it makes maps no better, and it takes time. New
        rows of a transform are joined by memberships as ever.

    Returns
    -------
    Run
        Its `embedding` is a `zarr.Array` (n, n_components) float32 in the order of the input's rows.

    Raises
    ------
    SourceError, ParameterError, PlanError, RunMismatchError, StoreError, TaskError, ClusterError
        Each says what was seen, what is allowed and what to do.
    """
    shown, where = choose_progress(progress), choose(client, cluster)
    _check_switch("restart", restart)
    _check_switch("trust_input", trust_input)
    request = _request(data, run if not restart else None, params, partitions)
    engine = make_engine(where, parse_memory(memory), threads, request.source.shape[0])
    try:
        if isinstance(data, Run):
            data.refuse_out_of_reach(engine)
        store = fit_request(request, run, engine, shown, restart, take_over, trust_input)
    finally:
        engine.close()
    # Rows in memory that are in no run store stay with a run that keeps its model. Distances are not needed.
    wanted = request.params.keep != "embedding" and request.params.metric != PRECOMPUTED
    held = wanted and not store.has(schema.SOURCE.name)
    given = isinstance(request.params.init, np.ndarray)
    params_ = without_init(request.params) if given else request.params
    return Run(store, params_, request.source if held else None)


@explicit
def transform(
    run: Run | Encoder | str | Path,
    data: Any,
    out: Any = None,
    *,
    fitted: Any = None,
    ensure_all_finite: bool | str | None = None,
    client: Any = None,
    cluster: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
    restart: bool = False,
    take_over: bool = False,
    trust_input: bool = False,
) -> Transformed | Encoded:
    """Place new rows into the map of a finished run, as umap-learn's transform does, out of core.

    What becomes of a row depends on the row, the run and its seed alone: not on the rows beside it, their
    number or order, chunks, memory, workers or threads. A row that equals a fitted one gets that one's place.

    Where the run was trained (`daskumap.train`), its network maps the rows and the result is an `Encoded`: no
    neighbours are searched, and the rows that were fitted may be gone.

    Parameters
    ----------
    run
        A trained run or a saved `Encoder`, or its path or URL. Or a run fitted with any `keep` but
        "embedding", or saved: its input has to be where it was, unless it came from memory, when the run has
        it.
    data
        (m, D): new rows, as of `fit`, with the columns of those that were fitted. They are cast and moved as
        those were; rows that a fit would refuse are refused.
    out
        Path or URL of the result's run store, or a Zarr store. An unfinished transform of the same rows that
        is there goes on. None: in memory or a temporary folder, as of `fit`.
    fitted
        Path or URL of the rows that were fitted. None: what the run names, as in `resume`.
    ensure_all_finite
        As in `fit`; None: what the fit had.
    client, cluster, memory, threads, progress, restart, take_over, trust_input
        As in `fit`; `restart` is about the transform that is in `out`.

    Returns
    -------
    Transformed, Encoded
        Its `embedding` is a `zarr.Array` (m, n_components) float32 in the order of the new rows, NaN for rows
        that have no neighbour within `disconnection_distance`; with transform_mode="graph" it has `graph`
        instead, (m, n) memberships. Its `fit_distance`, (m,) float32 from 0 to 1,
        says how unlike the fitted rows each is; an `Encoded` has none.

    Raises
    ------
    SourceError, ParameterError, PlanError, RunMismatchError, StoreError, TaskError, ClusterError
        Each says what was seen, what is allowed and what to do.
    """
    model = _as_model(run)
    return model.transform(
        data,
        out,
        fitted=fitted,
        ensure_all_finite=ensure_all_finite,
        client=client,
        cluster=cluster,
        memory=memory,
        threads=threads,
        progress=progress,
        restart=restart,
        take_over=take_over,
        trust_input=trust_input,
    )


@explicit
def inverse_transform(
    run: Run | Encoder | str | Path,
    points: Any,
    out: Any = None,
    *,
    fitted: Any = None,
    client: Any = None,
    cluster: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
    restart: bool = False,
    take_over: bool = False,
    trust_input: bool = False,
) -> Inverted | Decoded:
    """Find a row of the data for each point of the map of a finished run, out of core.

    As umap-learn's: a row starts as the mean of the rows of the point's neighbours on the map, weighted by
    how near they are, and descends to where their memberships say. What becomes of a point depends on the
    point and the run alone: not on the points beside it, their number or order, chunks, memory, workers or
    threads.

    Parameters
    ----------
    run
        A run, or its path or URL, as of `transform`, with a metric that has a gradient.
    points
        (m, n_components): points of the map, as of `fit`; rows with NaN are refused.
    out
        Path or URL of the result's run store, or a Zarr store. An unfinished result of the same points that
        is there goes on. None: in memory or a temporary folder, as of `fit`.
    fitted
        Path or URL of the rows that were fitted. None: what the run names, as in `resume`.
    client, cluster, memory, threads, progress, restart, take_over, trust_input
        As in `fit`; `restart` is about the result that is in `out`.

    Returns
    -------
    Inverted, Decoded
        Its `rows` is a `zarr.Array` (m, D) in the order of the points and the unit of the data: float32, or
        float64 where float32 does not tell the fitted rows apart.

    Raises
    ------
    SourceError, ParameterError, PlanError, RunMismatchError, StoreError, TaskError, ClusterError
        Each says what was seen, what is allowed and what to do.
    """
    return _as_model(run).inverse_transform(
        points,
        out,
        fitted=fitted,
        client=client,
        cluster=cluster,
        memory=memory,
        threads=threads,
        progress=progress,
        restart=restart,
        take_over=take_over,
        trust_input=trust_input,
    )


@explicit
def predict(
    run: Run | Encoder | str | Path,
    data: Any,
    out: Any = None,
    *,
    client: Any = None,
    cluster: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
    restart: bool = False,
    take_over: bool = False,
    trust_input: bool = False,
) -> Predicted:
    """Classify rows by the network of a run that was trained with labels, out of core.

    Parameters
    ----------
    run
        A trained run or an `Encoder` that was saved, or the path or URL of one.
    data, out, client, cluster, memory, threads, progress, restart, take_over, trust_input
        As of `transform`.

    Returns
    -------
    Predicted
        Its `labels`, (m,) int64, and `probabilities`, (m, classes) float32, are in the order of the rows.

    Raises
    ------
    SourceError, ParameterError, PlanError, RunMismatchError, StoreError, TaskError, ClusterError
        Each says what was seen, what is allowed and what to do.
    """
    return _as_encoder(run).predict(
        data,
        out,
        client=client,
        cluster=cluster,
        memory=memory,
        threads=threads,
        progress=progress,
        restart=restart,
        take_over=take_over,
        trust_input=trust_input,
    )


@explicit
def diagnose(
    run: Run | str | Path, embedding: Any = None, *, a: float | None = None, b: float | None = None
) -> dict[str, float]:
    """Measure how well a map fits the graph of a finished run: its own map, or any other of the same rows.

    So maps of one graph can be compared, such as those of other programs. Sums are over unordered pairs of
    rows, in natural logarithms, with weights clipped to [0, 1] and 1 - v at least 1e-4: exact over edges, and
    sampled beyond. Copies of a row count once with `unique`, at the place of the first; rows without
    neighbours do not count. It works in this process, with the places of all rows and a partition of the
    graph in memory, and gives the same bits whatever memory and workers the run had.

    Parameters
    ----------
    run
        A run, or its path or URL, fitted with keep="graph", the default, or "all".
    embedding
        (n, d) in the order of the run's input, with any number of columns: an array, a `Run` of the same
        rows, or the path or URL of one, of a Zarr array or of a NumPy file. None: the run's own map. Rows
        without neighbours may be NaN. That the order is that of the input cannot be seen for sure: a warning
        tells of a map whose edges are no shorter than other pairs.
    a, b
        Of the map's curve v = 1 / (1 + a r^2b), both or none. None: those of a `Run` that is given, else
        those of this run. umap-learn's are in `_a` and `_b`.

    Returns
    -------
    dict
        "attraction" and "edge_repulsion", the sums over edges of -w log v and -(1 - w) log(1 - v), which add
        up to "cross_entropy"; "graph_entropy", what of it no map can take away, and "kl_divergence", the
        rest, which the least 1 - v may take 1e-4 an edge below 0; "non_edge_repulsion", the sum over all
        other pairs of -log(1 - v), with its standard error "non_edge_repulsion_se"; "effective_loss", the
        attraction and the repulsion of all pairs as often as the layout of the run draws them;
        "bits_per_edge", the entropy of an edge; and, where calibration looked, "bits_per_vertex", the mean
        sum of a row's memberships, and "on_target", the share of the rows where it is log2(n_neighbors)
        within 1e-4.

    Raises
    ------
    ParameterError, SourceError, StoreError
        Each says what was seen, what is allowed and what to do. A run without its graph, and a map with an
        `output_metric` other than the plane's, are refused.

    References
    ----------
    Kolpakov, Rocke (2024), The Information Geometry of UMAP; Damrich, Hamprecht (2021).
    """
    return _as_run(run).diagnose(embedding, a=a, b=b)


@explicit
def resume(
    run: Any,
    *,
    data: Any = None,
    client: Any = None,
    cluster: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
    take_over: bool = False,
    trust_input: bool = False,
) -> View:
    """Go on with an unfinished run, from what its run store says of it. Other arguments as in `fit`.

    Parameters
    ----------
    data
        Path or URL of the run's input. None: what the run store names, which may be a path, or a URL of the
        same object store as the run's own. All else, and passwords and tokens, which are not stored, the
        caller has to name.

    Raises
    ------
    StoreError
        If there is no run, or one that only `fit` can continue: with a function as metric, or with data from
        memory that were not all brought into the store.
    RunMismatchError
        If other versions began it, or its input is another one now.
    """
    shown, where = choose_progress(progress), choose(client, cluster)
    _check_switch("trust_input", trust_input)
    store = RunStore.open(find_place(run))
    engine = make_engine(where, parse_memory(memory), threads, store.about["sizes"]["rows"])
    try:
        resume_run(store, data, engine, shown, take_over, trust_input)
    finally:
        engine.close()
    return view(store)


@explicit
def verify(run: Any, *, repair: bool = False) -> dict[str, list[str]]:
    """Read all that a run store holds against its checksums.

    Parameters
    ----------
    repair
        Mark what made the damaged parts as not done; `resume` then makes them again, to the same bits. What
        was freed and is needed for that is made again too. A copy of an input that came from memory is made
        again by the same `fit`.

    Returns
    -------
    dict
        What is damaged, by stage, and of the copy of the input as "input"; empty if all is well.
    """
    _check_switch("repair", repair)
    store = RunStore.open(find_place(run), mode="r+" if repair else "r")
    context = open_to_look(store)
    steps = steps_in(context)
    if not repair:
        return _with_copy(survey(context, steps, read=True).damage, find_damaged_copy(store))
    with alone(store) as turn:
        store.check_identity()
        found, copy = survey(context, steps, read=True), find_damaged_copy(store)
        turn.check()
        if found.damage or copy:
            found.begin(context, turn)
        if copy:
            forget_copy(store)
    return _with_copy(found.damage, copy)


@explicit
def clean(run: Any, keep: str | None = None) -> Kept:
    """Shrink a finished run to what a lower level of `keep` keeps, or say what each level would leave.

    Parameters
    ----------
    run
        A `Run`, the path or URL of a run store, or a Zarr store: of a fit, or what was made by one.
    keep
        "all", "graph", "model" or "embedding", as of `fit`. None: nothing is deleted. With a level above that
        of the run only what an earlier deletion left is deleted, which was cut short.

    Returns
    -------
    Kept
        `keep`, the level of the run now; `bytes` of all that the run store holds; `levels`, the bytes that
        each level from this one down leaves; `freed`, the bytes that were deleted.

    Raises
    ------
    StoreError
        If there is no run, it is unfinished or its result is damaged; a `LockedError` if another process
        works on it. Whoever reads from it, as a transform does, is not seen: wait for it.
    """
    if isinstance(run, Run):
        return run.clean(keep)
    store = RunStore.open(find_place(run), mode="r" if keep is None else "r+")
    return kept_by(store) if keep is None else clean_run(store, keep)


@explicit
def plan(
    data: Any,
    run: Run | str | Path | None = None,
    *,
    cluster: Any = None,
    memory: str | int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    partitions: int | None = None,
    calibrate: bool = True,
    inverse: bool = False,
    encoder: dict[str, Any] | None = None,
    **params: Any,
) -> Plan:
    """Plan a fit from metadata, a transform, an inverse or a training; starts nothing; `print` it.

    Arguments as in `fit`.

    Parameters
    ----------
    run
        A finished run, to plan the transform of the data into its map, or with `inverse` of points of it into
        rows. The data may be a run too, as of `fit`.
    cluster
        A cluster file, or its content, to plan for its workers. Nothing is started; one that runs already is
        asked.
    workers, threads
        Worker processes, 1 by default, and threads of each; of a cluster those that it does not say itself.
    encoder
        Arguments of `train`, {} for none, to plan the training of a network on the run that is the data.
    calibrate
        Time this machine's cores for a second or two, so that the estimates of time hold for workers like it;
        else they are those of the reference machine.

    Raises
    ------
    PlanError
        If the run cannot fit, with the setting to change.
    ParameterError, ClusterError
        If the cluster is none, does not say how large it is, or does not answer.
    """
    _check_switch("inverse", inverse)
    if encoder is not None and not isinstance(encoder, dict):
        raise ParameterError(
            f"encoder is {encoder!r}; it must be a dict of a training's parameters, such as {{}} or "
            "{'steps': 3000}."
        )
    if encoder is not None:
        rest = {"run": run, "partitions": partitions, **params}
        if inverse or any(value is not None for value in rest.values()):
            raise ParameterError("A training has the parameters that encoder names. Leave out all but data.")
        words = {"labels": None, "landmarks": None, **encoder}
        known = words.pop("labels"), words.pop("landmarks")
        request = make_train_request(_as_run(data).model(), words, *known)
    elif run is None and not inverse:
        request = _request(data, None, params, partitions)
    elif run is None:
        raise ParameterError("inverse is True and run is None; name the run whose map the points are from.")
    elif params or partitions is not None:
        raise ParameterError("A transform has the parameters of its run. Leave out all but data and run.")
    else:
        request = _as_model(run).request(data, inverse=inverse)
    if cluster is None:
        resources = plan_resources(memory, 1 if workers is None else workers, threads)
    else:
        resources = resources_of(cluster, memory, workers, threads)
    result = request.plan(resources, ingested=request.source.spec() is None)
    result.check()
    return dataclasses.replace(result, speed=measure_speed()) if calibrate else result


def open(path: str | Path) -> Any:
    """Open a run store: a `Run` of `fit` or `train`, or a result, such as a `Transformed` of `transform`.

    Of a saved network it is an `Encoder`.

    Raises
    ------
    StoreError
        If there is none.
    """
    place = find_place(path)
    model = find_model(place)
    return view(RunStore.open(place, mode="r")) if model is None else Encoder(model, place.url)


def export_onnx(run: Run | Encoder | str | Path, path: str | Path) -> list[Path]:
    """Write a trained network as ONNX, for other programs, and return the files.

    Parameters
    ----------
    run
        A trained run or an `Encoder` that was saved, or the path or URL of one.
    path
        See `daskumap.onnx_export.export`.

    Raises
    ------
    DependencyError, StoreError
        If the package onnx is missing, there is no such network, or the file cannot be written.
    """
    return _as_encoder(run).export_onnx(path)


def _as_model(run: Run | Encoder | str | Path) -> Run | Encoder:
    """Return what new rows are placed by: a run, or a network alone."""
    if isinstance(run, Run | Encoder):
        return run
    place = find_place(run)
    model = find_model(place)
    return Run(RunStore.open(place, mode="r")) if model is None else Encoder(model, place.url)


def _as_encoder(run: Run | Encoder | str | Path) -> Encoder:
    model = _as_model(run)
    return model if isinstance(model, Encoder) else model.encoder


def _as_run(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run(RunStore.open(find_place(run), mode="r"))


def _request(data: Any, out: Any, params: dict[str, Any], partitions: int | None) -> Request:
    """Return what is asked for: a fit of rows, or of the neighbours of a run."""
    if "init" in params:
        params = {**params, "init": start_of(params["init"], adopted=params.get("optimizer") == "none")}
    neighbors, again = params.get("precomputed_knn"), is_run(data)
    if again and neighbors is not None:
        raise ParameterError("A run has its neighbours. Leave precomputed_knn out, or fit the data itself.")
    if neighbors is not None and is_run(neighbors):
        rest = {name: value for name, value in params.items() if name != "precomputed_knn"}
        return _request(_as_run(neighbors).of_rows(data), out, rest, partitions)
    if again:
        # A seed that is not given is that run's; None draws one.
        known = _with_known_seed(out, params) if "random_state" in params else params
        return make_again_request(_as_run(data).model(), known, partitions)
    return make_request(data, _with_known_seed(out, params), partitions)


def is_run(data: Any) -> bool:
    """Return whether data are a run, or the path or URL of one."""
    if isinstance(data, Run):
        return True
    return isinstance(data, str | Path) and is_run_store(data)


def _with_copy(damage: dict[str, list[str]], copy: list[str]) -> dict[str, list[str]]:
    return {"input": copy, **damage} if copy else damage


def _check_switch(name: str, value: Any) -> None:
    """Refuse anything but True and False where it decides what is deleted or checked: "no" would mean yes."""
    if not isinstance(value, bool):
        raise ParameterError(f"{name} is {value!r}; it must be True or False.")


def _with_known_seed(run: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Go on with the seed that an unfinished run drew for itself, if none is given now."""
    if run is None or params.get("random_state") is not None:
        return params
    try:
        known = RunStore.open(find_place(run), mode="r").about
    except StoreError:
        return params
    return {**params, "random_state": known["params"]["random_state"]}
