"""Opens what is there: the context of a run from its run store, and that of the run it is made from."""

from __future__ import annotations

import dataclasses
import logging
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from daskumap.driver import Steps
from daskumap.encoder_params import BUILT_IN, EncoderParams, make_encoder_params
from daskumap.errors import DaskumapError, ParameterError, RunMismatchError, StoreError
from daskumap.kernels import jit
from daskumap.params import PRECOMPUTED, Params, make_params
from daskumap.pipeline import Kind, kind_in, kind_of, purpose_in, purpose_of, steps_of
from daskumap.planning.job import Job
from daskumap.planning.sizes import Resources, Sizes
from daskumap.runtime.context import Context, make_context
from daskumap.sources.base import Source
from daskumap.sources.cells import NAMES, of_rows
from daskumap.sources.cubes.source import CubeSource
from daskumap.sources.find import check_stored_spec, find, open_spec
from daskumap.sources.ingest import as_stored, names_of_copy, open_ingested
from daskumap.sources.obs import refuse_other_names
from daskumap.sources.part import column_of_part, part_of
from daskumap.sources.specs import is_near
from daskumap.store import schema
from daskumap.store.damage import find_damage
from daskumap.store.labels import COLUMNS, Labels, find_damaged_labels
from daskumap.store.model import Model
from daskumap.store.places import find_place
from daskumap.store.run import RunStore, check_same, differences

log = logging.getLogger(__name__)

# What a run store holds that was made by a run, and is none to make anything by.
MADE = {
    "inverse": "rows of points of a map",
    "decode": "rows of points of a map",
    "predict": "classes of rows",
}
# Written once the copy of the input is whole.
INPUT_DIGEST = "input/digest"
# What a training is told of rows, and where it starts, by parameter.
KNOWN = {"labels": schema.LABELS, "landmarks": schema.LANDMARKS, "start": schema.START}
# Written once the copy of given neighbours is whole.
GIVEN_DIGESTS = "input/knn_digests"


def steps_in(context: Context) -> Steps:
    """Return the steps of a run."""
    return steps_of(kind_of_context(context).pipeline, context.params)


def kind_of_context(context: Context) -> Kind:
    """Return which kind of run a context is of."""
    job = context.job
    purpose = purpose_of(context.transforms or None, context.anew, job.inverse, job.encodes)
    return kind_of(purpose, context.params, context.anew)


@cache
def versions(uses_torch: bool = False, device: str | None = None) -> dict[str, str]:
    """Return the versions of all that decides the bits of a result, and the kind of a module's device."""
    libraries = ["numba", "numpy", "scipy", "scikit-learn", "pynndescent"]
    from daskumap import __version__

    found = {"daskumap": __version__, "kernels": jit.digest(), **{name: version(name) for name in libraries}}
    found |= {"torch": _version_of_torch()} if uses_torch else {}
    return found | ({"device": device} if device else {})


