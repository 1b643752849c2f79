"""What a plan is made of: stages, their outputs and their memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# The bytes of each element type that the run store uses; NumPy is not needed to plan.
ITEM_BYTES = {"float32": 4, "float64": 8, "int32": 4, "int64": 8, "uint8": 1}

Receipt = dict[str, Any]


@dataclass(frozen=True)
class Output:
    """An array of the run store that a stage fills: tasks own whole chunks of it.

    >>> Output("knn/distances", (100, 14), (50, 14), "float32").nbytes
    5600
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes on disk, but for four bytes of checksum a chunk."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Rounds:
    """A stage whose tasks are segments of synchronous rounds over partitions, when several workers share it.

    `load(job, partition, segment)` gives a partition's state, `step(job, partition, round, state, blocks)`
    the next one from all partitions' public blocks, `block(state)` the public part, and `save(job, partition,
    segment, state)` keeps it. A round is `reconcile_every` epochs.
    """

    load: Callable[..., Any]
    step: Callable[..., Any]
    block: Callable[..., Any]
    save: Callable[..., Receipt]
    ranges: tuple[tuple[int, int], ...]  # rounds [first, last) of each segment


@dataclass(frozen=True)
class Stage:
    """One idempotent function mapped over task numbers.

    Attributes
    ----------
    task
        `task(job, number) -> receipt`: reads the stores itself, writes what it alone owns, returns a few
        numbers.
    memory
        Named terms in bytes of one task's working set; the worker's own `reserved` is added by the plan.
    shared
        Bytes held once a worker, whatever the number of its threads.
    exchange, exchange_bytes
        Group in which tasks create arrays of their own, since only they know the sizes, and the bytes written
        there.
    work, products
        Seconds of all tasks on one core of the reference machine (`kernels.speed`), for the time estimate,
        and whether matrix products set them, or memory.
    finish
        `finish(job, receipts) -> None`, run by the driver when all tasks are done: checks what only the whole
        tells.
    ordered
        Whether each task needs the one before it.
    """

    name: str
    task: Callable[..., Receipt]
    tasks: int
    memory: dict[str, int]
    shared: int = 0
    outputs: tuple[Output, ...] = ()
    read_bytes: int = 0
    exchange: str = ""
    exchange_bytes: int = 0
    work: float = 0.0
    products: bool = False
    finish: Callable[[Any, dict[int, Receipt]], None] | None = None
    ordered: bool = False
    rounds: Rounds | None = field(default=None, compare=False)

    @property
    def task_bytes(self) -> int:
        """Projected peak of one task, in bytes."""
        return sum(self.memory.values())

    @property
    def written_bytes(self) -> int:
        """Bytes that the stage adds to the run store."""
        return self.exchange_bytes + sum(output.nbytes for output in self.outputs)
