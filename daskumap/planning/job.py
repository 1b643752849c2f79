"""What is fixed when a run starts: the small value that goes with its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daskumap.params import PRECOMPUTED, Params
from daskumap.planning.sizes import Resources, Sizes


@dataclass(frozen=True)
class Job:
    """Where a run is, what it reads, with which parameters and sizes.

    Attributes
    ----------
    url, id
        Of the run store, and of the run: the place may hold another one later. Both "" while it is planned.
    source
        With what another process opens the input; None where it lies in the run store, or in this process.
        It may hold a password, so it is not shown.
    model
        Of the finished run into whose map new rows are placed, from whose map points are, or whose neighbours
        are fitted again; None for any other fit.
    anew
        What a fit of the model's neighbours does not have from it: "graph", "start". None for anything else.
    inverse
        Whether the input is points of the model's map, which become rows.
    encodes
        What a trained network does with the input: "encode", "decode" or "predict"; None for anything else.
    given
        With what another process opens the neighbours that the user gives; None where they lie in the run
        store, or are searched.
    storage_options
        With what another process reaches the run store; it may hold a password, so it is not shown.
    """

    url: str
    id: str
    source: dict[str, Any] | None = field(repr=False)
    params: Params
    sizes: Sizes
    resources: Resources
    model: Job | None = None
    anew: tuple[str, ...] | None = None
    inverse: bool = False
    encodes: str | None = None
    given: tuple[dict[str, Any], dict[str, Any]] | None = field(default=None, repr=False)
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def iterations(self) -> int:
        """Number of iterations of the layout."""
        return self.params.iterations(self.sizes.rows)

    @property
    def neighbors(self) -> int:
        """Neighbours a row keeps, itself not counted."""
        return self.params.n_neighbors - 1

    @property
    def start(self) -> str:
        """Where vertices start: "pca", "spectral", "random", or "array" for the user's, in the run store.

        Distances have no main axes. umap-learn's "tswspectral" is another way to the same eigenvectors.
        """
        init = self.params.init
        if not isinstance(init, str):
            return "array"
        axes = init == "pca" and self.params.metric != PRECOMPUTED
        return init if axes or init == "random" else "spectral"