def _version_of_torch() -> str:
    """Return the version of torch; a finished run that was trained by it can be opened without."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return "not installed"


def input_digest(store: RunStore) -> str | None:
    """Return the digest of the copy of the input, None while it is not whole."""
    # What a run that has not begun holds is another one's.
    found: str | None = store.documents.load(INPUT_DIGEST) if store.ledger.has_begun() else None
    return found


def compare_versions(store: RunStore, finished: bool, device: str | None = None) -> None:
    """Refuse to go on with what other versions, or another kind of device, began; of a finished run, say it.

    Parameters
    ----------
    device
        The kind that would go on; None where nobody does, or no module is at work.

    Raises
    ------
    RunMismatchError
        If the bits of two versions would mix.
    """
    known = store.about["versions"]
    now = versions("torch" in known, device or known.get("device"))
    found = differences({"versions": known}, {"versions": now})
    if found and not finished:
        raise RunMismatchError(
            f"{store.url} was begun by other versions: {'; '.join(found)}. Bits of both would mix. Go on "
            "with those versions, name another store, or start over there with restart (--restart)."
        )
    if found:
        log.warning("The run in %s was made by other versions: %s.", store.url, "; ".join(found))


def context_of(
    store: RunStore,
    source: Source,
    params: Params,
    resources: Resources,
    model: Context | None,
    given: tuple[dict[str, Any], dict[str, Any]] | None = None,
    encoder: Model | None = None,
) -> Context:
    """Return the context of a run as its run store describes it."""
    known, made = store.about, store.about["model"] or {}
    anew = made.get("anew")
    job = Job(
        store.url,
        known["id"],
        source.spec(),
        params,
        Sizes(**known["sizes"]),
        resources,
        anew=None if anew is None else tuple(anew),
        inverse=purpose_in(known) == "inverse",
        encodes=made.get("encodes"),
        given=given,
        storage_options=store.place.storage_options,
    )
    return make_context(job, source, store, model, encoder)


def open_known(store: RunStore, resources: Resources, data: Any = None) -> Context:
    """Return the context of a run from what its run store says of it, and from its input if that is named.

    Raises
    ------
    StoreError
        If only `fit` can continue it: with a function as metric, or with data from memory that are not all in
        the run store. Or if the run store names an input that only the caller may.
    """
    known, params = store.about, known_params(store)
    if known["spec"] is None:
        if data is not None:
            raise ParameterError(
                f"The run in {store.url} has a copy of its input, which came from memory. Leave data out, or "
                "call daskumap.fit again with the same input."
            )
        source = open_copy(store)
    else:
        source = open_input(store, data)
        check_same(
            store.url, {"source": _nameless(known["source"])}, {"source": _nameless(source.identity())}
        )
    return context_of(store, source, params, resources, open_model_of(store), known_given(store, params))


def _nameless(identity: dict[str, Any]) -> dict[str, Any]:
    """Return what an input is known by but the labels of its rows, which are in the run store already."""
    return {name: value for name, value in identity.items() if name != "labels"}


def known_given(store: RunStore, params: Params) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return where given neighbours are, as the run store says; None for its own copy, and for a search.

    Raises
    ------
    StoreError
        If it has none, and names a place that only the caller may.
    """
    given = params.precomputed_knn
    if given is None or store.about["model"] is not None:
        return None
    if given["specs"] is not None:
        for spec in given["specs"]:
            check_stored_spec(spec, store.url)
        return tuple(given["specs"])
    if store.documents.load(GIVEN_DIGESTS) is None:
        raise StoreError(
            f"{store.url} was started with neighbours that it does not hold. Call daskumap.fit again with "
            "the same arguments to go on."
        )
    return None


def open_model_of(store: RunStore) -> Context | None:
    """Return the run that another one is made from, as the run store of that says; None where there is none.

    Rows that go through a trained network have a copy of it. A fit of its neighbours needs it no more once it
    has copied them.

    Raises
    ------
    StoreError
        If it is gone, or another run is in its place.
    """
    known = store.about["model"]
    if known is None or "encodes" in known:
        return None
    try:
        return open_named(store, known)
    except DaskumapError:
        if not has_copied(store):
            raise
        return None


def has_copied(store: RunStore) -> bool:
    """Return whether a run has copied what it has from another one, and does not need that any more."""
    if "anew" not in store.about["model"]:
        return False
    steps = [step for step, _ in kind_in(store.about).pipeline]
    last = max(number for number, step in enumerate(steps) if step.model)
    return any(store.ledger.count(step.name) for step in steps[last + 1 :])


def open_named(store: RunStore, known: dict[str, Any]) -> Context:
    """Return the run that another one names, if it may be opened and is the one that is meant."""
    if not is_near(known["url"], store.url):
        raise StoreError(
            f"{store.url} names {known['url']} as the run that it is made from: another protocol or host "
            "than its own, which is not contacted on the word of a run store. Name it: "
            "daskumap.transform, daskumap.inverse_transform or daskumap.fit of it."
        )
    place = find_place(known["url"], options_for(store, known["url"]))
    model = open_model(RunStore.open(place, mode="r"))
    if model.job.id != known["id"]:
        raise StoreError(
            f"{model.url} holds another run than the one that {store.url} is made from. Start over there, "
            "with restart=True."
        )
    return model


def options_for(store: RunStore, url: str) -> dict[str, Any]:
    """Return what the caller gave to reach a run store, for a place beside it that is reached alike."""
    same = url.partition("://")[0] == store.url.partition("://")[0]
    return dict(store.place.storage_options) if same else {}


