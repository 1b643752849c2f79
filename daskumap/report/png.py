"""PNG files, with NumPy and zlib alone."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# How a PNG file calls three and four channels.
COLOUR_TYPES = {3: 2, 4: 6}


class Writable(Protocol):
    """What bytes can be written to."""

    def write(self, content: bytes, /) -> Any:
        """Take the next bytes."""


def write_png(target: str | Path | Writable, rgb: NDArray[np.uint8]) -> None:
    """Write (height, width, 3) uint8, or 4 with opacity, as a PNG file: to a path or what has `write`."""
    height, width, channels = rgb.shape
    if channels not in COLOUR_TYPES or rgb.dtype != np.uint8:
        raise ValueError(f"rgb must be (height, width, 3 or 4) uint8, got {rgb.shape} {rgb.dtype}")
    # A line is its filter, 0 for none, and its bytes.
    lines = np.zeros((height, 1 + channels * width), dtype=np.uint8)
    lines[:, 1:] = rgb.reshape(height, -1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    content += chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)) + chunk(b"IEND", b"")
    if isinstance(target, str | Path):
        Path(target).write_bytes(content)
    else:
        target.write(content)
