"""How a training went, or goes."""

from __future__ import annotations

from typing import Any

from daskumap.encoder_params import EncoderParams
from daskumap.errors import StoreError
from daskumap.planning.training import history
from daskumap.store.checkpoint import unbroken
from daskumap.store.run import RunStore
from daskumap.store.schema import TRAINING


def history_of(store: RunStore) -> list[dict[str, Any]]:
    """Return the mean of each term of the loss by segment, of those that are done.

    Raises
    ------
    StoreError
        If a layout made the map.
    """
    encoder = store.about["params"]["encoder"]
    if encoder is None:
        raise StoreError(
            f"The run in {store.url} has a layout and no training. daskumap.train makes one of its graph."
        )
    receipts = unbroken(store.ledger.records(TRAINING.name))
    return history(EncoderParams(**encoder).segments(store.about["sizes"]["rows"]), receipts)
