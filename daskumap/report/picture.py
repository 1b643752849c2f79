"""A picture of a map: rows to pixels to a PNG file, with NumPy and zlib alone.

The embedding is read three times in blocks, so that 10^9 rows of a Zarr array make a picture in constant
memory: twice for the limits (exact percentiles by radix selection), once to paint. Few rows are painted as
discs, many as a density; where rows of several classes share a pixel, their colours mix in proportion.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Limits = tuple[tuple[float, float], ...]

READ_ROWS = 1_048_576
# Rows beyond these shares of a column may be fly-aways ...
ROBUST = (0.0005, 0.9995)
# ... and are, unless the limits reach them by growing by this share of the width.
GENEROUS = 0.2
MARGIN = 0.04
# Coverage of a pixel by a disc is counted in whole parts, so that sums do not depend on the order of rows.
PARTS = 64
# Radius of a disc, times the square root of the pixels per row. Judged by eye, as the next line, on maps of
# 1,797, 70,000 and 1,000,000 rows: below 0.4 pixels discs cost time and show nothing; thinner than 0.8 they
# fade, thicker than 4 they look like balloons.
DISC = 0.3
DISC_LEAST, DISC_RADII = 0.4, (0.8, 4.0)

BACKGROUND = (12, 13, 20)
UNLABELLED = (105, 108, 120)

# Dim to bright in about equal perceived steps, for a dark ground: indigo, magenta, orange, pale yellow.
DENSITY = (
    (52, 42, 110),
    (82, 42, 130),
    (118, 44, 134),
    (154, 50, 130),
    (192, 62, 120),
    (226, 82, 102),
    (246, 116, 94),
    (253, 156, 108),
    (254, 200, 142),
    (253, 245, 200),
)

# 24 colours, readable on the ground: ten of distinct hue first, then their lighter and deeper kin.
CLASSES = (
    (78, 150, 236),
    (255, 145, 48),
    (76, 194, 100),
    (236, 78, 78),
    (168, 120, 234),
    (208, 152, 110),
    (244, 126, 198),
    (250, 214, 70),
    (60, 206, 214),
    (172, 182, 194),
    (158, 202, 255),
    (255, 202, 148),
    (168, 230, 156),
    (255, 166, 162),
    (212, 188, 255),
    (178, 118, 72),
    (196, 76, 150),
    (188, 190, 54),
    (40, 150, 158),
    (104, 116, 218),
    (50, 142, 78),
    (190, 48, 72),
    (255, 228, 200),
    (124, 94, 176),
)


class Writable(Protocol):
    """What bytes can be written to."""

    def write(self, content: bytes, /) -> Any:
        """Take the next bytes."""


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


@dataclass(frozen=True)
class _View:
    """The window of the plane that the picture shows; one scale for both axes."""

    width: int
    height: int
    centre: Floats
    scale: float

    @classmethod
    def fit(cls, limits: Limits, size: int, flat: bool) -> "_View":
        low, high = np.array(limits).T
        spans = high - low
        longest = spans[0] if flat else spans.max()
        # At least half as high as wide: a thread is hard to look at.
        width, height = (max(size // 2, round(size * span / longest)) for span in spans)
        scale = float(size * (1 - 2 * MARGIN) / longest)
        return cls(size, 1, (low + high) / 2, scale) if flat else cls(width, height, (low + high) / 2, scale)

    def pixels(self, points: Floats) -> tuple[Floats, Floats]:
        """Return x to the right and y down, in pixels; the centre of the first pixel is at one half."""
        x, y = ((points - self.centre) * self.scale).T
        return x + self.width / 2, self.height / 2 - y

    @property
    def limits(self) -> Limits:
        half = np.array([self.width, self.height]) / 2 / self.scale
        return tuple((float(c - h), float(c + h)) for c, h in zip(self.centre, half, strict=True))


def write_png(target: str | Path | Writable, rgb: NDArray[np.uint8]) -> None:
    """Write (height, width, 3) uint8 as a PNG file, to a path or anything that has `write`."""
    height, width, channels = rgb.shape
    if channels != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"rgb must be (height, width, 3) uint8, got {rgb.shape} {rgb.dtype}")
    # A line is its filter, 0 for none, and its bytes.
    lines = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    lines[:, 1:] = rgb.reshape(height, -1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    content += chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)) + chunk(b"IEND", b"")
    if isinstance(target, str | Path):
        Path(target).write_bytes(content)
    else:
        target.write(content)


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
    flat = embedding.shape[1] == 1
    limits, count = _limits(embedding)
    view = _View.fit(limits, size, flat)
    radius = 0.0 if flat else _disc_radius(count, view)
    layers, seen = _paint(embedding, labels, view, radius)
    rgb = _histogram(layers) if flat else _shade(layers, radius)
    write_png(path, np.rint(rgb).astype(np.uint8))
    return Picture(
        rgb.shape[1], rgb.shape[0], seen, count - seen, embedding.shape[0] - count, view.limits[: 2 - flat]
    )


def _points(embedding: Any) -> Iterator[tuple[slice, NDArray[np.bool_], NDArray[np.float32]]]:
    """Yield (rows, which of them have a position, (m, 2) float32 of those), block by block."""
    for start in range(0, embedding.shape[0], READ_ROWS):
        rows = slice(start, min(start + READ_ROWS, embedding.shape[0]))
        points = np.asarray(embedding[rows])[:, :2].astype(np.float32)
        if points.shape[1] == 1:
            points = np.concatenate([points, np.zeros_like(points)], axis=1)
        known: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=1))
        yield rows, known, points[known]


def _sortable(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return integers of 32 bits that sort like the floats: flip the sign bit, or all bits of negatives."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.int64)
    return np.where(bits >> 31, 0xFFFFFFFF - bits, bits + 0x80000000)


def _unsorted(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the floats of `_sortable`."""
    bits = np.where(keys >> 31, keys - 0x80000000, 0xFFFFFFFF - keys)
    return bits.astype(np.uint32).view(np.float32)


