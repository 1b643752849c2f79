"""Which network a training trains, and what its steps hold."""

from __future__ import annotations

from functools import partial
from typing import Any

from daskumap.errors import ParameterError
from daskumap.kernels.encoder.backend import Backend, Perceptron
from daskumap.params import Params
from daskumap.planning import training


def network_of(params: Params, columns: int) -> Backend:
    """Return the network of a run that is trained on rows of so many columns."""
    e = params.encoder
    classes = len(e.classes())
    if e.built_in:
        return Perceptron.of(e.inputs(columns), e.hidden, params.n_components, bool(e.decoder), classes)
    from daskumap.torch_backend.modules import TorchBackend

    return TorchBackend(e.encoder, columns, e.hidden, params.n_components, e.decoder, classes, e.device)


def check_network(params: Params, columns: int) -> None:
    """Refuse modules of the user's that cannot be trained.

    Raises
    ------
    ParameterError
        Saying what was seen and what to do.
    DependencyError
        If torch is missing.
    """
    if params.encoder.built_in:
        return
    from daskumap.torch_backend.check import check_modules

    network: Any = network_of(params, columns)
    check_modules(network)


def kind_of_device(engine: Any, params: Params) -> str | None:
    """Return what kind of device a module works on, in all processes that run tasks; None without a module.

    Raises
    ------
    ParameterError
        If one has no such device, naming those there are; or if they are of several kinds.
    """
    e = params.encoder
    if e is None or e.built_in:
        return None
    from daskumap.torch_backend.check import look_at

    faults, kinds = map(set, zip(*engine.ask(partial(look_at, e.device)), strict=True))
    if faults != {""}:
        raise ParameterError(
            f"device is {e.device!r}, which torch cannot use there: {'. '.join(sorted(faults - {''}))}."
        )
    if len(kinds) > 1:
        raise ParameterError(
            f"device is {e.device!r}, of several kinds: {', '.join(sorted(kinds))}. Their bits would mix; "
            "give workers of one kind."
        )
    return str(kinds.pop())


def row_bytes(params: Params, network: Any, columns: int) -> int:
    """Return what a row of a batch takes in a step, in bytes: all units and their gradients."""
    e = params.encoder
    if e.built_in:
        return 8 * 2 * int(e.inputs(columns) + sum(e.hidden) + params.n_components)
    from daskumap.torch_backend.check import held_bytes

    held: int = held_bytes(network)
    return held + 8 * 2 * columns


def batch_bytes(params: Params, network: Any, columns: int) -> int:
    """Return what a batch takes in a step, in bytes."""
    e = params.encoder
    rows = training.batch_rows(e.batch_edges) * row_bytes(params, network, columns)
    # Of labelled rows, which are as many as edges, scores and their gradients; and pairs that are pushed.
    return int(rows + e.batch_edges * (16 * len(e.classes()) + 8 * params.negative_sample_rate))
