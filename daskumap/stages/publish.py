"""Publish: the finished positions back in the user's row order.

Reads layout/* and rows/vertex, with `unique` also rows/first. Writes `embedding`, (n, d) float32, one
chunk a row block.
Memory: the positions of all vertices, once a worker; with `unique` also the vertices of all rows.
"""

from __future__ import annotations

import numpy as np

from daskumap.planning.held import held
from daskumap.planning.job import Job
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import Array, run_of, tail_type
from daskumap.stages.layout import final_bytes, final_positions


def plan_publish(job: Job) -> Stage:
    """Plan one task a row block."""
    s, d = job.sizes, job.params.n_components
    vertices = s.rows * np.dtype(tail_type(job)).itemsize if job.params.unique else 0
    return Stage(
        name="publish",
        task=publish_task,
        tasks=s.row_blocks,
        memory={"row block": s.row_block * ((24 if job.params.unique else 8) + d * 8)},
        shared=final_bytes(job) + vertices,
        outputs=(Output("embedding", (s.rows, d), (s.row_block, d), "float32"),),
        read_bytes=s.rows * (d * 4 + 12),
        work=0.3e-6 * s.rows,
    )


def _vertices(job: Job) -> Array:
    """Read the vertex of every row: a twin's first row may be anywhere before it."""
    run, s = run_of(job), job.sizes
    vertices = np.empty(s.rows, tail_type(job))
    for start, stop in map(s.block, range(s.row_blocks)):
        vertices[start:stop] = run.read("rows/vertex", start, stop)
    return vertices


def publish_task(job: Job, number: int) -> Receipt:
    """Write the positions of a row block's rows; a twin's is that of its first row."""
    run = run_of(job)
    start, stop = job.sizes.block(number)
    if job.params.unique:
        vertices = held(job, "vertices", lambda: _vertices(job))[run.read("rows/first", start, stop)]
    else:
        vertices = run.read("rows/vertex", start, stop)
    positions = held(job, "positions", lambda: final_positions(job))
    run.array("embedding")[start:stop] = positions[vertices]
    return {"rows": stop - start}
