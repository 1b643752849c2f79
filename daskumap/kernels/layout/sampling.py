"""What an iteration draws at random: the hashes, and which vertices are candidates for repulsion.

Every draw is a hash of (key, iteration, global vertex id, count): any split of the vertices gives the same
draws.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import inlined, kernel

Array = NDArray[Any]

# A pool of 64 already costs no quality; 8,192 entries in 2-D fit in a first-level cache twice over with the
# table's used part, and take 5 % less of an iteration than 65,536, 14 % less in 10-D (measured).
POOL_SIZE = 8_192
# Below it runs of negatives would overlap too often; a small pool simply repeats vertices.
SMALLEST_POOL = 1_024
GOLDEN = np.uint32(0x9E3779B1)  # odd, 2**32 / golden ratio: products spread evenly over the 32 bits
PHASE, DRAW, POOL, LOSS = 1, 2, 3, 4  # what a seed is for


def negative_pool(snapshot: Array, key: int, iteration: int, most: int = POOL_SIZE) -> Array:
    """Draw this iteration's candidates for repulsion from all vertices, with replacement.

    In random order whatever the size: kernels read runs of it, and runs of vertices in cell-major order would
    be each other's neighbours.

    Parameters
    ----------
    snapshot
        (n, d) float32 positions of all vertices when the iteration begins.
    key, iteration
        64-bit key of the run; what it is used for is hashed into it.
    most
        Largest number of candidates.

    Returns
    -------
    pool
        (d, s) float32, contiguous; s = n, but at least 1,024 and at most `most`.
    """
    pool = empty_pool(len(snapshot), snapshot.shape[1], most)
    draw_pool(readonly(snapshot, np.float32), stream_seed(key, POOL, iteration), pool)
    return pool


def empty_pool(n: int, dims: int, most: int = POOL_SIZE) -> Array:
    """Return the room of a pool for so many vertices, of which it holds `most` at most."""
    return np.empty((dims, min(max(n, SMALLEST_POOL), most)), np.float32)


def readonly(array: Array, dtype: Any = None) -> Array:
    """Return a contiguous read-only view: numba compiles for (dtype, layout, writable), and so only once."""
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view


def stream_seed(key: int, purpose: int, iteration: int) -> np.uint32:
    """Hash a 64-bit key, a purpose and an iteration to 32 bits (SplitMix64's finaliser)."""
    x = (int(key) + purpose * 0x9E3779B97F4A7C15 + iteration * 0xD1342543DE82EF95) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return np.uint32((x ^ (x >> 31)) >> 32)


@inlined
def mix(x):  # type: ignore[no-untyped-def]
    """Mix 32 bits (lowbias32, Wellons 2018). Each step is cast: numba would go on in 64 bits, NumPy in 32."""
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@inlined
def vertex_hash(seed, vertex):  # type: ignore[no-untyped-def]
    """Hash a seed and a global vertex id to 32 bits."""
    whole = np.uint64(vertex)
    low, high = np.uint32(whole), np.uint32(whole >> np.uint64(32))
    return mix(np.uint32(mix(np.uint32(seed ^ low)) + high))


@inlined
def below(bits, bound):  # type: ignore[no-untyped-def]
    """Map 32 random bits to [0, bound) by multiplication, which vectorises where a remainder does not."""
    return (np.uint64(bits) * np.uint64(bound)) >> np.uint64(32)


@kernel
def draw_pool(snapshot, seed, pool):  # type: ignore[no-untyped-def]
    """Fill a pool as `negative_pool` does."""
    n = np.uint64(snapshot.shape[0])
    for j in range(pool.shape[1]):
        high = mix(np.uint32(seed + np.uint32(j)))
        # Scaled as one number of 64 bits: 32 alone would favour some vertices by a quarter at n = 10**9.
        low = below(mix(np.uint32(~high)), n)
        at = (np.uint64(high) * n + low) >> np.uint64(32)
        for c in range(snapshot.shape[1]):
            pool[c, j] = snapshot[at, c]
