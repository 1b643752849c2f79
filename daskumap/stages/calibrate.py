"""Calibrate: each vertex's rho and sigma, and its memberships sent to the other end of each edge.

Reads knn/*. Writes calibration/rho, calibration/sigma and the exchange `reverse`, one run a vertex partition.
Memory: the partition's lists and its edges twice, as memberships and reversed.
"""

from __future__ import annotations

from daskumap.kernels.calibrate import calibrate, memberships
from daskumap.kernels.graph import sort_by_tail
from daskumap.planning.job import Job
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import Array, run_of
from daskumap.store.exchange import RunWriter


def plan_calibrate(job: Job) -> Stage:
    """Plan one task a vertex partition."""
    s, k = job.sizes, job.neighbors
    largest = min(s.partition_rows, s.rows)
    return Stage(
        name="calibrate",
        task=calibrate_task,
        tasks=s.partitions,
        memory={
            "lists": largest * k * 12,
            "memberships": largest * (k * 4 + 8),
            "reversed edges": largest * k * 20,
        },
        outputs=tuple(
            Output(f"calibration/{name}", (s.rows,), (s.vertex_chunk,), "float32")
            for name in ("rho", "sigma")
        ),
        read_bytes=s.rows * k * 12,
        exchange="reverse",
        exchange_bytes=s.rows * k * 20,
        work=0.23e-6 * s.rows * k,
    )


def calibrate_task(job: Job, number: int) -> Receipt:
    """Calibrate the vertices of a partition and send each edge to its tail."""
    run, s = run_of(job), job.sizes
    start, stop = s.partition(number)
    distances = run.read("knn/distances", start, stop)
    mean = float(run.load_json("facts/mean_distance"))
    rho, sigma = calibrate(distances, job.params.n_neighbors, float(job.params.local_connectivity), mean)
    run.array("calibration/rho")[start:stop] = rho
    run.array("calibration/sigma")[start:stop] = sigma
    weights = memberships(distances, rho, sigma)
    del distances
    indices = run.read("knn/indices", start, stop)
    tails, heads, reverse, offsets = sort_by_tail(indices, weights, start, s.vertex_chunk, s.vertex_chunks)
    columns = {"tails": ("int64", 0), "heads": ("int64", 0), "weights": ("float32", 0)}
    writer = RunWriter(run, "reverse", number, len(tails), columns)
    for name, values in (("tails", tails), ("heads", heads), ("weights", reverse)):
        writer.write(name, values)
    writer.close(offsets)
    return {"rows": stop - start, "edges": len(tails)}


def read_memberships(job: Job, start: int, stop: int) -> tuple[Array, Array]:
    """Return (r, k) neighbours and memberships of a range of vertices."""
    run = run_of(job)
    distances = run.read("knn/distances", start, stop)
    rho, sigma = (run.read(f"calibration/{name}", start, stop) for name in ("rho", "sigma"))
    return run.read("knn/indices", start, stop), memberships(distances, rho, sigma)
