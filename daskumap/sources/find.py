"""Which source the user means, by a table of openers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from daskumap.errors import ParameterError
from daskumap.hints import hint
from daskumap.sources import (
    anndata,
    cells,
    converted,
    dask,
    frames,
    hdf5,
    memory,
    nodes,
    objects,
    parquet,
    raw,
    sparse,
    specs,
)
from daskumap.sources import zarr as stored
from daskumap.sources.base import Labelled, Source
from daskumap.sources.cubes import open as cubes
from daskumap.sources.part import ROWS, part_of
from daskumap.store.labels import Column

# The option that every kind has: which kind it is, where the ending of a path does not tell.
KIND = "kind"


class Opener(NamedTuple):
    """A kind of input: how it is known, without importing its library, and what opens it.

    Attributes
    ----------
    kind
        Its name, in specs and as the option `kind`.
    knows
        Whether data are of this kind.
    opens
        Takes the data and the options, and returns a source or what lies inside, `Labelled` where names of
        rows come with it: a path leads to a Zarr group, the group to its array.
    options
        Names of the options that it takes.
    by_path
        Whether a run store may name its input as of this kind.
    """

    kind: str
    knows: Callable[[Any], bool]
    opens: Callable[..., Any]
    options: tuple[str, ...] = ()
    by_path: bool = False


COLUMNS = ("columns", "labels", "storage_options")
# The first that knows the data opens it, so that a kind comes before the more general one that it belongs to.
OPENERS: tuple[Opener, ...] = (
    Opener("h5ad", anndata.is_h5ad, anndata.open_h5ad, cells.OPTIONS, by_path=True),
    Opener("parquet", parquet.is_parquet, parquet.ParquetSource, COLUMNS, by_path=True),
    Opener("npy", raw.is_npy, raw.open_npy, ("array",), by_path=True),
    Opener("vectors", raw.is_vectors, raw.open_vectors, by_path=True),
    Opener("hdf5", hdf5.is_file, hdf5.open_file, ("dataset", "labels"), by_path=True),
    Opener("raw", raw.is_raw, raw.open_raw, ("dtype", "shape", "offset", "strides"), by_path=True),
    Opener("zarr", nodes.is_place, nodes.open_node, ("storage_options",), by_path=True),
    Opener("anndata in zarr", anndata.is_anndata, anndata.open_group, cells.OPTIONS),
    Opener("converted", converted.is_converted, converted.open_converted),
    Opener("cube", cubes.is_never, cubes.open_cube_at, cubes.BY_PATH, by_path=True),
    Opener("zarr group", nodes.is_group, cubes.open_group, cubes.OPTIONS),
    Opener("zarr array", stored.is_array, stored.ZarrSource),
    Opener(
        "anndata",
        anndata.is_object,
        anndata.open_object,
        (*cells.OPTIONS, "storage_options"),
        by_path=True,
    ),
    Opener("xarray", objects.is_xarray, cubes.open_cube, cubes.OPTIONS),
    Opener("hdf5 dataset", hdf5.is_dataset, hdf5.open_dataset, ("labels",)),
    Opener("memmap", raw.is_memmap, raw.open_memmap),
    Opener("dask", dask.is_dask, dask.open_dask),
    Opener("list", objects.is_several, objects.refuse_several),
    Opener("sparse", objects.is_sparse_matrix, sparse.SparseSource),
    Opener("frame", frames.is_frame, frames.open_frame, ("columns", "labels")),
    Opener("memory", memory.is_object, memory.open_object),
)


def source(data: Any, **options: Any) -> Source:
    """Return the rows that a path, a URL or an object stands for, as options of its kind say.

    What it returns is taken wherever data are: by `fit`, `plan`, `transform`, `train`, `resume` and
    estimators. Without options there is no need for it.

    Parameters
    ----------
    data
        As of `fit`.
    **options
        Those of the kind, such as `storage_options` of a URL (what its file system is told, which no run
        store holds); `kind`, for a path whose ending does not tell what it is; and `rows`, [first, the one
        after the last], for a part of the rows.

    Returns
    -------
    Source
        With `shape`, `dtype`, `labels` of its rows and `read(start, stop)`.

    Raises
    ------
    ParameterError
        If this kind has no such option; it lists those that there are.
    SourceError, SourceNotFoundError, DependencyError
        As `fit`.
    """
    return find(data, options)


def find(data: Any, options: dict[str, Any] | None = None) -> Source:
    """Return the source that a path, a URL, a Zarr array or group, or an array in memory stands for.

    Parameters
    ----------
    options
        Each is taken by the first opener on the way to the rows that has it.

    Raises
    ------
    SourceNotFoundError
        If there is nothing at the path.
    SourceError
        If it is no two-dimensional numeric array, or several are possible.
    ParameterError
        If an option belongs to no opener on the way.
    DependencyError
        If a URL needs a package that is missing.
    """
    return trace(data, options)[0]


def trace(data: Any, options: dict[str, Any] | None = None) -> tuple[Source, list[Opener]]:
    """Return the source as `find` does, and the openers on the way to it."""
    rest, found = dict(options or {}), data
    labels: dict[str, Column] = {}
    kind, on_the_way, rows = rest.pop(KIND, None), [], rest.pop(ROWS, None)
    _refuse_unknown(rest)
    if isinstance(data, str) and not data.strip():
        raise ParameterError("The input is an empty text. Give the path or URL of the rows, or the rows.")
    while not isinstance(found, Source):
        opener = _opener(found) if kind is None else _named(kind)
        kind = None
        on_the_way.append(opener)
        found = opener.opens(found, **{name: rest.pop(name) for name in opener.options if name in rest})
        if isinstance(found, Labelled):
            found, labels = found.data, {**labels, **found.labels}
    if rest:
        raise _no_such_option(rest, on_the_way)
    if labels:
        found.labels = {**found.labels, **labels}
    if on_the_way and options and options.get("storage_options"):
        found.storage_options = dict(options["storage_options"])
    return (found if rows is None else part_of(found, rows)), on_the_way


def is_plain(data: Any) -> bool:
    """Return whether it is an array, a frame or a sparse matrix in memory, or nested lists."""
    plain = (memory.open_object, sparse.SparseSource, frames.open_frame)
    return not isinstance(data, Source) and _opener(data).opens in plain


def open_spec(spec: dict[str, Any]) -> Source:
    """Open what `Source.spec` describes, in any process."""
    options = {name: spec[name] for name in (KIND, "storage_options") if name in spec}
    return find(spec["path"], {**options, **spec.get("options", {})})


def check_stored_spec(spec: dict[str, Any], run: str) -> None:
    """Refuse a spec in a run store that names what is not contacted on its word.

    Raises
    ------
    StoreError
        Saying what it names, and how the caller allows that.
    """
    kinds = {opener.kind: (*opener.options, ROWS) for opener in OPENERS if opener.by_path}
    specs.refuse_foreign(spec, run, kinds)


def _opener(data: Any) -> Opener:
    return next(opener for opener in OPENERS if opener.knows(data))


def _named(kind: Any) -> Opener:
    """Return the opener of a kind of file."""
    kinds = {opener.kind: opener for opener in OPENERS if opener.by_path}
    if kind not in kinds:
        near = hint([str(kind)], kinds).rstrip()
        raise ParameterError(f"kind is {kind!r}; kinds of files are {', '.join(kinds)}. {near}".rstrip())
    return kinds[kind]


def _refuse_unknown(options: dict[str, Any]) -> None:
    """Refuse options that no kind has, before anything is opened."""
    known = {name for opener in OPENERS for name in opener.options}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ParameterError(
            f"No input has the option {', '.join(unknown)}. {hint(unknown, {KIND, ROWS, *known})}Options are "
            f"{KIND}, {ROWS}, {', '.join(sorted(known))}."
        )


def _no_such_option(options: dict[str, Any], openers: list[Opener]) -> ParameterError:
    known = [KIND, ROWS, *(name for opener in openers for name in opener.options)]
    kinds = " and ".join(opener.kind for opener in openers) or "a source that is open already"
    return ParameterError(
        f"The input is read as {kinds}, without the option {', '.join(sorted(options))}. "
        f"{hint(sorted(options), known)}Its options are {', '.join(known)}."
    )
