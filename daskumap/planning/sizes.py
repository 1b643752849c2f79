"""How large everything is: cells from the data's shape alone, blocks and windows from the memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

# A worker's own memory with dask, zarr, numba, scikit-learn and the compiled kernels loaded, in bytes
# (measured: 300 to 370 MB embedded, what glibc keeps of freed memory included; 270 MB in a worker process).
RESERVED = 420_000_000
# Blocks of this size keep a core busy for a tenth of a second and more; larger ones gain nothing (measured).
BLOCK_BYTES = 48_000_000
# Rows of a wide cell, and what searching it may take. Larger cells share fewer rows: of 3,000,000 x 64,
# cells of 100,000 rows hold 2.0 copies of a row, of 200,000 1.7, at a recall of .97 and .985 (measured).
# Smaller ones fit anywhere.
WIDE_ROWS = 200_000
WIDE_BYTES = 250_000_000
# How fast a worker reads and writes a run store on a local disk (measured: 1.3 to 1.6 GB/s).
STORE_BYTES_A_SECOND = 1.4e9
# What sharing the layout costs a round, in seconds: the way to the scheduler and back, two tasks a partition,
# and a dependency between any two (measured: 14 to 70 ms; 1 ms a task; 22 us).
ROUND_SECONDS, PARTITION_SECONDS, PAIR_SECONDS = 0.02, 2e-3, 22e-6
# Most vertices a chunk of a checkpoint: 8 MB of positions in 2-D. Below that a request costs more than it.
STATE_ROWS = 1 << 20


@dataclass(frozen=True)
class Resources:
    """What a run may use: bytes a worker process, workers, threads a worker."""

    memory: int
    workers: int = 1
    threads: int = 1

    @property
    def slots(self) -> int:
        """Tasks that run at the same time."""
        return self.workers * self.threads


@dataclass(frozen=True)
class Sizes:
    """Every number that stages, stores and tasks agree on; recorded in the run store when a run starts.

    The first group depends on the data and the parameters only, and the result on that group alone. The
    second group is made of the memory and the number of workers, and the result does not depend on it.
    """

    rows: int
    columns: int
    sample_rows: int
    probe_rows: int
    cells: int
    max_cell_rows: int
    wide_rows: int
    vertex_chunk: int

    row_block: int
    window_rows: int
    group_rows: int
    group_cells: int
    partition_rows: int
    layout_rows: int
    edge_bytes: int
    cache_bytes: int

    @property
    def row_blocks(self) -> int:
        """Number of row blocks of the source."""
        return math.ceil(self.rows / self.row_block)

    @property
    def partitions(self) -> int:
        """Number of vertex partitions."""
        return math.ceil(self.rows / self.partition_rows)

    @property
    def layout_partitions(self) -> int:
        """Number of vertex partitions of the layout."""
        return math.ceil(self.rows / self.layout_rows)

    @property
    def state_chunk(self) -> int:
        """Vertices a chunk of the layout's checkpoints: equal parts of each partition of the layout."""
        return self.layout_rows // math.ceil(self.layout_rows / STATE_ROWS)

    @property
    def vertex_chunks(self) -> int:
        """Number of chunks along the vertices."""
        return math.ceil(self.rows / self.vertex_chunk)

    def block(self, number: int) -> tuple[int, int]:
        """Return the rows of a row block."""
        return number * self.row_block, min(self.rows, (number + 1) * self.row_block)

    def partition(self, number: int) -> tuple[int, int]:
        """Return the vertices of a partition."""
        return number * self.partition_rows, min(self.rows, (number + 1) * self.partition_rows)

    def layout_partition(self, number: int) -> tuple[int, int]:
        """Return the vertices of a partition of the layout."""
        return number * self.layout_rows, min(self.rows, (number + 1) * self.layout_rows)

    def chunks(self, start: int, stop: int) -> tuple[int, int]:
        """Return the vertex chunks of a range that starts on a chunk."""
        return start // self.vertex_chunk, math.ceil(stop / self.vertex_chunk)


