"""Which network a training trains."""

from __future__ import annotations

from daskumap.kernels.encoder.backend import Backend, Perceptron
from daskumap.params import Params


def network_of(params: Params, columns: int) -> Backend:
    """Return the network of a run that is trained on rows of so many columns."""
    e = params.encoder
    classes = len(e.labels["classes"]) if e.labels else 0
    return Perceptron.of(e.inputs(columns), e.hidden, params.n_components, bool(e.decoder), classes)
