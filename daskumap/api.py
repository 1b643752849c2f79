"""What a script calls: `fit`, `transform`, `plan`, `open`, `resume`, `verify`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from daskumap.driver import survey
from daskumap.engine.clusters import make_engine
from daskumap.engine.machine import parse_memory, plan_resources
from daskumap.errors import ParameterError, StoreError
from daskumap.kernels.speed import measure_speed
from daskumap.params import PRECOMPUTED, explicit
from daskumap.planning.plan import Plan
from daskumap.report.progress import Progress, choose_progress
from daskumap.request import make_request
from daskumap.run import Run, Transformed, view
from daskumap.session import (
    find_damaged_copy,
    fit_request,
    forget_copy,
    open_to_look,
    resume_run,
    steps_in,
    without_init,
)
from daskumap.store import schema
from daskumap.store.lock import alone
from daskumap.store.places import find_place
from daskumap.store.run import RunStore


@explicit
def fit(
    data: Any,
    run: Any = None,
    *,
    client: Any = None,
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
        (n, D): path or URL of a Zarr array (v2 or v3, any chunks), a `zarr.Array`, a NumPy array or a dask
        array. With metric="precomputed" (n, n): the distances between all rows; SciPy's sparse matrices too.
        Pairs at distance inf, or of which none is stored, are no neighbours.
    run
        Path or URL of the run store, or a Zarr store. If it holds an unfinished run of the same input and
        parameters, that run goes on. None: for an array in memory the run store is in memory while it takes
        at most a quarter of what the process may use; else it is a temporary folder, which goes when the
        returned object does.
    client
        `distributed.Client`, cluster, scheduler address or scheduler file; "threads" or "sequential" for this
        process. None: the active Dask client, or else the threads of this process. The result is the same,
        bit for bit.
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
        umap-learn's `n_neighbors`, `n_components`, `metric`, `metric_kwds`, `n_epochs`, `learning_rate`,
        `init` ("pca", "spectral", "tswspectral", "random" or an array), `min_dist`, `spread`, `a`, `b`,
        `set_op_mix_ratio`, `local_connectivity`, `repulsion_strength`, `negative_sample_rate`,
        `disconnection_distance`, `transform_mode`, `random_state`; and `optimizer` ("adam", "sgd"),
        `reconcile_every`, `target_recall`, `max_overlap`, `max_cell_rows`, `checkpoint_every`.
        Adam moves all vertices twice an epoch, each time as an
        iteration; with `reconcile_every` iterations above 1 the result depends on `partitions`. And
        umap-learn's `unique`: exact duplicates of a row cost no neighbours; the map is that of the distinct
        rows, and each duplicate gets the position of its first occurrence.
        With `transform_mode="graph"` a run ends with `Run.graph`, and so does a transform of new rows.
        `report=False` leaves out the measures and the picture. `keep` says what stays in the run store:
        "model" (default) all but scratch, which goes when its last reader is done; "all"; or "embedding",
        with the report. `missing="refuse"` refuses a Zarr array that lacks chunks; "fill" (default) reads
        them as its fill value, since Zarr leaves out what is all fill value, and the report counts them.

    Returns
    -------
    Run
        Its `embedding` is a `zarr.Array` (n, n_components) float32 in the order of the input's rows.

    Raises
    ------
    SourceError, ParameterError, PlanError, RunMismatchError, StoreError, TaskError, ClusterError
        Each says what was seen, what is allowed and what to do.
    """
    shown = choose_progress(progress)
    _check_switch("restart", restart)
    _check_switch("trust_input", trust_input)
    request = make_request(data, params if restart else _with_known_seed(run, params), partitions)
    engine = make_engine(client, parse_memory(memory), threads, request.source.shape[0])
    try:
        store = fit_request(request, run, engine, shown, restart, take_over, trust_input)
    finally:
        engine.close()
    # Rows in memory that are in no run store stay with a run that keeps its model. Distances are not needed.
    wanted = request.params.keep != "embedding" and request.params.metric != PRECOMPUTED
    held = wanted and not store.has(schema.SOURCE.name)
    return Run(store, without_init(request.params), request.source if held else None)


