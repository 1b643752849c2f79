"""Train: the steps of a network, in segments that each end in a checkpoint.

The rows that take part, the edges between them and what is known of them are in memory: all, or windows one
after the other. What a step draws is a hash of the seed, the replica and the step, so that nothing depends on
who runs it. Of several replicas each goes its own way for a while, and then all go on from their mean.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import numpy as np

from daskumap.errors import TaskError
from daskumap.kernels.encoder.backend import Backend, Terms
from daskumap.kernels.encoder.batch import Settings
from daskumap.kernels.encoder.sampler import Sampler
from daskumap.kernels.encoder.training import run_steps, start
from daskumap.planning import costs, training
from daskumap.planning.stage import Receipt, Rounds, Stage, Step
from daskumap.planning.training import history
from daskumap.runtime.context import Context
from daskumap.runtime.listen import tell
from daskumap.runtime.networks import batch_bytes, network_of
from daskumap.stages.shared.encoding import known_bytes
from daskumap.stages.shared.given_start import with_given
from daskumap.stages.shared.graph_facts import strength_of
from daskumap.stages.shared.held_rows import WINDOW_STEPS, held_part, is_windowed
from daskumap.stages.shared.replicas import mean_of
from daskumap.store import schema
from daskumap.store.checkpoint import KEPT, Digests

Array = np.ndarray[Any, Any]


def plan_train(context: Context) -> Stage:
    """Plan one task a segment of `checkpoint_steps` steps."""
    e, s = context.params.encoder, context.sizes
    ranges, output = e.segments(), context.output(schema.TRAINING)
    inputs, known = context.extent("axis"), known_bytes(context)
    row = training.row_bytes(inputs, known, mean_degree(context))
    held = e.held_rows(s.rows)
    windows = training.windows(e, s.rows, context.resources.threads)
    chunk = min(s.vertex_chunk, s.rows)
    state = 3 * context.network.size * 4
    return Stage(
        task=train_task,
        tasks=len(ranges),
        memory={
            "batch": e.replicas * batch_bytes(context.params, context.network, s.columns),
            "states": 4 * state * e.replicas,
            "vertex chunk": chunk * (2 * (4 * inputs + known) + 2 * context.job.neighbors * 40),
        },
        shared=int(windows * held * row),
        made=(schema.TRAINING.name,),
        made_bytes=(1 + KEPT) * len(schema.TRAINING.parts) * output.nbytes,
        read_bytes=_reads(context, ranges) * int(s.rows * (4 * inputs + known + 8 * mean_degree(context))),
        work=e.replicas * e.steps * costs.encoder_step(e.batch_edges, context.network.size),
        products=True,
        ordered=True,
        rounds=_rounds(context, ranges) if e.replicas > 1 else None,
        conclude=keep_history,
    )


def mean_degree(context: Context) -> float:
    """Return how many edges a row has: as counted, or before that the most there may be."""
    rows = context.sizes.rows
    found = context.fact(schema.GRAPH_FACTS, {"edges": 2 * context.job.neighbors * rows})
    return float(found["edges"]) / rows


def _reads(context: Context, ranges: list[tuple[int, int]]) -> int:
    """Return how often the vertex chunks are read."""
    return -(-ranges[-1][1] // WINDOW_STEPS) if is_windowed(context) else 1


def _rounds(context: Context, ranges: list[tuple[int, int]]) -> Rounds:
    e = context.params.encoder
    return Rounds(
        parts=e.replicas,
        segments=tuple(tuple(e.rounds(*range_)) for range_ in ranges),
        load=load_replica,
        share=state_of_replica,
        reduce=mean_of,
        step=step_replica,
        save=save_replica,
    )


def train_task(context: Context, segment: int) -> Receipt:
    """Run the steps of one segment, of all replicas one after the other."""
    e = context.params.encoder
    first, last = e.segments()[segment]
    states = [load_replica(context, replica, segment) for replica in range(e.replicas)]
    for round_ in e.rounds(first, last):
        mean = mean_of([state[0] for state in states])
        hear = partial(_tell, first, last)
        states = [
            step_replica(context, replica, round_, state, mean, hear) for replica, state in enumerate(states)
        ]
    receipts = [save_replica(context, replica, segment, state) for replica, state in enumerate(states)]
    found = {name: [one for r in receipts for one in r.found[name]] for name in receipts[0].found}
    return Receipt(receipts[0].rows, found, kernel_seconds=sum(r.kernel_seconds for r in receipts))


def _tell(first: int, last: int, step: int) -> None:
    tell((step - first) / (last - first))


# One replica between two rounds: its (3, P) weights and moments, and so far the sums of the terms of its loss
# and the seconds of its kernels.
ReplicaState = tuple[Array, Terms, float]


def load_replica(context: Context, replica: int, segment: int) -> ReplicaState:
    """Return a replica as the last segment left it; at the start all are alike."""
    if segment == 0:
        state = start(_network(context, replica), context.key("encoder"))
        state[0] = with_given(context, state[0])
        return state, {}, 0.0
    before = context.checkpoint(schema.TRAINING, segment - 1)
    parts = [before.read(part, replica, replica + 1)[0] for part in schema.TRAINING.parts]
    return np.stack(parts), {}, 0.0


def state_of_replica(state: ReplicaState) -> Array:
    """Return the part of a replica that the others see."""
    return state[0]


def step_replica(
    context: Context,
    replica: int,
    round_: tuple[int, int],
    state: ReplicaState,
    mean: Array,
    hear: Any = None,
) -> ReplicaState:
    """Return a replica after the steps of a round, from the mean of all replicas; nothing given is changed.

    Raises
    ------
    TaskError
        If a term of the loss is not finite.
    """
    (_, sums, seconds), (first, last) = state, round_
    trained, sums, at = mean, dict(sums), first
    while at < last:
        end = min(last, (at // WINDOW_STEPS + 1) * WINDOW_STEPS)
        sampler = _sampler(context, replica, at)
        started = time.perf_counter()
        trained, terms = run_steps(
            _network(context, replica), trained, sampler, at, end, settings_of(context)
        )
        seconds += time.perf_counter() - started
        _refuse_infinite(context, trained, terms, at, end)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value
        del sampler  # A window goes before the one after the next one is read.
        at = end
        if hear is not None:
            hear(at)
    return trained, sums, seconds


def _network(context: Context, replica: int) -> Backend:
    """Return the network of a replica: one thread trains it at a time."""
    return context.held(f"network {replica}", lambda: network_of(context.params, context.sizes.columns))


def _sampler(context: Context, replica: int, step: int) -> Sampler:
    if is_windowed(context):
        return _sampler_of(context, replica, step)
    return context.held(f"sampler {replica}", lambda: _sampler_of(context, replica, step))


def _sampler_of(context: Context, replica: int, step: int) -> Sampler:
    part = held_part(context, step)
    key = context.key("encoder", 1 + replica)
    return Sampler(part.rows, part.edges, key, settings_of(context), **part.known)


def settings_of(context: Context) -> Settings:
    """Return what the loss of a step is, and how far it goes."""
    p, rows = context.params, context.sizes.rows
    e, (a, b) = p.encoder, p.curve()
    return Settings(
        a,
        b,
        e.steps,
        loss=e.loss,
        batch_edges=e.batch_edges,
        negatives=p.negative_sample_rate,
        repulsion=strength_of(context),
        learning_rate=e.encoder_learning_rate,
        warm_steps=e.warm_steps(rows),
        autoencoder_weight=e.autoencoder_weight,
        reconstruction=e.reconstruction,
        global_weight=e.global_weight,
        label_weight=e.label_weight,
        landmark_weight=e.landmark_weight,
    )


def _refuse_infinite(context: Context, state: Array, terms: Terms, first: int, last: int) -> None:
    wrong = [name for name, value in terms.items() if not math.isfinite(value)]
    if not wrong and np.isfinite(state[0]).all():
        return
    segments = context.params.encoder.segments()
    segment = next(number for number, (_, end) in enumerate(segments) if first < end)
    kept = f"the checkpoint of segment {segment - 1} is kept" if segment else "there is no checkpoint before"
    raise TaskError(
        f"The loss of the training is not finite in segment {segment}, steps {first} to {last - 1} "
        f"({', '.join(wrong) or 'weights'}); {kept}. Train again into another place with a lower "
        f"encoder_learning_rate, which is {context.params.encoder.encoder_learning_rate:g}."
    )


def save_replica(context: Context, replica: int, segment: int, state: ReplicaState) -> Receipt:
    """Write a replica's weights and moments."""
    parts = {part: values[None] for part, values in zip(schema.TRAINING.parts, state[0], strict=True)}
    digests: Digests = context.checkpoint(schema.TRAINING, segment, writing=True).write(replica, parts)
    rows = context.params.encoder.held_rows(context.sizes.rows)
    return Receipt(rows, {**digests, "terms": [state[1]]}, kernel_seconds=state[2])


def keep_history(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep how the training went."""
    segments = context.params.encoder.segments()
    context.save_fact(schema.HISTORY, history(segments, receipts))


TRAIN = Step(
    "encoder.train",
    plan_train,
    reads=(
        schema.ENCODER_ROWS,
        schema.ENCODER_LABELS,
        schema.ENCODER_LANDMARKS,
        schema.ENCODER_PLACES,
        schema.GRAPH,
        schema.GRAPH_FACTS,
        schema.REPULSION,
        schema.START,
        schema.ENCODER_AXES,
        schema.ENCODER_MEAN,
        schema.ENCODER_SCALE,
    ),
    writes=(schema.TRAINING, schema.HISTORY),
)
