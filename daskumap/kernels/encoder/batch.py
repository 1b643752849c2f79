"""What one step is about, and what the terms of its loss weigh."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

Array = NDArray[Any]


class Batch(NamedTuple):
    """The rows of a step: the ends of pairs first, then rows with labels, then landmarks."""

    rows: Array  # (m, p) float32
    ends: int  # how many rows are ends: heads of the drawn edges, then their tails
    edges: int  # edge e joins row e and row edges + e; none where the ends regress to a map
    pushed: Array  # (N, 2) int32 pairs of ends that are pushed apart
    far: Array  # (F, 2) int32 pairs of ends for the correlation of distances; none without the term
    labels: Array  # (l,) int32 classes of the rows after the ends
    targets: Array  # (t, d) float32 places of the last rows, the landmarks
    places: Array  # (ends, d) float32 on the map that the ends regress to; (0, d) where they do not
    key: int = 0  # of what a network itself draws in this step, as dropout does


class Settings(NamedTuple):
    """What the loss of a step is, and how far a step goes."""

    a: float  # of the curve q = 1 / (1 + a r^2b)
    b: float
    steps: int  # of the whole training: the rate falls linearly over them
    loss: str = "logistic"  # or "exact"
    batch_edges: int = 250
    negatives: int = 5  # pushed pairs an edge
    repulsion: float = 1.0  # weight of the pushed pairs
    learning_rate: float = 1e-2
    warm_steps: int = 0  # the first steps regress to a map
    autoencoder_weight: float = 0.0
    reconstruction: str = "mse"  # or "bce"
    global_weight: float = 0.0
    label_weight: float = 1.0
    landmark_weight: float = 1.0
