"""Makes a run ready, once: its place, its run store, its context; and drives it alone."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.driver import Steps, make_plan, refuse_changed_input, reopen, run_pipeline, survey
from daskumap.engine.base import KEPT, Engine
from daskumap.errors import NO_SPACE, DaskumapError, ParameterError, RunMismatchError, StoreError
from daskumap.kernels import jit
from daskumap.params import PRECOMPUTED, Params, make_params
from daskumap.pipeline import Kind, kind_in, kind_of, purpose_in, purpose_of, steps_of
from daskumap.planning.job import Job
from daskumap.planning.plan import Plan
from daskumap.planning.sizes import Resources, Sizes
from daskumap.report.progress import Progress
from daskumap.request import Request
from daskumap.runtime.context import Context, make_context
from daskumap.sources.base import Source
from daskumap.sources.find import find, open_spec
from daskumap.sources.given import Given
from daskumap.sources.ingest import as_stored, ingest, names_of_copy, open_ingested
from daskumap.sources.nodes import check_stored_spec, is_near, public_spec
from daskumap.store import schema
from daskumap.store.damage import find_damage
from daskumap.store.lock import Turn, alone
from daskumap.store.places import Place, Temporary, find_enclosing, find_place
from daskumap.store.run import RunStore, check_same, differences

log = logging.getLogger(__name__)

# A run of an array in memory, without a place of its own, stays in memory while it takes at most this share
# of what the process may use.
MEMORY_SHARE = 0.25
# Written once the copy of the input is whole.
INPUT_DIGEST = "input/digest"
# Written once the copy of given neighbours is whole.
GIVEN_DIGESTS = "input/knn_digests"


def fit_request(
    request: Request,
    run: Any,
    engine: Engine,
    progress: Progress,
    restart: bool,
    take_over: bool = False,
    trust_input: bool = False,
) -> RunStore:
    """Run what a caller asks for, or what is left of it, and return its run store."""
    resources = dataclasses.replace(engine.resources, compiled=is_compiled(engine))
    place, folder = choose_place(request, run, engine, resources)
    try:
        ingested = request.source.spec() is None and (place.shared or not request.source.in_place)
        planned = request.plan(resources, ingested)
        refuse_inside(place, request.source, restart)
        refuse_model(place, request.model)
        refuse_in_group(place)
        with counting_bytes(place, planned):
            if restart and place.is_occupied():
                start_over(place, planned, request, take_over)
            if not place.is_occupied():
                planned.check(place.free_bytes())
            store = RunStore.open_or_create(place, describe(planned, request))
            finished = is_finished(store)
            refuse_other(store, request, finished, trust_input)
            opener = partial(open_fit, store, request, ingested, resources)
            trust_input |= ingested  # Its copy is the run's own, and was compared as a whole.
            if finished:
                compare_input(opener, engine, progress, trust_input)
                say_finished(store)
            else:
                drive(store, opener, engine, progress, take_over, trust_input)
    except BaseException:
        if folder is not None:
            folder.cleanup()
        raise
    if folder is not None:
        weakref.finalize(store.arrays, folder.cleanup)  # An array that was taken keeps it too.
    return store


def resume_run(
    store: RunStore, data: Any, engine: Engine, progress: Progress, take_over: bool, trust_input: bool
) -> None:
    """Go on with a run from what its run store says of it; `data` names its input where the caller does."""
    finished = is_finished(store)
    compare_versions(store, finished)
    if finished:
        say_finished(store)
        return
    resources = dataclasses.replace(engine.resources, compiled=is_compiled(engine))
    context = open_known(store, resources, data)
    planned = make_plan(context, steps_in(context))
    with counting_bytes(store.place, planned):
        trust_input |= store.about["spec"] is None  # A copy is the run's own.
        drive(store, lambda: context, engine, progress, take_over, trust_input)


def choose_place(
    request: Request, run: Any, engine: Engine, resources: Resources
) -> tuple[Place, tempfile.TemporaryDirectory[str] | None]:
    """Return where the run store is to be: the caller's place, memory, or a folder that goes with the run.

    Memory where the input is in memory too, the tasks run in this process, and the plan leaves room.
    """
    if run is not None:
        place = find_place(run)
        if not place.shared and not engine.local:
            raise ParameterError(
                f"The workers of the cluster cannot reach {place.url}. Name a path or URL that they reach."
            )
        return place, None
    if engine.local and request.source.spec() is None:
        planned = request.plan(resources, ingested=not request.source.in_place)
        if planned.disk_bytes <= MEMORY_SHARE * resources.memory:
            return find_place(None), None
        log.info("The run store goes to a temporary folder: it needs %d MB.", planned.disk_bytes // 10**6)
    folder = temporary_folder()
    return Temporary(Path(folder.name) / "run.zarr"), folder


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder that goes with its run."""
    try:
        return tempfile.TemporaryDirectory(prefix="daskumap-")
    except OSError as error:
        raise StoreError(
            f"There is no temporary folder for the run store ({error}). Name a place for it with run=, or "
            "set TMPDIR to a folder that may be written."
        ) from error


