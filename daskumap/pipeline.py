"""The pipelines: each a table of steps, with the condition under which a step runs. Read this first."""

from __future__ import annotations

from collections.abc import Callable

from daskumap.params import Params
from daskumap.planning.stage import Step
from daskumap.stages.cells.assign import ASSIGN
from daskumap.stages.cells.count import COUNT
from daskumap.stages.cells.find import FIND
from daskumap.stages.cells.order import ORDER
from daskumap.stages.cells.shuffle import SHUFFLE
from daskumap.stages.graph.calibrate import CALIBRATE
from daskumap.stages.graph.merge import MERGE
from daskumap.stages.graph.search import NEIGHBORS
from daskumap.stages.graph.symmetrize import SYMMETRIZE
from daskumap.stages.map.initialize import INITIALIZE
from daskumap.stages.map.layout import LAYOUT
from daskumap.stages.map.publish import PUBLISH
from daskumap.stages.measures.loss import LOSS
from daskumap.stages.measures.neighbors import MAP_NEIGHBORS, MAP_ROWS
from daskumap.stages.measures.pieces import PIECES
from daskumap.stages.measures.ranks import MAP_DISTANCES, RANKS
from daskumap.stages.measures.summary import SUMMARY
from daskumap.stages.rows.look import LOOK
from daskumap.stages.rows.scan import REREAD, SCAN
from daskumap.stages.rows.unique import ROWS, TWINS

Condition = Callable[[Params], bool]
Pipeline = tuple[tuple[Step, Condition], ...]


def always(params: Params) -> bool:
    """Tell that every run has a step."""
    return True


def unique(params: Params) -> bool:
    """Tell whether copies of a row count once."""
    return params.unique


def report(params: Params) -> bool:
    """Tell whether a run has a report."""
    return params.report


# What digests each row block of the input, and what digests it again before a run goes on.
DIGESTS = (SCAN, REREAD)

#   source           X (n, D)
FIT: Pipeline = (
    (LOOK, always),  # how the rows are cast, and whether that and the metric measure them
    (SCAN, always),  # one streaming pass: NaN and inf, the sample
    (TWINS, unique),  # equal hashes, bucket by bucket
    (ROWS, unique),  # the first row equal to each                     rows/first
    (FIND, always),  # k-means cells of the sample                     cells/
    (ASSIGN, always),  # each row's nearest cells; exact neighbours of the probes
    (COUNT, always),  # what the blocks counted, summed over bundles of them
    (ORDER, always),  # the overlap that reaches the target recall; rows renumbered cell-major
    (SHUFFLE, always),  # each row into its cells                      rows/vertex
    (NEIGHBORS, always),  # one kNN graph per cell
    (MERGE, always),  # merged nearest k per vertex                    knn/indices, knn/distances
    (CALIBRATE, always),  # per-row smooth-kNN                         calibration/rho, sigma
    (SYMMETRIZE, always),  # fuzzy union with the transpose            graph/: one CSR block row per partition
    (INITIALIZE, always),  # pca | spectral (coarse) | random | array  initial
    (LAYOUT, always),  # synchronous iterations                          layout/ checkpoints
    (PUBLISH, always),  # back to the user's row order                 embedding (n, d)
    (MAP_NEIGHBORS, report),  # what the map is worth                  report/
    (MAP_ROWS, report),
    (MAP_DISTANCES, report),
    (RANKS, report),
    (LOSS, report),
    (PIECES, report),
    (SUMMARY, report),  # the figures and a picture                    report/measures, embedding.png
)


def steps_of(pipeline: Pipeline, params: Params) -> tuple[Step, ...]:
    """Return the steps that a run with these parameters has, in order."""
    return tuple(step for step, condition in pipeline if condition(params))
