"""Arrays that NumPy maps from a file: pages that were read are given back to the system.

The system counts each page of a mapping that was touched as memory of the process until the page is given
back. The file's page cache keeps it, so that the next read of it costs no more than a page fault.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from daskumap.sources.base import Array

# A touched page brings its neighbours along. Measured on Linux 6.18, ext4: 64 kB where the file has to be
# read, and up to 2 MB, a large folio, where it is in the page cache.
AROUND = 2 << 20
# np.memmap's modes whose pages all lie in the file.
SHARED = ("r", "r+", "w+")


class Mapping:
    """The mapping of a file under an array."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped
        self._address = np.frombuffer(mapped, np.uint8).ctypes.data

    def touched_bytes(self, array: Array, rows: int) -> int:
        """Return an upper bound of the bytes that are mapped while that many rows are read."""
        down, across = (abs(int(stride)) for stride in array.strides)
        axes = [(down, rows), (across, int(array.shape[1]))]
        (step, inner), (stride, outer) = sorted(axes)
        run = inner * step + 2 * AROUND
        return min(len(self._mapped), outer * min(stride, run) + 2 * AROUND)

    def give_back(self, block: Array) -> None:
        """Take the pages of a block out of the process. Who reads them meanwhile has a page fault."""
        if block.size == 0:  # it has no bounds
            return
        low, high = (bound - self._address for bound in byte_bounds(block))
        low = max(0, low - AROUND) // mmap.PAGESIZE * mmap.PAGESIZE
        self._mapped.madvise(mmap.MADV_DONTNEED, low, min(high + AROUND, len(self._mapped)) - low)


def find_mapping(array: Array) -> Mapping | None:
    """Return the mapping that an array is a view of, if its pages can be given back.

    They cannot where a page may hold what the file does not: np.memmap's mode "c", and other mappings that
    can be written, of which Python does not tell whether they are private. Such an array is the caller's
    memory like any other, and stays in the process as far as it was read.
    """
    shared = False
    held: Any = array
    while held is not None and not isinstance(held, mmap.mmap):
        shared = shared or (isinstance(held, np.memmap) and held.mode in SHARED)
        held = held.obj if isinstance(held, memoryview) else getattr(held, "base", None)
    if held is None or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    return Mapping(held) if shared or memoryview(held).readonly else None
