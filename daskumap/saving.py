"""Saves what a finished run needs to place new rows as a run store of its own: a small model."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

from daskumap.driver import STAGES, refuse_changed_input, survey
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import RunMismatchError, StoreError
from daskumap.opening import (
    INPUT_DIGEST,
    context_of,
    kind_of_context,
    open_model,
    steps_in,
)
from daskumap.params import PRECOMPUTED, Params
from daskumap.planning.stage import Receipt
from daskumap.report.progress import Silent
from daskumap.runtime.context import Context
from daskumap.session import (
    refuse_anndata,
    refuse_in_group,
    refuse_inside,
)
from daskumap.sources.base import Source
from daskumap.sources.find import find
from daskumap.sources.ingest import ingest
from daskumap.sources.specs import public_spec
from daskumap.stages.graph.typical import TYPICAL
from daskumap.stages.shared.typical import typical
from daskumap.store import schema
from daskumap.store.lock import alone
from daskumap.store.places import Place
from daskumap.store.run import RunStore
from daskumap.store.trouble import counting_space

# The level that a model keeps.
KEEP = "model"


def save_model(
    store: RunStore,
    place: Place,
    params: Params | None,
    source: Source | None,
    rows: bool = False,
    fitted: Any = None,
) -> RunStore:
    """Write what a run needs to place new rows to another place; see `daskumap.Run.save`.

    The copy has the id of its run, so that chunks are copied as they are. It is no run store until all of it
    was written and read again.
    """
    with contextlib.closing(open_model(store, params, source, fitted)) as run:
        refuse_anndata(place)
        refuse_inside(place, run.source, restart=False)
        refuse_in_group(place)
        # No row of given distances is read again.
        needed = run.params.metric != PRECOMPUTED
        brought = needed and (rows or run.source.spec() is None)
        about = _describe(run, brought)
        with counting_space(place.url, "no whole copy is there. Free some, and save again."):
            copy = RunStore.begin_copy(place, about, store.url)
            with alone(copy) as turn:
                copy.place.sweep()
                copy.clear()
                copy.ledger.begin(turn.generation, {}, _freed(run))
                _copy_items(run, copy)
                _copy_records(run, copy)
                if brought:
                    copy.documents.save(INPUT_DIGEST, ingest(run.source, copy.arrays, schema.SOURCE.name))
                _refuse_damaged(run, copy, brought)
                turn.check()
                copy.ledger.finish(datetime.now(UTC).isoformat(timespec="seconds"))
                copy.replace(about)
    return RunStore.open(place, mode="r")


def _describe(run: Context, brought: bool) -> dict[str, Any]:
    """Return what the copy says of its run: what differs is what it keeps, and where the rows are."""
    known = {name: value for name, value in run.store.about.items() if name not in ("schema", "crc32")}
    params = {**known["params"], "keep": KEEP}
    if not run.store.place.shared:  # Its layout was one segment.
        params["checkpoint_every"] = max(1, run.params.epochs(run.sizes.rows))
    return {**known, "params": params, "spec": None if brought else public_spec(run.source.spec())}


def _freed(run: Context) -> set[str]:
    """Return the names of what the run freed, or the copy does without."""
    items = (item for step in steps_in(run) for item in step.writes)
    source = {schema.SOURCE.name} if run.params.metric == PRECOMPUTED else set()
    return source | run.store.ledger.freed() | {item.name for item in items if item.stays < schema.KEEP[KEEP]}


def _copy_items(run: Context, copy: RunStore) -> None:
    """Copy what places new rows, and the report, file by file."""
    documents, keep = run.store.documents, schema.KEEP[KEEP]
    written = (item for step in steps_in(run) for item in step.writes if item.stays >= keep)
    names = [f"{STAGES}.json"]
    for item in (schema.INIT, *written):
        if isinstance(item, schema.Array):
            names += documents.below(item.name)
        else:
            names.append(item.name if isinstance(item, schema.File) else f"{item.name}.json")
    names += [*documents.below(schema.ROW_LABELS), *documents.below(schema.MAIN_AXES)]
    groups = {f"{name.split('/')[0]}/zarr.json" for name in names}
    for name in sorted({*names, *groups}):
        value = documents.load_bytes(name)
        if value is not None:
            copy.documents.save_bytes(name, value)


def _copy_records(run: Context, copy: RunStore) -> None:
    """Copy the record of each task; make what a model has instead of distances, unless the run is one."""
    for step in steps_in(run):
        for task, receipt in run.store.ledger.records(step.name).items():
            copy.ledger.record(step.name, task, receipt)
    if run.params.keep != KEEP:
        found = typical(run)
        copy.put(schema.TYPICAL.name, found)
        copy.ledger.record(TYPICAL.name, 0, Receipt(len(found)))


def _refuse_damaged(run: Context, copy: RunStore, brought: bool) -> None:
    """Read all of the copy, and refuse one that is not what the run wrote and was fitted to.

    Raises
    ------
    StoreError, RunMismatchError
        Naming what is wrong.
    """
    source = find(copy.array(schema.SOURCE.name)) if brought else run.source
    params = Params(**{**vars(run.params), **_of_copy(copy)})
    with contextlib.closing(context_of(copy, source, params, run.resources, None)) as context:
        damage = [
            text for texts in survey(context, steps_in(context), read=True).damage.values() for text in texts
        ]
        if damage:
            raise StoreError(
                f"The run in {run.url} is damaged: {'; '.join(damage)}. Run `daskumap verify --repair`, then "
                "`daskumap resume`, and save it again."
            )
        if brought:
            _refuse_other_rows(run, context)


def _refuse_other_rows(run: Context, context: Context) -> None:
    """Compare the rows in the copy with the digests of the fit's scan."""
    digests = kind_of_context(context).digests
    try:
        refuse_changed_input(context, *digests, SequentialEngine(run.resources.memory), Silent())
    except RunMismatchError as error:
        raise RunMismatchError(
            f"The rows of {run.source.name} are not those that the run in {run.url} was fitted to: values "
            "differ. Restore them, or name a copy of those with fitted (--fitted)."
        ) from error


def _of_copy(copy: RunStore) -> dict[str, Any]:
    return {name: copy.about["params"][name] for name in ("keep", "checkpoint_every")}