def describe(planned: Plan, request: Request) -> dict[str, Any]:
    """Return what a run store says of its run."""
    return {
        "id": uuid.uuid4().hex,
        "params": request.params.fingerprint(),
        "source": request.identity,
        "spec": public_spec(request.source.spec()),
        "model": identity_of(request),
        "sizes": dataclasses.asdict(planned.job.sizes),
        "versions": versions(),
    }


def identity_of(request: Request) -> dict[str, Any] | None:
    """Return where the run is that another one is made from, and which; None where there is none.

    A fit of its neighbours says what it does not have from it, and an inverse that it is one.
    """
    if request.model is None:
        return None
    known = {"url": request.model.url, "id": request.model.job.id}
    if request.anew is not None:
        return {**known, "anew": list(request.anew)}
    return {**known, "inverse": True} if request.inverse else known


def steps_in(context: Context) -> Steps:
    """Return the steps of a run."""
    return steps_of(kind_of_context(context).pipeline, context.params)


def kind_of_context(context: Context) -> Kind:
    """Return which kind of run a context is of."""
    purpose = purpose_of(context.transforms or None, context.anew, context.job.inverse)
    return kind_of(purpose, context.params, context.anew)


@cache
def versions() -> dict[str, str]:
    """Return the versions of all that decides the bits of a result."""
    libraries = ("numba", "numpy", "scipy", "scikit-learn", "pynndescent")
    from daskumap import __version__

    return {"daskumap": __version__, "kernels": jit.digest(), **{name: version(name) for name in libraries}}


def refuse_other(store: RunStore, request: Request, finished: bool, trust_input: bool) -> None:
    """Refuse a run store with a run of another input, of other parameters, or begun by other versions.

    Raises
    ------
    RunMismatchError
        Listing what differs.
    """
    known = store.about
    now = {
        "params": request.params.fingerprint(),
        "source": request.identity,
        "model": identity_of(request) or {},
    }
    check_same(store.url, {part: known[part] or {} for part in now}, now)
    compare_versions(store, finished)
    digest = None if trust_input else input_digest(store)
    if digest is not None and digest != request.source.digest():
        raise RunMismatchError(
            f"{store.url} holds a run of another input: its values differ. Give the same input to continue "
            "it, name another store, or start over there with restart (--restart)."
        )


def input_digest(store: RunStore) -> str | None:
    """Return the digest of the copy of the input, None while it is not whole."""
    # What a run that has not begun holds is another one's.
    found: str | None = store.documents.load(INPUT_DIGEST) if store.ledger.has_begun() else None
    return found


def compare_versions(store: RunStore, finished: bool) -> None:
    """Refuse to go on with what other versions began; of what they finished, say it.

    Raises
    ------
    RunMismatchError
        If the bits of two versions would mix.
    """
    found = differences({"versions": store.about["versions"]}, {"versions": versions()})
    if found and not finished:
        raise RunMismatchError(
            f"{store.url} was begun by other versions: {'; '.join(found)}. Bits of both would mix. Go on "
            "with those versions, name another store, or start over there with restart (--restart)."
        )
    if found:
        log.warning("The run in %s was made by other versions: %s.", store.url, "; ".join(found))


