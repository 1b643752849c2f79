"""Variables of processes whose kernels check bounds."""

from pathlib import Path

from daskumap import kernels

# A cache of their own, or code compiled without checks would be loaded; it stays from run to run, as that of
# the kernels does. What runs once is not optimized: most of its time is the compiler's.
CHECKED = {
    "NUMBA_BOUNDSCHECK": "1",
    "NUMBA_OPT": "0",
    "NUMBA_CACHE_DIR": str(Path(kernels.__file__).parent / "__pycache__" / "checked"),
}
