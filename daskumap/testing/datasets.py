"""Data sets for tests and benchmarks, whose rows do not depend on the chunks they are made in.

Each synthetic row is a hash of its id: any range can be made alone, in any order, with the same bits.
So 10^9 rows need neither memory nor a download.

>>> data = uneven_clusters(1_000_000_000, 8)
>>> data.rows(999_999_990, 999_999_995).shape
(5, 8)
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from daskumap.errors import DependencyError, ParameterError, SourceError
from daskumap.kernels.random import stream_key, uniform

# Where Debian's package `dataset-fashion-mnist` puts its files.
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Rows and labels that are made on demand.

    Parameters
    ----------
    name
        What to call it in a report.
    shape
        Rows and columns.
    make
        make(start, stop) -> (rows, labels) of the half-open range, (stop - start, D) float32 and
        (stop - start,) int64.
    """

    name: str
    shape: tuple[int, int]
    make: Callable[[int, int], tuple[Rows, Labels]]

    def rows(self, start: int = 0, stop: int | None = None) -> Rows:
        """Return rows start .. stop - 1 as (stop - start, D) float32."""
        return self.make(*self._range(start, stop))[0]

    def labels(self, start: int = 0, stop: int | None = None) -> Labels:
        """Return the class of rows start .. stop - 1 as (stop - start,) int64."""
        return self.make(*self._range(start, stop))[1]

    def _range(self, start: int, stop: int | None) -> tuple[int, int]:
        first, last, _ = slice(start, stop).indices(self.shape[0])
        return first, max(first, last)

    def write_zarr(
        self,
        path: str | Path,
        chunks: int,
        shards: int | None = None,
        zarr_format: int = 3,
        columns_chunk: int | None = None,
        dtype: str = "float32",
    ) -> Path:
        """Write the rows to a Zarr array at `path`, a whole chunk or shard at a time.

        Parameters
        ----------
        chunks
            Rows a chunk.
        shards
            Rows a shard, a multiple of `chunks`; no shards by default. Zarr format 3 only.
        columns_chunk
            Columns a chunk (a shard has them all); all by default.
        dtype
            Integers are rounded to, not truncated.

        Returns
        -------
        Path
            The path.
        """
        import zarr

        n, columns = self.shape
        width = columns_chunk or columns
        if shards is not None and (shards % chunks or zarr_format != 3):
            raise ParameterError(
                f"shards is {shards} with chunks {chunks} and zarr_format {zarr_format}; "
                "it must be a multiple of chunks, in format 3."
            )
        array = zarr.create_array(
            store=str(path),
            shape=self.shape,
            chunks=(chunks, width),
            # A shard holds whole chunks, so its width is rounded up.
            shards=None if shards is None else (shards, -(-columns // width) * width),
            dtype=dtype,
            zarr_format=zarr_format,  # type: ignore[arg-type]
            overwrite=True,
        )
        step = shards or chunks
        for start in range(0, n, step):
            stop = min(n, start + step)
            block = self.rows(start, stop)
            array[start:stop] = np.rint(block) if np.issubdtype(array.dtype, np.integer) else block
        return Path(path)


def _uniforms(seed: int, index: int, start: int, stop: int, columns: int) -> NDArray[np.float64]:
    """Return (stop - start, columns) float64 in (0, 1): the numbers of the rows, the same in every range."""
    # As uint64: a plain integer of 64 bits does not fit numba's default.
    key: Any = np.uint64(stream_key(seed, "sample", index))
    numbers: NDArray[np.float64] = uniform(key, start, stop - start, columns)
    # The normal quantile of 0 is minus infinity.
    return np.maximum(numbers, 2.0**-54)


def _normals(seed: int, index: int, start: int, stop: int, columns: int) -> NDArray[np.float64]:
    """Return standard normals by inversion: `ndtri` is scalar code, so no SIMD tail can change a bit."""
    normals: NDArray[np.float64] = ndtri(_uniforms(seed, index, start, stop, columns))
    return normals


def uneven_clusters(
    n: int = 100_000, d: int = 64, n_clusters: int = 50, seed: int = 0, by_class: bool = False
) -> Dataset:
    """Return Gaussian clusters of very uneven sizes and scales; the label is the cluster.

    Sizes follow Zipf's law, so the first of 50 clusters holds 22 % of the rows and the last 0.4 %. Scales are
    log-normal (half a decade from the 16th to the 84th percentile). A cluster is wide in about eight columns
    and ever narrower in the others, as real data are, so that its neighbours can be found.

    Parameters
    ----------
    n, d
        Rows and columns.
    by_class
        Whether the rows come cluster after cluster, instead of in no order.
    """
    shares = 1.0 / np.arange(1, n_clusters + 1)
    edges = np.cumsum(shares / shares.sum())
    # The last edge is rounded; a row beyond it would have no cluster.
    edges[-1] = 1.0
    centres = 4.0 * _normals(seed, 0, 0, n_clusters, d)
    scales = np.exp(0.58 * _normals(seed, 1, 0, n_clusters, 1))
    # Each cluster has its own order of the columns, from wide to narrow.
    spread = 1.0 / (1.0 + np.argsort(_uniforms(seed, 2, 0, n_clusters, d), axis=1) / 8.0)

    def make(start: int, stop: int) -> tuple[Rows, Labels]:
        ids = np.arange(start, stop)
        place = (ids + 0.5) / n if by_class else _uniforms(seed, 3, start, stop, 1)[:, 0]
        cluster = np.searchsorted(edges, place)
        noise = _normals(seed, 4, start, stop, d) * spread[cluster] * scales[cluster]
        return (centres[cluster] + noise).astype(np.float32), cluster.astype(np.int64)

    return Dataset("uneven", (n, d), make)


def hub_heavy(n: int = 40_000, d: int = 32, hub_degree: int = 3_333, seed: int = 0) -> Dataset:
    """Return shells whose centre is a near neighbour of each of their rows; the label is the shell.

    In 32 dimensions random points of a unit shell are about 1.4 apart, so the centre, at 1, is among the 14
    nearest of 94 % of them: in the symmetrised graph it has a degree of 3,113 to 3,164 (measured, 12 shells)
    where the median is 16. A layout that adds up the gradients of all edges of such a hub throws it out.
    Noise in the radius makes the shells thick. More columns make harder hubs, and harder neighbours.

    Parameters
    ----------
    n, d
        Rows and columns.
    hub_degree
        Rows of a shell; the first of them is its centre. The last shell may be smaller.
    """
    centres = 1.5 * _normals(seed, 5, 0, -(-n // hub_degree), d)

    def make(start: int, stop: int) -> tuple[Rows, Labels]:
        ids = np.arange(start, stop)
        shell = ids // hub_degree
        direction = _normals(seed, 6, start, stop, d)
        squares = np.zeros(stop - start)
        # Column by column: a sum along rows may be reordered with the shape of the block.
        for j in range(d):
            squares += direction[:, j] * direction[:, j]
        radius = 1.0 + 0.05 * _normals(seed, 7, start, stop, 1)[:, 0]
        radius[ids % hub_degree == 0] = 0.0
        rows = centres[shell] + direction * (radius / np.sqrt(squares))[:, None]
        return rows.astype(np.float32), shell.astype(np.int64)

    return Dataset("hub_heavy", (n, d), make)


def in_memory(name: str, rows: NDArray[Any], labels: NDArray[Any]) -> Dataset:
    """Return a data set of arrays that are there: (n, D) rows, taken as float32, and (n,) class numbers."""

    def make(start: int, stop: int) -> tuple[Rows, Labels]:
        return rows[start:stop].astype(np.float32), labels[start:stop].astype(np.int64)

    return Dataset(name, (rows.shape[0], rows.shape[1]), make)


@cache
def digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, 0 to 16; the label is the digit."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return in_memory("digits", bunch.data, bunch.target)


def fashion_mnist(path: str | Path | None = None) -> Dataset:
    """Return the 70,000 pictures of clothes, 28 x 28 pixels of 0 to 255, training rows first; ten classes.

    Parameters
    ----------
    path
        Folder of the four IDX files; by default where Debian's package `dataset-fashion-mnist` puts them.

    Raises
    ------
    DependencyError
        If a file is missing.

    References
    ----------
    Xiao, Rasul, Vollgraf (2017), arXiv:1708.07747.
    """
    return _fashion_mnist(Path(path or FASHION_MNIST))


@cache
def _fashion_mnist(folder: Path) -> Dataset:
    parts = ("train", "t10k")
    pictures = np.concatenate([_read_idx(folder / f"{part}-images-idx3-ubyte.gz") for part in parts])
    labels = np.concatenate([_read_idx(folder / f"{part}-labels-idx1-ubyte.gz") for part in parts])
    return in_memory("fashion_mnist", pictures.reshape(len(pictures), -1), labels)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the bytes of one gzipped IDX file in their shape.

    The header: two zeros, the type (8 is uint8), the number of axes, and each length as big-endian uint32.
    """
    if not path.is_file():
        raise DependencyError(
            f"Fashion-MNIST is not installed: no file {path}. "
            "Install it with `apt-get install dataset-fashion-mnist`, or give the folder of its IDX files."
        )
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise SourceError(f"{path} is no IDX file of unsigned bytes: it starts with {content[:4]!r}.")
    axes = content[3]
    shape = tuple(np.frombuffer(content, ">u4", axes, offset=4).tolist())
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
