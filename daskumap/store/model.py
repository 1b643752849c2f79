"""The model group: a trained encoder, with decoder and classifier where it has them, as Zarr arrays and JSON.

It lies in the run store of the training at `model/`, and alone where it was saved. Nothing of it is executed:
who opens it gets arrays and JSON types, each compared with what a writer of ours would have written. The
group's attributes say which weights there are, of which shape and with which checksum; they are written last,
so that a group whose writer was stopped says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import zarr
from zarr.core.array import AsyncArray
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import StorePath

from daskumap.errors import DaskumapError, StoreError
from daskumap.kernels.encoder.network import Layer, Layers
from daskumap.store.arrays import GROUP, PLAIN
from daskumap.store.documents import Documents, as_text
from daskumap.store.places import Place
from daskumap.store.trouble import is_out_of_reach, speaking

Array = np.ndarray[Any, Any]

# The attribute of the group that says what it is; a run store has another one.
KEY = "daskumap_model"
# Of the group. It changes where an earlier version would take what it finds for something else.
SCHEMA = 1
# In place of all else while the group is written.
UNFINISHED = {"unfinished": True}
# Where the group lies in the run store of a training.
IN_RUN = "model"
# A name of a weight, which is a name of a folder too.
NAME = re.compile(r"\w[\w.]*")
# The built-in perceptron, and a module of the user's.
BACKENDS = ("mlp", "torch")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained encoder and what goes with it.

    Attributes
    ----------
    weights
        By name, float32. Of the built-in backend "PART.LAYER.weights" (in, out) and "PART.LAYER.bias" (out,)
        with the parts "encoder", "decoder" and "head"; of a module what its own state is called.
    widths
        Of the built-in backend by part, (in, hidden, ..., out); without the other ones, empty. A ReLU is
        between two layers, and the last one is linear.
    backend
        "mlp", or "torch".
    columns, dtype
        Of the rows that it was trained on.
    components
        Columns of the map.
    curve
        a and b of 1 / (1 + a r^2b).
    cast
        How rows are moved before they become float32, as `sources.move.Move` writes it down.
    params
        Of the training run, all of them, as JSON types.
    run
        The id of that run.
    classes
        What each output of the head stands for; None without one.
    features
        Names of the columns; None where they have none.
    history
        Of each segment of the training: the step it ended with, and each loss term.
    """

    weights: Mapping[str, Array]
    widths: Mapping[str, tuple[int, ...]]
    backend: str
    columns: int
    dtype: str
    components: int
    curve: tuple[float, float]
    cast: Mapping[str, Any]
    params: Mapping[str, Any]
    run: str
    classes: tuple[str | int, ...] | None = None
    features: tuple[str, ...] | None = None
    history: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of_parts(cls, parts: Mapping[str, Layers], **rest: Any) -> Model:
        """Return the model of a perceptron's layers by part, "encoder", "decoder" and "head"."""
        weights: dict[str, Array] = {}
        for part, layers in parts.items():
            for number, (matrix, bias) in enumerate(layers):
                weights[f"{part}.{number}.weights"] = np.ascontiguousarray(matrix, np.float32)
                weights[f"{part}.{number}.bias"] = np.ascontiguousarray(bias, np.float32)
        widths = {
            part: (layers[0][0].shape[0], *(matrix.shape[1] for matrix, _ in layers))
            for part, layers in parts.items()
        }
        return cls(weights=weights, widths=widths, backend="mlp", **rest)

    def layers(self, part: str) -> Layers:
        """Return the layers of a part of the built-in backend; none where it lacks that part."""
        depth = max(0, len(self.widths.get(part, ())) - 1)
        return tuple(
            Layer(self.weights[f"{part}.{number}.weights"], self.weights[f"{part}.{number}.bias"])
            for number in range(depth)
        )

    def has(self, part: str) -> bool:
        """Return whether there is a part: "encoder", "decoder" or "head"."""
        return any(name.startswith(f"{part}.") for name in self.weights)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(array.nbytes for array in self.weights.values())

    def digest(self) -> str:
        """Return a digest of all that it says and of its weights, by which a result knows its model."""
        found = hashlib.sha256(as_text(self._description()))
        for array in self.weights.values():
            found.update(np.asarray(array, np.float32).tobytes())
        return found.hexdigest()[:16]

    def _description(self) -> dict[str, Any]:
        """Return all of it as JSON types: of weights their shape and checksum."""
        from daskumap import __version__

        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["weights"] = {
            name: {"shape": list(array.shape), "crc32": _checksum(array)}
            for name, array in self.weights.items()
        }
        plain: dict[str, Any] = json.loads(json.dumps({**fields, "version": __version__}))
        return plain

    def write(self, documents: Documents) -> None:
        """Write the group below the place that `documents` begins at; what is there is another try at it."""
        with speaking(f"the model in {documents.url}"):
            documents.save_bytes("zarr.json", _group(UNFINISHED))
            documents.save_bytes("weights/zarr.json", json.dumps(GROUP).encode())
            for name, values in self.weights.items():
                shape = values.shape
                documents.save_bytes(f"weights/{name}/zarr.json", json.dumps(_metadata(shape)).encode())
                _array(documents, name, shape)[...] = values
            content = self._description()
            about = {"schema": SCHEMA, **content, "crc32": zlib.crc32(as_text(content))}
            documents.save_bytes("zarr.json", _group(about))

    def save(self, place: Place) -> None:
        """Write the group to a place of its own, and read it again.

        Raises
        ------
        StoreError
            If anything is there, but for a model whose writer was stopped.
        """
        documents = _below(place)
        if place.is_occupied() and _about(documents) != UNFINISHED:
            raise StoreError(f"{place.url} holds something already. Name another place for the model.")
        self.write(documents)
        self.read(documents)

    @classmethod
    def read(cls, documents: Documents) -> Model:
        """Read the group below the place that `documents` begins at.

        Raises
        ------
        StoreError
            If there is none, if a later version wrote it, or if it is damaged; it says what is wrong.
        """
        about = _about(documents)
        if about is None:
            raise StoreError(
                f"There is no model at {documents.url}. daskumap.train writes one: daskumap train RUN "
                f"{documents.url}"
            )
        return cls._of(documents, about)

    @classmethod
    def _of(cls, documents: Documents, about: Any) -> Model:
        """Read the group that says so of itself."""
        content = _checked(documents.url, about)
        weights = dict(_read_weights(documents, content["weights"]))
        return cls(
            **{
                **{name: value for name, value in content.items() if name != "version"},
                "weights": weights,
                "widths": {part: tuple(widths) for part, widths in content["widths"].items()},
                "curve": tuple(content["curve"]),
                "classes": _tuple(content["classes"]),
                "features": _tuple(content["features"]),
                "history": tuple(content["history"]),
            }
        )


