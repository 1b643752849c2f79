"""The pictures of docs/geometry.md: two curves in 5 dimensions and their maps; digits by `min_dist`."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from dynamics import PAIK_GRIFFIN, VESELOV_SHABAT, System, curve
from geometry_maps import simplicial_set_embedding

Array = np.ndarray[Any, Any]
SEED = 42
# Pixels of a panel, radius of a disc, and how far from the border discs stay.
PANEL, RADIUS, MARGIN = 250, 1.9, 12
# Where the eye is: matplotlib's default for three dimensions.
AZIMUTH, ELEVATION = math.radians(-60), math.radians(30)
# Share of the colour that the farthest point keeps.
FAR = 0.45
# Steps between colours: a third of the bytes of a file, and nothing that is seen.
COLOUR_STEP = 8
# The heads of the page's table of panels.
COLUMNS = ("curve", "daskumap", "umap-learn")
# A line of panels: the system, its points, and which of its coordinates are drawn; those of the paper.
CURVES = (
    (VESELOV_SHABAT, 1_000, (0, 1, 2)),
    (PAIK_GRIFFIN, 1_000, (1, 2, 3)),
    (PAIK_GRIFFIN, 10_000, (1, 2, 3)),
)
MIN_DISTS = (0.01, 0.1, 0.3)
DIGITS_PIXELS = 360


def draw(folder: Path) -> None:
    """Draw all pictures into a folder."""
    draw_dynamics(folder)
    draw_digits(folder)


def draw_dynamics(folder: Path, lines: Any = CURVES, **options: Any) -> None:
    """Draw for each system its curve, daskumap's map and umap-learn's of the same graph.

    All three are coloured by the curve's fourth coordinate, so that a place is found again on the maps.
    """
    from daskumap.report.png import write_png

    for line, (system, points, shown) in enumerate(lines, start=1):
        print(f"{system.name}, {points:,} points", file=sys.stderr)
        rows = curve(system, points)
        panels = [rows[:, shown], *maps_of(system, rows, **options)]
        for column, places in zip(COLUMNS, panels, strict=True):
            write_png(folder / f"dynamics-{line}-{column}.png", panel(places, rows[:, 3]))


def maps_of(system: System, rows: Array, **options: Any) -> tuple[Array, Array]:
    """Return daskumap's map of a curve in three dimensions, and umap-learn's of the same graph.

    The parameters are the paper's: n_neighbors is floor(ln n), and min_dist 0.1 sqrt(5).
    """
    import daskumap

    run = daskumap.fit(
        rows,
        n_neighbors=math.floor(math.log(len(rows))),
        min_dist=0.1 * math.sqrt(len(system.start)),
        n_components=3,
        random_state=SEED,
        report=False,
        progress=False,
        **options,
    )
    return run.embedding[:], simplicial_set_embedding(run, rows, SEED)


def draw_digits(folder: Path, **options: Any) -> None:
    """Draw digits by label for each `min_dist`; the maps have the same neighbours and start."""
    import daskumap
    from daskumap.report.picture import embedding_png
    from daskumap.testing.datasets import digits

    data: Any = digits().rows()
    for min_dist in MIN_DISTS:
        run = daskumap.fit(
            data, min_dist=min_dist, random_state=SEED, report=False, progress=False, **options
        )
        data = run
        path = folder / f"digits-min-dist-{min_dist}.png"
        embedding_png(run.embedding[:], path, digits().labels(), DIGITS_PIXELS)


def panel(places: Array, values: Array) -> Array:
    """Return (PANEL, PANEL, 3) uint8: points in 3 dimensions, the nearest last, coloured by their values."""
    from daskumap.report.colours import DENSITY
    from daskumap.report.picture import DARK

    x, y, depth = seen(places)
    ramp, level = np.array(DENSITY, float), (values - values.min()) / np.ptp(values)
    colours = np.stack([np.interp(level, np.linspace(0, 1, len(ramp)), c) for c in ramp.T], axis=1)
    near = FAR + (1 - FAR) * (depth - depth.min()) / np.ptp(depth)
    colours = np.array(DARK.ground) + near[:, None] * (colours - DARK.ground)
    image = np.tile(np.array(DARK.ground, float), (PANEL, PANEL, 1))
    reach = range(-math.ceil(RADIUS), math.ceil(RADIUS) + 1)
    for point in np.argsort(depth):
        column, line = int(x[point]), int(y[point])
        for i, j in ((line + down, column + right) for down in reach for right in reach):
            cover = np.clip(RADIUS + 0.5 - math.hypot(i + 0.5 - y[point], j + 0.5 - x[point]), 0, 1)
            image[i, j] += cover * (colours[point] - image[i, j])
    return (np.rint(image / COLOUR_STEP) * COLOUR_STEP).clip(0, 255).astype(np.uint8)


def seen(places: Array) -> tuple[Array, Array, Array]:
    """Return where points in three dimensions are on a panel, in pixels, and how near the eye they are."""
    low, high = places.min(axis=0), places.max(axis=0)
    x, y, z = (((places - (low + high) / 2) / (high - low).max()).astype(float)).T
    right = -math.sin(AZIMUTH) * x + math.cos(AZIMUTH) * y
    towards = math.cos(AZIMUTH) * x + math.sin(AZIMUTH) * y
    up = math.cos(ELEVATION) * z - math.sin(ELEVATION) * towards
    depth = math.cos(ELEVATION) * towards + math.sin(ELEVATION) * z
    flat = np.stack([right, -up])
    flat -= (flat.min(axis=1) + flat.max(axis=1))[:, None] / 2
    flat *= (PANEL - 2 * MARGIN) / np.ptp(flat, axis=1).max()
    return flat[0] + PANEL / 2, flat[1] + PANEL / 2, depth
