"""Measures of any map beside the data it is of, out of core, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskumap.diagnosis import open_map
from daskumap.errors import ParameterError, SourceError
from daskumap.kernels.metrics.metric import Metric, check_shape, resolve
from daskumap.kernels.neighbors import knn
from daskumap.kernels.quality import clusters, figures, sampled
from daskumap.kernels.quality.sampled import Estimate
from daskumap.sources.base import Source
from daskumap.sources.find import find
from daskumap.sources.obs import listed
from daskumap.views import Mapped

Array = np.ndarray[Any, Any]

# Bytes of rows of the data that are read at once.
BLOCK_BYTES = 64 << 20
EUCLIDEAN = resolve("euclidean")
# Triplets for each row of the sample, as in Wang et al. (2021).
TRIPLETS = 5


def evaluate(
    data: Any,
    embedding: Any,
    labels: Any = None,
    *,
    n_neighbors: int = 15,
    metric: str | Callable[..., Any] = "euclidean",
    metric_kwds: dict[str, Any] | None = None,
    probe_rows: int = 1000,
    sample_rows: int = 1500,
    random_state: int = 0,
) -> dict[str, Estimate]:
    """Measure how faithful a map is to its data: any map, whoever made it.

    Neighbourhoods are those of `probe_rows` rows among all rows; what compares distances of all pairs is of
    `sample_rows` rows among themselves. Both are drawn at random, and the data are read four times in blocks.

    Parameters
    ----------
    data
        (n, D), whatever `daskumap.fit` takes.
    embedding
        (n, d), the places of the rows in their order: an array, its path or URL, the path of a NumPy file, or
        a run. Rows at NaN are left out, of the data as well.
    labels
        (n,) classes of the rows, numbers or texts; a negative number, NaN and None mean none. Or the name of
        a column of the run, or of the obs of an AnnData. With them come the measures of classes.
    n_neighbors
        Rows of a neighbourhood, without the row itself.
    metric, metric_kwds
        Of the data, as in `daskumap.fit`. The map's is the Euclidean one.
    probe_rows, sample_rows
        Rows that are asked, at most all. The matrix of the sample takes 40 bytes times `sample_rows` squared.
    random_state
        The same one draws the same rows.

    Returns
    -------
    dict
        By name an `Estimate` of value, low and high, an interval of 95 %: `trustworthiness`, `continuity`,
        `knn_preservation`, `auc_rnx`, `triplet_accuracy` and `distance_correlation`; with labels also
        `knn_accuracy`, `nearest_accuracy`, `silhouette`, and `kmeans_` and `hdbscan_` with `nmi`, `ari` and
        `ami`. docs/quality.md says what each one means.

    Raises
    ------
    ParameterError
        If rows of the data, of the map and of the labels differ in number, or are too few.
    SourceError
        If a row that is on the map is not finite in the data.
    """
    pair = _open(data, embedding, resolve(metric, metric_kwds))
    _check_counts(pair.rows, n_neighbors, probe_rows, sample_rows)
    rng = np.random.default_rng(random_state)
    probes = _draw(rng, pair.rows, probe_rows)
    found = _local(pair, probes, n_neighbors)
    sample = _draw(rng, pair.rows, sample_rows)
    rows, places = pair.gather(sample)
    tables = _tables(rows, pair.metric), _tables(places, EUCLIDEAN)
    found.measures |= _global(*tables, rng, len(sample) == pair.rows)
    if labels is not None:
        codes = _codes(_named(labels, embedding, pair.source), pair)
        found.measures |= _of_classes(codes, probes, found.near, len(probes) == pair.rows)
        found.measures |= clusters.scores(places, codes[sample], tables[1], len(sample) == pair.rows)
    return found.measures


@dataclass
class _Pair:
    """The data and a map, read together; rows that are not on the map count as not there.

    Attributes
    ----------
    starts
        (b + 1,) how many rows are on the map before each block.
    """

    source: Source
    embedding: Source
    metric: Metric
    step: int
    starts: Array

    @property
    def rows(self) -> int:
        return int(self.starts[-1])

    def blocks(self, wanted: Array | None = None) -> Iterator[tuple[int, Array, Array]]:
        """Yield (number of the first row, rows, places) of each block, or of those that hold some rows."""
        held = range(len(self.starts) - 1)
        if wanted is not None:
            held = np.unique(np.searchsorted(self.starts, wanted, side="right") - 1).tolist()
        for block in held:
            start = block * self.step
            stop = min(start + self.step, self.source.shape[0])
            places = self.embedding.read(start, stop)
            known = np.isfinite(places).all(axis=1)
            rows = self.source.read(start, stop)[known]
            _refuse_broken(self.source, rows, start + np.flatnonzero(known))
            yield int(self.starts[block]), rows, places[known]

    def gather(self, wanted: Array) -> tuple[Array, Array]:
        """Return the rows and the places of some numbers, ascending."""
        found = [
            (rows[here - first], places[here - first])
            for first, rows, places in self.blocks(wanted)
            for here in [wanted[(wanted >= first) & (wanted < first + len(rows))]]
        ]
        rows, places = zip(*found, strict=True)
        return np.concatenate(rows), np.concatenate(places)

    def known(self) -> Iterator[tuple[int, Array]]:
        """Yield (first row, which rows are on the map) of each block."""
        yield from _known(self.embedding, self.step)


def _known(embedding: Source, step: int) -> Iterator[tuple[int, Array]]:
    for start in range(0, embedding.shape[0], step):
        places = embedding.read(start, min(start + step, embedding.shape[0]))
        yield start, np.asarray(np.isfinite(places).all(axis=1))


def _open(data: Any, embedding: Any, metric: Metric) -> _Pair:
    if metric.is_given:
        raise ParameterError(
            "metric is 'precomputed', and evaluate measures rows. Pass the rows that the distances are of."
        )
    source = find(data)
    check_shape(metric, source.shape[1])
    if isinstance(embedding, Mapped):
        embedding = embedding.embedding
    places = open_map(embedding, source.shape[0])
    step = max(1, BLOCK_BYTES // (source.shape[1] * 4) // source.block_rows) * source.block_rows
    counts = [int(known.sum()) for _, known in _known(places, step)]
    return _Pair(source, places, metric, step, np.concatenate([[0], np.cumsum(counts)]))


def _check_counts(rows: int, n_neighbors: int, probe_rows: int, sample_rows: int) -> None:
    named = {"n_neighbors": n_neighbors, "probe_rows": probe_rows, "sample_rows": sample_rows}
    for name, value in named.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ParameterError(f"{name} is {value!r}; it must be an integer of 1 or more.")
    # Where trustworthiness is defined.
    if 2 * rows <= 3 * n_neighbors + 1:
        raise ParameterError(
            f"The map has {rows:,} rows with a place, too few for n_neighbors={n_neighbors}: at least "
            f"{(3 * n_neighbors + 1) // 2 + 1:,} are needed. Lower n_neighbors."
        )
    if min(rows, sample_rows) < 3:
        raise ParameterError(f"sample_rows is {sample_rows}; at least 3 are needed to compare distances.")


def _refuse_broken(source: Source, rows: Array, ids: Array) -> None:
    broken = ~np.isfinite(rows).all(axis=1)
    if broken.any():
        raise SourceError(
            f"Row {int(ids[broken][0])} of {source.name} holds NaN or infinity, and has a place on the map. "
            "Give such rows NaN as their place, or replace the values."
        )


def _draw(rng: np.random.Generator, rows: int, count: int) -> Array:
    if count >= rows:
        return np.arange(rows)
    return np.sort(rng.choice(rows, count, replace=False))


@dataclass
class _Local:
    measures: dict[str, Estimate]
    near: Array


def _local(pair: _Pair, probes: Array, k: int) -> _Local:
    """Compare the probes' neighbours in the data with those on the map; `near` are the latter."""
    queries = pair.gather(probes)
    metrics = pair.metric, EUCLIDEAN
    lists = [(np.full((len(probes), k), -1), np.full((len(probes), k), np.inf, np.float32)) for _ in metrics]
    for first, *both in pair.blocks():
        for side, metric in enumerate(metrics):
            more = knn.nearest(queries[side], both[side], k, metric, probes, first)
            lists[side] = knn.merge_nearest(*lists[side], *more, k)
    high, low = lists[0][0], lists[1][0]
    ranks_in_data, ranks_on_map = _ranks(pair, queries, probes, (low, high))
    whole, n = len(probes) == pair.rows, pair.rows
    kept = np.array([np.isin(a, b).mean() for a, b in zip(high, low, strict=True)])
    return _Local(
        {
            "trustworthiness": _of_ranks(ranks_in_data, n, k, whole),
            "continuity": _of_ranks(ranks_on_map, n, k, whole),
            "knn_preservation": sampled.of_mean(kept, whole),
        },
        low,
    )


