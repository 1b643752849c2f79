"""How far a run is: what is done and what is left, at which rate, who works on it, and what ended it."""

from __future__ import annotations

import time
from typing import Any

from daskumap.driver import make_plan
from daskumap.errors import StoreError
from daskumap.opening import open_to_look, steps_in
from daskumap.planning.plan import Plan
from daskumap.store.lock import holder_of, turn_of
from daskumap.store.run import RunStore

# Exit codes of `daskumap status`, beside those of errors.
CODES = {"finished": 0, "unfinished": 10, "failed": 11}


def standing_of(store: RunStore) -> dict[str, Any]:
    """Return how far a run is, as JSON types.

    Returns
    -------
    dict
        "state", "finished", "unfinished" or "failed" (an error ended the last attempt, and no other began
        since); "finished", whether it is, and "since" when; "rows" and "columns"; "stages", a list with
        "name", "tasks" and "done"; "stage", the first that is not done; "tasks", what is done by stage;
        "totals", "done" and "tasks" in all; "share" of the work by the plan's estimate; while somebody works
        "rate" in tasks a second and "seconds_left" at the pace so far, else None; "holder", who works:
        "host", "pid", "alive" (None where that cannot be told) and "seconds_silent"; "attempts", drivers that
        began; "failure", its "time" and "error".
    """
    ledger, sizes = store.ledger, store.about["sizes"]
    done, since = ledger.all_tasks(), ledger.finished()
    planned = _plan_of(store)
    stages: list[dict[str, Any]] = [
        {"name": stage.name, "tasks": stage.tasks, "done": min(stage.tasks, len(done.get(stage.name, {})))}
        for stage in planned.stages
    ]
    if since is not None:  # what is expected of a stage that found out more may differ
        stages = [{**one, "tasks": one["done"]} for one in stages]
    holder, failure = holder_of(store), ledger.failure()
    working = holder is not None and holder["alive"] is not False
    state = "finished" if since else "failed" if failure and not working else "unfinished"
    left = next((one["name"] for one in stages if one["done"] < one["tasks"]), None)
    return {
        "state": state,
        "finished": since is not None,
        "since": since,
        "rows": sizes["rows"],
        "columns": sizes["columns"],
        "stage": left,
        "stages": stages,
        "tasks": {one["name"]: one["done"] for one in stages},
        "totals": {
            "done": sum(one["done"] for one in stages),
            "tasks": sum(one["tasks"] for one in stages),
        },
        **_pace(store, planned, done, working and since is None),
        "holder": holder,
        "attempts": len(ledger.generations()),
        "failure": failure if state == "failed" else None,
    }


def _plan_of(store: RunStore) -> Plan:
    context = open_to_look(store)
    return make_plan(context, steps_in(context))


def _pace(
    store: RunStore, planned: Plan, done: dict[str, dict[int, int]], working: bool
) -> dict[str, float | None]:
    """Return the share of the work that is done; and while somebody works, rate and time left.

    The work of a task is what the plan expects, so that long tasks count for more than short ones; the pace
    is that of the turn under way.
    """
    newest = store.ledger.generation()
    all_work = known = now = count = 0.0
    for stage in planned.stages:
        seconds, tasks = planned.seconds(stage), done.get(stage.name, {})
        one = seconds / max(1, stage.tasks)
        new = sum(generation == newest for generation in tasks.values())
        all_work, known = all_work + seconds, known + one * min(stage.tasks, len(tasks))
        now, count = now + one * new, count + new
    share = 1.0 if store.ledger.finished() else known / all_work if all_work else 0.0
    began = turn_of(store)
    elapsed = time.time() - began if began is not None else 0.0
    if not working or not count or elapsed <= 0:
        return {"share": round(share, 4), "rate": None, "seconds_left": None}
    left = max(0.0, all_work - known) * elapsed / now if now else None
    return {
        "share": round(share, 4),
        "rate": round(count / elapsed, 3),
        "seconds_left": None if left is None else round(left, 1),
    }


def describe(found: dict[str, Any]) -> str:
    """Return how far a run is, for people."""
    totals = found["totals"]
    lines = [
        f"{found['state']}, {found['share']:.0%} of the work; {totals['done']:,} of {totals['tasks']:,} tasks"
    ]
    if found["seconds_left"] is not None:
        lines.append(f"about {found['seconds_left']:,.0f} s left at {found['rate']:.2f} tasks a second")
    holder = found["holder"]
    if holder:
        silent = holder["seconds_silent"]
        heard = "heard of at an unknown time" if silent is None else f"heard of {silent:.0f} s ago"
        alive = {True: "at work", False: "dead", None: "perhaps at work"}[holder["alive"]]
        lines.append(f"process {holder['pid']} on {holder['host']} is {alive}, {heard}")
    elif not found["finished"]:
        lines.append("nobody works on it; `daskumap resume` goes on")
    if found["attempts"] > 1:
        lines.append(f"{found['attempts']} attempts")
    if found["failure"]:
        lines.append(f"failed at {found['failure']['time']}: {found['failure']['error']}")
    lines += [f"{'stage':<20}{'done':>8}{'of':>8}"]
    lines += [f"{one['name']:<20}{one['done']:>8,}{one['tasks']:>8,}" for one in found["stages"]]
    return "\n".join(lines)


def refuse_no_run(found: Any, path: str) -> RunStore:
    """Return the run store of what was opened.

    Raises
    ------
    StoreError
        If it is a network alone, which is whole or not there.
    """
    store = getattr(found, "store", None)
    if not isinstance(store, RunStore):
        raise StoreError(f"{path} holds a network alone, which has no stages. Name a run store.")
    return store
