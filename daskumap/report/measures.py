"""What each measure of a report says, where good ends and doubtful begins, and what to do: the verdict.

`MEASURES` is the one table. Its limits were measured on 70 fits: sound ones of 30 to 20,000 rows (digits,
Fashion-MNIST, uneven clusters, 12 cell types, planes, the sets of `testing.skewed`), and ones that were
broken on purpose (noise, one epoch, too few neighbours, cells too small, copies, a metric under which all
rows are equally far); record 16 has the figures. What is between the limits is fair: worth a look, no
warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Figures = dict[str, Any]

# Below so many components a map is no crumbs, however few rows it has: data have classes.
FEW_COMPONENTS = 20
# A preservation that is good whatever chance gives: of 30 rows chance alone keeps half of 14 neighbours.
HALF = 0.5
# Trustworthiness means little of fewer times n_neighbors rows: with 15 neighbours sound maps of 25 to 40 rows
# have .54 to .90, of 45 rows .85 to .91.
FEW_ROWS = 3


@dataclass(frozen=True)
class Measure:
    """A figure of the report, and how it is judged.

    Attributes
    ----------
    name, what, source
        What it is called, what it measures in one sentence, and where it comes from.
    value
        The figure that is judged, from the measures of a run; None where the run has none.
    limits
        Where good ends and where doubtful begins, from the measures of a run. The first is the better one.
    why
        Where the limits come from.
    weight
        The heavier of two warnings stands first. What goes wrong earlier weighs more, since it spoils what
        follows.
    subject, says, remedy
        What to look at, what was seen (a format of the run's measures and `value`), and what helps.
    """

    name: str
    what: str
    source: str
    value: Callable[[Figures], float | None]
    limits: Callable[[Figures], tuple[float, float]]
    why: str
    weight: int
    subject: str
    says: str
    remedy: str
    high_is_good: bool = False

    def grade(self, figures: Figures) -> str | None:
        """Return "good", "fair" or "doubtful"; None where the run has no such figure."""
        value = self.value(figures)
        if value is None or math.isnan(value):
            return None
        good, doubtful = self.limits(figures)
        sign = 1 if self.high_is_good else -1
        if sign * value >= sign * good:
            return "good"
        return "fair" if sign * value >= sign * doubtful else "doubtful"


def _figure(name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.get(name)


def _share(name: str, of: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures[name] / max(1, figures[of]) if name in figures and of in figures else None


def _fixed(good: float, doubtful: float) -> Callable[[Figures], tuple[float, float]]:
    return lambda figures: (good, doubtful)


def _copies(figures: Figures) -> float | None:
    """Return the share of distinct rows in the sample; None where copies count once in any case."""
    return None if "duplicate_rows" in figures else _share("distinct_rows_cast", "sample_rows")(figures)


def _trustworthiness(figures: Figures) -> float | None:
    few = "rows" in figures and figures["rows"] < FEW_ROWS * figures["n_neighbors"]
    return None if few else figures.get("trustworthiness")


def _crumbs(figures: Figures) -> float | None:
    """Return the components without those of single rows, which are counted on their own."""
    if "components" not in figures:
        return None
    alone = figures["isolated_rows"] - figures.get("undefined_rows", 0)  # The latter are in no component.
    return float(figures["components"] - alone)


def _component_limits(figures: Figures) -> tuple[float, float]:
    usual = figures["rows"] / figures["n_neighbors"]
    return max(FEW_COMPONENTS, usual // 10), max(FEW_COMPONENTS, usual // 5)


def _preservation_limits(figures: Figures) -> tuple[float, float]:
    chance = (figures["n_neighbors"] - 1) / max(1, figures["rows"] - 1)
    return min(HALF, 20 * chance), min(HALF, 10 * chance)


MEASURES: tuple[Measure, ...] = (
    Measure(
        name="missing_chunks",
        what="Chunks of the input that are not there and were read as the fill value.",
        source="the listing of the input's array",
        value=_figure("missing_chunks"),
        limits=_fixed(0, 0),
        why="A chunk is left out on purpose or lost, and only the owner of the data knows which.",
        weight=10,
        subject="the input",
        says="{value:,} chunks of the input are missing and were read as its fill value.",
        remedy="Fit with missing='refuse' where none may be missing, and write those that are lost.",
    ),
    Measure(
        name="distinct_rows_cast",
        what="Share of the sample's distinct rows that are still distinct as the metric sees them.",
        source="the sample, as stored and after the cast",
        value=_share("distinct_rows_cast", "distinct_rows_stored"),
        limits=_fixed(1.0, 0.99),
        why="Rows that become equal lose their neighbours; one in a hundred is more than rounding.",
        weight=9,
        subject="the numbers of the input",
        says="Of {distinct_rows_stored:,} distinct rows of the sample {distinct_rows_cast:,} are distinct "
        "in float32.",
        remedy="Subtract what all rows share, such as an offset, and scale the columns before the fit.",
        high_is_good=True,
    ),
    Measure(
        name="cast_recall",
        what="Share of the probe rows' true nearest neighbours that are the nearest in float32 too.",
        source="the probe rows, values as stored in float64 beside float32 (record 18)",
        value=_figure("cast_recall"),
        limits=_fixed(0.99, 0.95),
        why="Below .95 the look at a sample refuses a run; what it did not see is as bad.",
        weight=9,
        subject="the numbers of the input",
        says="float32 tells {value:.1%} of the true neighbours from other rows.",
        remedy="Subtract what all rows share, such as an offset, and scale the columns before the fit.",
        high_is_good=True,
    ),
    Measure(
        name="isolated_rows",
        what="Share of the rows without any neighbour; they are NaN on the map.",
        source="the symmetrised graph",
        value=_share("isolated_rows", "rows"),
        limits=_fixed(0.0, 0.001),
        why="None of the sound maps has one; of more than one row in a thousand the map says nothing.",
        weight=8,
        subject="the rows without neighbours",
        says="{isolated_rows:,} of {rows:,} rows ({value:.1%}) have no neighbour and no place on the map.",
        remedy="Raise disconnection_distance, or leave these rows out.",
    ),
    Measure(
        name="recall",
        what="Share of the probe rows' true nearest neighbours that the search found.",
        source="exact neighbours of the probe rows (record 6)",
        value=_figure("recall"),
        limits=_fixed(0.9, 0.8),
        why="Sound fits have .955 and more. With .55 maps begin to change, with .22 they fall into crumbs.",
        weight=7,
        subject="the neighbours",
        says="The search found {value:.1%} of the true neighbours.",
        remedy="Raise target_recall, max_overlap or max_cell_rows; with many copies of rows set unique=True.",
        high_is_good=True,
    ),
    Measure(
        name="distinct_rows",
        what="Share of the sample's rows that differ from each other.",
        source="the sample, after the cast",
        value=_copies,
        limits=_fixed(0.5, 0.2),
        why="With two copies of each row maps are as good as without; with ten copies they fall into crumbs.",
        weight=6,
        subject="the copies of rows",
        says="Of {sample_rows:,} rows in the sample {distinct_rows_cast:,} are distinct.",
        remedy="Set unique=True (--unique): copies then cost no neighbours.",
        high_is_good=True,
    ),
    Measure(
        name="components",
        what="Pieces of two rows and more that no edge joins; where they lie to each other means nothing.",
        source="union-find over all edges (record 6)",
        value=_crumbs,
        limits=_component_limits,
        why="Sound maps have one for 40 times n_neighbors rows and more; n_neighbors=2, a recall of .22 and "
        "ten copies of each row give one for each 2 to 4 times n_neighbors.",
        weight=5,
        subject="the pieces of the graph",
        says="The graph falls into {value:,} pieces that nothing joins.",
        remedy="Raise n_neighbors (now {n_neighbors}).",
    ),
    Measure(
        name="knn_preservation",
        what="Share of the probe rows' true nearest neighbours that are nearest on the map.",
        source="Lee and Verleysen (2009), Q_NX at one k; exact for the probe rows (record 6)",
        value=_figure("knn_preservation"),
        limits=_preservation_limits,
        why="It falls with the number of rows as chance does. Sound maps have 30 times what chance gives and "
        "more, noise 15 to 36 times, five epochs from a random start 4 to 8 times, equal distances once.",
        weight=4,
        subject="the neighbours on the map",
        says="The map keeps {value:.2%} of the true neighbours, little more than chance.",
        remedy="Raise n_epochs, and see that the metric tells rows apart.",
        high_is_good=True,
    ),
    Measure(
        name="trustworthiness",
        what="How near, in the data, those rows are that the map calls nearest: 1 at best, .5 by chance.",
        source="Venna and Kaski (2001); exact ranks of the probe rows (record 6)",
        value=_trustworthiness,
        limits=_fixed(0.9, 0.8),
        why="Sound maps have .94 and more, of 60 rows .90; noise of ten columns has .78, of fifty .60, a "
        "random start that hardly moved .50.",
        weight=3,
        subject="what lies together on the map",
        says="Rows that lie together on the map are far apart in the data (trustworthiness {value:.3f}).",
        remedy="Raise n_epochs, n_neighbors or n_components; noise has no map in few columns.",
        high_is_good=True,
    ),
    Measure(
        name="flyaway_ratio",
        what="How far out the outermost row is, in radii that hold 99 % of the rows.",
        source="radii of all rows about the median",
        value=_figure("flyaway_ratio"),
        limits=_fixed(1.6, 3.0),
        why="Sound maps have 1.0 to 1.1, word vectors up to 1.6; a hub that was thrown out has 50.",
        weight=2,
        subject="the rows that lie far out",
        says="The outermost row is {value:.1f} times as far out as 99 % of the rows.",
        remedy="Lower learning_rate, or look at the rows that lie far out.",
    ),
    Measure(
        name="longest_aspect",
        what="Longest axis of an island over the next one; an island is what short edges join on the map.",
        source="moments of the islands (record 16)",
        value=_figure("longest_aspect"),
        limits=_fixed(6.0, 10.0),
        why="Islands of sound maps have up to 5.5, two that touch up to 8.5; those that a layout drew out "
        "have 10.8 to 138, and data along a line 54 to 83.",
        weight=1,
        subject="the shape of the islands",
        says="An island of {longest_island:,} rows is {value:.0f} times as long as wide.",
        remedy="Where one column outweighs the others, scale them. Else fit with optimizer='adam' and a "
        "larger min_dist, unless the data do run along a line.",
    ),
)
MEASURE = {measure.name: measure for measure in MEASURES}


def judge(figures: Figures) -> dict[str, Any] | None:
    """Return the verdict on the measures of a run, as JSON types; None for a run without measures.

    Returns
    -------
    :
        "sound" and "sentence"; "warnings", heaviest first, of what is doubtful; and "measures", how each was
        judged.
    """
    judged = [(measure, grade) for measure in MEASURES if (grade := measure.grade(figures))]
    if not judged:
        return None
    doubtful = sorted((m for m, grade in judged if grade == "doubtful"), key=lambda m: -m.weight)
    return {
        "sound": not doubtful,
        "sentence": _sentence(doubtful, len(judged)),
        "warnings": [_warning(measure, figures) for measure in doubtful],
        "measures": [_judged(measure, grade, figures) for measure, grade in judged],
    }


def _sentence(doubtful: list[Measure], count: int) -> str:
    if not doubtful:
        return f"The map is sound: none of {count} measures is doubtful."
    verb = "is" if len(doubtful) == 1 else "are"
    return f"Look at {doubtful[0].subject} first: {len(doubtful)} of {count} measures {verb} doubtful."


def _warning(measure: Measure, figures: Figures) -> dict[str, Any]:
    value = measure.value(figures)
    return {
        "measure": measure.name,
        "value": value,
        "limit": measure.limits(figures)[1],
        "weight": measure.weight,
        "says": measure.says.format_map({**figures, "value": value}),
        "remedy": measure.remedy.format_map(figures),
    }


def _judged(measure: Measure, grade: str, figures: Figures) -> dict[str, Any]:
    good, doubtful = measure.limits(figures)
    return {
        "measure": measure.name,
        "value": measure.value(figures),
        "grade": grade,
        "good": good,
        "doubtful": doubtful,
        "what": measure.what,
        "source": measure.source,
        "why": measure.why,
    }