def open_model(
    store: RunStore, params: Params | None = None, source: Source | None = None, fitted: Any = None
) -> Context:
    """Return the context of a finished run, to place new rows, find rows, or fit its neighbours again.

    Parameters
    ----------
    params, source
        Where this process fitted the run: a function as metric, and rows that only it has.
    fitted
        Path or URL of the rows that were fitted, as the caller names it; None for what the run store says.

    Raises
    ------
    StoreError
        If the run is unfinished, or has not kept what that takes.
    """
    if purpose_in(store.about) != "fit":
        what = MADE.get(purpose_in(store.about), "new rows on a map")
        raise StoreError(f"{store.url} holds {what}. Give the run that the map is of.")
    if store.ledger.finished() is None:
        raise StoreError(f"The run in {store.url} is unfinished. Finish it: daskumap resume {store.url}")
    if schema.VERTEX.name in store.ledger.freed():
        raise StoreError(
            f"The run in {store.url} kept its embedding alone, and new rows are placed by the rows that were "
            "fitted and their cells, as points become rows by them and another fit needs their neighbours. "
            "Fit again, with restart: "
            "daskumap.fit(data, run, keep='model', restart=True, ...)."
        )
    compare_versions(store, finished=True)
    params = known_params(store) if params is None else params
    if params.metric == PRECOMPUTED:  # None of the distances that were fitted is read again.
        known = store.about["source"]
        source, fitted = as_stored(tuple(known["shape"]), np.dtype(known["dtype"])), None
    if source is None or fitted is not None:
        copied = store.about["spec"] is None
        source = open_copy(store) if copied else open_input(store, fitted)
        if not copied:
            refuse_other_rows(store, source)
    return context_of(store, source, params, Resources(1), None)


def open_to_look(store: RunStore, params: Params | None = None) -> Context:
    """Return the context of a run that is only looked at: its input is not opened.

    Parameters
    ----------
    params
        Where this process fitted the run: a function as metric.

    Raises
    ------
    StoreError
        If the run stopped before its input was copied, so that there is nothing to look at.
    """
    known, params = store.about, known_params(store) if params is None else params
    if is_copied(store):
        refuse_uncopied(store)
    source = as_stored(tuple(known["source"]["shape"]), np.dtype(known["source"]["dtype"]))
    copies = purpose_in(known) == "fit"
    return context_of(store, source, params, Resources(1), None if copies else open_model_of(store))


def refuse_other_rows(store: RunStore, source: Source) -> None:
    """Refuse rows that are surely not those of a model: they may have moved; each block is compared later.

    Raises
    ------
    RunMismatchError
        Listing what differs.
    """
    known, now = store.about["source"], source.identity()
    parts = ("shape", "dtype", "rows")
    check_same(
        store.url,
        {"source": {part: known[part] for part in parts}},
        {"source": {part: now[part] for part in parts}},
    )


def open_input(store: RunStore, data: Any) -> Source:
    """Return the input of a run on disk: as the caller names it, or as the run store does if that may be."""
    spec = store.about["spec"]
    if data is None:
        check_stored_spec(spec, store.url)
        return open_spec({**spec, **_reached(store, spec)})
    source = find(data)
    if source.spec() is None:
        raise ParameterError(
            f"The input of the run in {store.url} is {spec['path']}. Give data as the path or URL of it."
        )
    return source


def columns_of_input(store: RunStore, held: Source | None, labels: Labels) -> Labels:
    """Return columns of the cells of an AnnData that was a run's input: obs; none of any other input.

    They are read from where the input is now, with whatever columns it has got since.

    Raises
    ------
    ParameterError
        If other cells are there now.
    """
    reads = store.about.get("reads")
    if reads is None:
        return {}
    if held is None:
        if reads["place"] is None:
            return {}
        spec = {**reads["place"], "options": reads["options"]}
        check_stored_spec(spec, store.url)
        whole = open_spec({**spec, **_reached(store, spec)})
        if whole.shape[0] < reads["rows"][1]:
            raise ParameterError(
                f"{whole.name} has {whole.shape[0]:,} cells, and had {reads['rows'][1]:,} when it was read. "
                "Restore it, or give a column as an array."
            )
        held = part_of(whole, reads["rows"])
    cells, (start, stop) = held.origin.cells, reads["rows"]
    names = cells.labels.get(NAMES)
    if names is not None and NAMES in labels:
        refuse_other_names(labels[NAMES], column_of_part(names, start, stop), cells.name)
    return of_rows(held)


