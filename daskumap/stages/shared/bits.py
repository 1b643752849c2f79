"""What the memberships of a row sum to, before they are joined with those of its neighbours."""

from __future__ import annotations

from daskumap.runtime.context import Context
from daskumap.store import schema


def bits_of(context: Context) -> dict[str, float]:
    """Return the mean sum of a row's memberships, and for which share of the rows it is what was asked for.

    Nothing where an earlier version made the run, which did not look.
    """
    found, distinct = context.fact(schema.BITS, {}), max(1, context.distinct)
    names = {"bits": "bits_per_vertex", "on_target": "on_target"}
    # A sum over partitions depends on their number in the last digits.
    return {name: round(found[key] / distinct, 6) for key, name in names.items() if key in found}
