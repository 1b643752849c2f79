"""What a map says of classes that its rows have: the measures with labels."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.evaluation.neighborhoods import neighbors_on_map
from daskumap.evaluation.pair import Pair
from daskumap.evaluation.tables import distance_table, draw
from daskumap.kernels.quality import clusters, figures, sampled
from daskumap.kernels.quality.sampled import Estimate
from daskumap.plot.columns import read_column
from daskumap.store.labels import as_labels

Array = np.ndarray[Any, Any]

# HDBSCAN finds clusters of five rows and more, and one cluster alone is none.
LEAST_ROWS = 10
SCORES = (
    "silhouette",
    *(f"{one}_{score}" for one in ("kmeans", "hdbscan") for score in ("nmi", "ari", "ami")),
)


def read_codes(labels: Any, known: Any, pair: Pair) -> Array:
    """Return the class of each row that is on the map, (rows,) int64, -1 where it has none.

    Parameters
    ----------
    labels
        Values, the name of one of the `known` columns, or the path of a file.

    Raises
    ------
    ParameterError
        If they are no classes of these rows.
    """
    given = as_labels(read_column(labels, pair.sides[0].source.shape[0], known, "labels"))
    codes = clusters.codes_of(given)
    if given.dtype.kind in "mM":
        codes = np.where(np.isnat(given), -1, codes)
    found: Array = codes[pair.counting()]
    labelled = found[found >= 0]
    classes = len(np.unique(labelled))
    if len(labelled) < LEAST_ROWS:
        raise ParameterError(
            f"labels has a class for {len(labelled):,} of {pair.rows:,} rows on the map; at least "
            f"{LEAST_ROWS} are needed. Negative numbers, NaN and None mean none."
        )
    if classes < 2:
        raise ParameterError(
            f"labels names one class for all of {len(labelled):,} rows that have one; fewer than two classes "
            "tell nothing. Leave labels out, or name a column of classes."
        )
    if 2 * classes > len(labelled):
        raise ParameterError(
            f"labels names {classes:,} classes of {len(labelled):,} rows, as ids or values do. Give classes, "
            "or cut values into ranges first."
        )
    return found


def of_classes(
    pair: Pair, codes: Array, probes: Array, near: Array, sample: Array, rng: np.random.Generator
) -> dict[str, Estimate]:
    """Return the measures of classes; rows without one are left out, as if they were not on the map.

    Parameters
    ----------
    probes, near
        (q,) rows, and (q, k) their neighbours on the map.
    sample
        (m,) rows among which clusters are sought. Where some rows have no class, others are drawn.
    """
    labelled = np.flatnonzero(codes >= 0)
    if len(labelled) < len(codes):
        pair, codes = pair.only(codes >= 0), codes[labelled]
        probes, sample = draw(rng, pair.rows, len(probes)), draw(rng, pair.rows, len(sample))
        near = neighbors_on_map(pair, probes, min(near.shape[1], pair.rows - 1))
    own, votes = codes[probes], codes[near]
    whole = len(probes) == pair.rows
    return {
        "knn_accuracy": sampled.of_mean((figures.winners(votes) == own).astype(np.float64), whole),
        "nearest_accuracy": sampled.of_mean((votes[:, 0] == own).astype(np.float64), whole),
        **_scores(pair.gather_places(sample), codes[sample], len(sample) == pair.rows),
    }


def _scores(places: Array, codes: Array, whole: bool) -> dict[str, Estimate]:
    """Return silhouette and scores of clusters; NaN where the sample has one class alone."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    if len(np.unique(codes)) < 2:
        return dict.fromkeys(SCORES, Estimate(np.nan, np.nan, np.nan))
    # Threads that wait for each other take longer than a few rows need (on a busy machine ten times).
    with warnings.catch_warnings(), threadpool_limits(1):
        # A map with fewer places than classes: k-means then has fewer clusters, which is what is scored.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return clusters.scores(places, codes, distance_table(places, None), whole)
