"""Runs a pipeline: plans its steps, finds what holds, runs what has no record, frees scratch, keeps times."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import fsum
from typing import Any

from daskumap import events
from daskumap.engine.base import Engine
from daskumap.errors import DaskumapError, RunMismatchError, SourceError
from daskumap.planning import memory
from daskumap.planning.plan import Plan
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.report.progress import Progress
from daskumap.runtime.context import Context
from daskumap.store import schema
from daskumap.store.checkpoint import delete_before, unbroken
from daskumap.store.damage import find_damage, find_damaged_fact
from daskumap.store.lock import Turn

log = logging.getLogger(__name__)

STAGES = "report/stages"
Steps = tuple[Step, ...]


def make_plan(context: Context, steps: Steps) -> Plan:
    """Plan all steps, as far as is known; starts nothing."""
    return Plan(
        context.job,
        tuple(step.planned(context) for step in steps),
        reserved_bytes(context),
        freed=tuple(map(_names, scratch_after(steps, context.params.keep))),
        levels=() if context.transforms else tuple((keep, _gone(steps, keep)) for keep in schema.KEEP),
    )


def _names(items: Iterable[schema.Item]) -> frozenset[str]:
    return frozenset(item.name for item in items)


def _gone(steps: Steps, keep: str) -> frozenset[str]:
    """Return the names of all that is gone in the end."""
    return frozenset[str]().union(*map(_names, scratch_after(steps, keep)))


def reserved_bytes(context: Context) -> int:
    """Return what a worker takes before it holds any data."""
    descent = memory.DESCENT_RESERVED if context.metric.uses_descent else 0
    torch = memory.TORCH_RESERVED if context.params.uses_torch else 0
    return context.resources.reserved + descent + torch


@dataclass(frozen=True)
class Survey:
    """What there is of a run.

    Attributes
    ----------
    damage
        In words, by the step that can make it again.
    kept
        By step, the tasks whose records hold: none of a step whose products are damaged.
    freed
        Names of the items that are gone on purpose.
    """

    damage: dict[str, list[str]]
    kept: dict[str, list[int]]
    freed: set[str]

    def begin(self, context: Context, turn: Turn) -> None:
        """Let a driver's turn begin with what holds."""
        context.store.ledger.begin(turn.generation, self.kept, self.freed)


def survey(context: Context, steps: Steps, read: bool) -> Survey:
    """Look at all that the records of a run say is there.

    Chunks of finished steps are counted, and the map and the last checkpoint are read against their
    checksums; with `read` all is. What was freed is no damage.
    """
    ledger = context.store.ledger
    found, finished, tasks = Survey({}, {}, ledger.freed()), ledger.finished() is not None, ledger.all_tasks()
    for step in steps:
        wrong, kept = _survey_step(context, step, tasks.get(step.name, {}), found.freed, finished, read)
        if wrong:
            found.damage[step.name] = wrong
        found.kept[step.name] = kept
    return found


def _survey_step(
    context: Context, step: Step, tasks: dict[int, int], freed: set[str], finished: bool, read: bool
) -> tuple[list[str], list[int]]:
    """Return what is wrong with the products and the records of a step, and which of its records hold."""
    stage = step.planned(context)
    receipts = context.store.ledger.records(step.name, tasks)
    expected = range(stage.tasks) if finished else tasks
    wrong = [f"the record of task {task} is missing or damaged" for task in expected if task not in receipts]
    if not receipts:
        return wrong, []
    if stage.ordered:
        damage, kept = _survey_checkpoints(context, step, stage.lasting, freed, unbroken(receipts))
        return wrong or damage, kept
    whole = len(receipts) == stage.tasks
    # What a step that is half done has not written is no damage.
    damage = [
        text
        for name in (*(output.name for output in stage.outputs), *stage.made)
        if name not in freed
        for text in find_damage(context.store, name, read or name in schema.PUBLIC, receipts)
        if whole or "missing" not in text
    ]
    for item in step.writes:
        if isinstance(item, schema.Fact) and item.name not in freed | context.store.lacking:
            damage += find_damaged_fact(context.store, item.name, finished)
    return wrong + damage, [] if damage else list(receipts)


