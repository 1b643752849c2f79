"""Refuses modules that cannot be trained here, by what they do with a few rows; measures what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from daskumap.errors import ParameterError
from daskumap.kernels.random import uniform
from daskumap.torch_backend.modules import TorchBackend, fill, run_encoder, trainable
from daskumap.torch_backend.steady import STEADY, drawing

Array = np.ndarray[Any, Any]
# So few that they cost nothing, and more than one, which some modules take for no batch.
ROWS = 4
# A row alone and among others may differ by rounding; by batch statistics it differs more.
SAME = 1e-3


def check_modules(backend: TorchBackend) -> None:
    """Refuse modules that give something else than is wanted, or whose rows are not mapped one by one.

    Raises
    ------
    ParameterError
        Saying what was seen and what to do.
    """
    for name, part in backend.parts.items():
        _check_parameters(name, part)
    with drawing(0), STEADY:
        parts = backend.fresh("cpu")
        fill(trainable(parts), backend.initial(0))
        rows, places = (torch.tensor(_rows(columns)) for columns in (backend.columns, backend.d))
        _check_part("encoder", parts["encoder"], rows, backend.d)
        if "decoder" in parts:
            _check_part("decoder", parts["decoder"], places, backend.columns)
        if "head" in parts and _hidden(parts, rows) != (ROWS, parts["head"][0].in_features):
            raise ParameterError(
                "There are labels, and the encoder's last torch.nn.Linear does not read one row of features "
                "for each row, which a classifier would read. End the module with one, or leave labels out."
            )


def find_fault(device: str) -> str:
    """Return why torch cannot use a device in this process; "" if it can."""
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    there += ["mps"] if torch.backends.mps.is_available() else []
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return f"{_first_line(error)}; there are {', '.join(there)}"
    return ""


def look_at(device: str) -> tuple[str, str]:
    """Return why torch cannot use a device in this process, "" if it can, and what kind of one it is."""
    fault = find_fault(device)
    named = device.startswith("cuda") and not fault
    return fault, torch.cuda.get_device_name(device) if named else device.partition(":")[0]


def held_bytes(backend: TorchBackend) -> int:
    """Return what a step holds for each row of its batch, in bytes, as a few rows show."""
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with drawing(0), STEADY, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        parts = backend.fresh("cpu")
        places, _ = run_encoder(parts, torch.tensor(_rows(backend.columns)))
        if "decoder" in parts:
            parts["decoder"](places)
        kept = {one.untyped_storage().data_ptr() for one in parts.parameters()}
        # A tensor that goes forward has a gradient of its size that comes back.
        return 2 * sum(size for at, size in seen.items() if at not in kept) // ROWS


def _rows(columns: int) -> Array:
    return uniform(0, 0, ROWS, columns).astype(np.float32)


def _hidden(parts: nn.ModuleDict, rows: torch.Tensor) -> tuple[int, ...]:
    hidden = run_encoder(parts, rows)[1]
    return () if hidden is None else tuple(hidden.shape)


def _check_parameters(name: str, part: nn.Module) -> None:
    for what, tensor in part.named_parameters():
        if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
            raise ParameterError(
                f"The {name} has lazy layers, whose {what} has no shape yet. Call it on a few rows first."
            )
        if tensor.dtype != torch.float32:
            raise ParameterError(
                f"{what} of the {name} is {tensor.dtype}; weights are float32. Call .float() on the module."
            )
    if not trainable(part):
        raise ParameterError(f"The {name} has no parameters that require a gradient. Give one that has.")


def _check_part(name: str, part: nn.Module, rows: torch.Tensor, wanted: int) -> None:
    before = {what: values.clone() for what, values in part.state_dict().items()}
    made = _call(name, part.train(), rows, wanted)
    changed = [what for what, values in part.state_dict().items() if not torch.equal(values, before[what])]
    if changed:
        raise ParameterError(
            f"The {name} changes {', '.join(changed)} when it is called. Running statistics, as of "
            "BatchNorm, would depend on the order of batches, and batches are no sample of the rows. Use "
            "GroupNorm or LayerNorm."
        )
    odd = [what for what, values in part.state_dict().items() if values.dtype != torch.float32]
    if odd:
        raise ParameterError(
            f"The {name} keeps {', '.join(odd)}, which is no float32 as weights are. Register what is never "
            "trained with persistent=False."
        )
    try:
        torch.autograd.grad(made.sum(), trainable(part), allow_unused=True)
    except RuntimeError as error:
        raise ParameterError(
            f"Torch has no deterministic gradient of the {name} ({_first_line(error)}). Use other layers."
        ) from error
    with torch.no_grad():
        together = _call(name, part.eval(), rows, wanted)
        apart = torch.cat([_call(name, part, half, wanted) for half in rows.split(ROWS // 2)])
    if not torch.allclose(together, apart, rtol=SAME, atol=SAME, equal_nan=True):
        raise ParameterError(
            f"What the {name} makes of a row depends on the rows beside it, as with BatchNorm. A row must "
            "have one place: use GroupNorm or LayerNorm."
        )


def _call(name: str, part: nn.Module, rows: torch.Tensor, wanted: int) -> torch.Tensor:
    try:
        made = part(rows)
    except Exception as error:  # A module of the user's raises whatever it likes.
        raise ParameterError(
            f"The {name} fails on {len(rows)} rows of {rows.shape[1]} columns, float32: {_first_line(error)}."
            " Rows come flat: begin with torch.nn.Unflatten(1, (channels, height, width)) where it takes "
            "images."
        ) from error
    shape = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
    if shape != (len(rows), wanted) or made.dtype != torch.float32:
        dtype = f" {made.dtype}" if isinstance(made, torch.Tensor) else ""
        raise ParameterError(
            f"The {name} makes {shape}{dtype} of {len(rows)} rows of {rows.shape[1]} columns; it must make "
            f"{(len(rows), wanted)} torch.float32. End with a layer of {wanted} units."
        )
    tensor: torch.Tensor = made
    return tensor


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
