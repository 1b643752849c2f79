"""Palettes: of densities, of values, and of up to 256 classes, which colour-blind people tell apart too."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Palette = NDArray[np.uint8]

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

# The same for a light ground: pale lilac to indigo.
DENSITY_ON_LIGHT = (
    (224, 214, 236),
    (204, 186, 228),
    (186, 156, 218),
    (170, 124, 206),
    (154, 92, 190),
    (134, 62, 172),
    (110, 38, 150),
    (84, 24, 126),
    (58, 16, 100),
    (34, 10, 72),
)

# Okabe and Ito (2008), without black: eight that no colour-blind person mixes up, the grey for the eighth.
OKABE_ITO = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (204, 121, 167),
    (240, 228, 66),
    (153, 153, 153),
)
# Cividis at even steps (Nunez, Anderton, Renslow 2018): values, for all eyes and in grey.
CIVIDIS = (
    (0, 34, 78),
    (0, 53, 112),
    (54, 71, 108),
    (85, 89, 109),
    (112, 109, 114),
    (138, 130, 120),
    (168, 152, 116),
    (200, 176, 104),
    (232, 202, 82),
    (254, 232, 56),
)
MOST_CLASSES = 256
# Levels of each channel among which more colours are chosen; how far they keep from the ground, in OKLab.
LEVELS, FROM_GROUND = 12, 0.22
# Lightness of these, in OKLab: neither black nor white, which look like no class.
LIGHTNESS = (0.35, 0.9)
# Machado, Oliveira, Fernandes (2009), severity 1: how deuteranopes and protanopes see linear light.
BLIND = (
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
)
# Ottosson (2020): linear sRGB to the cones, and their cube roots to OKLab.
TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def ramp(anchors: tuple[tuple[int, int, int], ...], level: Floats) -> Floats:
    """Return (..., 3) colours, 0 to 255, of levels in [0, 1] between some anchors."""
    columns = np.array(anchors, dtype=np.float64).T
    return np.stack([np.interp(level, np.linspace(0, 1, len(anchors)), c) for c in columns], axis=-1)


@lru_cache
def of_classes(count: int, ground: tuple[int, int, int]) -> Palette:
    """Return (count, 3) colours of classes: Okabe and Ito's eight, each next one farthest from all before.

    Far in OKLab, as seen by people with and without red or green cones: the least of the three counts. The
    first colours of a longer palette are those of a shorter one.

    Parameters
    ----------
    count
        0 to 256.
    ground
        Red, green and blue of what they stand on.
    """
    if not 0 <= count <= MOST_CLASSES:
        raise ValueError(f"count is {count}; a palette has 0 to {MOST_CLASSES} colours.")
    level = np.rint(np.linspace(0, 255, LEVELS))
    every = np.stack(np.meshgrid(level, level, level, indexing="ij"), axis=-1).reshape(-1, 3)
    seen, back = _as_seen(every), _as_seen(np.array([ground], np.float64))
    lightness = seen[0, :, 0]
    usable = (_apart(seen, back) > FROM_GROUND) & (lightness > LIGHTNESS[0]) & (lightness < LIGHTNESS[1])
    every, seen = every[usable], seen[:, usable]
    chosen = [np.array(colour, np.float64) for colour in OKABE_ITO[:count]]
    room = np.full(len(every), np.inf)
    for colour in chosen:
        room = np.minimum(room, _apart(seen, _as_seen(colour[None])))
    while len(chosen) < count:
        best = int(room.argmax())
        chosen.append(every[best])
        room = np.minimum(room, _apart(seen, seen[:, best : best + 1]))
    return np.array(chosen, np.uint8).reshape(-1, 3)


def _as_seen(colours: Floats) -> Floats:
    """Return (3, n, 3) OKLab of (n, 3) colours: as most see them, and without green or red cones."""
    share = colours / 255
    light = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    eyes = [light, *(np.clip(light @ np.array(blind).T, 0, 1) for blind in BLIND)]
    return np.stack([np.cbrt(eye @ np.array(TO_CONES).T) @ np.array(TO_LAB).T for eye in eyes])


def _apart(seen: Floats, one: Floats) -> Floats:
    """Return how far each of (3, n, 3) colours is from one, for the eyes that tell them apart the least."""
    apart: Floats = np.sqrt(((seen - one) ** 2).sum(axis=2)).min(axis=0)
    return apart