def open_model_group(place: Place) -> Model:
    """Return the model at a place, or of the run store of a training that is there.

    Raises
    ------
    StoreError
        If there is none, or as `Model.read`.
    """
    alone = _below(place)
    for documents in (alone, in_run(alone)):
        about = _about(documents)
        if about is not None:
            return Model._of(documents, about)
    raise StoreError(
        f"There is no model at {place.url}, nor a trained run. Train one on the graph of a finished run: "
        "daskumap train RUN OUT"
    )


def find_model(place: Place) -> Model | None:
    """Return the model that lies at a place alone; None where there is none, or nothing can be read.

    Raises
    ------
    StoreError
        If it is not whole, damaged, or a later version wrote it.
    """
    about = None
    with suppress(DaskumapError), speaking(place.url):
        documents = _below(place)
        about = _about(documents)
    return None if about is None else Model._of(documents, about)


def in_run(documents: Documents) -> Documents:
    """Return the documents of the model group in a run store, from those of the run store."""
    root = f"{documents.root}/{IN_RUN}" if documents.root else IN_RUN
    return Documents(documents.store, root, f"{documents.url}/{IN_RUN}")


def find_damaged_model(documents: Documents) -> list[str]:
    """Return what is wrong with a model group; all of it is read."""
    try:
        Model.read(documents)
    except StoreError as error:
        if is_out_of_reach(error):
            raise
        return [str(error)]
    return []


def _below(place: Place) -> Documents:
    return Documents(place.store(), "", place.url)


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _about(documents: Documents) -> Any:
    """Return what the group says of its model; None where there is no group, or another one."""
    content = documents.load_bytes("zarr.json")
    with suppress(ValueError, AttributeError, RecursionError):
        return json.loads(content or b"{}").get("attributes", {}).get(KEY)
    raise StoreError(f"{documents.url}/zarr.json is damaged: it is no JSON. Restore it, or train again.")


def _group(about: Any) -> bytes:
    return json.dumps({**GROUP, "attributes": {KEY: about}}, indent=1).encode()


