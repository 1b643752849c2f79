"""Measures of any map beside the data it is of, out of core, each with its interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.evaluation import classes
from daskumap.evaluation.given import check_counts, read_given
from daskumap.evaluation.neighborhoods import compare, find_neighborhoods
from daskumap.evaluation.pair import open_pair
from daskumap.evaluation.seams import cells_in, seams
from daskumap.evaluation.tables import compare_distances, distance_table, draw
from daskumap.kernels.quality.sampled import Estimate
from daskumap.params import explicit


@explicit
def evaluate(
    data: Any,
    embedding: Any = None,
    labels: Any = None,
    *,
    n_neighbors: int = 15,
    metric: str | Callable[..., Any] | None = None,
    metric_kwds: dict[str, Any] | None = None,
    probe_rows: int = 1000,
    sample_rows: int = 1500,
    random_state: int = 0,
) -> dict[str, Estimate]:
    """Measure how faithful a map is to its data: any map, whoever made it.

    Neighbourhoods are those of `probe_rows` rows among all rows; what compares distances of all pairs is of
    `sample_rows` rows among themselves. Both are drawn at random, and the data are read five times in blocks
    of 64 MB. Memory does not grow with the rows, but for labels.

    Parameters
    ----------
    data
        (n, D), whatever `daskumap.fit` takes; or a run, or its path, whose own input and map are measured.
    embedding
        (n, d), the places of the rows in their order: an array, its path or URL, the path of a NumPy file, or
        a run. Rows at NaN are left out, of the data as well.
    labels
        (n,) classes of the rows, numbers or texts; the name of a column of labels that the run or the data
        have; or the path of a .npy, .csv or .parquet file, with :COLUMN behind it where it has several. A
        negative number, NaN and None mean none. With them come the measures of classes.
    n_neighbors
        Rows of a neighbourhood, without the row itself.
    metric, metric_kwds
        Of the data, as in `daskumap.fit`; None for that of the run, and without one for "euclidean". The
        map's is the Euclidean one.
    probe_rows, sample_rows
        Rows that are asked, at most all. The matrix of the sample takes 40 bytes times `sample_rows` squared.
    random_state
        The same one draws the same rows.

    Returns
    -------
    dict
        By name an `Estimate` of value, low and high, an interval of 95 %: `trustworthiness`, `continuity`,
        `knn_preservation`, `auc_rnx`, `triplet_accuracy` and `distance_correlation`; of a run that searched
        among several cells also `seams`; with labels also `knn_accuracy`, `nearest_accuracy`, `silhouette`,
        and `kmeans_` and `hdbscan_` with `nmi`, `ari` and `ami`. What is not defined, such as the correlation
        where all rows are equal, is NaN. docs/quality.md says what each one means.

    Raises
    ------
    ParameterError
        If rows of the data, of the map and of the labels differ in number, or are too few.
    SourceError
        If a row that is on the map is not finite in the data, or the metric is not defined on it.
    StoreError
        If a run is unfinished, or its input is gone.
    """
    given = read_given(data, embedding, metric, metric_kwds)
    pair = open_pair(given.source, given.embedding, given.metric)
    check_counts(pair.rows, n_neighbors=n_neighbors, probe_rows=probe_rows, sample_rows=sample_rows)
    if min(pair.rows, sample_rows) < 3:
        raise ParameterError(f"sample_rows is {sample_rows}; at least 3 are needed to compare distances.")
    codes = None if labels is None else classes.read_codes(labels, given.labels, pair)
    rng = np.random.default_rng(random_state)
    probes, sample = draw(rng, pair.rows, probe_rows), draw(rng, pair.rows, sample_rows)
    found = find_neighborhoods(pair, probes, n_neighbors)
    measures = compare(pair, found, len(probes) == pair.rows)
    rows, places = pair.gather(sample)
    tables = distance_table(rows, given.metric), distance_table(places, None)
    measures |= compare_distances(*tables, rng, len(sample) == pair.rows)
    if codes is not None:
        measures |= classes.of_classes(pair, codes, probes, found.near[1], sample, rng)
    cells = None if given.run is None else cells_in(given.run.store)
    return measures if cells is None else {**measures, "seams": seams(pair, cells, found, rng)}