def cell_rows(rows: int, columns: int, matrix_product: bool) -> int:
    """Return the rows that a cell should have, from the shape of the data alone.

    Where a matrix product gives the distances, brute force in many small cells is cheaper than NN-descent in
    few large ones: a row costs (cells + overlap^2 x cell rows) distances, so cells grow with the square root
    of n. Wide rows make products dear, so their cells are smaller. NN-descent needs large cells, but enough
    of them that 16 threads have work.

    >>> cell_rows(70_000, 784, True), cell_rows(10**8, 128, True), cell_rows(100_000, 128, False)
    (704, 5000, 6250)
    """
    if matrix_product:
        return max(1024 if columns < 256 else 704, int(math.sqrt(rows) / 2))
    return max(5_000, min(250_000, rows // 16))


def make_sizes(
    rows: int,
    columns: int,
    n_neighbors: int,
    n_components: int,
    resources: Resources,
    *,
    matrix_product: bool = True,
    source_chunk_rows: int = 1,
    source_item_bytes: int = 4,
    max_cell_rows: int | None = None,
    partitions: int | None = None,
) -> Sizes:
    """Fix all sizes of a run.

    >>> s = make_sizes(70_000, 784, 15, 2, Resources(4 * 10**9, 1, 2))
    >>> s.cells, s.row_blocks, s.partitions
    (100, 10, 5)
    """
    wanted = cell_rows(rows, columns, matrix_product)
    limit = max_cell_rows or 12 * wanted
    cells = 1 if rows <= min(2 * wanted, limit) else math.ceil(rows / min(wanted, max(64, limit // 4)))
    # 24 rows a cell place a centroid well enough (measured: more changes the recall by less than .002).
    sample = min(rows, max(8_192, 24 * cells))
    snapshot = 8 * n_components * rows
    free = resources.memory - RESERVED - snapshot
    wide = min(rows, max_cell_rows or min(WIDE_ROWS, WIDE_BYTES // (8 * columns + 50 * n_neighbors)))
    # Five passes read the source: where a worker can hold it in a quarter of its memory, beside the search of
    # wide cells, it is decoded once.
    search = resources.threads * wide * (12 * columns + 130 * n_neighbors)
    room = min(free // 4, free - search)
    cache = rows * columns * 4 if resources.workers == 1 and rows * columns * 4 <= room else 0
    budget = max(32_000_000, (free - cache) // resources.threads)
    row_bytes = columns * (4 + source_item_bytes)
    vertex_chunk = 1 << max(10, min(16, (max(1, rows // 32) - 1).bit_length()))
    vertex_bytes = edge_row_bytes(n_neighbors) * 2
    partition = _spread(
        rows, min(BLOCK_BYTES * 4, budget // 2) // vertex_bytes, resources.slots, vertex_chunk
    )
    block = _row_block(rows, row_bytes, min(BLOCK_BYTES, budget // 6), resources.slots, source_chunk_rows)
    window = max(1, min(BLOCK_BYTES * 2, budget // 4) // (columns * 8))
    group = _spread(rows * 2, min(BLOCK_BYTES * 8, budget // 4) // (n_neighbors * 36), resources.slots * 2, 1)
    # What is left beside the layout's positions and moments, and the pieces whose edges are being read.
    reading = resources.threads * partition * edge_read_bytes(n_neighbors)
    layout_bytes = position_bytes(rows, n_components) + reading
    edge_bytes = max(0, resources.memory - RESERVED - cache - layout_bytes)
    epoch = epoch_seconds(rows, n_neighbors, n_components)
    edges = rows * layout_edge_bytes(n_neighbors)
    layout = math.ceil(rows / (partitions or _layout_partitions(epoch, edges, edge_bytes, resources)))
    chunks = math.ceil(layout / STATE_ROWS)
    layout = math.ceil(layout / chunks) * chunks
    return Sizes(
        rows=rows,
        columns=columns,
        sample_rows=sample,
        probe_rows=min(rows, max(256, min(512, rows // 256)) if matrix_product else 128),
        cells=cells,
        max_cell_rows=limit,
        wide_rows=wide,
        vertex_chunk=vertex_chunk,
        row_block=block,
        window_rows=window,
        group_rows=max(group, 1),
        # A task of the search holds an offset for each of its cells and row blocks.
        group_cells=max(64, budget // 16 // (8 * math.ceil(rows / block))),
        partition_rows=partition,
        layout_rows=layout,
        edge_bytes=edge_bytes,
        cache_bytes=cache,
    )


def edge_row_bytes(n_neighbors: int) -> int:
    """Return the bytes a vertex takes while its edges are joined: lists, incoming edges and CSR entries."""
    return n_neighbors * (12 + 20 + 2 * 24)


def edge_read_bytes(n_neighbors: int) -> int:
    """Return the bytes a vertex takes while its edges are read for the layout."""
    return n_neighbors * 2 * 28


def position_bytes(rows: int, n_components: int) -> int:
    """Return what the layout holds of all vertices: two snapshots, two moments and the gathered positions."""
    return rows * n_components * 4 * 5


def layout_edge_bytes(n_neighbors: int) -> int:
    """Return the bytes of a vertex' edges in the layout, at most."""
    return (n_neighbors - 1) * 2 * 8


def epoch_seconds(rows: int, n_neighbors: int, n_components: int) -> float:
    """Return what an epoch of the layout takes one core of the reference machine."""
    return 165e-9 * rows * n_components / 2 * (n_neighbors - 1) / 14


def _layout_partitions(epoch: float, edges: int, edge_bytes: int, resources: Resources) -> int:
    """Return over how many workers an epoch is fastest: each more moves fewer rows, and costs the scheduler.

    >>> [_layout_partitions(165e-9 * n, 0, 1, Resources(10**9, w, 8)) for n, w in ((10**6, 4), (10**8, 512))]
    [1, 26]
    """

    def seconds(parts: int) -> float:
        read = max(0, edges / parts - edge_bytes) / STORE_BYTES_A_SECOND
        shared = ROUND_SECONDS + PARTITION_SECONDS * parts + PAIR_SECONDS * parts**2 if parts > 1 else 0.0
        return epoch / (parts * resources.threads) + read + shared

    return min(range(1, resources.workers + 1), key=seconds)


def _row_block(rows: int, row_bytes: int, target_bytes: int, slots: int, chunk_rows: int) -> int:
    """Return rows a block: about `target_bytes`, work for each slot, whole source chunks where they fit."""
    wanted = max(1, min(target_bytes // row_bytes, math.ceil(rows / (2 * slots))))
    wanted = max(wanted, min(rows, 1024))
    if chunk_rows <= wanted:
        return min(rows, wanted // chunk_rows * chunk_rows)
    # A chunk is decoded whole however little of it is read, so take all of it if it is not too large.
    return min(rows, chunk_rows) if chunk_rows * row_bytes <= 2 * target_bytes else wanted


def _spread(rows: int, limit: int, slots: int, unit: int) -> int:
    """Return rows a part: at most `limit`, two parts for each slot, in whole units, at least one."""
    wanted = min(max(1, limit), math.ceil(rows / (2 * slots)))
    return max(unit, wanted // unit * unit)


def as_dict(sizes: Sizes) -> dict[str, Any]:
    """Return the sizes as JSON values."""
    from dataclasses import asdict

    return asdict(sizes)