def open_fit(store: RunStore, request: Request, ingested: bool, resources: Resources) -> Context:
    """Return the context of a run that was asked for; bring what only this process has into the run store."""
    params, source = request.params, request.source
    if isinstance(params.init, np.ndarray):
        if not store.has(schema.INIT.name):
            store.put(schema.INIT.name, params.init.astype(np.float32))
        params = without_init(params)
    if ingested:
        if input_digest(store) is None or schema.SOURCE.name in store.ledger.freed():
            store.documents.save(INPUT_DIGEST, ingest(source, store.arrays, schema.SOURCE.name))
        source = open_ingested(store)
    given = request.given
    if given is not None and given.specs() is None:
        write_given(store, given)
    if not store.place.shared:  # A run store that dies with this process needs no checkpoints.
        params = dataclasses.replace(params, checkpoint_every=max(1, params.epochs(source.shape[0])))
    specs = None if given is None else given.specs()
    return context_of(store, source, params, resources, request.model, specs)


def write_given(store: RunStore, given: Given) -> None:
    """Bring neighbours that only this process has into the run store, unless they are there."""
    names = (schema.GIVEN_INDICES.name, schema.GIVEN_DISTANCES.name)
    if store.documents.load(GIVEN_DIGESTS) is None or store.ledger.freed() & set(names):
        tables = zip((given.indices, given.distances), names, strict=True)
        store.documents.save(GIVEN_DIGESTS, [ingest(table, store.arrays, name) for table, name in tables])


def context_of(
    store: RunStore,
    source: Source,
    params: Params,
    resources: Resources,
    model: Context | None,
    given: tuple[dict[str, Any], dict[str, Any]] | None = None,
) -> Context:
    """Return the context of a run as its run store describes it."""
    known, anew = store.about, (store.about["model"] or {}).get("anew")
    job = Job(
        store.url,
        known["id"],
        source.spec(),
        params,
        Sizes(**known["sizes"]),
        resources,
        anew=None if anew is None else tuple(anew),
        inverse=purpose_in(known) == "inverse",
        given=given,
    )
    return make_context(job, source, store, model)


def open_known(store: RunStore, resources: Resources, data: Any = None) -> Context:
    """Return the context of a run from what its run store says of it, and from its input if that is named.

    Raises
    ------
    StoreError
        If only `fit` can continue it: with a function as metric, or with data from memory that are not all in
        the run store. Or if the run store names an input that only the caller may.
    """
    known, params = store.about, known_params(store)
    if known["spec"] is None:
        if data is not None:
            raise ParameterError(
                f"The run in {store.url} has a copy of its input, which came from memory. Leave data out, or "
                "call daskumap.fit again with the same input."
            )
        source = open_copy(store)
    else:
        source = open_input(store, data)
        check_same(store.url, {"source": known["source"]}, {"source": source.identity()})
    return context_of(store, source, params, resources, open_model_of(store), known_given(store, params))


