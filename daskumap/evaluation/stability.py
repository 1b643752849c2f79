"""How far maps of the same rows are alike, such as those of several seeds: aligned, and by neighbours."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from daskumap.diagnosis import open_map
from daskumap.errors import ParameterError
from daskumap.evaluation.given import as_run, check_counts
from daskumap.evaluation.neighborhoods import neighbors_on_map
from daskumap.evaluation.pair import BLOCK_BYTES, EUCLIDEAN, Pair, Side, count_rows, make_side
from daskumap.evaluation.said import as_json, figure
from daskumap.evaluation.tables import draw
from daskumap.kernels.quality.sampled import NORMAL_95, Estimate
from daskumap.params import explicit
from daskumap.secrets import hide_secrets
from daskumap.views import Mapped

Array = np.ndarray[Any, Any]
Numbers = tuple[int, int]

# Two-sided 95 % of Student's t by degrees of freedom; beyond, that of a normal distribution is near enough.
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


@explicit
def stability(
    maps: Sequence[Any], *, n_neighbors: int = 15, probe_rows: int = 1000, random_state: int = 0
) -> Stability:
    """Compare maps of the same rows: what stays over seeds or parameters can be trusted.

    Each pair is aligned by translation, rotation, reflection and scale (Procrustes), of which sums of d x d
    numbers are kept; and the neighbours of `probe_rows` rows on each map are compared. Each map is read four
    times, in blocks; memory takes a byte a row.

    Parameters
    ----------
    maps
        Two or more, (n, d) each, their rows in one order: runs or their paths, arrays, or paths of arrays.
        Three or more say how much another seed might differ. Rows that are not on all maps are left out.
    n_neighbors
        Rows of a neighbourhood, without the row itself.
    probe_rows
        Rows whose neighbours are compared, at most all.
    random_state
        The same one draws the same rows.

    Returns
    -------
    Stability

    Raises
    ------
    ParameterError
        If there are fewer than two maps, they differ in rows or columns, or a map has all rows at one place.
    """
    opened, names = _open(maps), _names(maps)
    step = max(1, BLOCK_BYTES // (8 * opened[0].source.shape[1]))
    common = _common(opened, step)
    pairs = [Pair((side, side), step, count_rows(side, step, common), common) for side in opened]
    check_counts(pairs[0].rows, n_neighbors=n_neighbors, probe_rows=probe_rows)
    means, cross = _moments(pairs)
    for number, name in enumerate(names):
        if not cross[number, number].trace() > 0:
            raise ParameterError(f"The map {name} has all rows at one place. Leave it out.")
    probes = draw(np.random.default_rng(random_state), pairs[0].rows, probe_rows)
    near = [neighbors_on_map(pair, probes, n_neighbors) for pair in pairs]
    kept = {
        (a, b): np.array([np.isin(*rows).mean() for rows in zip(near[a], near[b], strict=True)])
        for a, b in itertools.combinations(range(len(pairs)), 2)
    }
    return Stability(names, pairs, means, cross, kept, len(probes) == pairs[0].rows, n_neighbors)


@dataclass(frozen=True, repr=False)
class Stability:
    """How far maps are alike, pair by pair and on average.

    Attributes
    ----------
    names
        What the maps are called.
    """

    names: tuple[str, ...]
    _pairs: list[Pair] = field(repr=False)
    _means: Array = field(repr=False)
    _cross: Array = field(repr=False)
    _kept: dict[Numbers, Array] = field(repr=False)
    _whole: bool = field(repr=False)
    _n_neighbors: int = field(repr=False)

    @property
    def rows(self) -> int:
        """How many rows are on all maps."""
        return self._pairs[0].rows

    @property
    def chance(self) -> float:
        """The share of neighbours that maps at random have in common."""
        return self._n_neighbors / (self.rows - 1)

    @cached_property
    def disparities(self) -> dict[Numbers, float]:
        """By the numbers of two maps, of all rows: 0 if one is the other, moved; 1 if they are unrelated.

        The sum of squared distances after the alignment, maps at a sum of squares of 1, as in
        `scipy.spatial.procrustes`.
        """
        return {pair: max(0.0, 1.0 - self._alignment(*pair)[1] ** 2) for pair in self._kept}

    @cached_property
    def common_neighbors(self) -> dict[Numbers, float]:
        """By the numbers of two maps, the share of nearest rows that they have in common."""
        return {pair: float(kept.mean()) for pair, kept in self._kept.items()}

    @property
    def disparity(self) -> Estimate:
        """The mean of all pairs; its interval is that of other maps, NaN where there are two alone."""
        return _of_pairs(self.disparities, len(self.names))

    @property
    def neighbors_kept(self) -> Estimate:
        """The mean share of common neighbours; its interval is that of other maps and other probes."""
        each = np.mean(list(self._kept.values()), axis=0)
        error = 0.0 if self._whole else NORMAL_95 * float(each.std(ddof=1)) / len(each) ** 0.5
        return _of_pairs(self.common_neighbors, len(self.names), error)

    def displacement(self) -> Array:
        """Return how far each row is from its places on other maps, (n,) float32, in memory.

        The root mean square over all pairs after the alignment, in the root mean square radius of a map; NaN
        for rows that are not on all. It colours a map: `run.plot(found.displacement())`.
        """
        squares = np.full(self._pairs[0].sides[0].source.shape[0], np.nan, np.float32)
        at = np.flatnonzero(self._pairs[0].counting())
        scales = [(self.rows / self._cross[i, i].trace()) ** 0.5 for i in range(len(self.names))]
        turns = {pair: self._alignment(*pair) for pair in self._kept}
        for first, places in _together(self._pairs):
            scaled = [
                (part - mean) * scale for part, mean, scale in zip(places, self._means, scales, strict=True)
            ]
            apart = [
                ((scaled[a] - size * scaled[b] @ turn) ** 2).sum(axis=1)
                for (a, b), (turn, size) in turns.items()
            ]
            squares[at[first : first + len(places[0])]] = np.mean(apart, axis=0)
        return np.sqrt(squares)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types; what is not known is None."""
        pairs = [
            {
                "maps": [a, b],
                "disparity": self.disparities[a, b],
                "neighbors_kept": self.common_neighbors[a, b],
            }
            for a, b in self._kept
        ]
        found = {name: as_json(getattr(self, name)) for name in ("disparity", "neighbors_kept")}
        return {"maps": list(self.names), "rows": self.rows, **found, "chance": self.chance, "pairs": pairs}

    def __str__(self) -> str:
        lines = [
            f"{'maps':<20}{', '.join(self.names)}; {self.rows:,} rows on all of them",
            f"{'disparity':<20}{figure(self.disparity)}0 is the same map, moved; 1 is another one",
            f"{'common neighbours':<20}{figure(self.neighbors_kept)}1 at best; {self.chance:.2g} by chance",
        ]
        return "\n".join(lines)

    def _alignment(self, a: int, b: int) -> tuple[Array, float]:
        """Return the turn (d, d) of map b onto map a, and its scale where both have a sum of squares of 1."""
        size = (self._cross[a, a].trace() * self._cross[b, b].trace()) ** 0.5
        left, values, right = np.linalg.svd(self._cross[b, a] / size)
        return left @ right, float(values.sum())