def _reached(store: RunStore, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the options with which a place that a run store names is reached."""
    options = {**spec.get("storage_options", {}), **options_for(store, spec["path"])}
    return {"storage_options": options} if options else {}


def open_cube_of(store: RunStore, cube: Any) -> CubeSource:
    """Return the cube that is the input of a run: as the caller names it, or as the run store does.

    Raises
    ------
    ParameterError
        If it is none, or the run does not say where it is.
    RunMismatchError
        If its rows are not those of the run.
    """
    known, spec = store.about["source"], store.about["spec"]
    if cube is None:
        if spec is None or spec["kind"] != "cube":
            what = "no cube" if spec is not None else "in memory"
            raise ParameterError(
                f"The input of the run in {store.url} was {what}, so that its grid is not known. Give the "
                "cube, as run.to_xarray(dataset), with the dimensions and variables that were fitted."
            )
        cube = open_input(store, None)
    elif not isinstance(cube, Source):
        options = {name: value for name, value in known.get("options", {}).items() if name != "masked"}
        cube = find(cube, options)
    if not isinstance(cube, CubeSource):
        raise ParameterError(
            f"{cube.name} is no cube with named dimensions. Give it as "
            "daskumap.source(data, feature_dim='time')."
        )
    refuse_other_rows(store, cube)
    return cube


def open_copy(store: RunStore) -> Source:
    """Return the copy of an input that came from memory."""
    if schema.SOURCE.name in store.ledger.freed():
        raise StoreError(
            f"{store.url} has deleted its copy of the input, as keep='embedding' says. Call daskumap.fit "
            "again with the same input to go on."
        )
    refuse_uncopied(store)
    return open_ingested(store)


def refuse_uncopied(store: RunStore) -> None:
    """Refuse a run that is to have a copy of its input, and has not."""
    if input_digest(store) is None:
        raise StoreError(
            f"{store.url} stopped before its input was copied. Call daskumap.fit again to go on."
        )


def is_copied(store: RunStore) -> bool:
    """Return whether a run is to hold a copy of its input: it came from memory, and nothing deleted it since.

    A run store that is in memory itself has none.
    """
    return (
        store.place.shared and store.about["spec"] is None and schema.SOURCE.name not in store.ledger.freed()
    )


def find_damaged_copy(store: RunStore) -> list[str]:
    """Return what is wrong with a run's copy of its input and of what came with it, which are read."""
    names = (*(names_of_copy(store) if is_copied(store) else ()), *names_of_brought(store))
    found = [text for name in names for text in find_damage(store, name, True, {})]
    return found + find_damaged_labels(store)


def forget_copy(store: RunStore) -> None:
    """Let the next fit bring its input again."""
    store.documents.delete(f"{INPUT_DIGEST}.json")
    for name in names_of_brought(store):
        if find_damage(store, name, True, {}):
            store.documents.delete_folder(name)
    if find_damaged_labels(store):
        store.documents.delete(f"{COLUMNS}.json")
        store.documents.delete_folder(schema.ROW_LABELS)


def names_of_brought(store: RunStore) -> list[str]:
    """Return the names of the user's arrays that lie in a run store beside the input."""
    params = store.about["params"]
    start = [schema.INIT.name] if str(params["init"]).startswith("array(") else []
    axes = names_of_axes(store) if input_digest(store) is not None else []
    return [
        *start,
        *axes,
        *(item.name for name, item in KNOWN.items() if (params["encoder"] or {}).get(name)),
    ]


def names_of_axes(store: RunStore) -> list[str]:
    """Return the names of the arrays of the main axes that a run store holds, if it does."""
    return (
        [f"{schema.MAIN_AXES}/{part}" for part in schema.MAIN_AXES_PARTS]
        if store.has(f"{schema.MAIN_AXES}/axes")
        else []
    )


def known_params(store: RunStore) -> Params:
    """Return the parameters that a run store recorded, which must be plain values or in the store."""
    values = dict(store.about["params"])
    lost = any(
        str(values.get(name)).startswith("callable:") or "array(" in str(values.get(f"{name}_kwds"))
        for name in ("metric", "output_metric")
    )
    lost = lost or "callable:" in str(values["membership"])
    given = str(values["init"]).startswith("array(")
    if lost or (given and not (store.ledger.has_begun() and store.has(schema.INIT.name))):
        raise StoreError(
            f"{store.url} was started with a function or an array that it does not hold. Call daskumap.fit "
            "again with the same arguments: it goes on, or returns the finished run, which then can do all."
        )
    if values["encoder"] is not None:
        values["encoder"] = known_encoder(store)
    return without_init(make_params({**values, "init": "pca"})) if given else make_params(values)


def known_encoder(store: RunStore) -> EncoderParams:
    """Return the parameters of a training that a run store recorded.

    Raises
    ------
    StoreError
        If it was started with a module, or what was known of rows is not all there.
    """
    encoder = store.about["params"]["encoder"]
    there = all(store.has(item.name) for name, item in KNOWN.items() if encoder[name])
    if encoder["encoder"] != BUILT_IN or not there:
        raise StoreError(
            f"{store.url} was started with a module or with arrays that it does not hold. Call "
            "daskumap.train again with the same arguments: it goes on, or returns the finished run."
        )
    return make_encoder_params(encoder)


def without_init(params: Params) -> Params:
    """Return the parameters with the user's start left in the run store: tasks read it there."""
    return dataclasses.replace(params, init=np.zeros((0, 0), np.float32))
