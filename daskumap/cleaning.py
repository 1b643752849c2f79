"""Shrinks a finished run to what a lower level of `keep` keeps, and says what each level would leave."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from daskumap.driver import scratch_after
from daskumap.errors import ParameterError, StoreError
from daskumap.opening import open_to_look
from daskumap.params import Params
from daskumap.pipeline import kind_in, purpose_in
from daskumap.planning.stage import Receipt
from daskumap.session import is_finished
from daskumap.stages.graph.typical import TYPICAL
from daskumap.stages.shared.typical import typical
from daskumap.store import schema
from daskumap.store.lock import Turn, alone
from daskumap.store.run import RunStore


class Kept(NamedTuple):
    """What a finished run takes, and what it would take.

    Attributes
    ----------
    keep
        The level that it keeps.
    bytes
        Of all that its run store holds.
    levels
        Bytes that each level from this one down leaves, by its name.
    freed
        Bytes that were deleted just now.
    """

    keep: str
    bytes: int
    levels: dict[str, int]
    freed: int = 0


def kept_by(store: RunStore) -> Kept:
    """Return what a finished run takes, and what each level of `keep` would leave of it.

    Raises
    ------
    StoreError
        If the run is unfinished, or its result is damaged.
    """
    if not is_finished(store):
        raise StoreError(
            f"The run in {store.url} is unfinished, or its result is damaged, and what it holds is needed. "
            f"Finish it: daskumap resume {store.url}"
        )
    sizes, kept = store.documents.sizes(), _level(store)
    total = sum(sizes.values())
    lower = [keep for keep in schema.KEEP if schema.KEEP[keep] >= schema.KEEP[kept]]
    levels = {keep: total - sum(_beyond(store, keep, sizes).values()) for keep in lower}
    return Kept(kept, total, levels)


def clean_run(store: RunStore, keep: str, params: Params | None = None) -> Kept:
    """Delete what a finished run holds beyond a level of `keep`.

    What was cut short is done again. First what a model has in place of distances is made, then one write
    says what the run keeps, and one what is gone: whoever opens the run between any two of these finds a
    whole one.

    Parameters
    ----------
    params
        Where this process fitted the run: a function as metric.

    Raises
    ------
    StoreError
        If the run is unfinished or damaged, or another process works on it.
    """
    if keep not in schema.KEEP:
        raise ParameterError(f"keep is {keep!r}; it must be one of {', '.join(schema.KEEP)}.")
    with alone(store) as turn:
        store.check_identity()
        store.place.sweep()
        before = kept_by(store).keep
        keep = max(keep, before, key=schema.KEEP.__getitem__)
        if keep != before and purpose_in(store.about) == "fit":
            _lower(store, keep, params, turn)
        turn.check()
        freed = _beyond(store, keep, store.documents.sizes())
        store.free(freed)
    return kept_by(RunStore.open(store.place))._replace(freed=sum(freed.values()))


def _level(store: RunStore) -> str:
    """Return which level a run keeps. What is made by a run has no levels: it has scratch, or none."""
    if purpose_in(store.about) == "fit":
        return str(store.about["params"]["keep"])
    return "all" if _beyond(store, "embedding", store.documents.sizes()) else "embedding"


def _beyond(store: RunStore, keep: str, sizes: dict[str, int]) -> dict[schema.Item, int]:
    """Return what a run holds beyond a level, and the bytes of it."""
    steps = tuple(step for step, _ in kind_in(store.about).pipeline)  # what an earlier level had, too
    items = {item for scratch in scratch_after(steps, keep) for item in scratch}
    found = {item: sum(sizes[name] for name in sizes if _is_of(name, item)) for item in items}
    return {item: size for item, size in found.items() if size}


def _is_of(name: str, item: schema.Item) -> bool:
    return name in (item.name, f"{item.name}.json") or name.startswith(f"{item.name}/")


def _lower(store: RunStore, keep: str, params: Params | None, turn: Turn) -> None:
    """Say that a run keeps a lower level."""
    if keep == "model":
        with contextlib.closing(open_to_look(store, params)) as run:
            found = typical(run)
        store.put(schema.TYPICAL.name, found)
        store.ledger.record(TYPICAL.name, 0, Receipt(len(found)))
    turn.check()
    about = {name: value for name, value in store.about.items() if name not in ("schema", "crc32")}
    store.replace({**about, "params": {**about["params"], "keep": keep}})
