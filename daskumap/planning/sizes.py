"""How large everything is: cells from the data's shape alone, blocks and windows from the memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from daskumap.planning import costs, memory

# Blocks of this size keep a core busy for a tenth of a second and more; larger ones gain nothing (measured).
BLOCK_BYTES = 48_000_000
# Rows of a wide cell, and what searching it may take. Larger cells share fewer rows: of 3,000,000 x 64,
# cells of 100,000 rows hold 2.0 copies of a row, of 200,000 1.7, at a recall of .97 and .985 (measured).
# Smaller ones fit anywhere.
WIDE_ROWS = 200_000
WIDE_BYTES = 250_000_000
# Most vertices a chunk of a checkpoint: 8 MB of positions in 2-D. Below that a request costs more than it.
STATE_ROWS = 1 << 20
# Row blocks that one task counts, at least: below it a second task costs more than it saves.
LEAST_BLOCKS = 16
# Below as many rows umap-learn compares all pairs, and so does one cell (`knn.MAX_PAIRWISE_ROWS`).
EXACT_ROWS = 4_096
# Hashes that one task compares: 24 MB of them.
BUCKET_ROWS = 1 << 20

# Of `Sizes` those that depend on the data and the parameters, and the result on them.
OF_DATA = (
    "rows",
    "columns",
    "sample_rows",
    "probe_rows",
    "cells",
    "max_cell_rows",
    "wide_rows",
    "vertex_chunk",
)


@dataclass(frozen=True)
class Resources:
    """What a run may use: bytes a worker process, workers, threads a worker.

    Attributes
    ----------
    compiled
        Whether the workers find the kernels compiled; compiling leaves memory in use.
    cores
        For a task that can share its work, where tasks run one after another.
    """

    memory: int
    workers: int = 1
    threads: int = 1
    compiled: bool = True
    cores: int = 1

    @property
    def reserved(self) -> int:
        """Bytes that a worker takes before it holds any data."""
        return memory.RESERVED + (0 if self.compiled else memory.COMPILING)

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

    @property
    def buckets(self) -> int:
        """Number of ranges that the hashes of rows are divided into."""
        return math.ceil(self.rows / BUCKET_ROWS)

    @property
    def bundle_blocks(self) -> int:
        """Row blocks a bundle, which one task counts: about as many as there are bundles."""
        return max(LEAST_BLOCKS, math.ceil(math.sqrt(self.row_blocks)))

    @property
    def bundles(self) -> int:
        """Number of bundles of row blocks."""
        return math.ceil(self.row_blocks / self.bundle_blocks)

    def bundle(self, number: int) -> range:
        """Return the row blocks of a bundle."""
        first = number * self.bundle_blocks
        return range(first, min(self.row_blocks, first + self.bundle_blocks))

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
    source_block_rows: int = 1,
    source_item_bytes: int = 4,
    source_gathers: bool = False,
    max_cell_rows: int | None = None,
    partitions: int | None = None,
) -> Sizes:
    """Fix all sizes of a run.

    >>> s = make_sizes(70_000, 784, 15, 2, Resources(4 * 10**9, 1, 2))
    >>> s.cells, s.row_blocks, s.partitions
    (100, 10, 5)
    """
    limit, cells = _cells(rows, columns, matrix_product, max_cell_rows)
    wide = min(rows, max_cell_rows or min(WIDE_ROWS, WIDE_BYTES // (8 * columns + 50 * n_neighbors)))
    chunk = vertex_chunk(rows)
    free = resources.memory - resources.reserved - 8 * n_components * rows
    # Scattered rows of a source that gathers are read as often as they are asked for.
    cache = 0 if source_gathers else _cache_bytes(rows, columns, n_neighbors, resources, free, wide)
    budget = max(32_000_000, (free - cache) // resources.threads)
    partition = _spread(
        rows,
        min(BLOCK_BYTES * 4, budget // 2) // (2 * memory.edge_row(n_neighbors)),
        resources.slots,
        chunk,
    )
    block = _row_block(
        rows,
        columns * (4 + source_item_bytes),
        min(BLOCK_BYTES, budget // 6),
        2 * resources.slots,
        source_block_rows,
    )
    group = _spread(rows * 2, min(BLOCK_BYTES * 8, budget // 4) // (n_neighbors * 36), resources.slots * 2, 1)
    edges = _edge_bytes(rows, n_neighbors, n_components, resources, cache, partition)
    layout = partitions or layout_partitions(rows, n_neighbors, n_components, resources, edges)
    return Sizes(
        rows=rows,
        columns=columns,
        # 24 rows a cell place a centroid well enough (measured: more changes the recall by less than .002).
        sample_rows=min(rows, max(8_192, 24 * cells)),
        probe_rows=min(rows, max(256, min(512, rows // 256)) if matrix_product else 128),
        cells=cells,
        max_cell_rows=limit,
        wide_rows=wide,
        vertex_chunk=chunk,
        row_block=block,
        window_rows=max(1, min(BLOCK_BYTES * 2, budget // 4) // (columns * 8)),
        group_rows=max(group, 1),
        # A task of the search holds an offset for each of its cells and row blocks.
        group_cells=max(64, budget // 16 // (8 * math.ceil(rows / block))),
        partition_rows=partition,
        layout_rows=_layout_rows(rows, layout),
        edge_bytes=edges,
        cache_bytes=cache,
    )


def make_transform_sizes(
    rows: int,
    columns: int,
    n_neighbors: int,
    n_components: int,
    resources: Resources,
    *,
    model_rows: int,
    source_block_rows: int = 1,
    source_item_bytes: int = 4,
    source_gathers: bool = False,
) -> Sizes:
    """Fix the sizes of a transform: as of a fit of the new rows, but for blocks as large as memory allows.

    Each row block reads the cells of the model that its rows are near, so that few blocks read little. Where
    one worker can hold the rows of the model and the new ones in a quarter of its memory, it reads them once.

    Parameters
    ----------
    model_rows
        Rows that were fitted, whose positions each worker holds.

    >>> make_transform_sizes(10_000, 784, 15, 2, Resources(4 * 10**9, 1, 2), model_rows=60_000).row_block
    5000
    """
    made = make_sizes(rows, columns, n_neighbors, n_components, resources)
    free = resources.memory - resources.reserved - model_rows * (8 * n_components + 1)
    held = (model_rows + rows) * columns * 4
    cache = held if resources.workers == 1 and held <= free // 4 and not source_gathers else 0
    budget = max(32_000_000, (free - cache) // resources.threads)
    row_bytes = columns * (4 + source_item_bytes) + memory.transform_row(n_neighbors, n_components)
    target = min(2 * BLOCK_BYTES, budget // 8)
    block = _row_block(rows, row_bytes, target, resources.slots, source_block_rows)
    window = max(1, min(2 * BLOCK_BYTES, budget // 8) // (columns * 8))
    return replace(made, row_block=block, window_rows=window, cache_bytes=cache)


def make_inverse_sizes(
    points: int,
    n_components: int,
    n_neighbors: int,
    resources: Resources,
    *,
    model_rows: int,
    model_columns: int,
) -> Sizes:
    """Fix the sizes of an inverse: each block of points holds the training rows that its points need.

    Where one worker can hold the rows of the model in a quarter of its memory, it reads them once.

    Parameters
    ----------
    model_rows, model_columns
        Of the rows that were fitted, whose positions each worker holds.

    >>> resources = Resources(4 * 10**9, 1, 2)
    >>> make_inverse_sizes(10_000, 2, 15, resources, model_rows=60_000, model_columns=784).row_block
    1391
    """
    made = make_sizes(points, n_components, n_neighbors, n_components, resources)
    free = resources.memory - resources.reserved - model_rows * memory.map_row(n_components)
    held = model_rows * model_columns * 4
    cache = held + points * n_components * 4 if resources.workers == 1 and held <= free // 4 else 0
    budget = max(32_000_000, (free - cache) // resources.threads)
    target = min(2 * BLOCK_BYTES, budget // 4)
    point_bytes = model_columns * (4 * min(n_neighbors, model_columns) + 28)
    block = max(1, min(target // point_bytes, math.ceil(points / resources.slots)))
    window = max(1, min(2 * BLOCK_BYTES, budget // 8) // (model_columns * 8))
    return replace(made, row_block=block, window_rows=window, cache_bytes=cache)


def make_encode_sizes(
    rows: int,
    columns: int,
    resources: Resources,
    *,
    made_bytes: int,
    source_block_rows: int = 1,
    source_item_bytes: int = 4,
) -> Sizes:
    """Fix the sizes where rows go through a trained network: blocks are all that counts, and none is kept.

    Parameters
    ----------
    made_bytes
        Of what a row becomes.

    >>> make_encode_sizes(10**6, 784, Resources(4 * 10**9, 1, 2), made_bytes=16).row_block
    7640
    """
    made = make_sizes(rows, columns, 2, 1, resources)
    budget = max(32_000_000, (resources.memory - resources.reserved) // resources.threads)
    block = _row_block(
        rows,
        columns * (4 + source_item_bytes) + made_bytes,
        min(BLOCK_BYTES, budget // 4),
        2 * resources.slots,
        source_block_rows,
    )
    return replace(made, row_block=block, cache_bytes=0)


def make_distance_sizes(
    rows: int,
    columns: int,
    n_neighbors: int,
    n_components: int,
    resources: Resources,
    *,
    row_bytes: int,
    source_block_rows: int = 1,
    partitions: int | None = None,
    held_bytes: int = 0,
) -> Sizes:
    """Fix the sizes where the input is distances to `columns` rows: as of a fit of as many rows, in one cell.

    A row may take megabytes, so that few of them make a block.

    Parameters
    ----------
    row_bytes, held_bytes
        Of a row of distances while it is looked at, and of what a worker holds beside it.

    >>> make_distance_sizes(10**6, 10**6, 15, 2, Resources(4 * 10**9), row_bytes=8 * 10**6).row_block
    24
    """
    made = make_sizes(rows, 1, n_neighbors, n_components, resources, partitions=partitions)
    free = resources.memory - resources.reserved - 8 * n_components * rows - held_bytes
    # Chunks are wide and decoded whole, so that a block of fewer rows than a chunk reads it several times.
    target = min(4 * BLOCK_BYTES, max(32_000_000, free // resources.threads) // 6)
    block = _row_block(rows, row_bytes, target, 2 * resources.slots, source_block_rows, 1)
    return replace(made, columns=columns, cells=1, row_block=block, group_rows=block, cache_bytes=0)


def _cells(rows: int, columns: int, matrix_product: bool, max_cell_rows: int | None) -> tuple[int, int]:
    """Return the most rows of a cell, and the number of cells."""
    wanted = cell_rows(rows, columns, matrix_product)
    limit = max_cell_rows or 12 * wanted
    if rows <= min(max(2 * wanted, EXACT_ROWS - 1), limit):
        return limit, 1
    return limit, math.ceil(rows / min(wanted, max(64, limit // 4)))


def vertex_chunk(rows: int) -> int:
    """Return the vertices a chunk: a power of two that makes some 32 chunks, within bounds."""
    return 1 << max(10, min(16, (max(1, rows // 32) - 1).bit_length()))


def _cache_bytes(
    rows: int, columns: int, n_neighbors: int, resources: Resources, free: int, wide: int
) -> int:
    """Return what the rows take where the one worker can hold them, else 0.

    Five passes read the source: where a worker can hold it in a quarter of its memory, beside the search of
    wide cells, it is decoded once.
    """
    search = resources.threads * wide * (12 * columns + 130 * n_neighbors)
    room = min(free // 4, free - search)
    return rows * columns * 4 if resources.workers == 1 and rows * columns * 4 <= room else 0


def _edge_bytes(
    rows: int, n_neighbors: int, n_components: int, resources: Resources, cache: int, partition: int
) -> int:
    """Return what is left for edges beside the layout's positions and the edges that are being read."""
    reading = resources.threads * partition * memory.edge_read(n_neighbors)
    return max(
        0, resources.memory - resources.reserved - cache - memory.positions(rows, n_components) - reading
    )


