"""Data sets: the same rows in any chunks, and the shape of trouble that they are for."""

import gzip

import numpy as np
import pytest
import zarr

from daskumap.errors import DependencyError, ParameterError, SourceError
from daskumap.kernels.quality.neighbors import exact_neighbors
from daskumap.testing import datasets

SYNTHETIC = {
    "uneven": lambda: datasets.uneven_clusters(3000, 13, n_clusters=7, seed=3),
    "hubs": lambda: datasets.hub_heavy(3000, 24, hub_degree=1000),
}


@pytest.mark.parametrize("name", SYNTHETIC)
def test_rows_do_not_depend_on_the_range(name):
    data = SYNTHETIC[name]()
    whole, labels = data.rows(), data.labels()
    assert whole.shape == data.shape
    assert whole.dtype == np.float32
    assert labels.dtype == np.int64
    assert np.isfinite(whole).all()
    for start, stop in [(0, 1), (17, 18), (999, 1001), (1234, 3000), (2999, 9999), (5, 5)]:
        np.testing.assert_array_equal(data.rows(start, stop), whole[start:stop])
        np.testing.assert_array_equal(data.labels(start, stop), labels[start:stop])


def test_rows_depend_on_the_seed():
    first, second = (datasets.uneven_clusters(50, 3, seed=seed).rows() for seed in (0, 1))
    assert not np.isclose(first, second).any()


def test_uneven_clusters_are_uneven():
    data = datasets.uneven_clusters(20_000, 16, n_clusters=50)
    rows, labels = data.rows(), data.labels()
    sizes = np.bincount(labels, minlength=50)
    assert sizes.max() > 20 * sizes.min() > 0
    widths = [rows[labels == label].std(axis=0).mean() for label in range(50)]
    assert max(widths) > 5 * min(widths)


def test_a_row_far_out_costs_nothing():
    assert datasets.uneven_clusters(10**10, 4).rows(10**10 - 2, 10**10).shape == (2, 4)


def test_hub_heavy_has_hubs():
    data = datasets.hub_heavy(2800, hub_degree=1400)
    rows = data.rows()
    ids, _ = exact_neighbors(rows, np.arange(len(rows)), 14)
    heads = np.repeat(np.arange(len(rows)), 14)
    pairs = np.concatenate([heads * len(rows) + ids.ravel(), ids.ravel() * len(rows) + heads])
    degrees = np.bincount(np.unique(pairs) // len(rows))
    assert degrees[[0, 1400]].min() > 1050
    assert np.median(degrees) < 40


def test_digits():
    data = datasets.digits()
    assert data.shape == (1797, 64)
    assert data.rows().max() == 16
    assert set(data.labels()) == set(range(10))


@pytest.mark.skipif(not datasets.FASHION_MNIST.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_fashion_mnist():
    data = datasets.fashion_mnist()
    assert data.shape == (70_000, 784)
    assert data.rows(0, 100).max() == 255
    np.testing.assert_array_equal(np.bincount(data.labels()), np.full(10, 7000))
    assert data.labels(0, 1) == 9


def test_fashion_mnist_reads_idx_from_a_folder(tmp_path):
    for part, count in (("train", 3), ("t10k", 2)):
        header = b"\0\0\x08\x03" + np.array([count, 2, 2], ">u4").tobytes()
        pictures = np.arange(count * 4, dtype=np.uint8).tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pictures))
        header = b"\0\0\x08\x01" + np.array([count], ">u4").tobytes()
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + bytes(range(count))))
    data = datasets.fashion_mnist(tmp_path)
    np.testing.assert_array_equal(data.rows(2, 4), [[8, 9, 10, 11], [0, 1, 2, 3]])
    np.testing.assert_array_equal(data.labels(), [0, 1, 2, 0, 1])


def test_fashion_mnist_says_how_to_get_it(tmp_path):
    with pytest.raises(DependencyError, match="apt-get install dataset-fashion-mnist"):
        datasets.fashion_mnist(tmp_path)


def test_fashion_mnist_refuses_other_files(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"nonsense"))
    with pytest.raises(SourceError, match="no IDX file"):
        datasets.fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": 700},
        {"chunks": 700, "zarr_format": 2},
        {"chunks": 100, "shards": 800},
        {"chunks": 100, "shards": 800, "columns_chunk": 5},
        {"chunks": 300, "columns_chunk": 4, "dtype": "float64"},
    ],
)
def test_write_zarr(tmp_path, layout):
    data = SYNTHETIC["uneven"]()
    array = zarr.open_array(data.write_zarr(tmp_path / "x.zarr", **layout), mode="r")
    np.testing.assert_array_equal(array[:], data.rows())
    assert array.chunks == (layout["chunks"], layout.get("columns_chunk", 13))
    assert array.metadata.zarr_format == layout.get("zarr_format", 3)
    assert array.dtype == layout.get("dtype", "float32")
    if "shards" in layout:
        assert array.shards[0] == layout["shards"]


def test_write_zarr_rounds_integers(tmp_path):
    path = datasets.digits().write_zarr(tmp_path / "x.zarr", 500, dtype="uint8")
    np.testing.assert_array_equal(zarr.open_array(path)[:], datasets.digits().rows())


@pytest.mark.parametrize("layout", [{"shards": 150}, {"shards": 200, "zarr_format": 2}])
def test_write_zarr_refuses(tmp_path, layout):
    with pytest.raises(ParameterError, match="multiple of chunks, in format 3"):
        datasets.digits().write_zarr(tmp_path / "x.zarr", 100, **layout)
