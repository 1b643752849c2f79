"""Rows to pixels: how much of each pixel the rows of a map cover, and in which colour, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.report.window import Floats, View, points_of

# Coverage of a pixel by a disc is counted in whole parts, so that sums do not depend on the order of rows.
PARTS = 64
# Radius of a disc, times the square root of the pixels per row. Judged by eye, as the next line, on maps of
# 1,797, 70,000 and 1,000,000 rows: below 0.4 pixels discs cost time and show nothing; thinner than 0.8 they
# fade, thicker than 4 they look like balloons.
DISC = 0.3
DISC_LEAST, DISC_RADII = 0.4, (0.8, 4.0)
# The least share of the picture that rows of a class cover, as far as discs so many times wider do: 300 of
# 200,000 rows are seen as a speck.
LEAST_SHARE, MOST_GROWTH = 0.001, 3.0


def disc_radius(count: int, view: View) -> float:
    """Return the radius of a row in pixels; 0 where rows are single pixels."""
    radius = DISC * float(view.width * view.height / max(count, 1)) ** 0.5
    return min(max(radius, DISC_RADII[0]), DISC_RADII[1]) if radius >= DISC_LEAST else 0.0


@dataclass(frozen=True)
class Colouring:
    """What colour each row has.

    Attributes
    ----------
    codes
        (n,) integer, anything that slices: the row's colour; negative is `unlabelled`.
    palette
        (k, 3) uint8; colours repeat after the last one.
    unlabelled
        Red, green, blue.
    counts
        (k,) how many rows have a colour, so that those of few are drawn wider; None for all alike.
    weights
        (k,) integer, how much a row counts where rows of several colours share a pixel; None for one each.
    """

    codes: Any
    palette: NDArray[np.uint8]
    unlabelled: tuple[int, int, int]
    counts: NDArray[np.int64] | None = None
    weights: NDArray[np.int64] | None = None

    def of(self, rows: slice, known: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the colours of some rows as places in the palette, its length for none."""
        codes = np.asarray(self.codes[rows])[known].astype(np.int64)
        return np.where(codes < 0, len(self.palette), codes % max(1, len(self.palette)))


def paint(embedding: Any, colouring: Colouring | None, view: View, radius: float) -> tuple[Floats, int]:
    """Return each pixel's coverage, then its red, green and blue, and the number of rows in view.

    Colours add up as squares, close to how light mixes; the layers are whole numbers, exact in any order.

    Parameters
    ----------
    radius
        Of a row in pixels; 0 where rows are single pixels.

    Returns
    -------
    layers, seen
        (1 or 4, height, width) and how many rows are in view.
    """
    painter = _Painter(view, radius, colouring)
    seen = 0
    for rows, known, points in points_of(embedding):
        x, y = view.pixels(points.astype(np.float64))
        inside = (x >= 0) & (x < view.width) & (y >= 0) & (y < view.height)
        seen += int(inside.sum())
        codes = None if colouring is None else colouring.of(rows, known)[inside]
        painter.add(x[inside], y[inside], codes)
    return painter.layers(), seen


class _Painter:
    """Sums of what rows add to pixels."""

    def __init__(self, view: View, radius: float, colouring: Colouring | None) -> None:
        self.view, self.colouring = view, colouring
        pixels = view.height * view.width
        self.cover = np.zeros(pixels)
        if colouring is None:
            self.radii = np.array([radius])
            return
        self.colours = np.zeros((3, pixels))
        # What colours are divided by: the coverage, unless rows count differently.
        self.shares = self.cover if colouring.weights is None else np.zeros(pixels)
        self.palette = np.array([*colouring.palette.tolist(), colouring.unlabelled], dtype=np.float64) ** 2
        count = len(colouring.palette)
        counts = colouring.counts
        radii = np.full(count, radius) if counts is None else _grown(radius, counts, pixels)
        self.radii = np.append(radii, radius)
        weights = np.ones(count, np.int64) if colouring.weights is None else colouring.weights
        self.weights = np.append(weights, 1).astype(np.float64)

    def add(self, x: Floats, y: Floats, codes: NDArray[np.int64] | None) -> None:
        """Add rows at some pixels."""
        if codes is None:
            for pixel, parts in _stamps(x, y, self.view, float(self.radii[0])):
                # In place: a count of all pixels for each of a disc's made few rows slow.
                np.add.at(self.cover, pixel, parts)
            return
        for radius in np.unique(self.radii):
            mine = self.radii[codes] == radius
            colours, weights = self.palette[codes[mine]], self.weights[codes[mine]]
            for pixel, parts in _stamps(x[mine], y[mine], self.view, float(radius)):
                np.add.at(self.cover, pixel, parts)
                if self.shares is not self.cover:
                    np.add.at(self.shares, pixel, parts * weights)
                for c in range(3):
                    np.add.at(self.colours[c], pixel, parts * weights * colours[:, c])

    def layers(self) -> Floats:
        """Return coverage and colours as they are shaded."""
        shape = self.view.height, self.view.width
        cover = (self.cover / PARTS)[None]
        if self.colouring is None:
            return cover.reshape(1, *shape)
        mixed = np.sqrt(self.colours / np.maximum(self.shares, 1))
        return np.concatenate([cover, mixed]).reshape(4, *shape)


def _grown(radius: float, counts: NDArray[np.int64], pixels: int) -> Floats:
    """Return the radius of each colour's rows: as others, unless they would cover too little to be seen."""
    wanted = np.sqrt(LEAST_SHARE * pixels / (np.pi * np.maximum(counts, 1)))
    most = max(radius, DISC_RADII[0]) * MOST_GROWTH
    # A single pixel is a disc of this radius.
    return np.where(wanted > max(radius, np.pi**-0.5), np.minimum(wanted, most), radius)


def _stamps(x: Floats, y: Floats, view: View, radius: float) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Yield, for each pixel offset that a disc can reach, the rows' pixels and how much of them it covers."""
    column, line = x.astype(np.int64), y.astype(np.int64)
    if not radius:
        yield line * view.width + column, np.full(len(x), float(PARTS))
        return
    reach = int(np.ceil(radius))
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            i, j = line + down, column + right
            distance = np.hypot(i + 0.5 - y, j + 0.5 - x)
            parts = np.rint(PARTS * np.clip(radius + 0.5 - distance, 0, 1))
            # A disc at the border is cut; its pixels beyond are given nothing.
            parts[(i < 0) | (i >= view.height) | (j < 0) | (j >= view.width)] = 0
            yield np.clip(i, 0, view.height - 1) * view.width + np.clip(j, 0, view.width - 1), parts