def layout_partitions(
    rows: int, n_neighbors: int, n_components: int, resources: Resources, edge_bytes: int
) -> int:
    """Return over how many workers an iteration is fastest: each more moves fewer rows, and costs time.

    >>> [layout_partitions(n, 15, 2, Resources(10**9, w, 8), 10**12) for n, w in ((10**6, 4), (10**8, 512))]
    [1, 23]
    """
    iteration = costs.iteration_seconds(rows, n_neighbors, n_components)
    edges = rows * memory.layout_edges(n_neighbors)

    def seconds(parts: int) -> float:
        read = max(0, edges / parts - edge_bytes) / costs.STORE_BYTES_A_SECOND
        shared = costs.ROUND + costs.ROUND_PARTITION * parts + costs.ROUND_PAIR * parts**2
        return iteration / (parts * resources.threads) + read + (shared if parts > 1 else 0.0)

    return min(range(1, resources.workers + 1), key=seconds)


def _layout_rows(rows: int, partitions: int) -> int:
    """Return the vertices a partition of the layout: whole chunks of equal size."""
    wanted = math.ceil(rows / partitions)
    chunks = math.ceil(wanted / STATE_ROWS)
    return math.ceil(wanted / chunks) * chunks


def _row_block(
    rows: int, row_bytes: int, target_bytes: int, parts: int, block_rows: int, least: int = 1024
) -> int:
    """Return rows a block: about `target_bytes`, at least so many parts, whole source pieces if they fit."""
    wanted = max(1, min(target_bytes // row_bytes, math.ceil(rows / parts)))
    wanted = max(wanted, min(rows, least))
    if block_rows <= wanted:
        return min(rows, wanted // block_rows * block_rows)
    # A chunk is decoded whole however little of it is read, so take all of it if it is not too large.
    return min(rows, block_rows) if block_rows * row_bytes <= 2 * target_bytes else wanted


def _spread(rows: int, limit: int, slots: int, unit: int) -> int:
    """Return rows a part: at most `limit`, two parts for each slot, in whole units, at least one."""
    wanted = min(max(1, limit), math.ceil(rows / (2 * slots)))
    return max(unit, wanted // unit * unit)