def known_given(store: RunStore, params: Params) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return where given neighbours are, as the run store says; None for its own copy, and for a search.

    Raises
    ------
    StoreError
        If it has none, and names a place that only the caller may.
    """
    given = params.precomputed_knn
    if given is None or store.about["model"] is not None:
        return None
    if given["specs"] is not None:
        for spec in given["specs"]:
            check_stored_spec(spec, store.url)
        return tuple(given["specs"])
    if store.documents.load(GIVEN_DIGESTS) is None:
        raise StoreError(
            f"{store.url} was started with neighbours that it does not hold. Call daskumap.fit again with "
            "the same arguments to go on."
        )
    return None


def open_model_of(store: RunStore) -> Context | None:
    """Return the run that another one is made from, as the run store of that says; None where there is none.

    A fit of its neighbours needs it no more once it has copied them.

    Raises
    ------
    StoreError
        If it is gone, or another run is in its place.
    """
    known = store.about["model"]
    if known is None:
        return None
    try:
        return open_named(store, known)
    except DaskumapError:
        if not has_copied(store):
            raise
        return None


def has_copied(store: RunStore) -> bool:
    """Return whether a run has copied what it has from another one, and does not need that any more."""
    if "anew" not in store.about["model"]:
        return False
    steps = [step for step, _ in kind_in(store.about).pipeline]
    last = max(number for number, step in enumerate(steps) if step.model)
    return any(store.ledger.count(step.name) for step in steps[last + 1 :])


def open_named(store: RunStore, known: dict[str, Any]) -> Context:
    """Return the run that another one names, if it may be opened and is the one that is meant."""
    if not is_near(known["url"], store.url):
        raise StoreError(
            f"{store.url} names {known['url']} as the run that it is made from: another protocol or host "
            "than its own, which is not contacted on the word of a run store. Name it: "
            "daskumap.transform, daskumap.inverse_transform or daskumap.fit of it."
        )
    model = open_model(RunStore.open(find_place(known["url"]), mode="r"))
    if model.job.id != known["id"]:
        raise StoreError(
            f"{model.url} holds another run than the one that {store.url} is made from. Start over there, "
            "with restart=True."
        )
    return model


def open_model(
    store: RunStore, params: Params | None = None, source: Source | None = None, fitted: Any = None
) -> Context:
    """Return the context of a finished run, to place new rows, find rows, or fit its neighbours again.

    Parameters
    ----------
    params, source
        Where this process fitted the run: a function as metric, and rows that only it has.
    fitted
        Path or URL of the rows that were fitted, as the caller names it; None for what the run store says.

    Raises
    ------
    StoreError
        If the run is unfinished, or has not kept what that takes.
    """
    if purpose_in(store.about) != "fit":
        what = "rows of points of a map" if purpose_in(store.about) == "inverse" else "new rows on a map"
        raise StoreError(f"{store.url} holds {what}. Give the run that the map is of.")
    if store.ledger.finished() is None:
        raise StoreError(f"The run in {store.url} is unfinished. Finish it: daskumap resume {store.url}")
    if schema.VERTEX.name in store.ledger.freed():
        raise StoreError(
            f"The run in {store.url} kept its embedding alone, and new rows are placed by the rows that were "
            "fitted and their cells, as points become rows by them and another fit needs their neighbours. "
            "Fit again, with restart: "
            "daskumap.fit(data, run, keep='model', restart=True, ...)."
        )
    compare_versions(store, finished=True)
    params = known_params(store) if params is None else params
    if params.metric == PRECOMPUTED:  # None of the distances that were fitted is read again.
        known = store.about["source"]
        source, fitted = as_stored(tuple(known["shape"]), np.dtype(known["dtype"])), None
    if source is None or fitted is not None:
        copied = store.about["spec"] is None
        source = open_copy(store) if copied else open_input(store, fitted)
        if not copied:
            refuse_other_rows(store, source)
    return context_of(store, source, params, Resources(1), None)


def open_to_look(store: RunStore) -> Context:
    """Return the context of a run that is only looked at: its input is not opened.

    Raises
    ------
    StoreError
        If the run stopped before its input was copied, so that there is nothing to look at.
    """
    known, params = store.about, known_params(store)
    if is_copied(store):
        refuse_uncopied(store)
    source = as_stored(tuple(known["source"]["shape"]), np.dtype(known["source"]["dtype"]))
    copies = purpose_in(known) == "fit"
    return context_of(store, source, params, Resources(1), None if copies else open_model_of(store))


def refuse_other_rows(store: RunStore, source: Source) -> None:
    """Refuse rows that are surely not those of a model: they may have moved; each block is compared later.

    Raises
    ------
    RunMismatchError
        Listing what differs.
    """
    known, now = store.about["source"], source.identity()
    parts = ("shape", "dtype", "rows")
    check_same(
        store.url,
        {"source": {part: known[part] for part in parts}},
        {"source": {part: now[part] for part in parts}},
    )


def open_input(store: RunStore, data: Any) -> Source:
    """Return the input of a run on disk: as the caller names it, or as the run store does if that may be."""
    spec = store.about["spec"]
    if data is None:
        check_stored_spec(spec, store.url)
        return open_spec(spec)
    source = find(data)
    if source.spec() is None:
        raise ParameterError(
            f"The input of the run in {store.url} is {spec['path']}. Give data as the path or URL of it."
        )
    return source


def open_copy(store: RunStore) -> Source:
    """Return the copy of an input that came from memory."""
    if schema.SOURCE.name in store.ledger.freed():
        raise StoreError(
            f"{store.url} has deleted its copy of the input, as keep='embedding' says. Call daskumap.fit "
            "again with the same input to go on."
        )
    refuse_uncopied(store)
    return open_ingested(store)


def refuse_uncopied(store: RunStore) -> None:
    """Refuse a run that is to have a copy of its input, and has not."""
    if input_digest(store) is None:
        raise StoreError(
            f"{store.url} stopped before its input was copied. Call daskumap.fit again to go on."
        )


def is_copied(store: RunStore) -> bool:
    """Return whether a run is to hold a copy of its input: it came from memory, and nothing deleted it since.

    A run store that is in memory itself has none.
    """
    return (
        store.place.shared and store.about["spec"] is None and schema.SOURCE.name not in store.ledger.freed()
    )


def find_damaged_copy(store: RunStore) -> list[str]:
    """Return what is wrong with a run's copy of its input, which is read."""
    if not is_copied(store):
        return []
    return [text for name in names_of_copy(store) for text in find_damage(store, name, True, {})]


