"""A context and a stage that need no run store: what engines are tested with."""

import functools
import threading
import time
from dataclasses import dataclass, field

from daskumap.engine.base import RETRIES
from daskumap.errors import SourceError
from daskumap.planning.sizes import Resources
from daskumap.planning.stage import Receipt, Rounds, Stage
from daskumap.runtime.listen import tell

OPENED = []  # the contexts of this process, in the order in which they were opened


@dataclass
class FakeContext:
    """Counts what an engine does with it."""

    url: str = "memory://run"
    resources: Resources = field(default_factory=lambda: Resources(4 * 10**9))
    stage: str = ""
    entered: list[str] = field(default_factory=list)
    closed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, stage):
        with self.lock:
            went_over, self.stage = stage.name != self.stage, stage.name
            if went_over:
                self.entered.append(stage.name)
        return went_over

    def opener(self):
        return functools.partial(open_fake, self.url)

    def close(self):
        self.closed += 1


def open_fake(url):
    OPENED.append(FakeContext(url))
    return OPENED[-1]


def square(context, number):
    time.sleep(0.001 * (number % 3))
    return Receipt(1, {"square": number**2})


def square_in_halves(context, number):
    tell(0.5)
    return square(context, number)


def fail_at_three(context, number):
    if number == 3:
        raise SourceError("row 7 is broken")
    return Receipt(1)


def stage_of(task=square, tasks=6, name="probe", **options):
    return Stage(task, tasks, {}, name=name, **options)


def deaf(number, share):
    pass


def run(engine, stage, context=None, listener=deaf):
    """Run all tasks of a stage as a driver does."""
    engine.begin(context or FakeContext())
    try:
        return list(engine.run(stage, list(range(stage.tasks)), listener))
    finally:
        engine.end()


def load(context, part, segment):
    return [part, 100 * segment]


def share(state):
    return state[1]


def step(context, part, now, state, total):
    return [part, state[1] + now * total + part]


def save(context, part, segment, state):
    return Receipt(1, {"sum": state[1]}, kernel_seconds=1.0)


def stage_in_rounds(parts=3, segments=((1, 2, 3), (4, 5)), **functions):
    functions = {"load": load, "share": share, "reduce": sum, "step": step, "save": save} | functions
    return stage_of(
        whole(parts, segments), len(segments), ordered=True, rounds=Rounds(parts, segments, **functions)
    )


def whole(parts, segments):
    return functools.partial(segment_at_once, parts, segments)


def segment_at_once(parts, segments, context, segment):
    """Do what the rounds do, in one task."""
    values = [100 * segment] * parts
    for now in segments[segment]:
        total = sum(values)
        values = [value + now * total + part for part, value in enumerate(values)]
    return Receipt(parts, {"sum": sum(values)})


class Flaky:
    """Fails so often in all, and counts."""

    def __init__(self, failures, task=square):
        self.failures, self.task, self.calls, self.lock = failures, task, 0, threading.Lock()

    def __call__(self, context, number):
        with self.lock:
            self.calls += 1
            failing = self.calls <= self.failures
        if failing:
            raise OSError("lightning")
        return self.task(context, number)


ATTEMPTS = RETRIES + 1
