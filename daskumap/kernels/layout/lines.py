"""Lines between places, added to a raster."""

import math

from daskumap.kernels.jit import kernel


@kernel
def add_lines(raster, x0, y0, x1, y1, weights):  # type: ignore[no-untyped-def]
    """Spread each line's weight over the pixels that it passes, one a step of its longer side, in place.

    Parameters
    ----------
    raster
        (height, width) float64.
    x0, y0, x1, y1
        (m,) float64 ends in pixels, to the right and down. Parts beyond the raster add nothing, nor do lines
        with an end at NaN.
    weights
        (m,) floating point.
    """
    height, width = raster.shape
    for e in range(len(weights)):
        across, down = x1[e] - x0[e], y1[e] - y0[e]
        length = max(abs(across), abs(down))
        if not length < 1e6:
            continue
        steps = math.ceil(length) + 1
        for s in range(steps):
            share = s / max(1, steps - 1)
            x, y = x0[e] + share * across, y0[e] + share * down
            if 0 <= x < width and 0 <= y < height:
                raster[int(y), int(x)] += weights[e] / steps
