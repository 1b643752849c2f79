"""What a pipeline is made of: steps, the stages that they are planned into, and receipts of their tasks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# The bytes of each element type that the run store uses; NumPy is not needed to plan.
ITEM_BYTES = {"float32": 4, "float64": 8, "int32": 4, "int64": 8, "uint8": 1, "uint64": 8}


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
class Receipt:
    """What a task returns, and what its record in the ledger holds.

    Attributes
    ----------
    rows
        Rows, vertices or records that the task handled.
    found
        Numbers that the stage's `conclude` puts together, as JSON types.
    kernel_seconds
        Of `seconds`, those in kernels, where the task measures them.
    seconds, peak_bytes
        Wall time, and the peak resident memory of the process during the stage; the engine fills them in.
    """

    rows: int
    found: dict[str, Any] = field(default_factory=dict)
    kernel_seconds: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the receipt as JSON types."""
        return dataclasses.asdict(self)

    @property
    def input_sum(self) -> int:
        """The checksum of the rows that the task read, which is not "crc32" where that is the result's."""
        return int(self.found.get("input_crc32", self.found["crc32"]))

    @staticmethod
    def total(receipts: dict[int, Receipt], name: str) -> Any:
        """Return the sum of a number that each of some receipts found."""
        return sum(receipt.found[name] for receipt in receipts.values())


@dataclass(frozen=True)
class Rounds:
    """How a segment of synchronous rounds runs where several workers share it.

    A part is a range that one worker owns. In every round each part goes from its state to the next one,
    given what all parts share. Which worker has which part does not change the result.

    Attributes
    ----------
    parts
        Number of parts.
    segments
        The rounds of each segment; a round is whatever `step` takes, such as iterations [first, last).
    load
        `load(context, part, segment) -> state`, as the last segment left it.
    share
        `share(state) -> block`, the part of a state that all parts see.
    reduce
        `reduce(blocks) -> snapshot`, what `step` gets, from the blocks of all parts in order.
    step
        `step(context, part, round, state, snapshot) -> state`; changes nothing that it is given.
    save
        `save(context, part, segment, state) -> Receipt`; writes the state.
    """

    parts: int
    segments: tuple[tuple[Any, ...], ...]
    load: Callable[..., Any]
    share: Callable[..., Any]
    reduce: Callable[..., Any]
    step: Callable[..., Any]
    save: Callable[..., Receipt]


@dataclass(frozen=True)
class Stage:
    """One idempotent function mapped over task numbers: a step as planned for one run.

    Attributes
    ----------
    task
        `task(context, number) -> Receipt`: reads the stores itself, writes what it alone owns, returns a few
        numbers.
    memory
        Named terms in bytes of one task's working set; the worker's own `reserved` is added by the plan.
    shared
        Bytes held once a worker, whatever the number of its threads.
    outputs
        Arrays that the driver creates and tasks fill.
    made, made_bytes
        Names of what tasks create themselves, since only they know the sizes, and its bytes.
    work, products
        Seconds of all tasks on one core of the reference machine (`kernels.speed`), for the time estimate,
        and whether matrix products set them, or memory.
    conclude
        `conclude(context, receipts) -> None`, run by the driver when all tasks are done: keeps facts, and
        checks what only the whole tells.
    ordered
        Whether each task needs the one before it. An ordered task uses all threads of its worker.
    lasting
        Of an ordered stage, the tasks whose state stays beside the last one's, for later steps.
    rounds
        How the tasks, which are segments then, run where several workers share each.
    name, reads, writes
        Of the step: names of what its tasks may touch in the run store.
    model
        Names of what its tasks may read in the run store of the model.
    """

    task: Callable[..., Receipt]
    tasks: int
    memory: dict[str, int]
    shared: int = 0
    outputs: tuple[Output, ...] = ()
    read_bytes: int = 0
    made: tuple[str, ...] = ()
    made_bytes: int = 0
    work: float = 0.0
    products: bool = False
    conclude: Callable[[Any, dict[int, Receipt]], None] | None = None
    ordered: bool = False
    lasting: frozenset[int] = frozenset()
    rounds: Rounds | None = field(default=None, compare=False)
    name: str = ""
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    model: frozenset[str] = frozenset()

    @property
    def task_bytes(self) -> int:
        """Projected peak of one task, in bytes."""
        return sum(self.memory.values())

    @property
    def written_bytes(self) -> int:
        """Bytes that the stage adds to the run store."""
        return self.made_bytes + sum(output.nbytes for output in self.outputs)


@dataclass(frozen=True)
class Step:
    """A stage before it is planned for a run: who plans it, and what its tasks read and write.

    Attributes
    ----------
    name
        What ledger, plan and report call it; steps of one stage share what comes before the dot.
    plan
        `plan(context) -> Stage`, from metadata and from what earlier stages found.
    reads, writes
        Items of `store.schema`. A task that touches anything else is refused; what no later step reads is
        scratch, and goes.
    model
        Items of the model that a task reads: of the finished run into whose map new rows are placed.
    """

    name: str
    plan: Callable[[Any], Stage]
    reads: tuple[Any, ...] = ()
    writes: tuple[Any, ...] = ()
    model: tuple[Any, ...] = ()

    def planned(self, context: Any) -> Stage:
        """Return the stage of this step for one run."""
        return dataclasses.replace(
            self.plan(context),
            name=self.name,
            reads=frozenset(item.name for item in self.reads),
            writes=frozenset(item.name for item in self.writes),
            model=frozenset(item.name for item in self.model),
        )
