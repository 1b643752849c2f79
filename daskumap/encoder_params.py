"""The parameters of a training: what network maps the rows, by which losses, from how much data."""

from __future__ import annotations

import dataclasses
from typing import Any

from daskumap.errors import ParameterError
from daskumap.functions import digest_of_module
from daskumap.params import from_numpy, refuse_unknown

# The built-in network; anything else is a module of the user's.
BUILT_IN = "mlp"
LOSSES = ("logistic", "exact")
RECONSTRUCTIONS = ("mse", "bce")
# With so many edges each they are enough whatever the number of rows, 10^4 to 10^6 (records 33 and 38).
STEPS = 6_000
# The share of the steps that regress to the run's own map where edges that leave the window are not there:
# 30 % of the rows then cost .001 of trustworthiness, without it .006 (16,000 steps of 250 edges, measured;
# record 38 has other steps).
WINDOWED_WARM_START = 0.5
MOST_UNITS = 65_536
MOST_CLASSES = 10_000


@dataclasses.dataclass(frozen=True)
class EncoderParams:
    """All parameters of a training; `None` means the default that the docstring of `daskumap.train` gives.

    Attributes
    ----------
    labels, landmarks
        What is known of rows beside their values, as `sources.known` describes it; the values themselves lie
        in the run store. None where the user gave none.
    start
        Of a model that the training goes on from: its digest, and the widths of the parts that it has, None
        for modules; the weights lie in the run store. None for a training that starts afresh.
    """

    hidden: tuple[int, ...] = (100, 100, 100)
    encoder: Any = BUILT_IN
    decoder: Any = False
    loss: str = "logistic"
    batch_edges: int = 1_000
    steps: int = STEPS
    encoder_learning_rate: float = 1e-2
    input_axes: int | None = 64
    window_rows: int | None = None
    encoder_rows: int = 2_000_000
    warm_start: float | None = None
    replicas: int = 1
    average_every: int = 25
    autoencoder_weight: float = 0.0
    reconstruction: str = "mse"
    global_weight: float = 0.0
    label_weight: float = 1.0
    landmark_weight: float = 1.0
    device: str = "cpu"
    checkpoint_steps: int = 1_000
    labels: dict[str, Any] | None = None
    landmarks: dict[str, Any] | None = None
    start: dict[str, Any] | None = None

    @property
    def built_in(self) -> bool:
        """Whether the network is daskumap's own perceptron."""
        return isinstance(self.encoder, str)

    def classes(self) -> list[Any]:
        """Return the names of the classes that a head tells apart; none without labels."""
        return list(self.labels["classes"]) if self.labels else []

    def axes(self, columns: int) -> int | None:
        """Return on how many main axes of the data the network sees rows; None where it sees all columns.

        So it is for a module, and where reconstructions are compared with values in [0, 1].
        """
        raw = self.input_axes is None or not self.built_in or self.reconstruction == "bce"
        return None if raw else min(columns, self.input_axes or columns)

    def inputs(self, columns: int) -> int:
        """Return the length of a row as the network sees it."""
        return self.axes(columns) or columns

    def trained_rows(self, rows: int) -> int:
        """Return how many rows take part: larger data are represented by some of them."""
        return min(rows, self.encoder_rows)

    def held_rows(self, rows: int) -> int:
        """Return how many rows are in memory at a time."""
        return min(self.trained_rows(rows), self.window_rows or rows)

    def warm_steps(self, rows: int) -> int:
        """Return how many steps, the first ones, regress to the run's own map."""
        share = self.warm_start
        if share is None:
            share = WINDOWED_WARM_START if self.held_rows(rows) < rows else 0.0
        return round(share * self.steps)

    def segments(self) -> list[tuple[int, int]]:
        """Return the steps [first, last) of each segment, after which there is a checkpoint.

        Of replicas a segment ends where they are averaged, so that it does not change when they are.
        """
        steps, every = self.steps, self.checkpoint_steps
        if self.replicas > 1:
            every = -(-every // self.average_every) * self.average_every
        return [(at, min(at + every, steps)) for at in range(0, steps, every)]

    def rounds(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the steps [first, last) of each round of a segment: before each, replicas are averaged."""
        every = self.average_every if self.replicas > 1 else last - first
        return [(at, min(at + every, last)) for at in range(first, last, every)]

    def fingerprint(self) -> dict[str, Any]:
        """Return the parameters as JSON values; a module by a digest of its content."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


NAMES = frozenset(f.name for f in dataclasses.fields(EncoderParams)) - {"labels", "landmarks", "start"}


def make_encoder_params(values: dict[str, Any]) -> EncoderParams:
    """Build validated parameters from keyword arguments.

    Raises
    ------
    ParameterError
        For an unknown name or a value outside its range; the message gives both.
    """
    refuse_unknown(values, {f.name for f in dataclasses.fields(EncoderParams)})
    values = {name: from_numpy(value) for name, value in values.items()}
    hidden = values.get("hidden")
    if isinstance(hidden, list | tuple):
        values["hidden"] = tuple(map(from_numpy, hidden))
    params = EncoderParams(**values)
    _check_hidden(params.hidden)
    for name, kind, low, high in _RANGES:
        _check(name, getattr(params, name), kind, low, high)
    for name, allowed in (("loss", LOSSES), ("reconstruction", RECONSTRUCTIONS)):
        value = getattr(params, name)
        if not isinstance(value, str) or value not in allowed:
            raise ParameterError(f"{name} is {value!r}; allowed are {', '.join(allowed)}.")
    _check_networks(params)
    return params


_RANGES: tuple[tuple[str, type, float, float], ...] = (
    ("batch_edges", int, 1, 1_000_000),
    ("steps", int, 1, 1_000_000_000),
    ("encoder_learning_rate", float, 1e-12, 10.0),
    ("input_axes", int, 1, MOST_UNITS),
    ("window_rows", int, 1, 2**31 - 1),
    ("encoder_rows", int, 1, 2**31 - 1),
    ("warm_start", float, 0.0, 1.0),
    ("replicas", int, 1, 1_024),
    ("average_every", int, 1, 1_000_000),
    ("autoencoder_weight", float, 0.0, 1e6),
    ("global_weight", float, 0.0, 1e6),
    ("label_weight", float, 0.0, 1e6),
    ("landmark_weight", float, 0.0, 1e6),
    ("checkpoint_steps", int, 1, 1_000_000_000),
)


def _check(name: str, value: Any, kind: type, low: float, high: float) -> None:
    optional = name in ("input_axes", "window_rows", "warm_start")
    if value is None and optional:
        return
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not right or not low <= value <= high:  # NaN fails the comparison
        what = "an integer" if kind is int else "a number"
        rest = ", or None" if optional else ""
        raise ParameterError(f"{name} is {value!r}; it must be {what} from {low:g} to {high:g}{rest}.")


def _check_hidden(hidden: Any) -> None:
    whole = isinstance(hidden, tuple) and all(
        isinstance(units, int) and not isinstance(units, bool) and 1 <= units <= MOST_UNITS
        for units in hidden
    )
    if not whole or not hidden:
        raise ParameterError(
            f"hidden is {hidden!r}; it must have the units of each hidden layer, from 1 to {MOST_UNITS:,}, "
            "such as (100, 100, 100)."
        )


def _check_networks(params: EncoderParams) -> None:
    if isinstance(params.encoder, str) and params.encoder != BUILT_IN:
        raise ParameterError(
            f"encoder is {params.encoder!r}; allowed are {BUILT_IN!r} and a torch.nn.Module of yours."
        )
    if params.built_in and not isinstance(params.decoder, bool):
        raise ParameterError(
            f"decoder is a {type(params.decoder).__name__} and encoder is {BUILT_IN!r}, whose decoder is its "
            "mirror. Give decoder=True, or a module as encoder too."
        )
    if params.autoencoder_weight and params.decoder is False:
        raise ParameterError(
            f"autoencoder_weight is {params.autoencoder_weight:g} and there is no decoder whose error it "
            "weighs. Give decoder=True, or leave autoencoder_weight at 0."
        )
    if params.reconstruction != EncoderParams.reconstruction and params.decoder is False:
        raise ParameterError(
            f"reconstruction is {params.reconstruction!r} and there is no decoder whose error it is. Give "
            "decoder=True, or leave reconstruction out."
        )
    if not isinstance(params.device, str):
        raise ParameterError(f"device is {params.device!r}; it must be a name such as 'cpu' or 'cuda'.")
    if params.built_in and params.device != "cpu":
        raise ParameterError(
            f"device is {params.device!r}, and the built-in network works on the CPU. Leave device out, or "
            "give a module as encoder."
        )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if value is None or isinstance(value, str | int | float | bool | dict):
        return value
    return f"module:{type(value).__module__}.{type(value).__qualname__}:{digest_of_module(value)}"
