"""The pipelines: each a table of steps, with the condition under which a step runs. Read this first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from daskumap.encoder_params import EncoderParams
from daskumap.params import PRECOMPUTED, Params
from daskumap.planning.stage import Step
from daskumap.stages.again import cells, rows
from daskumap.stages.again import graph as known
from daskumap.stages.again import start as places
from daskumap.stages.cells.assign import ASSIGN
from daskumap.stages.cells.count import COUNT
from daskumap.stages.cells.find import FIND
from daskumap.stages.cells.order import ORDER
from daskumap.stages.cells.shuffle import SHUFFLE
from daskumap.stages.distances import look as distances
from daskumap.stages.distances import new as new_distances
from daskumap.stages.distances.ranks import RANKS as DISTANCES_RANKS
from daskumap.stages.distances.scan import REREAD as DISTANCES_REREAD
from daskumap.stages.distances.scan import SCAN as DISTANCES_SCAN
from daskumap.stages.encode import rows as network
from daskumap.stages.encoder.axes import AXES as ENCODER_AXES
from daskumap.stages.encoder.axes import SAMPLE as ENCODER_SAMPLE
from daskumap.stages.encoder.embed import EMBED
from daskumap.stages.encoder.project import PROJECT
from daskumap.stages.encoder.project import ROWS as ENCODER_ROWS
from daskumap.stages.encoder.train import TRAIN
from daskumap.stages.encoder.weights import WEIGHTS
from daskumap.stages.graph.calibrate import CALIBRATE
from daskumap.stages.graph.given import TAKE
from daskumap.stages.graph.merge import MERGE
from daskumap.stages.graph.search import NEIGHBORS
from daskumap.stages.graph.simplices import HALO, SIMPLICES
from daskumap.stages.graph.symmetrize import SYMMETRIZE, UNITE
from daskumap.stages.graph.typical import TYPICAL
from daskumap.stages.inverse import scan as points
from daskumap.stages.inverse.descend import DESCEND
from daskumap.stages.inverse.gather import GATHER as GATHER_NEEDED
from daskumap.stages.map.initialize import INITIALIZE
from daskumap.stages.map.layout import LAYOUT
from daskumap.stages.map.publish import PUBLISH, PUBLISH_LIST
from daskumap.stages.measures.loss import LOSS, TRAINED_LOSS
from daskumap.stages.measures.neighbors import MAP_NEIGHBORS, MAP_ROWS
from daskumap.stages.measures.pieces import PIECES, TRAINED_PIECES
from daskumap.stages.measures.ranks import MAP_DISTANCES, RANKS
from daskumap.stages.measures.summary import GIVEN_SUMMARY, SUMMARY, TRAINED_SUMMARY
from daskumap.stages.rows.given import CHECK
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


def encodes(params: Params) -> bool:
    """Tell whether a network makes the map, and not a layout."""
    return params.encoder is not None


def by_axes(params: Params) -> bool:
    """Tell whether the network sees rows on their main axes: how many columns there are plays no part."""
    return encoder_of(params).axes(1) is not None


def encoder_of(params: Params) -> EncoderParams:
    """Return the parameters of a training, also as a run store has them, where a module is but a name."""
    known = params.encoder
    return EncoderParams(**known) if isinstance(known, dict) else cast(EncoderParams, known)


def listed(params: Params) -> bool:
    """Tell whether the map is kept after several numbers of epochs."""
    return maps(params) and isinstance(params.n_epochs, list | tuple)


def report(params: Params) -> bool:
    """Tell whether a run has a report: there is none without a map."""
    return params.report and maps(params)


def model_alone(params: Params) -> bool:
    """Tell whether a run keeps what places new rows, and no neighbours."""
    return params.keep == "model"


def searched(params: Params) -> bool:
    """Tell whether neighbours are searched."""
    return params.precomputed_knn is None


def given(params: Params) -> bool:
    """Tell whether neighbours are given."""
    return params.precomputed_knn is not None


def by_pairs(params: Params) -> bool:
    """Tell whether an edge weighs what its two ends say."""
    return params.simplices == 1


def by_simplices(params: Params) -> bool:
    """Tell whether edges are weighed by the simplices that they are in."""
    return not by_pairs(params)


def by_sample(params: Params) -> bool:
    """Tell whether rows start where a sample says."""
    return isinstance(params.init, str) and params.init != "random"


# graph/: one CSR block row per partition
GRAPH: Pipeline = (
    (SYMMETRIZE, by_pairs),  # fuzzy union with the transpose          graph/
    (UNITE, by_simplices),  # the same                                 union/
    (HALO, by_simplices),  # its rows, to all that have neighbours of them
    (SIMPLICES, by_simplices),  # weights of triangles and tetrahedra  graph/
)
MAP: Pipeline = (
    (INITIALIZE, maps),  # pca | spectral (coarse) | random | array  initial
    (LAYOUT, maps),  # synchronous iterations                          layout/ checkpoints
    (PUBLISH_LIST, listed),  # the map after each listed epoch         embedding_list (m, n, d)
    (PUBLISH, maps),  # back to the user's row order                 embedding (n, d)
)
# in place of a layout: a network
ENCODER: Pipeline = (
    (ENCODER_SAMPLE, by_axes),  # some rows of the input
    (ENCODER_AXES, by_axes),  # the sample's main axes                 encoder/axes
    (PROJECT, always),  # rows on these axes, and what is known of them, to their vertices
    (ENCODER_ROWS, always),  # in the order of the vertices            encoder/rows
    (TRAIN, always),  # steps of a batch each                          encoder.train/ checkpoints
    (WEIGHTS, always),  # the network, for rows as they are            model/
    (EMBED, always),  # the map that it makes                          embedding (n, d)
)
RANKED: Pipeline = (
    (MAP_NEIGHBORS, report),  # what the map is worth                  report/
    (MAP_ROWS, report),
    (MAP_DISTANCES, report),
    (RANKS, report),
)
REPORT: Pipeline = (
    *RANKED,
    (LOSS, report),
    (PIECES, report),
    (SUMMARY, report),  # the figures and a picture                    report/measures, embedding.png
)
TRAINED_REPORT: Pipeline = (
    *RANKED,
    (TRAINED_LOSS, report),
    (TRAINED_PIECES, report),
    (TRAINED_SUMMARY, report),
)


#   source           X (n, D)
FIT: Pipeline = (
    (LOOK, always),  # how the rows are cast, and whether that and the metric measure them
    (SCAN, always),  # one streaming pass: NaN and inf, the sample
    (CHECK, given),  # neighbours that the user has
    (TWINS, unique),  # equal hashes, bucket by bucket
    (ROWS, unique),  # the first row equal to each                     rows/first
    (FIND, always),  # k-means cells of the sample                     cells/
    (ASSIGN, always),  # each row's nearest cells; exact neighbours of the probes
    (COUNT, always),  # what the blocks counted, summed over bundles of them
    (ORDER, always),  # the overlap that reaches the target recall; rows renumbered cell-major
    (SHUFFLE, always),  # each row into its cells                      rows/vertex
    (NEIGHBORS, searched),  # one kNN graph per cell
    (TAKE, given),  # what is given, to its vertices
    (MERGE, always),  # merged nearest k per vertex                    knn/indices, knn/distances
    (CALIBRATE, always),  # per-row smooth-kNN                         calibration/rho, sigma
    (TYPICAL, model_alone),  # which distances are usual               typical
    *GRAPH,
    *MAP,
    *REPORT,
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
DISTANCES_FIT: Pipeline = (
    (distances.LOOK, always),  # how they are cast; vertices are rows, in one cell
    (DISTANCES_SCAN, always),  # one streaming pass: what is wrong, the nearest of each row
    (MERGE, always),  # the rest as of a fit
    (CALIBRATE, always),
    (TYPICAL, model_alone),
    *GRAPH,
    *MAP,
    (MAP_NEIGHBORS, report),
    (
        DISTANCES_RANKS,
        report,
    ),  # the probes' rows again: their nearest, and who is closer than these on the map
    (LOSS, report),
    (PIECES, report),
    (GIVEN_SUMMARY, report),
)


#   new rows         distances (m, n) to the rows that were fitted
DISTANCES_TRANSFORM: Pipeline = (
    (new_distances.TYPICAL, always),  # how far fitted rows are from their neighbours
    (new_distances.SCAN, always),  # one streaming pass: what is wrong, the nearest of each row
    (PLACE_GIVEN, maps),
    (JOIN_GIVEN, graphs),
)


#   points           P (m, d)
INVERSE: Pipeline = (
    (points.SCAN, always),  # one streaming pass: NaN and inf, neighbours on the map
    (GATHER_NEEDED, always),  # the training rows that any point needs
    (DESCEND, always),  # their weighted mean, and a descent           inverted (m, D)
)


#   new rows         X (m, D), or points P (m, d), through a trained network, model/
ENCODE: Pipeline = ((network.ENCODE, always),)  #                      embedding (m, d)
DECODE: Pipeline = ((network.DECODE, always),)  #                      inverted (m, D)
PREDICT: Pipeline = ((network.PREDICT, always),)  #                    predicted (m,), probabilities


def again(anew: Collection[str], trains: bool = False) -> Pipeline:
    """Return the pipeline of a fit of a finished run's neighbours.

    Parameters
    ----------
    anew
        What it does not have from that run: "graph", "start".
    trains
        Whether a network makes the map.
    """
    graph: Pipeline = ((CALIBRATE, always), *GRAPH)
    taken: Pipeline = ((known.GRAPH, by_pairs), (known.WEIGHED, by_simplices))  # calibration/, graph/
    start: Pipeline = ((places.SAMPLE, always), (places.AXES, always), (places.PLACES, always))
    return (
        (rows.ROWS, always),  # the digests of the scan                  rows/vertex, rows/first
        (cells.CELLS, always),  # cells and probes, the cast             cells/, facts/
        (known.NEIGHBORS, always),  # the nearest k per vertex           knn/indices, knn/distances
        (TYPICAL, model_alone),
        *(() if "graph" in anew else taken),
        *(() if trains or "start" in anew else ((rows.START, by_sample),)),  # assign/axes, assign/micro
        *(graph if "graph" in anew else ()),
        *(start if "start" in anew else ()),
        *((*ENCODER, *TRAINED_REPORT) if trains else (*MAP, *REPORT)),
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


# By what a run is for, and whether distances are given: the pipeline, what digests its input, and what ends
# it with a map or with a graph.
KINDS: dict[tuple[str, bool], tuple[Pipeline, tuple[Step, Step], tuple[Step, Step]]] = {
    ("fit", False): (FIT, (SCAN, REREAD), (PUBLISH, SYMMETRIZE)),
    ("fit", True): (DISTANCES_FIT, (DISTANCES_SCAN, DISTANCES_REREAD), (PUBLISH, SYMMETRIZE)),
    ("transform", False): (TRANSFORM, (new.SCAN, new.REREAD), (PLACE, JOIN)),
    ("transform", True): (
        DISTANCES_TRANSFORM,
        (new_distances.SCAN, new_distances.REREAD),
        (PLACE_GIVEN, JOIN_GIVEN),
    ),
    ("inverse", False): (INVERSE, (points.SCAN, points.REREAD), (DESCEND, DESCEND)),
    ("encode", False): (ENCODE, (network.ENCODE, network.REREAD), (network.ENCODE, network.ENCODE)),
    ("decode", False): (DECODE, (network.DECODE, network.REREAD), (network.DECODE, network.DECODE)),
    ("predict", False): (PREDICT, (network.PREDICT, network.REREAD), (network.PREDICT, network.PREDICT)),
}
# What writes the graph where edges are weighed by simplices, by what does so else.
WEIGHED = {SYMMETRIZE: SIMPLICES, known.GRAPH: known.WEIGHED}


def purpose_of(
    model: Any, anew: Collection[str] | None = None, inverse: bool = False, encodes: str | None = None
) -> str:
    """Return what a run is for: "fit", "transform", "inverse", or what a trained network does in it.

    Parameters
    ----------
    model
        The run that it places rows by, finds rows by, or fits the neighbours of; None for any other fit.
    anew
        What a fit of neighbours does not have from that run; None for anything else.
    inverse
        Whether points of that run's map become rows.
    encodes
        "encode", "decode" or "predict" where the input goes through a trained network.
    """
    if encodes is not None:
        return encodes
    if inverse:
        return "inverse"
    return "fit" if model is None or anew is not None else "transform"


def kind_of(purpose: str, params: Params, anew: Collection[str] | None = None) -> Kind:
    """Return which kind a run is, by what it is for; of a fit of neighbours by what it has not from them."""
    if anew is not None:
        trains = encodes(params)
        ends = (EMBED if trains else PUBLISH, SYMMETRIZE if "graph" in anew else known.GRAPH)
        pipeline, digests = again(anew, trains), (rows.ROWS, REREAD)
    else:
        pipeline, digests, ends = KINDS[purpose, params.metric == PRECOMPUTED]
    publishes = ends[graphs(params)]
    return Kind(pipeline, digests, WEIGHED.get(publishes, publishes) if by_simplices(params) else publishes)


def kind_in(about: Mapping[str, Any]) -> Kind:
    """Return which kind a run is, from what its run store says of it."""
    return kind_of(purpose_in(about), params_in(about), (about["model"] or {}).get("anew"))


def purpose_in(about: Mapping[str, Any]) -> str:
    """Return what a run is for, from what its run store says of it."""
    made = about["model"] or {}
    return purpose_of(about["model"], made.get("anew"), made.get("inverse", False), made.get("encodes"))


def params_in(about: Mapping[str, Any]) -> Params:
    """Return the parameters that a run store recorded, to look at: functions and arrays as their digests."""
    return cast(Params, SimpleNamespace(**{**Params().fingerprint(), **about["params"]}))


def steps_of(pipeline: Pipeline, params: Params) -> tuple[Step, ...]:
    """Return the steps that a run with these parameters has, in order."""
    return tuple(step for step, condition in pipeline if condition(params))
