"""Which network a training trains, and what its steps hold."""

from __future__ import annotations

from functools import partial
from typing import Any

from daskumap.errors import ParameterError
from daskumap.kernels.encoder.backend import Backend, Perceptron
from daskumap.params import Params


def network_of(params: Params, columns: int) -> Backend:
    """Return the network of a run that is trained on rows of so many columns."""
    e = params.encoder
    classes = len(e.labels["classes"]) if e.labels else 0
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


def check_devices(engine: Any, params: Params) -> None:
    """Refuse a device that a process which runs tasks has not.

    Raises
    ------
    ParameterError
        Naming the devices there are.
    """
    e = params.encoder
    if e.built_in:
        return
    from daskumap.torch_backend.check import find_fault

    faults = sorted({fault for fault in engine.ask(partial(find_fault, e.device)) if fault})
    if faults:
        raise ParameterError(f"device is {e.device!r}, which torch cannot use there: {'. '.join(faults)}.")


def row_bytes(params: Params, network: Any, columns: int) -> int:
    """Return what a row of a batch takes in a step, in bytes: all units and their gradients."""
    e = params.encoder
    if e.built_in:
        return 8 * 2 * int(e.inputs(columns) + sum(e.hidden))
    from daskumap.torch_backend.check import held_bytes

    held: int = held_bytes(network)
    return held + 8 * 2 * columns