def forget_copy(store: RunStore) -> None:
    """Let the next fit copy its input again."""
    store.documents.delete(f"{INPUT_DIGEST}.json")


def known_params(store: RunStore) -> Params:
    """Return the parameters that a run store recorded, which must be plain values or in the store."""
    values = dict(store.about["params"])
    lost = any(
        str(values.get(name)).startswith("callable:") or "array(" in str(values.get(f"{name}_kwds"))
        for name in ("metric", "output_metric")
    )
    given = str(values["init"]).startswith("array(")
    if lost or (given and not (store.ledger.has_begun() and store.has(schema.INIT.name))):
        raise StoreError(
            f"{store.url} was started with a function or an array that it does not hold. Call daskumap.fit "
            "again with the same arguments: it goes on, or returns the finished run, which then can do all."
        )
    return without_init(make_params({**values, "init": "pca"})) if given else make_params(values)


def without_init(params: Params) -> Params:
    """Return the parameters with the user's start left in the run store: tasks read it there."""
    return dataclasses.replace(params, init=np.zeros((0, 0), np.float32))


def is_finished(store: RunStore) -> bool:
    """Return whether nothing is left to do of a run: it says so, and all of its result can be read."""
    if store.ledger.finished() is None:
        return False
    step = kind_in(store.about).publishes
    written = store.ledger.records(step.name)
    arrays = (item.name for item in step.writes if isinstance(item, schema.Array))
    return not any(find_damage(store, name, True, written) for name in arrays)


def say_finished(store: RunStore) -> None:
    """Say since when nothing is left to do of a run."""
    since = store.ledger.finished()
    log.info("Nothing was left to do: the run in %s was finished at %s.", store.url, since)


def drive(
    store: RunStore,
    open_context: Callable[[], Context],
    engine: Engine,
    progress: Progress,
    take_over: bool,
    trust_input: bool,
) -> None:
    """Run what is left of a run, alone."""
    with contextlib.ExitStack() as stack:
        stack.callback(progress.close)
        turn = stack.enter_context(alone(store, take_over))
        store.check_identity()
        store.place.sweep()
        fresh = not store.ledger.has_begun()
        if fresh:
            store.clear()
            store.ledger.begin(turn.generation, {}, set())
        context = open_context()
        stack.callback(context.close)
        steps = steps_in(context)
        if not fresh:
            if not trust_input and reads_input(steps):
                refuse_changed_input(context, *kind_of_context(context).digests, engine, progress)
            go_on(context, steps, turn)
        run_pipeline(context, steps, engine, progress, turn)
        store.place.sweep()  # Workers may have died in this attempt.