def _survey_checkpoints(
    context: Context, step: Step, lasting: frozenset[int], freed: set[str], receipts: dict[int, Receipt]
) -> tuple[list[str], list[int]]:
    """Return what is wrong with the last checkpoint, and the tasks up to the last one that is whole.

    With it those before it have to be whole that later steps need.
    """
    item = next((one for one in step.writes if isinstance(one, schema.Checkpoints)), None)
    if item is None or item.name in freed:
        return [], list(receipts)
    wrong: list[str] = []
    for task in reversed(receipts):
        needed = (*(one for one in sorted(lasting) if one < task), task)
        damage = [text for one in needed for text in context.checkpoint(item, one).damage()]
        if not damage:
            return wrong, list(range(task + 1))
        wrong = wrong or damage
    return wrong, []


def reopen(context: Context, steps: Steps, found: Survey) -> Survey:
    """Keep no records of steps whose products are gone and are needed again by a step that is not done.

    So it is where a late step runs again after its inputs were freed.
    """
    kept, back, needed = dict(found.kept), set[str](), set[str]()
    for step in reversed(steps):
        writes, stage = {item.name for item in step.writes}, step.planned(context)
        if stage.ordered and len(kept[step.name]) < stage.tasks:
            # Its next task needs what its last one wrote; facts are made of all receipts in the end.
            needed |= {item.name for item in step.writes if not isinstance(item, schema.Fact)}
        lost = writes & needed & found.freed
        if lost:
            log.warning(
                "Stage '%s' runs again: %s was freed and is needed.", step.name, ", ".join(sorted(lost))
            )
            kept[step.name] = []
            back |= writes
        if len(kept[step.name]) < stage.tasks:
            needed |= {item.name for item in step.reads}
    return Survey(found.damage, kept, found.freed - back)


def refuse_changed_input(
    context: Context, scan: Step, reread: Step, engine: Engine, progress: Progress
) -> None:
    """Read the input again, and refuse to go on where its values are not those that were scanned.

    Parameters
    ----------
    scan, reread
        What digested each row block, and what digests it again.

    Raises
    ------
    RunMismatchError
        Naming the first rows that may differ.
    """
    known = context.store.ledger.records(scan.name)
    if not known:
        return
    stage, sizes = reread.planned(context), context.sizes
    progress.start(stage.name, len(known), 0)
    engine.begin(context)
    try:
        found = dict(_run_all(stage, engine, list(known), progress, 0))
    finally:
        engine.end()
        context.leave()
    progress.finish()
    other = [task for task in sorted(known) if known[task].input_sum != found[task].input_sum]
    if other:
        start, stop = sizes.block(other[0])
        raise RunMismatchError(
            f"{context.url} holds a run of another input: values differ in {len(other)} of {len(known)} "
            f"blocks of rows, first in rows {start} to {stop - 1}. Give the same input to continue it, name "
            "another store, or start over there with restart (--restart)."
        )


def run_pipeline(context: Context, steps: Steps, engine: Engine, progress: Progress, turn: Turn) -> None:
    """Run every step that is not finished yet, in order; `turn` raises if this driver must not write."""
    store = context.store
    engine.begin(context)
    try:
        for step, scratch in zip(steps, scratch_after(steps, context.params.keep), strict=True):
            turn.check()
            run_stage(step.planned(context), context, engine, progress, turn)
            if scratch:
                turn.check()
                store.free(scratch)
    except SourceError:
        raise  # The store may be gone with it.
    except DaskumapError:
        turn.check()  # Who was followed stumbles over what the other one freed: that is said then.
        raise
    finally:
        engine.end()
        context.leave()
    turn.check()
    store.ledger.finish(datetime.now(UTC).isoformat(timespec="seconds"))


def scratch_after(steps: Steps, keep: str) -> list[list[schema.Item]]:
    """Return for each step what nothing needs once it is done.

    Parameters
    ----------
    keep
        "all", "graph", "model" or "embedding", as of `daskumap.fit`.
    """
    last: dict[schema.Item, int] = {}
    for number, step in enumerate(steps):
        for item in (*step.reads, *step.writes):
            if item.stays < schema.KEEP[keep]:
                last[item] = number
    return [[item for item, place in last.items() if place == number] for number in range(len(steps))]