def _limits(embedding: Any) -> tuple[Limits, int]:
    """Return the robust limits of both columns, and how many rows have a position.

    Radix selection: count the upper halves of the keys, then the lower halves of those that the ranks hit.
    """
    upper = np.zeros((2, 65_536), dtype=np.int64)
    for _, _, points in _points(embedding):
        for j in range(2):
            upper[j] += np.bincount(_sortable(points[:, j]) >> 16, minlength=65_536)
    count = int(upper[0].sum())
    if not count:
        return ((-1.0, 1.0), (-1.0, 1.0)), 0
    last = count - 1
    ranks = np.array([0, np.ceil(ROBUST[0] * last), np.floor(ROBUST[1] * last), last], dtype=np.int64)
    totals = np.cumsum(upper, axis=1)
    heads = np.array([np.searchsorted(totals[j], ranks, side="right") for j in range(2)])
    before = np.take_along_axis(totals - upper, heads, axis=1)
    lower = np.zeros((2, 4, 65_536), dtype=np.int64)
    for _, _, points in _points(embedding):
        for j in range(2):
            keys = _sortable(points[:, j])
            for r in range(4):
                lower[j, r] += np.bincount(keys[keys >> 16 == heads[j, r]] & 0xFFFF, minlength=65_536)
    tails = (np.cumsum(lower, axis=2) <= (ranks - before)[:, :, None]).sum(axis=2)
    return tuple(_stretch(*row) for row in _unsorted(heads * 65_536 + tails).tolist()), count


def _stretch(least: float, low: float, high: float, most: float) -> tuple[float, float]:
    """Move robust limits outwards to the outermost rows, as far as is cheap."""
    room = GENEROUS * (high - low)
    low, high = max(least, low - room), min(most, high + room)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _disc_radius(count: int, view: _View) -> float:
    """Return the radius of a row in pixels; 0 where rows are single pixels."""
    radius = DISC * float(view.width * view.height / max(count, 1)) ** 0.5
    return min(max(radius, DISC_RADII[0]), DISC_RADII[1]) if radius >= DISC_LEAST else 0.0


