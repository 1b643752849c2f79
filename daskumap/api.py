"""What a script calls: `fit`, `plan`, `open`."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.engine.base import KEPT
from daskumap.errors import NO_SPACE, ParameterError, RunMismatchError, SourceError, StoreError
from daskumap.kernels import metrics
from daskumap.kernels.speed import measure_speed
from daskumap.params import Params, make_params
from daskumap.pipeline import Plan, Progress, find_damage, make_plan, run_pipeline
from daskumap.planning.job import Job
from daskumap.planning.sizes import Resources, Sizes, as_dict, make_sizes
from daskumap.run import Run
from daskumap.stages.common import plan_with
from daskumap.store.lock import RunLock
from daskumap.store.run import RunStore, check_same, is_occupied
from daskumap.store.source import Source, needs_ingest, open_source, open_spec
from daskumap.store.trouble import is_url, local_path, speaking

log = logging.getLogger(__name__)


def fit(
    data: Any,
    run: str | Path | None = None,
    *,
    client: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    partitions: int | None = None,
    progress: bool | Progress = True,
    restart: bool = False,
    **params: Any,
) -> Run:
    """Embed the rows of an array, which may be larger than memory.

    Parameters
    ----------
    data
        (n, D): path or URL of a Zarr array (v2 or v3, any chunks), a `zarr.Array`, a NumPy array or a dask
        array.
    run
        Path or URL of the run store. If it holds an unfinished run of the same input and parameters, that run
        goes on. None: a temporary one, which goes when the returned object does.
    client
        `distributed.Client`, scheduler address or scheduler file. None: one worker in this process with a
        thread a core. "sequential": no Dask at all. The result is the same, bit for bit.
    memory
        Bytes a worker process may use, such as "4GB". None: the workers' own limits; embedded, 60 % of the
        machine.
    threads
        Threads of the embedded worker.
    partitions
        Vertex partitions of the layout. None: over as many workers as make it fastest.
    progress
        Show how far the run is on standard error.
    restart
        Delete the run store that is there, if any, and start over. Refused where another process works on it,
        and where something else than a run store lies.
    **params
        umap-learn's `n_neighbors`, `n_components`, `metric`, `metric_kwds`, `n_epochs`, `learning_rate`,
        `init` ("pca", "spectral", "random" or an array), `min_dist`, `spread`, `a`, `b`, `set_op_mix_ratio`,
        `local_connectivity`, `repulsion_strength`, `negative_sample_rate`, `disconnection_distance`,
        `random_state`; and `optimizer` ("adam", "sgd"), `reconcile_every`, `target_recall`, `max_overlap`,
        `max_cell_rows`, `checkpoint_every`. With `reconcile_every` above 1 the result depends on
        `partitions`. And umap-learn's `unique`: exact duplicates of a row cost no neighbours; the map is that
        of the distinct rows, and each duplicate gets the position of its first occurrence.

    Returns
    -------
    Run
        Its `embedding` is a `zarr.Array` (n, n_components) float32 in the order of the input's rows.

    Raises
    ------
    SourceError, ParameterError, PlanError, RunMismatchError, TaskError
        Each says what was seen, what is allowed and what to do.
    """
    source = open_source(data)
    checked = _checked_params(source, params if restart else _with_known_seed(run, params))
    path, temporary = _place(run)
    _refuse_inside(path, source, data, restart)
    engine = _engine(client, memory, threads)
    try:
        planned = _plan(source, data, checked, engine.resources, partitions)
        with _counting_bytes(path, planned):
            if restart and is_occupied(path):
                _start_over(path, planned)
            if not is_occupied(path):
                planned.check(_free_disk(path))
            store = RunStore.open_or_create(path, _about(planned, source))
            if needs_ingest(data):
                _check_digest(store, data, path)
            job = partial(_job, store, path, source, data, checked, engine.resources)
            _drive(store, job, engine, progress)
    except BaseException:
        if temporary is not None:
            temporary.cleanup()
        raise
    finally:
        engine.close()
    result = Run(store, path)
    if temporary is not None:
        weakref.finalize(store.group.store, temporary.cleanup)  # an array that was taken keeps it too
    return result


def resume(
    run: str | Path,
    *,
    client: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> Run:
    """Go on with an unfinished run, from what its run store says of it. Arguments as in `fit`.

    Raises
    ------
    StoreError
        If there is no run, or one that only `fit` can continue: with a function as metric, or with data from
        memory that were not all brought into the store.
    """
    path, _ = _place(run)
    store = RunStore.open(path)
    known = store.about
    spec = store.load_json("input/source") or known["spec"]
    params = _known_params(store, path)
    if "path" not in spec:
        raise StoreError(f"{path} stopped before its input was copied. Call daskumap.fit again to go on.")
    source = open_spec(spec)
    if spec == known["spec"]:
        check_same(path, {"source": known["source"]}, {"source": source.identity()})
    engine = _engine(client, memory, threads)
    try:
        job = Job(path, known["id"], spec, params, Sizes(**known["sizes"]), engine.resources)
        with _counting_bytes(path, make_plan(job)):
            _drive(store, lambda: job, engine, progress)
    finally:
        engine.close()
    return Run(store, path)


def verify(run: str | Path, *, repair: bool = False) -> dict[str, list[str]]:
    """Read all that a run store holds against its checksums.

    Parameters
    ----------
    repair
        Mark what made the damaged parts as not done; `resume` then makes them again, to the same bits.

    Returns
    -------
    dict
        What is damaged, by stage; empty if all is well.
    """
    path, _ = _place(run)
    store = RunStore.open(path, mode="r+" if repair else "r")
    known = store.about
    spec = store.load_json("input/source") or known["spec"]
    job = Job(path, known["id"], spec, _known_params(store, path), Sizes(**known["sizes"]), Resources(1))
    damage = find_damage(job, read=True)
    if repair and damage:
        with RunLock(store):
            for stage in damage:
                store.forget(stage)
            store.forget("report.summary")
    return damage


def _known_params(store: RunStore, path: str) -> Params:
    """Return the parameters that a run store recorded, which must be plain values or in the store."""
    values = dict(store.about["params"])
    lost = str(values["metric"]).startswith("callable:") or "array(" in str(values["metric_kwds"])
    given = str(values["init"]).startswith("array(")
    if lost or (given and "input/init" not in store.group):
        raise StoreError(
            f"{path} was started with a function or an array that it does not hold. Call daskumap.fit again "
            "with the same arguments to go on."
        )
    if not given:
        return make_params(values)
    return dataclasses.replace(make_params({**values, "init": "pca"}), init=np.zeros((0, 0), np.float32))


def _drive(store: RunStore, make_job: Callable[[], Job], engine: Any, progress: Any) -> None:
    """Run what is left of a run, alone."""
    from daskumap.report.progress import choose_progress

    if Run(store, store.url).finished:
        return
    with RunLock(store) as lock:
        store.check_identity()
        store.sweep()
        job = make_job()
        make_plan(job).check()
        for stage, damage in find_damage(job, read=False).items():
            log.warning("Stage '%s' runs again: %s.", stage, "; ".join(damage))
            store.forget(stage)
        run_pipeline(job, engine, choose_progress(progress), lock.check)
        store.sweep()  # after workers that died in this attempt


def _start_over(path: str, planned: Plan) -> None:
    """Delete the run store at `path`, if this is one and nobody works on it."""
    store = RunStore.open_to_delete(path)
    planned.check()  # before anything is lost
    with RunLock(store):
        store.discard()


@contextlib.contextmanager
def _counting_bytes(path: str, planned: Plan) -> Iterator[None]:
    """Say how much a run needs where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE or isinstance(error, StoreError):
            raise
        raise StoreError(
            error.errno,
            f"There is no space left for {path} ({errno.errorcode[error.errno]}); the whole run needs "
            f"{max(1, round(planned.disk_bytes / 1e6)):,} MB. Free that much. {KEPT}",
        ) from error


