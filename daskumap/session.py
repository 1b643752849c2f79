"""Makes a run ready, once: its place, its run store, its context; and drives it alone."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shlex
import tempfile
import uuid
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from daskumap import events
from daskumap.driver import Steps, make_plan, refuse_changed_input, reopen, run_pipeline, survey
from daskumap.engine.base import KEPT, Engine
from daskumap.errors import ParameterError, RunMismatchError, StoreError
from daskumap.kernels import jit
from daskumap.opening import (
    GIVEN_DIGESTS,
    INPUT_DIGEST,
    compare_versions,
    context_of,
    input_digest,
    kind_of_context,
    open_known,
    steps_in,
    versions,
    without_init,
)
from daskumap.pipeline import kind_in
from daskumap.planning.plan import Plan
from daskumap.planning.sizes import Resources
from daskumap.report.measures import judge
from daskumap.report.progress import Progress
from daskumap.request import Request
from daskumap.runtime.context import Context
from daskumap.secrets import hide_secrets
from daskumap.sources.base import Source
from daskumap.sources.given import Given
from daskumap.sources.ingest import ingest, open_ingested
from daskumap.sources.projected import keep_axes
from daskumap.sources.specs import public_spec
from daskumap.store import schema
from daskumap.store.damage import find_damage
from daskumap.store.labels import write_labels
from daskumap.store.lock import Turn, alone
from daskumap.store.model import Model, find_damaged_model, in_run
from daskumap.store.places import Memory, Place, Temporary, find_enclosing, find_place, holds_anndata
from daskumap.store.run import RunStore, check_same
from daskumap.store.trouble import counting_space

log = logging.getLogger(__name__)

# A run of an array in memory, without a place of its own, stays in memory while it takes at most this share
# of what the process may use.
MEMORY_SHARE = 0.25


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
        refuse_anndata(place)
        refuse_inside(place, request.source, restart)
        refuse_in_group(place)
        refuse_model(place, request.model)
        with counting_space(place.url, what_it_needs(planned)):
            if restart and place.is_occupied():
                start_over(place, planned, request, take_over)
            if not place.is_occupied():
                planned.check(place.free_bytes())
            store = RunStore.open_or_create(place, describe(planned, request))
            finished = is_finished(store)
            refuse_other(store, request, finished, trust_input)
            opener = partial(open_fit, store, request, ingested, resources, progress)
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
    with counting_space(store.url, what_it_needs(planned)):
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
        "versions": versions(request.params.uses_torch, request.device),
        "reads": request.reads,
    }


def identity_of(request: Request) -> dict[str, Any] | None:
    """Return where the run is that another one is made from, and which; None where there is none.

    A trained network is known by its digest. A fit of a run's neighbours says what it does not have from it,
    and an inverse that it is one.
    """
    if request.encoder is not None:  # Where that lies may change.
        return {"network": request.encoder.digest(), "encodes": request.encodes}
    if request.model is None:
        return None
    known = {"url": request.model.url, "id": request.model.job.id}
    if request.anew is not None:
        return {**known, "anew": list(request.anew)}
    return {**known, "inverse": True} if request.inverse else known


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
    compare_versions(store, finished, request.device)
    digest = None if trust_input else input_digest(store)
    if digest is not None and digest != request.source.digest():
        raise RunMismatchError(
            f"{store.url} holds a run of another input: its values differ. Give the same input to continue "
            "it, name another store, or start over there with restart (--restart)."
        )


def open_fit(
    store: RunStore, request: Request, ingested: bool, resources: Resources, progress: Progress
) -> Context:
    """Return the context of a run that was asked for; bring what only this process has into the run store."""
    params, source = request.params, request.source
    if isinstance(params.init, np.ndarray):
        if not store.has(schema.INIT.name):
            store.put(schema.INIT.name, params.init.astype(np.float32))
        params = without_init(params)
    if store.ledger.finished() is None:
        for name, values in request.brought.items():
            store.put(name, values)
        write_labels(store, request.labels)
    if ingested:
        if input_digest(store) is None or schema.SOURCE.name in store.ledger.freed():
            digest = ingest(source, store.arrays, schema.SOURCE.name, progress)
            keep_axes(
                store, source, request.model.store if request.model and request.anew is not None else None
            )
            store.documents.save(INPUT_DIGEST, digest)
        source = open_ingested(store)
    given = request.given
    if given is not None and given.specs() is None:
        write_given(store, given)
    if not store.place.shared:  # A run store that dies with this process needs no checkpoints.
        params = dataclasses.replace(params, checkpoint_every=max(1, params.epochs(source.shape[0])))
    if request.encoder is not None:
        bring_model(store, request.encoder)
    specs = None if given is None else given.specs()
    return context_of(store, source, params, resources, request.model, specs, request.encoder)


def bring_model(store: RunStore, encoder: Model) -> None:
    """Bring a trained network into the run store, for the workers, unless it is there."""
    documents = in_run(store.documents)
    if find_damaged_model(documents):
        encoder.write(documents)


def write_given(store: RunStore, given: Given) -> None:
    """Bring neighbours that only this process has into the run store, unless they are there."""
    names = (schema.GIVEN_INDICES.name, schema.GIVEN_DISTANCES.name)
    if store.documents.load(GIVEN_DIGESTS) is None or store.ledger.freed() & set(names):
        tables = zip((given.indices, given.distances), names, strict=True)
        store.documents.save(GIVEN_DIGESTS, [ingest(table, store.arrays, name) for table, name in tables])


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
        stack.enter_context(events.of_run(store.url))
        stack.callback(progress.close)
        turn = stack.enter_context(alone(store, take_over))
        store.check_identity()
        store.place.sweep()
        try:
            carry_on(store, open_context, engine, progress, turn, trust_input, stack)
        except KeyboardInterrupt:
            say_stopped(store)
            raise
        store.place.sweep()  # Workers may have died in this attempt.
        tell_end(store)


def carry_on(
    store: RunStore,
    open_context: Callable[[], Context],
    engine: Engine,
    progress: Progress,
    turn: Turn,
    trust_input: bool,
    stack: contextlib.ExitStack,
) -> None:
    """Run what is left of a run in this driver's turn; what is opened for it is closed with the stack."""
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
    events.tell("run", "the run begins" if fresh else "the run goes on", state="begun")
    try:
        run_pipeline(context, steps, engine, progress, turn)
    except Exception as error:
        note_failure(store, turn, error)
        raise