def _ranks(
    pair: _Pair, queries: tuple[Array, Array], probes: Array, near: tuple[Array, Array]
) -> list[Array]:
    """Return the ranks in the data of the map's neighbours, and on the map of the data's neighbours."""
    wanted = np.unique(np.concatenate([ids.ravel() for ids in near]))
    gathered, metrics = pair.gather(wanted), (pair.metric, EUCLIDEAN)
    limits = [
        _limits(queries[side], gathered[side][np.searchsorted(wanted, near[side])], metrics[side])
        for side in (0, 1)
    ]
    closer = [np.zeros(ids.shape, np.int64) for ids in near]
    for first, *both in pair.blocks():
        for side in (0, 1):
            closer[side] += knn.count_closer(
                queries[side], both[side], limits[side], metrics[side], probes, first
            )
    return [counts + 1 for counts in closer]


def _limits(queries: Array, near: Array, metric: Metric) -> Array:
    """Return (q, k) distances of k rows (q, k, D) to each query, to the bits of `knn.count_closer`."""
    found = np.empty(near.shape[:2], np.float32)
    for i, rows in enumerate(near):
        order, distances = knn.nearest(queries[i : i + 1], rows, len(rows), metric, np.array([-1]), 0)
        found[i, order[0]] = distances[0]
    return found