def _refuse_inside(path: str, source: Source, data: Any, restart: bool) -> None:
    """Refuse a run store that would lie in the input, and an input that lies where a run store would."""
    if needs_ingest(data):
        return
    given = source.spec()["path"]
    here, there = (str(Path(text).resolve()) if "://" not in text else text for text in (path, given))
    if here == there or here.startswith(there.rstrip("/") + "/"):
        raise ParameterError(
            f"The run store {path} lies in the input {given}, which is never written. Name a place beside it."
        )
    if restart and there.startswith(here.rstrip("/") + "/"):
        raise ParameterError(
            f"The input {given} lies in the run store {path}, which restart would delete. Name another place."
        )


def plan(
    data: Any,
    *,
    memory: str | int | None = None,
    workers: int = 1,
    threads: int | None = None,
    partitions: int | None = None,
    calibrate: bool = True,
    **params: Any,
) -> Plan:
    """Plan a fit from metadata; starts nothing. Arguments as in `fit`; `print` the result.

    Parameters
    ----------
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
    from daskumap.engine.cluster import available_cores, available_memory, parse_memory

    source = open_source(data)
    checked = _checked_params(source, params)
    resources = Resources(parse_memory(memory) or available_memory(), workers, threads or available_cores())
    result = _plan(source, data, checked, resources, partitions)
    result.check()
    return dataclasses.replace(result, speed=measure_speed()) if calibrate else result


def open(path: str | Path) -> Run:
    """Open a run store that `fit` made.

    Raises
    ------
    StoreError
        If there is none.
    """
    place, _ = _place(path)
    return Run(RunStore.open(place, mode="r"), str(path))


def _engine(client: Any, memory: str | int | None, threads: int | None) -> Any:
    from daskumap.engine.base import SequentialEngine
    from daskumap.engine.cluster import DaskEngine, available_memory, parse_memory

    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ParameterError(f"threads is {threads!r}; it must be an integer of at least 1.")
    if isinstance(client, str) and client == "sequential":
        return SequentialEngine(parse_memory(memory) or available_memory())
    return DaskEngine(client, parse_memory(memory), threads)


def _checked_params(source: Source, values: dict[str, Any]) -> Params:
    """Validate the parameters, alone and against the shape of the data."""
    params = make_params(values)
    rows, columns = source.shape
    if rows <= params.n_neighbors:
        raise SourceError(
            f"n_neighbors is {params.n_neighbors} and the input has {rows} rows; it needs more rows "
            f"than n_neighbors. Lower n_neighbors to at most {rows - 1}."
            if rows > 2
            else f"The input has {rows} rows; at least 3 are needed."
        )
    try:
        metrics.check_shape(metrics.resolve(params.metric, params.metric_kwds), columns)
    except ValueError as error:
        raise ParameterError(str(error)) from error
    if isinstance(params.init, np.ndarray):
        wanted = (rows, params.n_components)
        if (
            params.init.shape != wanted
            or params.init.dtype.kind not in "fiu"
            or not np.isfinite(params.init).all()
        ):
            raise ParameterError(
                f"init is an array of shape {params.init.shape} and type {params.init.dtype}; it must be "
                f"{wanted}, numeric and finite."
            )
    return params


def _with_known_seed(run: str | Path | None, params: dict[str, Any]) -> dict[str, Any]:
    """Go on with the seed that an unfinished run drew for itself, if none is given now."""
    if run is None or params.get("random_state") is not None:
        return params
    try:
        return {**params, "random_state": RunStore.open(run, mode="r").about["params"]["random_state"]}
    except StoreError:
        return params


def _sizes(source: Source, params: Params, resources: Resources, partitions: int | None) -> Sizes:
    if partitions is not None and (not isinstance(partitions, int) or not 1 <= partitions <= source.shape[0]):
        raise ParameterError(
            f"partitions is {partitions!r}; it must be an integer from 1 to the number of rows."
        )
    return make_sizes(
        *source.shape,
        params.n_neighbors,
        params.n_components,
        resources,
        matrix_product=metrics.resolve(params.metric, params.metric_kwds).space is not None,
        source_chunk_rows=source.inner_chunks[0],
        source_item_bytes=source.dtype.itemsize,
        max_cell_rows=params.max_cell_rows,
        partitions=partitions,
    )


def _place(run: str | Path | None) -> tuple[str, tempfile.TemporaryDirectory[str] | None]:
    if run is not None:
        text = str(run)
        return (text.rstrip("/") if is_url(text) else str(local_path(text))), None
    folder = tempfile.TemporaryDirectory(prefix="daskumap-")
    return str(Path(folder.name) / "run.zarr"), folder


def _plan(source: Source, data: Any, params: Params, resources: Resources, partitions: int | None) -> Plan:
    spec = plan_with(source) if needs_ingest(data) else source.spec()
    return make_plan(Job("", "", spec, params, _sizes(source, params, resources, partitions), resources))


def _about(planned: Plan, source: Source) -> dict[str, Any]:
    """Return what a run store says of its run."""
    return {
        "id": uuid.uuid4().hex,
        "params": planned.job.params.fingerprint(),
        "source": source.identity(),
        "spec": planned.job.source,
        "sizes": as_dict(planned.job.sizes),
    }


def _job(store: RunStore, path: str, source: Source, data: Any, params: Params, resources: Resources) -> Job:
    """Return the job of a run store; brings what is only in memory into the store."""
    known = store.about
    if isinstance(params.init, np.ndarray):
        if "input/init" not in store.group:
            store.put("input/init", params.init.astype(np.float32))
        params = dataclasses.replace(params, init=np.zeros((0, 0), np.float32))
    spec = _bring(data, store) if needs_ingest(data) else source.spec()
    return Job(path, known["id"], spec, params, Sizes(**known["sizes"]), resources)


def _bring(data: Any, store: RunStore) -> dict[str, Any]:
    """Copy an array that workers cannot open into the run store, once."""
    from daskumap.store.ingest import ingest

    if store.load_json("input/source") is None:
        ingested, digest = ingest(data, store.group, "input/rows")
        store.save_json("input/digest", digest)
        store.save_json("input/source", ingested.spec())
    return dict(store.load_json("input/source"))


def _check_digest(store: RunStore, data: Any, path: str) -> None:
    """Refuse an array in memory that is not the one that was brought into the run store.

    Raises
    ------
    RunMismatchError
        If any value differs.
    """
    from daskumap.store.ingest import digest_of

    known = store.load_json("input/digest")
    if known is not None and known != digest_of(data):
        raise RunMismatchError(
            f"{path} holds a run of another input: its values differ. Give the same input to continue it, "
            "name another store, or start over there with restart (--restart)."
        )


def _free_disk(path: str) -> int | None:
    """Return the bytes free where the run store will be, None where that has no meaning."""
    if "://" in path:
        return None
    folder = Path(path)
    with speaking(path):
        while not folder.exists():
            folder = folder.parent
    return shutil.disk_usage(folder).free