def note_failure(store: RunStore, turn: Turn, error: Exception) -> None:
    """Write down what ended a driver's turn, for whoever asks later; and tell it."""
    text = f"{type(error).__name__}: {error}"
    events.tell("failure", f"the run failed: {text}", state="failed", error=text)
    with contextlib.suppress(Exception):  # The store may be what failed, or another one's by now.
        turn.check()
        store.ledger.fail(datetime.now(UTC).isoformat(timespec="seconds"), hide_secrets(text))


def tell_end(store: RunStore) -> None:
    """Tell that a run is finished, and what its map is worth."""
    verdict = judge(store.documents.load(schema.MEASURES.name) or {})
    if verdict is not None:
        events.tell("verdict", verdict["sentence"], **verdict)
    events.tell("run", "the run is finished", state="finished")


def say_stopped(store: RunStore) -> None:
    """Say what is kept of a run that its user stopped, and how to go on with it."""
    if isinstance(store.place, Memory | Temporary):
        log.warning(
            "The run was stopped, and nothing of it is kept, since it had no place of its own: name one with "
            "run= to be able to go on."
        )
        return
    log.warning(
        "The run in %s was stopped, and its finished tasks are kept: go on with daskumap.resume(%r), or in a "
        "shell with daskumap resume %s",
        store.url,
        store.url,
        shlex.quote(store.url),
    )


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


def what_it_needs(planned: Plan) -> str:
    """Return what to do where the disk is full."""
    megabytes = max(1, round(planned.disk_bytes / 1e6))
    return f"the whole run needs {megabytes:,} MB. Free that much. {KEPT}"


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


def refuse_anndata(place: Place) -> None:
    """Refuse a run store where an AnnData is, and say how a map gets into it."""
    if holds_anndata(place):
        raise ParameterError(
            f"{place.url} is an AnnData, which a run store would not go with. Name a place beside it: "
            f"daskumap fit {place.url} map.zarr. For the map in it: daskumap fit "
            f"{place.url} --write-back, or daskumap export map.zarr {place.url}."
        )


def refuse_in_group(place: Place) -> None:
    """Refuse a run store in a Zarr group of somebody else's, whose readers would stumble over it."""
    group = find_enclosing(place)
    if group is not None:
        raise ParameterError(
            f"The run store {place.url} would lie in the Zarr node {group}, which whoever reads that would "
            "stumble over. Name a place outside. A map gets into an AnnData by daskumap export map.zarr "
            f"{group}, or daskumap.export(run, {group!r})."
        )
