"""Everything that a run store holds, each once: name, type, dimensions, columns, and how long it stays.

Steps declare by these items what they read and write. Dimensions, with what a chunk holds of them:

=========== ============================================================ ==================
row         position in the user's order                                 a row block
vertex      position in cell-major order                                 a vertex chunk
moving      a vertex, in the layout's checkpoints                        a piece of a layout partition
block       row block of the source                                      one
bundle      consecutive row blocks that one task counts                  one
partition   vertex range that one task owns                              one
column      of the input                                                 all
coordinate  in the metric's space, or a column where it has none         all
component   column of the embedding                                      all
listed      epoch after which the map is kept                            one
neighbor    of a row, itself not counted                                 all
overlap     cells that a row joins, at most                              all
level       from which a row joins a cell                                all
cell        small cell                                                   all
probe       row whose neighbours are also found exactly                  all
near        neighbours of a new row                                      all
reach       cells of the model that a new row is compared with, at most  all
model cell  small cell of the model                                      all
model block row block of the model's source                              one
quantile    of the training rows' distances to their neighbours          all
given neig. column of neighbours that the user gives                     all
nearest     of a point on the map                                        all
feature     column of the model's input                                  all
class       that a classifier tells apart                                all
axis        of a row as an encoder sees it: main axis, or column         all
replica     of an encoder that several train at a time                   one
parameter   of an encoder and all that is trained with it                all
given para. of an encoder that a training goes on from                   all
=========== ============================================================ ==================

Types beside NumPy's: "metric" is what the metric works on, float32 or uint8; "vertex" is the type of vertex
ids in graphs, int32 while they fit; "value" holds the user's values of a model, float64 where rows were moved
since float32 does not tell them apart, else float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

# How long an item stays: until its last reader is done, with the graph, for a model, or as the result.
SCRATCH, GRAPH_TOO, MODEL, RESULT = 0, 1, 2, 3
# What `keep` of `daskumap.fit` keeps, by the least of these.
KEEP = {"all": SCRATCH, "graph": GRAPH_TOO, "model": MODEL, "embedding": RESULT}


@dataclass(frozen=True, eq=False)
class Item:
    """Something that a run store holds, under a name, for as long as `stays` says."""

    name: str
    stays: int


@dataclass(frozen=True, eq=False)
class Array(Item):
    """A Zarr array: type and dimensions. Tasks make it themselves where only they know its size."""

    dtype: str
    dims: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Exchange(Item):
    """Records on their way: one batch for each task of the sender, sorted by destination.

    Attributes
    ----------
    by, to
        What there is a batch of, and what a destination is.
    columns
        Type and width by name; the width is a dimension, "" for a vector. A batch may lack columns.
    offsets
        What the table of offsets is called: destination d has the records offsets[d] to offsets[d + 1].
    chunk_bytes, offsets_a_chunk
        About the size of a chunk. Small where slices are small, so that they read little beside themselves.
    """

    by: str
    to: str
    columns: Mapping[str, tuple[str, str]]
    offsets: str = "offsets"
    chunk_bytes: int = 1 << 20
    offsets_a_chunk: int = 1 << 13


@dataclass(frozen=True, eq=False)
class Checkpoints(Item):
    """The state of the ordered step of this name after each of its tasks: parts of one type and shape."""

    dtype: str
    dims: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Fact(Item):
    """A number, or a few by name, as a JSON document with a checksum."""


@dataclass(frozen=True, eq=False)
class File(Item):
    """Bytes that are no array."""


def _cells(name: str, dtype: str, *dims: str, stays: int = GRAPH_TOO) -> Array:
    return Array(f"cells/{name}", stays, dtype, dims)


def _order(name: str, dtype: str, *dims: str, stays: int = SCRATCH) -> Array:
    return Array(f"order/{name}", stays, dtype, dims)


# The input, which is read through `Context.rows`: the user's own array, or its copy at this place.
SOURCE = Array("input/rows", MODEL, "metric", ("row", "column"))
# Kept in any case: the user's, and no larger than the result.
INIT = Array("input/init", RESULT, "float32", ("row", "component"))
# Main axes on which an input was put, with their mean and the names of its columns: the folder of
# `sources/projected.py`, which stays with the result.
MAIN_AXES = "input/axes"
MAIN_AXES_PARTS = ("mean", "variances", "columns", "axes")
# Names and numbers of rows, as they came with the input: the folder of `store/labels.py`.
ROW_LABELS = "labels"
# What is known of rows that an encoder is trained on: numbers of classes, -1 for none; places, NaN for none.
LABELS = Array("input/labels", RESULT, "int32", ("row",))
LANDMARKS = Array("input/landmarks", RESULT, "float32", ("row", "component"))
# What a model learnt that a training goes on from: its weights, part after part, for rows as they are.
START = Array("input/start", RESULT, "float32", ("given para.",))
# Neighbours that the user gives from memory, in the types that they have there.
GIVEN_INDICES = Array("input/knn_indices", SCRATCH, "int64", ("row", "given neighbor"))
GIVEN_DISTANCES = Array("input/knn_distances", SCRATCH, "float32", ("row", "given neighbor"))

# Rows: scan and unique.
# exponent, centre, degree: how rows are moved; and what the cast does to sampled rows. It stays, as the plans
# of all later steps rest on it, and the unit of distances.
CAST = Fact("facts/cast", RESULT)
SAMPLE = Exchange("scan/sample", SCRATCH, "block", "all", {"rows": ("metric", "column")})
HASHES = Exchange(
    "scan/hashes",
    SCRATCH,
    "block",
    "bucket",
    {"high": ("uint64", ""), "low": ("uint64", ""), "rows": ("int64", "")},
)
# Rows that are left out since the metric is not defined on them: 1.
LEFT_OUT = Array("rows/left_out", GRAPH_TOO, "uint8", ("row",))
UNDEFINED = Fact("facts/undefined", RESULT)  # rows on which the metric is not defined
BLOCK_FIRST = Array("unique/block_first", SCRATCH, "int64", ("row",))
TWINS = Exchange("unique/twins", SCRATCH, "bucket", "block", {"rows": ("int64", ""), "firsts": ("int64", "")})
FIRST = Array("rows/first", MODEL, "int64", ("row",))
DISTINCT_ROWS = Fact("facts/distinct_rows", MODEL)

# Cells: where they are, which rows join them, and the rows brought together.
CENTROIDS = _cells("centroids", "metric", "cell", "coordinate", stays=MODEL)
RADII = _cells("radii", "float32", "cell", stays=MODEL)
MEMBERS = _cells("members", "float64", "cell", stays=MODEL)
MICRO = _cells("micro", "metric", "micro-cell", "coordinate")
MEAN = _cells("mean", "float32", "coordinate")
AXES = _cells("axes", "float32", "coordinate", "component")
LIMITS = _cells("limits", "float64", "bound", "component")
PROBES = _cells("probes", "metric", "probe", "column", stays=MODEL)
PROBE_ROWS = _cells("probe_rows", "int64", "probe")
# Cells, probes. It stays, as ORDER does: the sizes of arrays and the plans of all later steps rest on it.
CELLS = Fact("facts/cells", RESULT)

NEAREST = Array("assign/cells", SCRATCH, "int32", ("row", "overlap"))
LEVELS = Array("assign/levels", SCRATCH, "uint8", ("row", "overlap"))
COUNTS = Array("assign/counts", SCRATCH, "int32", ("block", "level", "cell"))
BLOCK_PROBES = (
    Array("assign/probe_ids", SCRATCH, "int64", ("block", "probe", "neighbor")),
    Array("assign/probe_distances", SCRATCH, "float32", ("block", "probe", "neighbor")),
    Array("assign/probe_cells", SCRATCH, "int32", ("block", "probe", "neighbor", "overlap")),
    Array("assign/probe_levels", SCRATCH, "uint8", ("block", "probe", "neighbor", "overlap")),
)
# Kept, as DOUBTED is, for a fit from a run's neighbours, which does not read the input then.
ON_AXES = Array("assign/axes", GRAPH_TOO, "float32", ("row", "component"))
IN_MICRO = Array("assign/micro", GRAPH_TOO, "int32", ("row",))

BUNDLE_COUNTS = Array("counts/members", SCRATCH, "int32", ("bundle", "level", "cell"))
COUNTS_BEFORE = Array("counts/before", SCRATCH, "int32", ("block", "cell and twins"))
BUNDLE_PROBES = (
    Array("counts/probe_ids", SCRATCH, "int64", ("bundle", "probe", "neighbor")),
    Array("counts/probe_distances", SCRATCH, "float32", ("bundle", "probe", "neighbor")),
    Array("counts/probe_cells", SCRATCH, "int32", ("bundle", "probe", "neighbor", "overlap")),
    Array("counts/probe_levels", SCRATCH, "uint8", ("bundle", "probe", "neighbor", "overlap")),
)

SLICE_STARTS = _order("slice_starts", "int64", "cell bound")
GROUP_STARTS = _order("group_starts", "int64", "group bound")
CELL_STARTS = _order("cell_starts", "int64", "cell bound", stays=MODEL)
WIDE_OF = _order("wide_of", "int32", "cell", stays=GRAPH_TOO)
FIRST_VERTICES = _order("first_vertices", "int64", "bundle", "cell and twins")
PROBE_IDS = _order("probe_ids", "int64", "probe", "neighbor", stays=MODEL)
# Probes whose neighbours float32 may not tell: 1.
DOUBTED = _order("doubted", "uint8", "probe", stays=GRAPH_TOO)
# distinct, wide, level, copies, recall (by level), groups, largest_cell, sliced_cells, doubted
ORDER = Fact("facts/order", RESULT)

VERTEX = Array("rows/vertex", MODEL, "int64", ("row",))
# A batch holds "rows", or "ids" where the one worker holds all rows; "cells" where wide cells are searched.
SHUFFLE = Exchange(
    "shuffle",
    SCRATCH,
    "block",
    "slice of a cell",
    {
        "vertices": ("int64", ""),
        "ids": ("int64", ""),
        "rows": ("metric", "column"),
        "cells": ("int32", "seed"),
    },
)

# Graph: neighbours, calibration, and the symmetrised graph.
# Neighbours on their way to their vertices.
LISTS = {"vertices": ("int64", ""), "ids": ("int64", "neighbor"), "distances": ("float32", "neighbor")}
FOUND = Exchange(
    "found",
    SCRATCH,
    "group",
    "vertex chunk",
    LISTS,
)
# Of neighbours that the user gives.
GIVEN = Exchange(
    "given",
    SCRATCH,
    "block",
    "vertex chunk",
    LISTS,
)
INDICES = Array("knn/indices", GRAPH_TOO, "int64", ("vertex", "neighbor"))
DISTANCES = Array("knn/distances", GRAPH_TOO, "float32", ("vertex", "neighbor"))
MEAN_DISTANCE = Fact("facts/mean_distance", MODEL)
# Where the distances themselves do not stay. A transform of any other model makes it anew, as its own.
TYPICAL = Array("typical", MODEL, "float32", ("quantile",))
RHO = Array("calibration/rho", MODEL, "float32", ("vertex",))
SIGMA = Array("calibration/sigma", MODEL, "float32", ("vertex",))
REVERSE = Exchange(
    "reverse",
    SCRATCH,
    "partition",
    "vertex chunk",
    {"tails": ("int64", ""), "heads": ("int64", ""), "weights": ("float32", "")},
)
# One CSR block row a partition: the offsets are its indptr.
GRAPH = Exchange(
    "graph",
    GRAPH_TOO,
    "partition",
    "vertex",
    {"tails": ("vertex", ""), "weights": ("float32", "")},
    offsets="indptr",
    chunk_bytes=4 << 20,
    offsets_a_chunk=1 << 19,
)
# Where edges are weighed by simplices: the graph before, and to each partition the lists of neighbours of
# those vertices of others that are neighbours of its own.
UNION = replace(GRAPH, name="union", stays=SCRATCH)
HALO = Exchange(
    "halo",
    SCRATCH,
    "partition",
    "partition",
    {"heads": ("vertex", ""), "tails": ("vertex", ""), "weights": ("float32", "")},
)
SIMPLICES = Fact("facts/simplices", GRAPH_TOO)  # triangles, capped_rows, and tetrahedra where they count
DEGREES = Array("degrees", GRAPH_TOO, "int32", ("vertex",))
# Memberships of edges before they are joined: bits (their sum), on_target (rows with as many as asked for),
# vanished (rows with none beyond the nearest), median_gap
BITS = Fact("facts/bits", GRAPH_TOO)
# largest_weight, edges, largest_degree, isolated, weight (of all), weights_above_1, edges_dropped_negative
GRAPH_FACTS = Fact("facts/graph", GRAPH_TOO)
REPULSION = Fact("facts/repulsion", MODEL)  # strength, alpha

# Map: start, layout, embedding.
INITIAL = Array("initial", SCRATCH, "float32", ("vertex", "component"))
STATE = Checkpoints("layout", SCRATCH, "float32", ("moving", "component"), ("positions", "mean", "variance"))
COURSE = Fact("facts/course", SCRATCH)  # epoch, attraction, repulsion, loss of the map on the way
EMBEDDING = Array("embedding", RESULT, "float32", ("row", "component"))
# The map after each epoch that `n_epochs` lists.
EMBEDDING_LIST = Array("embedding_list", RESULT, "float32", ("listed", "row", "component"))

# Encoder: the rows as it sees them, what it is trained on beside them, its state on the way, and itself.
ENCODER_MEAN = Array("encoder/mean", SCRATCH, "float32", ("column",))
ENCODER_AXES = Array("encoder/axes", SCRATCH, "float32", ("column", "axis"))
ENCODER_SCALE = Fact("facts/encoder", RESULT)  # axes, variance (their share of the sample's), scale
# A batch lacks what the training does not use.
PROJECTED = Exchange(
    "encoder/projected",
    SCRATCH,
    "block",
    "vertex chunk",
    {
        "vertices": ("int64", ""),
        "rows": ("float32", "axis"),
        "labels": ("int32", ""),
        "landmarks": ("float32", "component"),
        "places": ("float32", "component"),
    },
)
ENCODER_ROWS = Array("encoder/rows", SCRATCH, "float32", ("vertex", "axis"))
ENCODER_LABELS = Array("encoder/labels", SCRATCH, "int32", ("vertex",))
ENCODER_LANDMARKS = Array("encoder/landmarks", SCRATCH, "float32", ("vertex", "component"))
ENCODER_PLACES = Array("encoder/places", SCRATCH, "float32", ("vertex", "component"))
TRAINING = Checkpoints(
    "encoder.train", SCRATCH, "float32", ("replica", "parameter"), ("weights", "mean", "variance")
)
# The steps [first, last) of each segment, and the mean of each term of the loss in it.
HISTORY = Fact("facts/history", RESULT)
ENCODER = Item("model", RESULT)  # a group of its own format, `store.model`

# Measures: the report.
MAP_IDS = Array("report/map_ids", SCRATCH, "int64", ("probe", "neighbor"))
MAP_ROWS = Exchange("report/rows", SCRATCH, "block", "all", {"rows": ("metric", "column")})
MAP_DISTANCES = Array("report/map_distances", SCRATCH, "float32", ("probe", "neighbor"))
CLOSER = Array("report/closer", SCRATCH, "int64", ("block", "probe", "neighbor"))
# Where distances are given; -1 where that to a row on the map is not.
GIVEN_CLOSER = Array("report/given_closer", SCRATCH, "int64", ("probe", "neighbor"))
# Where probes are in doubt: those and their nearest rows on the map as stored, and what is found with them.
STORED_ROWS = Exchange("report/stored_rows", SCRATCH, "block", "all", {"rows": ("float64", "column")})
STORED_NEAREST = (
    Array("report/stored_ids", SCRATCH, "int64", ("block", "probe", "neighbor")),
    Array("report/stored_distances", SCRATCH, "float64", ("block", "probe", "neighbor")),
)
STORED_CLOSER = Array("report/stored_closer", SCRATCH, "int64", ("block", "probe", "neighbor"))
LOSS = Fact("facts/loss", SCRATCH)  # cut_edges, edges; on a plane the diagnostics too
# components, largest_component, islands, island_rows, longest_aspect, longest_island
PIECES = Fact("facts/pieces", SCRATCH)
MEASURES = Fact("report/measures", RESULT)
PICTURE = File("embedding.png", RESULT)

# Transform: new rows on the map of a finished run, the model. The new rows are SOURCE, their map EMBEDDING.
REACH = Fact("facts/reach", RESULT)  # level, cells (a probe's, on average), recall (by level)
REACHED = Array("reached/cells", SCRATCH, "int32", ("row", "reach"))
REACHED_BY = Array("reached/blocks", SCRATCH, "uint8", ("block", "model cell"))
# A batch holds "rows", or "ids" where the one worker holds all rows.
GATHERED = Exchange(
    "gathered",
    SCRATCH,
    "model block",
    "piece of a cell",
    {"rows": ("metric", "column"), "ids": ("int64", ""), "vertices": ("int64", "")},
)
FIT_DISTANCE = Array("fit_distance", RESULT, "float32", ("row",))
PLACED = Fact("facts/placed", RESULT)  # rows; epochs or fitted; known, alone, unlike
# Where distances to the rows of the model are given: the nearest ones, by vertex.
NEW_INDICES = Array("near/indices", SCRATCH, "int64", ("row", "near"))
NEW_DISTANCES = Array("near/distances", SCRATCH, "float32", ("row", "near"))
# Edges from new rows to rows of the model, by row: the result where transform_mode is "graph".
NEW_GRAPH = Exchange(
    "new_graph",
    RESULT,
    "block",
    "row",
    {"tails": ("int64", ""), "weights": ("float32", "")},
    offsets="indptr",
    chunk_bytes=4 << 20,
    offsets_a_chunk=1 << 19,
)

# Inverse: points of the map of a finished run, the model, back to rows. The points are SOURCE.
NEAREST_VERTICES = Array("nearest/vertices", SCRATCH, "int64", ("row", "nearest"))
MAP_WEIGHTS = Array("nearest/weights", SCRATCH, "float32", ("row", "nearest"))
# A batch holds "rows", or "ids" where the one worker holds all rows.
NEEDED = Exchange(
    "needed",
    SCRATCH,
    "model block",
    "window of vertices",
    {"rows": ("metric", "feature"), "ids": ("int64", ""), "vertices": ("int64", "")},
)
ROWS = Array("inverted", RESULT, "value", ("row", "feature"))
INVERTED = Fact("facts/inverted", RESULT)  # points, neighbors, epochs, alone

# Through a trained network, ENCODER: rows become places, EMBEDDING, or what follows; places become ROWS.
# The label of the most probable class; of classes with names the number of its name.
PREDICTED = Array("predicted", RESULT, "int64", ("row",))
PROBABILITIES = Array("probabilities", RESULT, "float32", ("row", "class"))

# What other tools read, by name: what the records of the tasks that write it call its crc32.
PUBLIC = {
    EMBEDDING.name: "crc32",
    EMBEDDING_LIST.name: "crc32",
    FIT_DISTANCE.name: "fit_distance_crc32",
    ROWS.name: "crc32",
    PREDICTED.name: "predicted_crc32",
    PROBABILITIES.name: "crc32",
}
