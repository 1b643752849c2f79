"""A picture of a map: rows to pixels to a PNG file, with NumPy and zlib alone, in constant memory.

Few rows are painted as discs, many as a density; where rows of several classes share a pixel, their colours
mix in proportion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.report.colours import CLASSES, DENSITY, DENSITY_ON_LIGHT, ramp
from daskumap.report.paint import Colouring, disc_radius, paint
from daskumap.report.png import Writable, write_png
from daskumap.report.window import MARGIN, Floats, Limits, View, find_limits


@dataclass(frozen=True)
class Theme:
    """What a map is drawn on.

    Attributes
    ----------
    ground
        Red, green and blue, which colours fade into.
    unlabelled
        The colour of rows without a class.
    density
        From sparse to dense.
    transparent
        Whether the ground is left open.
    """

    ground: tuple[int, int, int]
    unlabelled: tuple[int, int, int]
    density: tuple[tuple[int, int, int], ...]
    transparent: bool = False


DARK = Theme((12, 13, 20), (105, 108, 120), DENSITY)
LIGHT = Theme((255, 255, 255), (190, 192, 200), DENSITY_ON_LIGHT)
TRANSPARENT = Theme((255, 255, 255), (150, 152, 160), DENSITY_ON_LIGHT, transparent=True)
THEMES = {"dark": DARK, "light": LIGHT, "transparent": TRANSPARENT}


@dataclass(frozen=True)
class Picture:
    """What a picture shows.

    Parameters
    ----------
    width, height
        Pixels.
    rows, outside, missing
        Rows in view, rows beyond the limits (fly-aways), and rows without a position (NaN or infinite).
    limits
        (low, high) in view, of each column.
    """

    width: int
    height: int
    rows: int
    outside: int
    missing: int
    limits: Limits


def embedding_png(
    embedding: Any, path: str | Path | Writable, labels: Any = None, size: int = 900
) -> Picture:
    """Draw an embedding as a PNG file: its density, or the colours of its classes.

    The limits leave fly-away rows out, so that one of them cannot shrink the map to a dot; the result counts
    them. The same embedding gives the same bytes, in whatever chunks it is stored.

    Parameters
    ----------
    embedding
        (n, d) floating point, anything that slices. Two columns are drawn; one alone as a histogram.
    path
        File, or anything that has `write`.
    labels
        (n,) integer, anything that slices; negative is unlabelled. Colours repeat after 24 classes.
    size
        Pixels of the longer side; the other one follows the shape of the map.
    """
    palette = np.array(CLASSES, np.uint8)
    image, info = raster(
        embedding, None if labels is None else Colouring(labels, palette, DARK.unlabelled), size
    )
    write_png(path, image)
    return info


def raster(
    embedding: Any,
    colouring: Colouring | None = None,
    size: int = 900,
    theme: Theme = DARK,
    limits: Limits | None = None,
) -> tuple[NDArray[np.uint8], Picture]:
    """Return the pixels of a picture, (height, width, 3) uint8, or 4 with opacity; as `embedding_png`.

    Parameters
    ----------
    colouring
        None for the density.
    limits
        (low, high) of each column in view; None for all rows but those that flew away.
    """
    flat = embedding.shape[1] == 1
    found, count = find_limits(embedding)
    view = View.fit(limits or found, size, flat)
    radius = 0.0 if flat else disc_radius(count, view)
    layers, seen = paint(embedding, colouring, view, radius)
    rgb, alpha = _histogram(layers, theme) if flat else _shade(layers, radius, theme)
    ground = np.array(theme.ground, dtype=np.float64)
    image = (
        np.concatenate([rgb, 255 * alpha], axis=2) if theme.transparent else ground + alpha * (rgb - ground)
    )
    shown = np.rint(image).astype(np.uint8)
    height, width = shown.shape[:2]
    info = Picture(width, height, seen, count - seen, embedding.shape[0] - count, view.limits[: 2 - flat])
    return shown, info


def _shade(layers: Floats, radius: float, theme: Theme) -> tuple[Floats, Floats]:
    """Return the (height, width, 3) colours, 0 to 255, of painted layers, and (height, width, 1) opacity."""
    painted = layers[0] > 0
    cover = layers[0][painted]
    level = level_of(_blur(layers[0], round(3 * radius))[painted])[:, None]
    if len(layers) == 1:
        colour, strength = ramp(theme.density, level[:, 0]), np.ones(1)
    else:
        # Classes need their hue, so density may only dim it: little for discs, more for a cloud.
        colour, strength = layers[1:, painted].T, (0.75 if radius else 0.4) + level
    rgb, alpha = np.zeros((*painted.shape, 3)), np.zeros((*painted.shape, 1))
    rgb[painted] = colour
    alpha[painted] = np.minimum(cover, 1)[:, None] * np.minimum(strength, 1)
    return rgb, alpha


def level_of(values: Floats) -> Floats:
    """Return 0 to 1 for densities: half by rank, which shows all structure, half by logarithm."""
    if not len(values) or values.max() == values.min():
        return np.zeros(len(values))
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    share = np.cumsum(counts) / len(values)
    logarithm = np.log(distinct / distinct[0]) / np.log(distinct[-1] / distinct[0])
    level: Floats = ((share - share[0]) / (1 - share[0]) + logarithm)[place] / 2
    return level


def _blur(image: Floats, reach: int, axes: tuple[int, ...] = (0, 1)) -> Floats:
    """Return the image after three box filters of 2 reach + 1 pixels along each axis: nearly a Gaussian.

    Sums, not means, of whole numbers: exact, so that empty pixels stay empty.
    """
    for axis in axes * 3 if reach else ():
        pad = [(reach + 1, reach) if a == axis else (0, 0) for a in (0, 1)]
        total = np.pad(image, pad)
        np.cumsum(total, axis=axis, out=total)
        lines = total.swapaxes(0, axis)
        image = (lines[2 * reach + 1 :] - lines[: image.shape[axis]]).swapaxes(0, axis)
    return image


def _histogram(layers: Floats, theme: Theme) -> tuple[Floats, Floats]:
    """Return the picture of one column: a smooth histogram, a third as high as wide."""
    size = layers.shape[2]
    height = size // 3
    smooth = np.array(
        [_blur(layer, size // 150, axes=(1,)) for layer in (layers[0], *layers[1:] * layers[0])]
    )
    bars = smooth[0, 0] / max(smooth[0].max(), 1e-300) * height * (1 - 2 * MARGIN)
    # From the bottom up; the last pixel of a bar is covered in part, so that its edge is smooth.
    above = np.arange(height)[::-1, None] - MARGIN * height
    alpha: Floats = np.clip(bars - np.maximum(above, 0), 0, 1) * np.clip(above + 1, 0, 1)
    if len(layers) == 1:
        colour = ramp(theme.density, np.clip(0.2 + 0.8 * above / height, 0, 1) + 0 * alpha)
    else:
        colour = np.broadcast_to((smooth[1:, 0] / np.maximum(smooth[0, 0], 1e-300)).T, (height, size, 3))
    return colour, alpha[:, :, None]
