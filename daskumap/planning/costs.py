"""What things cost on the reference machine: one core of a two-core Xeon of 2.1 GHz with AVX-512, local disk.

Estimates of time rest on these figures, scaled by what `kernels.speed` measures on the workers. Those that
say so also decide between ways to search, so they are constants and no timings: they are part of the result.
Seconds, unless a name says otherwise; each was measured with the benchmark that it names, or alone.
"""

from __future__ import annotations

# Matrix products: floating-point operations a second of one core (benchmarks/scale_kernels.py).
FLOPS = 55e9
# How fast a worker reads and writes a run store on a local disk: 1.3 to 1.6 GB/s (benchmarks/scale.py
# growth).
STORE_BYTES_A_SECOND = 1.4e9
# What a task costs beside its work: 5 to 20 ms (benchmarks/scale.py growth).
TASK = 0.01

# A value of the input: cast, checked and sampled; gathered for the report.
SCAN_VALUE, GATHER_VALUE = 18e-9, 6e-9
# A row that is hashed and compared with its bucket; whose first row is looked up.
HASH_ROW, FIRST_ROW = 0.3e-6, 0.1e-6
# K-means: floating-point operations a value and cell.
K_MEANS_FLOPS = 24.0
# A bundle of counts, without and for each level of a cell.
COUNT_BLOCK, COUNT_CELL = 0.01, 3e-9
# Choosing cells: in all, for each bundle, for each level of a cell, and for each row.
ORDER, ORDER_BUNDLE, ORDER_CELL, ORDER_ROW = 0.1, 0.006, 6e-9, 0.2e-6
# A row written to one of its cells, without and for each of its values.
SHUFFLE_ROW, SHUFFLE_VALUE = 0.4e-6, 12e-9
# NN-descent for a row, once compiled: 55 us at D = 64, 80 us at D = 384.
DESCENT_ROW = 65e-6
# A neighbour in lists that are merged; calibrated; symmetrised.
MERGE_NEIGHBOR, CALIBRATE_NEIGHBOR, SYMMETRIZE_NEIGHBOR = 0.06e-6, 0.23e-6, 0.28e-6
# Where edges are weighed by simplices: a neighbour of a vertex whose list is sent; a pair of its neighbours,
# and a triple for tetrahedra (200,000 x 64 and Fashion-MNIST: 8 us a row at 14 neighbours for triangles, 16
# to 30 with tetrahedra; at 49 neighbours 82 and 950).
HALO_NEIGHBOR, TRIANGLE_PAIR, TETRAHEDRON_TRIPLE = 0.05e-6, 0.045e-6, 0.0075e-6
# A vertex that is given its start; whose position is written in the order of rows.
INITIALIZE_VERTEX, PUBLISH_ROW = 0.12e-6, 0.3e-6
# A vertex in an iteration of the layout, in two dimensions with 14 neighbours (benchmarks/scale_kernels.py).
ITERATION_VERTEX = 132e-9
# A pair of points on a map with a metric of its own (11 ns for Manhattan, 60 on a torus, 130 on the sphere),
# and the edges of a vertex that fire in an iteration.
MEASURED_PAIR, FIRED = 100e-9, 7
# A value of a pair of rows that is evaluated in float64, as stored (60,000 x 64, 12,000 x 784).
STORED_VALUE = 0.4e-9
# The report: a pair of points on the map, a pair of rows beside its product, a neighbour in the loss, and
# where pieces are counted; a row in the summary.
MAP_PAIR, RANK_PAIR, LOSS_NEIGHBOR, PIECES_NEIGHBOR, SUMMARY_ROW = 1.1e-9, 2.6e-9, 0.24e-6, 0.03e-6, 0.6e-6

# A step of the built-in network: floating-point operations a parameter and row, forward, by the weights and
# by the rows (1.3 ms with 250 edges and 27,302 parameters).
STEP_FLOPS = 6.0

# What one distance of a matrix product costs with its selection, in ns, without and for each column (2.2 ns
# at D = 64, 8.2 at D = 784). Part of the result.
DISTANCE_NS = (1.6, 0.0085)
# What a row costs in the joins of a wide cell, in ns, without and for each column (27 us at D = 32, 33 at 64,
# 46 at 128). Part of the result.
JOIN_NS = (21_000.0, 200.0)

# What sharing the layout costs a round: the way to the scheduler and back, two tasks a partition, and a
# dependency between any two (14 to 70 ms; 1 ms a task; 22 us; benchmarks/scale.py workers).
ROUND, ROUND_PARTITION, ROUND_PAIR = 0.02, 2e-3, 22e-6


def encoder_step(edges: int, parameters: int) -> float:
    """Return what a step of a training takes one core: a batch has both ends of each edge."""
    return STEP_FLOPS * 2 * edges * parameters / FLOPS


def distance_ns(columns: int) -> float:
    """Return what one distance of a matrix product costs with its selection, in ns."""
    return DISTANCE_NS[0] + DISTANCE_NS[1] * columns


def join_ns(columns: int) -> float:
    """Return what a row costs in the joins of a wide cell, in ns."""
    return JOIN_NS[0] + JOIN_NS[1] * columns


def measured_seconds(rows: int, negatives: int) -> float:
    """Return what an iteration of the layout takes one core where the map has a metric of its own."""
    return MEASURED_PAIR * rows * FIRED * (1 + negatives)


def iteration_seconds(rows: int, n_neighbors: int, n_components: int) -> float:
    """Return what an iteration of the layout takes one core."""
    return ITERATION_VERTEX * rows * n_components / 2 * (n_neighbors - 1) / 14
