"""The tables of *The Information Geometry of UMAP*, as printed, with what was measured beside them."""

from typing import Any

import numpy as np
from compare import render
from geometry_maps import KERNELS
from geometry_scores import NAMES

# Kolpakov, Rocke (2024), tables 1 to 3: ARS, AMIS and silhouette of each kernel, in the order of `KERNELS`.
PRINTED = {
    "iris": (
        (0.453, 0.648, 0.818),
        (0.453, 0.648, 0.799),
        (0.568, 0.732, 0.885),
        (0.568, 0.732, 0.915),
        (0.568, 0.732, 0.943),
        (0.568, 0.732, 0.955),
    ),
    "mnist": (
        (0.930, 0.916, 0.649),
        (0.927, 0.911, 0.658),
        (0.930, 0.915, 0.669),
        (0.929, 0.914, 0.671),
        (0.823, 0.872, 0.528),
        (0.921, 0.905, 0.663),
    ),
    "fashion_mnist": (
        (0.412, 0.648, 0.572),
        (0.398, 0.642, 0.616),
        (0.397, 0.641, 0.637),
        (0.420, 0.648, 0.615),
        (0.280, 0.598, 0.305),
        (0.395, 0.636, 0.648),
    ),
}
FORMAT = {"clusters": ".1f"}


def table(
    data: str, figures: dict[tuple[str, str], list[dict[str, float]]], layouts: list[str], seeds: int
) -> str:
    """Return a Markdown table: for each kernel a line as printed, and one for each layout.

    Parameters
    ----------
    data
        A name in `PRINTED`, or another one, which has no printed lines.
    figures
        By kernel and layout the figures of each seed; kernels that are not there are left out.
    seeds
        How many there are to be; lines of fewer ones say so.
    """
    rows = [["kernel", "map", *NAMES.values()]]
    for place, kernel in enumerate(KERNELS):
        lines = [(layout, figures[kernel, layout]) for layout in layouts if figures.get((kernel, layout))]
        shown = [
            [layout if len(found) == seeds else f"{layout}, seeds: {len(found)}", *spreads(found)]
            for layout, found in lines
        ]
        if shown and data in PRINTED:
            printed = [f"{value:.3f}" for value in PRINTED[data][place]]
            shown.insert(0, ["as printed", *printed, *["-"] * (len(NAMES) - len(printed))])
        rows += [["" if at else kernel, *line] for at, line in enumerate(shown)]
    return render(rows, markdown=True)


def spreads(seeds: list[dict[str, Any]]) -> list[str]:
    """Return the mean of each figure over the seeds, and its standard deviation where there are several."""
    return [_spread(np.array([one[name] for one in seeds], float), FORMAT.get(name, ".3f")) for name in NAMES]


def _spread(values: Any, style: str) -> str:
    mean = format(values.mean(), style)
    return mean if len(values) == 1 else f"{mean} ± {format(values.std(ddof=1), style)}"
