"""New rows through a trained network: in memory at once, lazily for dask arrays, and out of core as a run."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from daskumap.engine.clusters import make_engine
from daskumap.engine.machine import available_cores, check_threads, parse_memory
from daskumap.engine.process import one_thread
from daskumap.kernels.encoder.network import BLOCK_ROWS
from daskumap.params import Params
from daskumap.planning.stage import Receipt
from daskumap.report.progress import Progress
from daskumap.request import make_encode_request, refuse_lacking, refuse_other_columns
from daskumap.runtime.networks import kind_of_device
from daskumap.runtime.trained import Trained
from daskumap.session import fit_request
from daskumap.sources.base import Source
from daskumap.sources.find import find
from daskumap.sources.move import Move
from daskumap.stages.encode.rows import find_bad, is_bad, refuse_bad
from daskumap.store.model import Model
from daskumap.store.run import RunStore

Array = np.ndarray[Any, Any]

# What a thread reads and maps at a time: the network's own room, made anew for each, is a small part of it.
BLOCK_BYTES = 16 << 20


def run_through(
    model: Model,
    params: Params,
    encodes: str,
    data: Any,
    out: Any,
    client: Any,
    memory: str | int | None,
    threads: int | None,
    progress: Progress,
    restart: bool = False,
    take_over: bool = False,
    trust_input: bool = False,
) -> RunStore:
    """Let rows, or points for "decode", go through a network as a run, and return its run store.

    Parameters
    ----------
    params
        Of `request.encode_params`, with the user's modules where the network is of those.
    """
    request = make_encode_request(data, model, params, encodes)
    engine = make_engine(client, parse_memory(memory), threads, request.source.shape[0])
    try:
        request = dataclasses.replace(request, device=kind_of_device(engine, params))
        return fit_request(request, out, engine, progress, restart, take_over, trust_input)
    finally:
        engine.close()


def at_once(model: Model, params: Params, encodes: str, source: Source, threads: int | None = None) -> Array:
    """Return what a network makes of rows in memory, or of points for "decode"; of "predict" probabilities.

    Raises
    ------
    SourceError
        If they have other columns, values that are not finite, or rows that the metric is not defined on.
    ParameterError
        If the network lacks the part that it takes.
    """
    refuse_lacking(model, encodes)
    refuse_other_columns(source, model, encodes)
    network = Trained.of(model, params)
    rows, columns = source.shape
    step = max(1, BLOCK_BYTES // (columns * 4 * BLOCK_ROWS)) * BLOCK_ROWS
    starts = range(0, rows, step)
    out = np.empty((rows, network.width(encodes)), network.dtype(encodes))
    threads = min(max(1, len(starts)), check_threads(threads) or available_cores())

    def fill(start: int) -> Receipt:
        stop = min(start + step, rows)
        X = _read(source, network.move_of(encodes), start, stop)
        found = find_bad(model, encodes, X, start)
        if not is_bad(found):
            out[start:stop] = network.through(encodes, X)
        return Receipt(stop - start, found)

    with one_thread(), ThreadPoolExecutor(threads) as pool:
        refuse_bad(model, rows, dict(enumerate(pool.map(fill, starts))))
    return out


def lazily(model: Model, params: Params, encodes: str, data: Any) -> Any:
    """Return a dask array of what a network makes of the rows of one, or of points for "decode".

    Nothing is computed, and chunks of rows stay as they are. Who computes it gets the errors of `at_once`.
    """
    refuse_lacking(model, encodes)
    refuse_other_columns(find(data), model, encodes)
    network = Trained.of(model, params)
    width, dtype = network.width(encodes), network.dtype(encodes)
    whole = data.rechunk({1: -1})
    return whole.map_blocks(
        partial(_map_block, model, params, encodes),
        chunks=(whole.chunks[0], (width,)),
        dtype=dtype,
        meta=np.empty((0, width), dtype),
    )


def _map_block(model: Model, params: Params, encodes: str, block: Any) -> Array:
    """Return what a network makes of a block of a dask array, in the task of it."""
    return at_once(model, params, encodes, find(block), threads=1)


def _read(source: Source, move: Move, start: int, stop: int) -> Array:
    """Return rows as the network takes them."""
    if move.is_still:
        return source.read(start, stop)
    return move.apply(source.read_stored(start, stop))