def transform(
    run: Run | str | Path,
    data: Any,
    out: Any = None,
    *,
    fitted: Any = None,
    client: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
    restart: bool = False,
    take_over: bool = False,
    trust_input: bool = False,
) -> Transformed:
    """Place new rows into the map of a finished run, as umap-learn's transform does, out of core.

    What becomes of a row depends on the row, the run and its seed alone: not on the rows beside it, their
    number or order, chunks, memory, workers or threads. A row that equals a fitted one gets that one's place.

    Parameters
    ----------
    run
        A run, or its path or URL, fitted with keep="model" (the default) or "all". Its input has to be where
        it was, unless it came from memory: then the run has it.
    data
        (m, D): new rows, as of `fit`, with the columns of those that were fitted. They are cast and moved as
        those were; rows that a fit would refuse are refused.
    out
        Path or URL of the result's run store, or a Zarr store. An unfinished transform of the same rows that
        is there goes on. None: in memory or a temporary folder, as of `fit`.
    fitted
        Path or URL of the rows that were fitted. None: what the run names, as in `resume`.
    client, memory, threads, progress, restart, take_over, trust_input
        As in `fit`; `restart` is about the transform that is in `out`.

    Returns
    -------
    Transformed
        Its `embedding` is a `zarr.Array` (m, n_components) float32 in the order of the new rows, NaN for rows
        that have no neighbour within `disconnection_distance`; with transform_mode="graph" it has `graph`
        instead, (m, n) memberships. Its `fit_distance`, (m,) float32 from 0 to 1,
        says how unlike the fitted rows each is.

    Raises
    ------
    SourceError, ParameterError, PlanError, RunMismatchError, StoreError, TaskError, ClusterError
        Each says what was seen, what is allowed and what to do.
    """
    return _as_run(run).transform(
        data,
        out,
        fitted=fitted,
        client=client,
        memory=memory,
        threads=threads,
        progress=progress,
        restart=restart,
        take_over=take_over,
        trust_input=trust_input,
    )


def resume(
    run: Any,
    *,
    data: Any = None,
    client: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
    take_over: bool = False,
    trust_input: bool = False,
) -> Run | Transformed:
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
    shown = choose_progress(progress)
    _check_switch("trust_input", trust_input)
    store = RunStore.open(find_place(run))
    engine = make_engine(client, parse_memory(memory), threads, store.about["sizes"]["rows"])
    try:
        resume_run(store, data, engine, shown, take_over, trust_input)
    finally:
        engine.close()
    return view(store)


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
def plan(
    data: Any,
    run: Run | str | Path | None = None,
    *,
    memory: str | int | None = None,
    workers: int = 1,
    threads: int | None = None,
    partitions: int | None = None,
    calibrate: bool = True,
    **params: Any,
) -> Plan:
    """Plan a fit from metadata, or a transform; starts nothing. Arguments as in `fit`; `print` the result.

    Parameters
    ----------
    run
        A finished run, to plan the transform of the data into its map.
    workers, threads
        Worker processes, and threads of each.
    calibrate
        Time this machine's cores for a second or two, so that the estimates of time hold for workers like it;
        else they are those of the reference machine.

    Raises
    ------
    PlanError
        If the run cannot fit, with the setting to change.
    """
    if run is None:
        request = make_request(data, params, partitions)
    elif params or partitions is not None:
        raise ParameterError("A transform has the parameters of its run. Leave out all but data and run.")
    else:
        request = _as_run(run).request(data)
    result = request.plan(plan_resources(memory, workers, threads), ingested=request.source.spec() is None)
    result.check()
    return dataclasses.replace(result, speed=measure_speed()) if calibrate else result


def open(path: str | Path) -> Any:
    """Open a run store that `fit` made, a `Run`, or `transform`, a `Transformed`.

    Raises
    ------
    StoreError
        If there is none.
    """
    return view(RunStore.open(find_place(path), mode="r"))


def _as_run(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run(RunStore.open(find_place(run), mode="r"))


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