def _paint(embedding: Any, labels: Any, view: _View, radius: float) -> tuple[Floats, int]:
    """Return each pixel's coverage, then its red, green and blue, and the number of rows in view.

    Colours add up as squares, close to how light mixes; the layers are whole numbers, exact in any order.
    """
    layers = np.zeros((1 if labels is None else 4, view.height * view.width))
    palette = np.array([*CLASSES, UNLABELLED], dtype=np.float64) ** 2
    seen = 0
    for rows, known, points in _points(embedding):
        x, y = view.pixels(points.astype(np.float64))
        inside = (x >= 0) & (x < view.width) & (y >= 0) & (y < view.height)
        seen += int(inside.sum())
        colours = None
        if labels is not None:
            classes = np.asarray(labels[rows])[known][inside].astype(np.int64)
            colours = palette[np.where(classes < 0, len(CLASSES), classes % len(CLASSES))]
        for pixel, parts in _stamps(x[inside], y[inside], view, radius):
            # In place: a count of all pixels for each of a disc's made few rows slow.
            np.add.at(layers[0], pixel, parts)
            for c in range(len(layers) - 1):
                assert colours is not None
                np.add.at(layers[c + 1], pixel, parts * colours[:, c])
    layers[1:] = np.sqrt(layers[1:] / np.maximum(layers[0], 1))
    layers[0] /= PARTS
    return layers.reshape(-1, view.height, view.width), seen


def _stamps(x: Floats, y: Floats, view: _View, radius: float) -> Iterator[tuple[NDArray[np.int64], Floats]]:
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


def _shade(layers: Floats, radius: float) -> Floats:
    """Return the (height, width, 3) colours, 0 to 255, of painted layers."""
    painted = layers[0] > 0
    cover = layers[0][painted]
    level = _level(_blur(layers[0], round(3 * radius))[painted])[:, None]
    ground = np.array(BACKGROUND, dtype=np.float64)
    if len(layers) == 1:
        colour, strength = _density_colour(level[:, 0]), np.ones(1)
    else:
        # Classes need their hue, so density may only dim it: little for discs, more for a cloud.
        colour, strength = layers[1:, painted].T, (0.75 if radius else 0.4) + level
    alpha: Floats = np.minimum(cover, 1)[:, None] * np.minimum(strength, 1)
    rgb = np.tile(ground, (*painted.shape, 1))
    rgb[painted] = ground + alpha * (colour - ground)
    return rgb


def _level(values: Floats) -> Floats:
    """Return 0 to 1 for densities: half by rank, which shows all structure, half by logarithm."""
    if not len(values) or values.max() == values.min():
        return np.zeros(len(values))
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    share = np.cumsum(counts) / len(values)
    logarithm = np.log(distinct / distinct[0]) / np.log(distinct[-1] / distinct[0])
    level: Floats = ((share - share[0]) / (1 - share[0]) + logarithm)[place] / 2
    return level


def _density_colour(level: Floats) -> Floats:
    """Return (..., 3) colours of levels in [0, 1]."""
    anchors = np.array(DENSITY, dtype=np.float64)
    return np.stack([np.interp(level, np.linspace(0, 1, len(anchors)), a) for a in anchors.T], axis=-1)


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


def _histogram(layers: Floats) -> Floats:
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
        colour = _density_colour(np.clip(0.2 + 0.8 * above / height, 0, 1) + 0 * alpha)
    else:
        colour = (smooth[1:, 0] / np.maximum(smooth[0, 0], 1e-300)).T
    ground = np.array(BACKGROUND, dtype=np.float64)
    return ground + alpha[:, :, None] * (colour - ground)
