"""The small frozen value that every task gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from daskumap.params import Params
from daskumap.planning.sizes import Resources, Sizes


@dataclass(frozen=True)
class Job:
    """Where the run is, what it reads, with which parameters and sizes."""

    url: str
    id: str  # of the run, so that nothing held in memory outlives a run store that was made anew
    source: dict[str, Any]
    params: Params
    sizes: Sizes
    resources: Resources

    @property
    def n_epochs(self) -> int:
        """Number of epochs of the layout."""
        return self.params.epochs(self.sizes.rows)

    @property
    def neighbors(self) -> int:
        """Neighbours a row keeps, itself not counted."""
        return self.params.n_neighbors - 1

    @property
    def start(self) -> str:
        """Where vertices start: "pca", "spectral", "random", or "array" for the user's, in the run store."""
        return self.params.init if isinstance(self.params.init, str) else "array"
