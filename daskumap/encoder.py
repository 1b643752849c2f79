"""`Encoder`: a trained network as its user sees it, of a run or of a saved model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.clusters import choose
from daskumap.encoding import at_once, lazily, run_through
from daskumap.errors import ParameterError
from daskumap.params import refuse_unknown
from daskumap.report.progress import choose_progress
from daskumap.request import Request, encode_params, make_encode_request
from daskumap.sources.dask import is_dask
from daskumap.sources.find import find, is_plain
from daskumap.store.model import Model, open_model_group
from daskumap.store.places import find_place
from daskumap.views import Decoded, Encoded, Predicted

log = logging.getLogger(__name__)

# What says where, and how, rows go through a network. Of these `fitted` and `ensure_all_finite` have no sense
# here: only None is taken.
WHERE = (
    "client",
    "cluster",
    "memory",
    "threads",
    "progress",
    "restart",
    "take_over",
    "trust_input",
    "fitted",
    "ensure_all_finite",
)


class Encoder:
    """A network that maps rows by itself: without neighbours, and without the rows that it was trained on.

    Parameters
    ----------
    model
        The network and what is known of it.
    url
        Where it is; "" where it is in memory.
    encoder, decoder, device
        The user's modules, of which a model has no code, and where they work. None for the built-in network.

    Attributes
    ----------
    model
        As given; `daskumap.onnx_export.export` writes it for other programs.
    """

    def __init__(
        self, model: Model, url: str = "", encoder: Any = None, decoder: Any = None, device: str = "cpu"
    ) -> None:
        modules = {"encoder": encoder, "decoder": decoder or False, "device": device}
        self.model, self.url = model, url
        self._params = encode_params(model, None if encoder is None else modules)

    @classmethod
    def open(cls, path: Any, encoder: Any = None, decoder: Any = None) -> Encoder:
        """Open a saved model, or that of a trained run.

        Raises
        ------
        StoreError
            If there is none, a later version wrote it, or it is damaged.
        """
        place = find_place(path)
        return cls(open_model_group(place), place.url, encoder, decoder)

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters of the run that it was trained in, those of the training as "encoder"."""
        return self.model.params

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """For each segment of the training its steps, and the mean of each term of the loss in it."""
        return self.model.history

    @property
    def classes(self) -> tuple[str | int, ...]:
        """The classes that `predict` tells apart; none without labels."""
        return self.model.classes or ()

    def transform(self, data: Any, out: Any = None, **where: Any) -> Encoded:
        """Map rows, out of core: see `daskumap.transform`. Its `embedding` has their places."""
        log.info("New rows are mapped by the encoder %s, not placed by neighbours.", self.url)
        return Encoded(self._run("encode", data, out, where))

    def inverse_transform(self, points: Any, out: Any = None, **where: Any) -> Decoded:
        """Decode points of the map, out of core, to `rows`: see `daskumap.inverse_transform`."""
        log.info("Points become rows by the decoder of %s, not by neighbours.", self.url)
        return Decoded(self._run("decode", points, out, where))

    def predict(self, data: Any, out: Any = None, **where: Any) -> Predicted:
        """Classify rows, out of core: see `daskumap.predict`. Its `labels` and `probabilities` say how."""
        return Predicted(self._run("predict", data, out, where))

    def _run(self, encodes: str, data: Any, out: Any, where: Mapping[str, Any]) -> Any:
        refuse_unknown(where, WHERE)
        if out is not None and self.url and find_place(out).url == self.url:
            raise ParameterError(f"out is {self.url}, where the network itself is. Name another place.")
        options = {"client": None, "memory": None, "threads": None, **where}
        options["client"] = choose(options["client"], options.pop("cluster", None))
        for name in ("fitted", "ensure_all_finite"):
            given = options.pop(name, None)
            if given is not None:
                raise ParameterError(
                    f"{name} is {given!r}, and an encoder maps new rows without those that were fitted, and "
                    "takes finite values alone. Leave it out."
                )
        progress = choose_progress(options.pop("progress", True))
        return run_through(self.model, self._params, encodes, data, out, progress=progress, **options)

    def request(self, data: Any, inverse: bool = False) -> Request:
        """Return what a transform of new rows asks for, or an inverse of points."""
        return make_encode_request(data, self.model, self._params, "decode" if inverse else "encode")

    def made_of(self, encodes: str, data: Any, out: Any = None, **where: Any) -> Any:
        """Return what becomes of rows as the caller has them: in memory, as a dask array, or in a run store.

        Parameters
        ----------
        encodes
            "encode" for places, "decode" for rows of places, "predict" for probabilities.
        """
        refuse_unknown(where, WHERE)
        if out is None and is_plain(data):
            return at_once(self.model, self._params, encodes, find(data), where.get("threads"))
        if out is None and is_dask(data):
            return lazily(self.model, self._params, encodes, data)
        if encodes == "encode":
            return self.transform(data, out, **where).embedding
        if encodes == "decode":
            return self.inverse_transform(data, out, **where).rows
        return self.predict(data, out, **where).probabilities

    def labels_of(self, data: Any, out: Any = None, **where: Any) -> Any:
        """Return the most probable class of each row as the caller has them, as `made_of`.

        Of rows that are not in memory, classes that have names are numbers.
        """
        if out is None and is_plain(data):
            return np.array(self.classes)[self.made_of("predict", data, **where).argmax(axis=1)]
        refuse_unknown(where, WHERE)
        if out is None and is_dask(data):
            classes = np.array(self.classes)
            found = lazily(self.model, self._params, "predict", data).argmax(axis=1)
            return found.map_blocks(classes.take, dtype=classes.dtype)
        return self.predict(data, out, **where).labels

    def save(self, path: Any) -> Encoder:
        """Write it to a place of its own, a Zarr group, which any process opens with `daskumap.open`.

        Raises
        ------
        StoreError
            If anything is there.
        """
        place = find_place(path)
        self.model.save(place)
        saved = copy.copy(self)  # with the modules, where it is of some
        saved.url = place.url
        return saved

    def export_onnx(self, path: str | Path) -> list[Path]:
        """Write the network as ONNX, for other programs, and return the files: see `daskumap.onnx_export`.

        Raises
        ------
        DependencyError
            If the package onnx is missing.
        """
        from daskumap.onnx_export import export

        modules = self._params.encoder
        if modules is None:
            return export(self.model, path)
        return export(self.model, path, modules.encoder, modules.decoder)

    def __repr__(self) -> str:
        m = self.model
        parts = " and ".join(part for part in ("encoder", "decoder", "head") if m.has(part))
        return (
            f"<daskumap.Encoder {self.url}: {m.columns:,} columns to {m.components}, {parts}, "
            f"{m.nbytes // 4:,} parameters>"
        )