def _of_ranks(ranks: Array, n: int, k: int, whole: bool) -> Estimate:
    """Return trustworthiness, or of ranks on the map continuity."""
    return sampled.of_mean(
        np.array([figures.trustworthiness_from_ranks(row[None], n, k) for row in ranks]), whole
    )


def _tables(rows: Array, metric: Metric) -> Array:
    """Return (m, m) float32 distances of all pairs."""
    m = len(rows)
    found = np.zeros((m, m), np.float32)
    order, distances = knn.nearest(rows, rows, m - 1, metric, np.arange(m), 0)
    np.put_along_axis(found, order, distances, axis=1)
    return found


def _global(high: Array, low: Array, rng: np.random.Generator, whole: bool) -> dict[str, Estimate]:
    """Compare the distances of all pairs of a sample."""
    m = len(high)

    def of_part(measure: Callable[[Array, Array], float]) -> Callable[[Array], float]:
        return lambda rows: measure(high[np.ix_(rows, rows)], low[np.ix_(rows, rows)])

    heads = np.repeat(np.arange(m), TRIPLETS)
    others = np.array([(heads + rng.integers(1, m, len(heads))) % m for _ in range(2)])
    triplets = np.stack([heads, *others], axis=1)[others[0] != others[1]]
    return {
        "auc_rnx": sampled.of_rows(of_part(sampled.area_under_rnx), m, whole),
        # Triplets are drawn even where all rows are there.
        "triplet_accuracy": sampled.of_mean(sampled.triplet_agreement(high, low, triplets)),
        "distance_correlation": sampled.of_rows(of_part(sampled.distance_correlation), m, whole),
    }


def _named(labels: Any, embedding: Any, source: Source) -> Any:
    """Return the classes that a text names: a column of the run, or of the cells of an AnnData."""
    if not isinstance(labels, str):
        return labels
    if isinstance(embedding, Mapped):
        found = embedding.named(labels)
        if not isinstance(found, str):
            return found
    columns = {} if source.origin is None else source.origin.cells.obs
    if labels not in columns:
        raise ParameterError(
            f"labels is {labels!r}, which is no column of the run or of its cells. {listed(columns)}"
        )
    return columns[labels][:]


def _codes(labels: Any, pair: _Pair) -> Array:
    """Return the class of each row on the map, (rows,) int64, -1 where it has none."""
    given = np.asarray(labels)
    if given.shape != (pair.source.shape[0],):
        raise ParameterError(
            f"labels has the shape {given.shape}; there must be one for each of the "
            f"{pair.source.shape[0]:,} rows."
        )
    known = np.concatenate([there for _, there in pair.known()])
    found: Array = clusters.codes_of(given)[known]
    if len(np.unique(found[found >= 0])) < 2:
        raise ParameterError("labels names fewer than two classes among the rows on the map.")
    return found


def _of_classes(codes: Array, probes: Array, near: Array, whole: bool) -> dict[str, Estimate]:
    """Return how often a vote of the neighbours on the map names the class of a probe."""
    asked = codes[probes] >= 0
    own, votes = codes[probes][asked], np.where(near >= 0, codes[near], -1)[asked]
    return {
        "knn_accuracy": sampled.of_mean((figures.winners(votes) == own).astype(np.float64), whole),
        "nearest_accuracy": sampled.of_mean((votes[:, 0] == own).astype(np.float64), whole),
    }
