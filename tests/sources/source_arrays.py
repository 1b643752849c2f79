"""What the tests of sources share: a small array, and how it is stored."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import daskumap

DTYPES = ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"]
X = np.arange(60, dtype="f4").reshape(12, 5)
# What a script needs to measure its own peak.
MEASURE = """
import sys
import numpy as np
from daskumap.engine.process import give_back
from daskumap.sources.find import find
def status(key):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(key))
def reset():
    open("/proc/self/clear_refs", "w").write("5")
    return status("VmRSS")
give_back()  # as every engine does
"""


def store(where, data=X, **options):
    """Write `data` as a Zarr array and return it."""
    options = {"chunks": (4, 5), **options}
    array = zarr.create_array(where, shape=data.shape, dtype=data.dtype, **options)
    array[...] = data
    return array


def python(code, *arguments):
    """Run a script in a fresh process and return what it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    root = Path(daskumap.__file__).parents[1]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout


def measure(code, *arguments):
    """Run a script that measures itself and return the numbers it prints."""
    try:
        return [int(word) for word in python(MEASURE + code, *arguments).split()]
    except subprocess.CalledProcessError as error:
        if "/proc/self" not in error.stderr:
            raise
        pytest.skip(f"no /proc to measure with: {error.stderr[-200:]}")