def compare_input(
    open_context: Callable[[], Context], engine: Engine, progress: Progress, trust_input: bool
) -> None:
    """Compare the input of a finished run with what the run read, unless the caller vouches for it."""
    if trust_input:
        return
    with contextlib.closing(open_context()) as context:
        if not reads_input(steps_in(context)):
            return
        try:
            refuse_changed_input(context, *kind_of_context(context).digests, engine, progress)
        finally:
            progress.close()


def reads_input(steps: Steps) -> bool:
    """Return whether any step reads the input: a fit of neighbours may not."""
    return any(schema.SOURCE in step.reads for step in steps)


def go_on(context: Context, steps: Steps, turn: Turn) -> None:
    """Begin this driver's turn with what holds of an earlier one's."""
    found = survey(context, steps, read=False)
    for stage, damage in found.damage.items():
        log.warning("Stage '%s' runs again: %s.", stage, "; ".join(damage))
    reopen(context, steps, found).begin(context, turn)


def start_over(place: Place, planned: Plan, request: Request, take_over: bool) -> None:
    """Let a new run begin in the run store at a place, if this is one and nobody works on it."""
    store = RunStore.open_to_replace(place)
    planned.check()  # Before anything is lost.
    with alone(store, take_over) as turn:
        turn.check()
        store.replace(describe(planned, request))


def is_compiled(engine: Engine) -> bool:
    """Return whether the engine's workers find the kernels compiled, all of them."""
    return all(engine.ask(jit.is_compiled))


@contextlib.contextmanager
def counting_bytes(place: Place, planned: Plan) -> Iterator[None]:
    """Say how much a run needs where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE or isinstance(error, StoreError):
            raise
        raise StoreError(
            error.errno,
            f"There is no space left for {place.url} ({errno.errorcode[error.errno]}); the whole run needs "
            f"{max(1, round(planned.disk_bytes / 1e6)):,} MB. Free that much. {KEPT}",
        ) from error


def refuse_inside(place: Place, source: Source, restart: bool) -> None:
    """Refuse a run store that would lie in the input, and an input that lies where a run store would."""
    spec = source.spec()
    if spec is None or not place.shared:
        return
    given, path = spec["path"], place.url
    here, there = (str(Path(text).resolve()) if "://" not in text else text for text in (path, given))
    if here == there or here.startswith(there.rstrip("/") + "/"):
        raise ParameterError(
            f"The run store {path} lies in the input {given}, which is never written. Name a place beside it."
        )
    if restart and there.startswith(here.rstrip("/") + "/"):
        raise ParameterError(
            f"The input {given} lies in the run store {path}, which restart would delete. Name another place."
        )


def refuse_model(place: Place, model: Context | None) -> None:
    """Refuse to write where the run is that is read, which restart would delete."""
    if model is not None and place.shared and model.store.place.url == place.url:
        raise ParameterError(f"out is {place.url}, where the run itself is. Name another place.")


def refuse_in_group(place: Place) -> None:
    """Refuse a run store in a Zarr group of somebody else's, whose readers would stumble over it.

    Raises
    ------
    ParameterError
        Saying how a map gets into an AnnData.
    """
    group = find_enclosing(place)
    if group is not None:
        raise ParameterError(
            f"The run store {place.url} would lie in the Zarr node {group}, which whoever reads that would "
            "stumble over. Name a place outside. These lines write the map of a run into the obsm of an "
            f"AnnData:\n  adata = zarr.open_group({group!r}, mode='r+')\n"
            "  umap = adata['obsm'].create_array('X_umap', data=daskumap.open(run).embedding[:])\n"
            "  umap.attrs.update({'encoding-type': 'array', 'encoding-version': '0.2.0'})\n"
            f"  zarr.consolidate_metadata({group!r})"
        )
