"""Where a map can go, by a table of targets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from daskumap import api
from daskumap.errors import ParameterError
from daskumap.exports import cells, cubes, tables
from daskumap.exports.files import is_there, refuse_what_is_there
from daskumap.hints import hint
from daskumap.store.trouble import is_url
from daskumap.views import Mapped


class Target(NamedTuple):
    """A kind of target: how it is known, without importing its library, and what writes it.

    Attributes
    ----------
    kind
        Its name, as the option `kind`.
    knows
        Whether a path, or an object, is of this kind.
    writes
        Takes the run, the target, `overwrite` and the options, and returns where the map is now. It writes
        a file under another name and renames it (`files.whole_file`), so that nothing half-written is there.
    options
        Names of the options that it takes.
    looks_like
        What such a target looks like, for messages.
    maps
        Whether it is the map that is written, and not the network of a trained run.
    """

    kind: str
    knows: Callable[[Any], bool]
    writes: Callable[..., Any]
    options: tuple[str, ...] = ()
    looks_like: str = ""
    maps: bool = True


def _ends_in(*endings: str) -> Callable[[Any], bool]:
    def knows(target: Any) -> bool:
        return isinstance(target, str | os.PathLike) and os.fspath(target).lower().endswith(endings)

    return knows


def write_onnx(network: Any, target: Any, *, overwrite: bool) -> Any:
    """Write the network of a trained run for other programs."""
    if is_url(target):
        raise ParameterError(f"{target} is a URL; a network is written on this machine. Copy it from there.")
    refuse_what_is_there(target, overwrite)
    return api.export_onnx(network, target)


# The first that knows the target writes it.
TARGETS: tuple[Target, ...] = (
    Target("parquet", _ends_in(".parquet", ".pq"), tables.write_parquet, ("columns",), "a file NAME.parquet"),
    Target("csv", _ends_in(".csv", ".tsv"), tables.write_csv, ("columns",), "NAME.csv, NAME.tsv"),
    Target("onnx", _ends_in(".onnx"), write_onnx, (), "NAME.onnx, the network of a trained run", maps=False),
    Target("npy", _ends_in(".npy"), tables.write_npy, (), "NAME.npy"),
    Target(
        "anndata",
        cells.is_cells,
        cells.write_cells,
        cells.OPTIONS,
        "an AnnData: object, .h5ad file or Zarr store, which is there already",
    ),
    Target("cube", cubes.is_zarr, cubes.write_zarr_cube, ("cube",), "NAME.zarr for xarray, of a cube"),
)


def export(run: Any, target: Any, *, overwrite: bool = False, kind: str | None = None, **options: Any) -> Any:
    """Write the map of a run for other programs, with the labels of its rows; or its network.

    Parameters
    ----------
    run
        A finished run of `fit` or `train`, or new rows on a map, as of `transform`; or the path or URL of it.
        For .onnx a trained run, or a saved network.
    target
        Path of the file. Its ending says what is written: .parquet (columns x, y, and z of a map with three
        dimensions, else umap_0, umap_1, ...; and the labels by their names), .csv or .tsv (the same), .npy,
        each as a path or URL; .zarr of a cube; or an AnnData that is there, into which the map is written.
    overwrite
        Replace what is there.
    kind
        What is written, where the ending does not say.
    **options
        Those of the kind. `columns`, of tables: names of the columns of the map. `cube`, of cubes: as of
        `Run.to_xarray`.

    Returns
    -------
    Any
        The path of the file, or the object that was written to; a list of paths for .onnx.

    Raises
    ------
    ParameterError
        If the target is of no known kind, is there already, or has no such option.
    StoreError
        While the run is unfinished, or has no map.
    """
    if not isinstance(overwrite, bool):
        raise ParameterError(f"overwrite is {overwrite!r}; it must be True or False.")
    chosen = choose_target(target, kind, options)
    return chosen.writes(_mapped(run) if chosen.maps else run, target, overwrite=overwrite, **options)


def choose_target(target: Any, kind: str | None, options: Mapping[str, Any]) -> Target:
    """Return the target that is meant, which has options of such names.

    Raises
    ------
    ParameterError
        If there is none, or it has no such option.
    """
    chosen = find_target(target, kind)
    unknown = sorted(options.keys() - set(chosen.options))
    if unknown:
        raise ParameterError(
            f"A target of kind {chosen.kind} has no option {', '.join(unknown)}; it has "
            f"{', '.join(chosen.options) or 'none'}. {hint(unknown, (*chosen.options, 'overwrite'))}".rstrip()
        )
    return chosen


def is_written(target: Any, kind: str | None = None, **options: Any) -> bool:
    """Return whether there is what `export` would write, or something in its place.

    Raises
    ------
    StoreError
        If it cannot be looked at.
    """
    if choose_target(target, kind, options).kind != "anndata":
        return is_there(target)
    try:
        cells.refuse_no_room(target, **options)
    except ParameterError:
        return True
    return False


def find_target(target: Any, kind: str | None = None) -> Target:
    """Return the target that is meant.

    Raises
    ------
    ParameterError
        Listing those that there are.
    """
    for known in TARGETS:
        if known.kind == kind if kind is not None else known.knows(target):
            return known
    listed = "; ".join(f"{known.kind} ({known.looks_like})" for known in TARGETS)
    what = f"kind={kind!r}" if kind is not None else repr(target)
    raise ParameterError(f"Nothing is known of the target {what}. A map is written as: {listed}.")


def _mapped(run: Any) -> Mapped:
    """Return the run, opened if it is a path."""
    found = api.open(run) if isinstance(run, str | Path) else run
    if not isinstance(found, Mapped):
        raise ParameterError(
            f"The {type(found).__name__} has no map. Export a run of fit, train or transform."
        )
    return found