def _checked(url: str, about: Any) -> dict[str, Any]:
    """Return what a group says of its model, if it is what a writer of this format wrote.

    Raises
    ------
    StoreError
        Saying what is wrong.
    """
    if about == UNFINISHED:
        raise StoreError(
            f"The model in {url} is not whole: whoever wrote it is at work, or was stopped. Save it again."
        )
    schema = about.get("schema") if isinstance(about, dict) else None
    if schema != SCHEMA:
        wrote = about.get("version", "unknown") if isinstance(about, dict) else "unknown"
        raise StoreError(
            f"The model in {url} is of schema {schema!r}, written by daskumap {wrote}; this version reads "
            f"schema {SCHEMA}. Install a version that reads it (pip install -U daskumap)."
        )
    content = {name: value for name, value in about.items() if name not in ("schema", "crc32")}
    wrong = "" if about.get("crc32") == zlib.crc32(as_text(content)) else "its description is another one"
    wrong = wrong or _unlike(content)
    if wrong:
        raise _damaged(url, wrong)
    return content


def _unlike(content: dict[str, Any]) -> str:
    """Return what is wrong with a description whose checksum is right; "" for nothing."""
    try:
        return _unlike_names(content) or _unlike_weights(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"its description is none of a model ({type(error).__name__}: {error})"


def _unlike_names(content: dict[str, Any]) -> str:
    names = {field.name for field in dataclasses.fields(Model)} | {"version"}
    if content.keys() != names:
        return f"its description lacks or adds {', '.join(sorted(names ^ content.keys()))}"
    if content["backend"] not in BACKENDS:
        return f"its backend is {content['backend']!r}; known are {', '.join(BACKENDS)}"
    return ""


def _unlike_weights(content: dict[str, Any]) -> str:
    odd = sorted(name for name in content["weights"] if not NAME.fullmatch(name))
    if odd:
        return f"weights are called {', '.join(odd)}"
    there = {name: tuple(one["shape"]) for name, one in content["weights"].items()}
    wanted = dict(shapes_of(content["widths"]))
    if content["backend"] == "mlp" and there != wanted:
        odd = sorted(name for name in there.keys() | wanted if there.get(name) != wanted.get(name))
        return f"the weights {', '.join(odd)} are not those of widths {content['widths']}"
    return ""


def shapes_of(widths: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of all weights of a perceptron, by the widths of its parts.

    >>> list(shapes_of({"encoder": (3, 2)}))
    [('encoder.0.weights', (3, 2)), ('encoder.0.bias', (2,))]
    """
    for part, sizes in widths.items():
        for number, (before, after) in enumerate(pairwise(sizes)):
            yield f"{part}.{number}.weights", (before, after)
            yield f"{part}.{number}.bias", (after,)


def _read_weights(documents: Documents, known: dict[str, Any]) -> Iterator[tuple[str, Array]]:
    """Yield each weight array, compared with its checksum and the metadata that a writer of ours gives it."""
    for name, one in known.items():
        shape = tuple(one["shape"])
        content = documents.load_bytes(f"weights/{name}/zarr.json")
        if content is None:
            raise _damaged(documents.url, f"weights/{name} is missing")
        if content != json.dumps(_metadata(shape)).encode():
            raise _damaged(documents.url, f"weights/{name}/zarr.json is not what was written")
        try:
            values = np.asarray(_array(documents, name, shape)[...])
        except Exception as error:  # A codec raises whatever it likes on bytes that are not its own.
            if isinstance(error, OSError):
                raise StoreError(
                    f"weights/{name} in {documents.url} is out of reach ({error}). Check the path and the "
                    "network."
                ) from error
            raise _damaged(documents.url, f"weights/{name}: {error}") from error
        if _checksum(values) != one["crc32"]:
            raise _damaged(documents.url, f"weights/{name} are not the values that were written")
        yield name, values


def _damaged(url: str, why: str) -> StoreError:
    return StoreError(f"The model in {url} is damaged: {why}. Restore it from a copy, or save it again.")


def _metadata(shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the metadata of a weight array: one chunk of float32 with a crc32c."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "float32",
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [max(1, size) for size in shape]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN",
        "codecs": PLAIN,
        "attributes": {},
    }


def _array(documents: Documents, name: str, shape: tuple[int, ...]) -> zarr.Array[Any]:
    path = f"{documents.root}/weights/{name}" if documents.root else f"weights/{name}"
    metadata = ArrayV3Metadata.from_dict(_metadata(shape))
    return zarr.Array(
        AsyncArray(metadata, StorePath(documents.store, path), config={"write_empty_chunks": True})
    )


def _checksum(values: Array) -> int:
    return zlib.crc32(np.asarray(values, np.float32).tobytes())
