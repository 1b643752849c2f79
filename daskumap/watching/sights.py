"""A map as it forms: the newest checkpoint of a layout, read out of the run store by whoever can read that.

Nothing is asked of the run, so it may be another process', or a cluster's. A look is followed by a rest of so
many times the processor time that it took: what watching costs is a share of a core, however many rows there
are.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from daskumap.errors import ParameterError, StoreError
from daskumap.opening import open_to_look
from daskumap.report.picture import LIGHT, raster
from daskumap.report.png import write_png
from daskumap.report.thin import Thin
from daskumap.report.unrolled import unrolled
from daskumap.stages.shared.positions import segments
from daskumap.store import schema
from daskumap.store.lock import holder_of
from daskumap.store.run import RunStore

# Times the processor time of a look that is rested after it: 2 % of a core.
REST = 50
# Seconds between two looks at least, of what is on this machine and of what is not.
EVERY, EVERY_FAR = 1.0, 5.0
PIXELS = 600


@dataclass(frozen=True)
class Sight:
    """What there is to see of a run.

    Attributes
    ----------
    text
        How far it is.
    png
        The map; None where there is none yet.
    state
        "running" while more may come; then "finished", "failed", or "unfinished": nobody works on it.
    """

    text: str
    png: bytes | None
    state: str = "running"

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.state != "running"


class Watcher:
    """Looks at one run.

    Parameters
    ----------
    store
        Opened to read.
    """

    def __init__(self, store: RunStore) -> None:
        if store.about["params"].get("transform_mode") == "graph":
            raise ParameterError(f"The run in {store.url} makes a graph, and no map that could be watched.")
        self.store = store
        self.ends: list[int] | None = None

    def sights(self, sleep: Callable[[float], Any] = time.sleep) -> Iterator[Sight]:
        """Yield what is seen whenever it is another sight; the last one says how the run ended."""
        before: Any = None
        while True:
            started = time.thread_time()
            state, text = self._state()
            newest = self._newest()
            if state != "running" or newest != before:
                sight = self._look(newest, state, text)
                if sight is not None:  # Else a newer checkpoint took its place meanwhile.
                    before = newest
                    yield sight
                    if sight.over:
                        return
            far = EVERY_FAR if "://" in self.store.url else EVERY
            sleep(max(far, REST * (time.thread_time() - started)))

    def _state(self) -> tuple[str, str]:
        """Return how the run stands, and that in words where it is over."""
        ledger, holder = self.store.ledger, holder_of(self.store)
        if ledger.finished() is not None:
            return "finished", "finished"
        if holder is not None and holder["alive"] is not False:
            return "running", ""
        failure = ledger.failure() if ledger.has_begun() else None
        if failure is not None:
            return "failed", f"failed: {failure['error']}"
        return "unfinished", "stopped: nobody works on it, and daskumap resume goes on"

    def _newest(self) -> tuple[str, int]:
        """Return the array with the newest map, and after how many checkpoints it is; "" for none."""
        ledger = self.store.ledger
        if not ledger.has_begun():
            return "", 0
        if ledger.finished() is not None:
            return schema.EMBEDDING.name, 0
        done = ledger.tasks(schema.STATE.name)
        if done:
            newest = max(done)
            return f"{schema.STATE.name}/{newest:08d}/{schema.STATE.parts[0]}", newest + 1
        return (schema.INITIAL.name, 0) if ledger.count("initialize") else ("", 0)

    def _look(self, newest: tuple[str, int], state: str, text: str) -> Sight | None:
        name, after = newest
        try:
            png = self._draw(name) if name else None
        except (StoreError, KeyError, ValueError):
            if state == "running":
                return None
            png = None  # It will not come back.
        return Sight(text or (self._how_far(after) if name else "no map yet"), png, state)

    def _draw(self, name: str) -> bytes:
        params = self.store.about["params"]
        positions = Thin(self.store.array(name))
        image, _ = raster(
            unrolled(positions, params["output_metric"], params["output_metric_kwds"]), None, PIXELS, LIGHT
        )
        write_png(stream := io.BytesIO(), image)
        return stream.getvalue()

    def _how_far(self, after: int) -> str:
        """Return which epoch a checkpoint is of."""
        if self.ends is None:
            context = open_to_look(self.store)
            each = max(1, context.job.iterations // max(1, context.params.epochs(context.sizes.rows)))
            self.ends = [last // each for _, last in segments(context)]
        return f"epoch {self.ends[after - 1] if after else 0} of {self.ends[-1]}"
