"""New rows on the axes of a run: found once, they lie in its run store with the names of their columns."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np

from daskumap.errors import SourceError
from daskumap.sources.axes import Axes, AxesSource, OnAxes, refuse_own_axes, without_part
from daskumap.sources.base import Array, Source
from daskumap.sources.cells import Origin, rows_of
from daskumap.sources.part import Part, part_of
from daskumap.store import schema
from daskumap.store.labels import TEXT, Column, InMemory, Stored, write_texts
from daskumap.store.run import RunStore

LISTED = 10
# What a run store has of axes, in the order in which it is written; the names before the last.
MEAN, VARIANCES, COLUMNS, AXES = (f"{schema.MAIN_AXES}/{part}" for part in schema.MAIN_AXES_PARTS)
NAMES = f"{schema.MAIN_AXES}/names"


class Kept(NamedTuple):
    """Axes as a run store has them.

    Attributes
    ----------
    axes
        Where rows are projected to.
    columns
        (taken,) numbers of the input's columns that take part.
    names
        (taken,) names of these; None where they had none.
    """

    axes: Axes
    columns: Array
    names: Array | None


class Projected(OnAxes):
    """Rows on axes that are known."""

    def __init__(self, inner: Source, axes: Axes, columns: Array) -> None:
        super().__init__(inner, axes.axes.shape[1], columns)
        self._axes = axes

    @property
    def axes(self) -> Axes:
        """The axes."""
        return self._axes

    def _which(self) -> list[Any]:
        digest = hashlib.sha256(self._axes.axes.tobytes() + self._axes.mean.tobytes())
        digest.update(np.asarray(self.columns, np.int64).tobytes())
        return [self.shape[1], self.taken, digest.hexdigest()[:16]]


def keep_axes(store: RunStore, source: Source, model: RunStore | None = None) -> None:
    """Write the axes of a run's input into its store: those of the source, or of the run it is made from."""
    found = without_part(source)
    kept = axes_of(found) if isinstance(found, AxesSource) else None if model is None else read_axes(model)
    if kept is None:
        return
    store.put(MEAN, kept.axes.mean)
    store.put(VARIANCES, kept.axes.variances)
    store.put(COLUMNS, kept.columns)
    if kept.names is not None:
        write_texts(store, NAMES, InMemory(kept.names))
    store.put(AXES, np.ascontiguousarray(kept.axes.axes))


def axes_of(source: AxesSource) -> Kept:
    """Return the axes of a source, with the columns that take part."""
    columns = np.arange(source.taken) if source.columns is None else np.asarray(source.columns, np.int64)
    genes = source.genes
    known = genes is not None and len(genes) == source.inner.shape[1]
    names = np.asarray(genes.read(0, len(genes)), object)[columns] if genes is not None and known else None
    return Kept(source.axes, columns, names)


def read_axes(store: RunStore) -> Kept | None:
    """Return the axes that a run store has; None where it has none."""
    if not store.has(AXES):
        return None
    columns = store.read(COLUMNS)
    named = store.documents.load_bytes(f"{NAMES}/00000000/ends/zarr.json") is not None
    names = Stored(store, NAMES, len(columns), TEXT).read(0, len(columns)) if named else None
    return Kept(Axes(store.read(MEAN), store.read(AXES), store.read(VARIANCES)), columns, names)


def like_fitted(source: Source, fitted: dict[str, Any] | None, kept: Kept | None) -> Source:
    """Return new rows as those of a run were read: the same numbers of an AnnData, on the same axes.

    What the caller named of an AnnData (`use_rep`, `layer`) is taken.

    Parameters
    ----------
    fitted
        What the run store says of which numbers were read; None where it was no AnnData.
    kept
        The axes of the run; None where it has none.

    Raises
    ------
    SourceError
        If the rows lack columns of those that were fitted, by name, or have another number of them.
    """
    if isinstance(source, Part):
        return part_of(_as_it_came(like_fitted(source.source, fitted, kept), source.source), _rows(source))
    origin: Origin | None = source.origin
    if kept is None:
        if origin is not None and fitted is not None and not origin.named and "axes" not in fitted:
            return _as_it_came(_element(origin, fitted["options"]), source)
        refuse_own_axes(source)
        return source
    there = source.shape[1] == kept.axes.axes.shape[1] and not isinstance(source, AxesSource)
    if there and (origin is None or origin.named):
        return source  # The caller has put them on the axes.
    options = fitted["options"] if fitted is not None and origin and not origin.named else None
    inner, genes, name = source, None, source.name
    if origin is not None:
        inner = _element(origin, options or origin.options)
        genes = origin.cells.genes if origin.element.partition("/")[0] != "obsm" else None
        name = origin.cells.name
    columns = fitted["all_columns"] if fitted is not None else inner.shape[1]
    return _as_it_came(Projected(inner, kept.axes, _places(kept, inner, genes, columns, name)), source)


def _rows(part: Part) -> list[int]:
    return [part.start, part.start + part.shape[0]]


def _element(origin: Origin, options: dict[str, Any]) -> Source:
    """Return what options name of an AnnData."""
    found: Source = rows_of(origin.cells, **options).data
    return found


def _as_it_came(source: Source, given: Source) -> Source:
    """Return a source with what came with the one that the caller gave."""
    source.labels, source.storage_options = given.labels, given.storage_options
    source.origin = source.origin or given.origin
    return source


def _places(kept: Kept, inner: Source, genes: Column | None, columns: int, name: str) -> Array:
    """Return in which columns of new rows those are that the axes are of: by name, else by number."""
    if kept.names is None or genes is None or len(genes) != inner.shape[1]:
        if inner.shape[1] != columns:
            raise SourceError(
                f"{inner.name} has {inner.shape[1]:,} columns, and {columns:,} were fitted. Give the same "
                "columns in the same order, or an AnnData whose var_names say which is which."
            )
        return kept.columns
    there = np.asarray(genes.read(0, len(genes)), object)
    if len(there) > kept.columns.max() and np.array_equal(there[kept.columns], kept.names):
        return kept.columns
    return _by_name(kept.names, there, name)


def _by_name(wanted: Array, there: Array, name: str) -> Array:
    asked = there[np.isin(there.astype(str), wanted.astype(str))]
    for names, whose in ((wanted, "the cells that were fitted"), (asked, name)):
        found, counts = np.unique(names.astype(str), return_counts=True)
        if (counts > 1).any():
            raise SourceError(
                f"Two genes of {whose} are called {str(found[counts.argmax()])!r}, and they are not in the "
                "same order in both. Call adata.var_names_make_unique(), and fit again if it is those."
            )
    place = {gene: number for number, gene in enumerate(there.tolist())}
    missing = [gene for gene in wanted.tolist() if gene not in place]
    if missing:
        more = f" and {len(missing) - LISTED:,} more" if len(missing) > LISTED else ""
        raise SourceError(
            f"{name} lacks {len(missing):,} of the {len(wanted):,} genes of the run's axes: "
            f"{', '.join(map(str, missing[:LISTED]))}{more}. Give counts of them all, 0 where a gene was not "
            "measured; var_names say which is which."
        )
    return np.array([place[gene] for gene in wanted.tolist()], np.int64)
