"""Whether the rows that a pass reads are those that an earlier run was fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.errors import RunMismatchError
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import digest_block
from daskumap.stages.shared.visitors import Share, Visitor

Array = np.ndarray[Any, Any]


def compare(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Refuse rows that are not those that were fitted.

    Raises
    ------
    RunMismatchError
        Naming the block.
    """
    known = context.store.ledger.receipt("scan", number)
    if known is not None and known.found["crc32"] != digest_block(context, number, X)["crc32"]:
        start, stop = context.sizes.block(number)
        raise RunMismatchError(
            f"Rows {start} to {stop - 1} of {context.source.name} are not those that the run in "
            f"{context.model.url} was fitted to: values differ. Restore them, or fit the data again."
        )
    return {}


COMPARE = Visitor(compare, lambda context: Share())
