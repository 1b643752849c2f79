"""The pipelines: each a table of steps, with the condition under which a step runs. Read this first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
from daskumap.stages.inverse import scan as points
from daskumap.stages.inverse.descend import DESCEND
from daskumap.stages.inverse.gather import GATHER as GATHER_NEEDED
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
from daskumap.stages.transform import scan as new
from daskumap.stages.transform.gather import GATHER
from daskumap.stages.transform.place import PLACE
from daskumap.stages.transform.reach import REACH

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


#   new rows         X (n, D)
TRANSFORM: Pipeline = (
    (REACH, always),  # how many cells a new row is compared with      facts/reach
    (new.SCAN, always),  # one streaming pass: NaN and inf, the cells of each row
    (GATHER, always),  # the training rows of those cells, cell by cell
    (PLACE, always),  # neighbours, memberships, a short layout       embedding (n, d), fit_distance (n,)
)


#   points           P (m, d)
INVERSE: Pipeline = (
    (points.SCAN, always),  # one streaming pass: NaN and inf, neighbours on the map
    (GATHER_NEEDED, always),  # the training rows that any point needs
    (DESCEND, always),  # their weighted mean, and a descent           inverted (m, D)
)


class Kind(NamedTuple):
    """What differs between a fit, a transform and an inverse for whoever drives them.

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


FITS = Kind(FIT, (SCAN, REREAD), PUBLISH)
TRANSFORMS = Kind(TRANSFORM, (new.SCAN, new.REREAD), PLACE)
INVERSES = Kind(INVERSE, (points.SCAN, points.REREAD), DESCEND)


def kind_of(model: Any, inverse: bool = False) -> Kind:
    """Return which kind a run is: a fit where it has no model, else a transform or an inverse."""
    if not model:
        return FITS
    return INVERSES if inverse else TRANSFORMS


def kind_in(about: Mapping[str, Any]) -> Kind:
    """Return which kind a run is, from what its run store says of it."""
    return kind_of(about["model"], is_inverse(about))


def is_inverse(about: Mapping[str, Any]) -> bool:
    """Return whether a run store holds rows of points, from what it says of its run."""
    return bool((about["model"] or {}).get("inverse"))


def steps_of(pipeline: Pipeline, params: Params) -> tuple[Step, ...]:
    """Return the steps that a run with these parameters has, in order."""
    return tuple(step for step, condition in pipeline if condition(params))