def run_stage(stage: Stage, context: Context, engine: Engine, progress: Progress, turn: Turn) -> None:
    """Run the tasks of a stage that have no record yet; record each when its data is written."""
    store = context.store
    receipts = store.ledger.records(stage.name)
    if stage.ordered:
        receipts = unbroken(receipts)
    todo = [number for number in range(stage.tasks) if number not in receipts]
    progress.start(stage.name, stage.tasks, len(receipts))
    started = time.perf_counter()
    if todo:
        _tell_stage(stage, "begun", done=len(receipts))
        if not receipts:  # What an earlier attempt made may be damaged, a group's metadata too.
            for name in stage.made:
                store.documents.delete_folder(name)
        for output in stage.outputs:
            store.create(output)
    for number, receipt in _run_all(stage, engine, todo, progress, len(receipts)):
        turn.check()
        store.ledger.record(stage.name, number, receipt)
        receipts[number] = receipt
        _tell_task(stage, number, receipt)
        if stage.ordered:
            _delete_superfluous(stage, context, number)
    context.leave()
    turn.check()
    try:
        if stage.conclude is not None:
            stage.conclude(context, receipts)
    except SourceError:
        store.discard()  # All that is there came of rows that have to be mended first.
        raise
    if todo:
        seconds = time.perf_counter() - started
        _keep_times(stage, context, receipts, seconds)
        _tell_stage(stage, "finished", done=len(receipts), seconds=round(seconds, 3))
    progress.finish()


def _tell_stage(stage: Stage, state: str, **facts: Any) -> None:
    text = f"stage {stage.name} {state}: {facts['done']} of {stage.tasks} tasks done"
    events.tell("stage", text, stage=stage.name, state=state, tasks=stage.tasks, **facts)


def _tell_task(stage: Stage, number: int, receipt: Receipt) -> None:
    """Tell of a task that is recorded, and of the checkpoint that it is."""
    about: dict[str, Any] = {"stage": stage.name, "task": number, "tasks": stage.tasks}
    events.tell(
        "task",
        f"task {number} of stage {stage.name} done in {receipt.seconds:.2f} s",
        **about,
        rows=receipt.rows,
        seconds=round(receipt.seconds, 3),
        peak_bytes=receipt.peak_bytes,
    )
    if {schema.STATE.name, schema.TRAINING.name} & stage.writes:
        events.tell("checkpoint", f"checkpoint {number} of stage {stage.name} is written", **about)


def _delete_superfluous(stage: Stage, context: Context, task: int) -> None:
    """Delete the checkpoints that a task's own makes superfluous."""
    for item in (schema.STATE, schema.TRAINING):
        if item.name in stage.writes:
            delete_before(context.store, item, task, stage.lasting)


def _run_all(
    stage: Stage, engine: Engine, todo: list[int], progress: Progress, done: int
) -> Iterator[tuple[int, Receipt]]:
    under_way: dict[int, float] = {}  # Summed exactly, or rounding would take a step back.

    def listener(number: int, share: float) -> None:
        if number in left:
            under_way[number] = share
            progress.advance(fsum((done, *under_way.values())))

    left = set(todo)
    for number, receipt in engine.run(stage, todo, listener) if todo else ():
        left.discard(number)
        under_way.pop(number, None)
        done += 1
        yield number, receipt
        progress.advance(fsum((done, *under_way.values())))


def _keep_times(stage: Stage, context: Context, receipts: dict[int, Receipt], seconds: float) -> None:
    """Add a stage's wall time and peaks to what the report says of it."""
    documents = context.store.documents
    known: dict[str, Any] = documents.load(STAGES) or {}
    before = known.get(stage.name, {})
    plan = Plan(context.job, (stage,), reserved_bytes(context))
    known[stage.name] = {
        "tasks": stage.tasks,
        "seconds": before.get("seconds", 0.0) + seconds,
        "projected_seconds": plan.seconds(stage),
        "task_seconds": sum(receipt.seconds for receipt in receipts.values()),
        "kernel_seconds": sum(receipt.kernel_seconds for receipt in receipts.values()),
        "peak_bytes": max(receipt.peak_bytes for receipt in receipts.values()),
        "projected_bytes": plan.peak_bytes(stage),
        "read_bytes": stage.read_bytes,
        "written_bytes": stage.written_bytes,
    }
    documents.save(STAGES, known)