def _of_pairs(values: dict[Numbers, float], maps: int, error: float = 0.0) -> Estimate:
    """Return the mean over all pairs, with its interval by the jackknife over maps."""
    value = float(np.mean(list(values.values())))
    if maps < 3:
        return Estimate(value, np.nan, np.nan)
    without = [np.mean([one for pair, one in values.items() if gone not in pair]) for gone in range(maps)]
    spread = ((maps - 1) / maps * np.sum((np.array(without) - np.mean(without)) ** 2)) ** 0.5
    t = T_95[maps - 2] if maps - 2 < len(T_95) else NORMAL_95
    half = float(np.hypot(t * spread, error))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def _open(maps: Sequence[Any]) -> list[Side]:
    if isinstance(maps, str | os.PathLike | np.ndarray | Mapped) or len(maps) < 2:
        raise ParameterError("maps is one map; give a list of two or more, of the same rows.")
    runs = [as_run(one) for one in maps]
    known = {run.store.about["source"]["rows"] for run in runs if run is not None}
    if len(known) > 1:
        raise ParameterError("The runs are of different rows. Give maps of the same rows, in the same order.")
    places = [one if run is None else run.embedding for one, run in zip(maps, runs, strict=True)]
    first = open_map(places[0], None, "first map")
    opened = [first, *(open_map(one, first.shape[0], "first map") for one in places[1:])]
    for number, one in enumerate(opened):
        if one.shape[1] != first.shape[1]:
            raise ParameterError(
                f"Map {number + 1} has {one.shape[1]} columns, the first one {first.shape[1]}. Compare "
                "maps of as many columns."
            )
    return [make_side(one, EUCLIDEAN) for one in opened]


def _names(maps: Sequence[Any]) -> tuple[str, ...]:
    return tuple(_path_of(one) or f"map {number}" for number, one in enumerate(maps, 1))


def _path_of(one: Any) -> str | None:
    """Return where a map is; None for one in memory."""
    path = one.path if isinstance(one, Mapped) else one
    text = hide_secrets(os.fspath(path)) if isinstance(path, str | os.PathLike) else ""
    return None if not text or text.startswith("memory://") else text


def _common(sides: list[Side], step: int) -> Array:
    """Return (n,) bool: which rows are on all maps."""
    found = np.ones(sides[0].source.shape[0], np.bool_)
    for side in sides:
        for start in range(0, len(found), step):
            places = side.read(start, min(start + step, len(found)))
            found[start : start + step] &= np.isfinite(places).all(axis=1)
    return found


def _together(pairs: list[Pair]) -> Iterator[tuple[int, list[Array]]]:
    """Yield (number of the first row, places on each map in float64) of each block."""
    for blocks in zip(*(pair.places() for pair in pairs), strict=True):
        yield blocks[0][0], [places.astype(np.float64) for _, places in blocks]


def _moments(pairs: list[Pair]) -> tuple[Array, Array]:
    """Return the means, (m, d), and the sums of products of what is left, (m, m, d, d)."""
    sums = [np.array([part.sum(axis=0) for part in parts]) for _, parts in _together(pairs)]
    means = np.sum(sums, axis=0) / pairs[0].rows
    cross = np.zeros((len(pairs), len(pairs), means.shape[1], means.shape[1]))
    for _, parts in _together(pairs):
        left = [part - mean for part, mean in zip(parts, means, strict=True)]
        for a, b in itertools.product(range(len(pairs)), repeat=2):
            cross[a, b] += left[a].T @ left[b]
    return means, cross
