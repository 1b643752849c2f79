"""The pipelines: each a table of steps, with the condition under which a step runs. Read this first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from daskumap.params import PRECOMPUTED, Params
from daskumap.planning.stage import Step
from daskumap.stages.cells.assign import ASSIGN
from daskumap.stages.cells.count import COUNT
from daskumap.stages.cells.find import FIND
from daskumap.stages.cells.order import ORDER
from daskumap.stages.cells.shuffle import SHUFFLE
from daskumap.stages.distances import look as given
from daskumap.stages.distances import new as given_new
from daskumap.stages.distances.ranks import RANKS as GIVEN_RANKS
from daskumap.stages.distances.scan import REREAD as GIVEN_REREAD
from daskumap.stages.distances.scan import SCAN as GIVEN_SCAN
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
from daskumap.stages.measures.summary import GIVEN_SUMMARY, SUMMARY
from daskumap.stages.rows.look import LOOK
from daskumap.stages.rows.scan import REREAD, SCAN
from daskumap.stages.rows.unique import ROWS, TWINS
from daskumap.stages.transform import scan as new
from daskumap.stages.transform.gather import GATHER
from daskumap.stages.transform.join import JOIN, JOIN_GIVEN
from daskumap.stages.transform.place import PLACE, PLACE_GIVEN
from daskumap.stages.transform.reach import REACH

Condition = Callable[[Params], bool]
Pipeline = tuple[tuple[Step, Condition], ...]


def always(params: Params) -> bool:
    """Tell that every run has a step."""
    return True


def unique(params: Params) -> bool:
    """Tell whether copies of a row count once."""
    return params.unique


def maps(params: Params) -> bool:
    """Tell whether a run ends with a map."""
    return params.transform_mode == "embedding"


def graphs(params: Params) -> bool:
    """Tell whether a run ends with the graph."""
    return not maps(params)


def report(params: Params) -> bool:
    """Tell whether a run has a report: there is none without a map."""
    return params.report and maps(params)


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
    (INITIALIZE, maps),  # pca | spectral (coarse) | random | array    initial
    (LAYOUT, maps),  # synchronous iterations                          layout/ checkpoints
    (PUBLISH, maps),  # back to the user's row order                   embedding (n, d)
    (MAP_NEIGHBORS, report),  # what the map is worth                  report/
    (MAP_ROWS, report),
    (MAP_DISTANCES, report),
    (RANKS, report),
    (LOSS, report),
    (PIECES, report),
    (SUMMARY, report),  # the figures and a picture                    report/measures, embedding.png
)


#   new rows         X (n, D)
TRANSFORM: Pipeline = (
    (REACH, always),  # how many cells a new row is compared with      facts/reach
    (new.SCAN, always),  # one streaming pass: NaN and inf, the cells of each row
    (GATHER, always),  # the training rows of those cells, cell by cell
    (PLACE, maps),  # neighbours, memberships, a short layout         embedding (n, d), fit_distance (n,)
    (JOIN, graphs),  # neighbours, memberships                        new_graph/: one CSR block row per block
)


#   source           distances (n, n)
GIVEN_FIT: Pipeline = (
    (given.LOOK, always),  # how they are cast; vertices are rows, in one cell
    (GIVEN_SCAN, always),  # one streaming pass: what is wrong, the nearest of each row
    (MERGE, always),  # the rest as of a fit
    (CALIBRATE, always),
    (SYMMETRIZE, always),
    (INITIALIZE, maps),
    (LAYOUT, maps),
    (PUBLISH, maps),
    (MAP_NEIGHBORS, report),
    (GIVEN_RANKS, report),  # the probes' rows again: their nearest, and who is closer than these on the map
    (LOSS, report),
    (PIECES, report),
    (GIVEN_SUMMARY, report),
)


#   new rows         distances (m, n) to the rows that were fitted
GIVEN_TRANSFORM: Pipeline = (
    (given_new.TYPICAL, always),  # how far fitted rows are from their neighbours
    (given_new.SCAN, always),  # one streaming pass: what is wrong, the nearest of each row
    (PLACE_GIVEN, maps),
    (JOIN_GIVEN, graphs),
)


class Kind(NamedTuple):
    """What differs between a fit and a transform for whoever drives them.

    Attributes
    ----------
    pipeline
        Its steps.
    digests
        What digests each row block of the input, and what digests it again before a run goes on.
    publishes
        The step that writes the result.
    """

    pipeline: Pipeline
    digests: tuple[Step, Step]
    publishes: Step


# By whether new rows are placed, and whether distances are given: the pipeline, what digests its input, and
# what ends it with a map or with a graph.
KINDS: dict[tuple[bool, bool], tuple[Pipeline, tuple[Step, Step], tuple[Step, Step]]] = {
    (False, False): (FIT, (SCAN, REREAD), (PUBLISH, SYMMETRIZE)),
    (False, True): (GIVEN_FIT, (GIVEN_SCAN, GIVEN_REREAD), (PUBLISH, SYMMETRIZE)),
    (True, False): (TRANSFORM, (new.SCAN, new.REREAD), (PLACE, JOIN)),
    (True, True): (GIVEN_TRANSFORM, (given_new.SCAN, given_new.REREAD), (PLACE_GIVEN, JOIN_GIVEN)),
}


def kind_of(transforms: Any, params: Params) -> Kind:
    """Return which kind a run is: a transform, if there is anything that it transforms by, or a fit."""
    pipeline, digests, ends = KINDS[bool(transforms), params.metric == PRECOMPUTED]
    return Kind(pipeline, digests, ends[graphs(params)])


def steps_of(pipeline: Pipeline, params: Params) -> tuple[Step, ...]:
    """Return the steps that a run with these parameters has, in order."""
    return tuple(step for step, condition in pipeline if condition(params))
