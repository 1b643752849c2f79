"""Pictures: the file decodes, and shows what it should."""

import io
import struct
import zlib

import numpy as np
import pytest
import zarr

from daskumap.report import window
from daskumap.report.colours import CLASSES
from daskumap.report.picture import DARK, embedding_png
from daskumap.report.png import write_png

BACKGROUND = DARK.ground


def decode(content):
    """Read a PNG file of 8-bit RGB without line filters, checking every checksum."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def draw(embedding, labels=None, size=200):
    stream = io.BytesIO()
    info = embedding_png(embedding, stream, labels, size)
    rgb = decode(stream.getvalue())
    assert rgb.shape == (info.height, info.width, 3)
    assert len(info.limits) == min(2, embedding.shape[1])
    return rgb, info


def painted(rgb):
    return (rgb != BACKGROUND).any(axis=2)


def place(info, x, y=None):
    """Return the (line, column) of a point."""
    (left, right) = info.limits[0]
    column = int((x - left) / (right - left) * info.width)
    if y is None:
        return info.height - 3 - info.height // 25, column
    (low, high) = info.limits[1]
    return int((high - y) / (high - low) * info.height), column


def blob(n=3000, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)


def test_write_png_round_trip(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    write_png(tmp_path / "x.png", rgb)
    np.testing.assert_array_equal(decode((tmp_path / "x.png").read_bytes()), rgb)


@pytest.mark.parametrize("rgb", [np.zeros((2, 2, 5), np.uint8), np.zeros((2, 2, 3))])
def test_write_png_refuses(rgb):
    with pytest.raises(ValueError, match="must be"):
        write_png(io.BytesIO(), rgb)


@pytest.mark.parametrize("n", [3, 3000, 20_000])  # discs, small ones, single pixels
@pytest.mark.parametrize("labelled", [False, True])
def test_rows_are_where_they_should_be(n, labelled):
    points = np.concatenate([blob(n) * 0.01 + (0, 5), blob(n, 1) * 0.01 + (10, 0)])
    rgb, info = draw(points, np.repeat([0, 1], n) if labelled else None)
    assert (info.rows, info.outside, info.missing) == (2 * n, 0, 0)
    seen = painted(rgb)
    assert seen[place(info, *points[0])]
    assert seen[place(info, *points[-1])]
    # Up is up, and the other two corners are empty.
    assert not seen[place(info, 10, 5)]
    assert not seen[place(info, 0, 0)]


def test_both_axes_have_one_scale():
    _, info = draw(blob() * (8, 1))
    widths = [high - low for low, high in info.limits]
    assert widths[0] / info.width == pytest.approx(widths[1] / info.height)
    assert (info.width, info.height) == (200, 100)


def test_colours_of_classes():
    points = np.repeat(np.float32([[0, 0], [10, 0], [0, 10], [10, 10]]), 5, axis=0)
    rgb, info = draw(points, np.repeat([0, 1, len(CLASSES), -5], 5))
    colours = [rgb[place(info, x, y)].astype(int) for x, y in [(0, 0), (10, 0), (0, 10), (10, 10)]]
    assert colours[0].argmax() == 2
    assert colours[1].argmax() == 0
    np.testing.assert_array_equal(colours[2], colours[0])
    assert np.ptp(colours[3]) < 20


def test_classes_in_one_pixel_mix():
    points = np.repeat(np.float32([[0, 0], [10, 0], [10, 10]]), 40, axis=0)
    alone, info = draw(points, np.full(120, 0))
    mixed, _ = draw(points, np.tile([0, 0, 0, 1], 30))
    other, _ = draw(points, np.full(120, 1))
    at = place(info, 0, 0)
    a, m, b = (rgb[at].astype(float) ** 2 for rgb in (alone, mixed, other))
    np.testing.assert_allclose(m, 0.75 * a + 0.25 * b, rtol=0.03)


def test_missing_rows_are_skipped():
    points = blob()
    holes = points.copy()
    holes[::7, 0] = np.nan
    holes[3] = np.inf
    rgb, info = draw(holes)
    kept = np.isfinite(holes).all(axis=1)
    assert info.missing == (~kept).sum()
    np.testing.assert_array_equal(rgb, draw(points[kept])[0])


def test_labels_follow_their_rows_past_missing_ones():
    points = np.repeat(np.float32([[0, 0], [10, 0]]), 50, axis=0)
    labels = np.repeat([0, 1], 50)
    holes = np.insert(points, 20, np.nan, axis=0)
    np.testing.assert_array_equal(draw(holes, np.insert(labels, 20, 1))[0], draw(points, labels)[0])


@pytest.mark.parametrize("n", [100, 20_000])
def test_an_outlier_does_not_shrink_the_map(n):
    points = blob(n)
    usual = painted(draw(points)[0]).sum()
    points[n // 2] = [1e6, -1e9]
    rgb, info = draw(points)
    assert info.outside == 1
    assert painted(rgb).sum() > 0.8 * usual


def test_an_ordinary_map_is_shown_whole():
    points = np.random.default_rng(0).uniform(size=(5000, 2))
    assert draw(points)[1].outside == 0


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("d", [1, 2])
def test_degenerate_maps(n, d):
    rgb, info = draw(np.ones((n, d)), np.zeros(n, int))
    assert info.rows == n
    assert painted(rgb).any() == (n > 0)
    rgb, info = draw(np.full((n, d), np.nan))
    assert info.missing == n
    assert not painted(rgb).any()


def test_other_columns_are_left_out():
    points = np.random.default_rng(2).normal(size=(500, 5))
    np.testing.assert_array_equal(draw(points)[0], draw(points[:, :2])[0])


@pytest.mark.parametrize("labelled", [False, True])
def test_one_column_is_a_histogram(labelled):
    points = np.concatenate([np.zeros(300), np.full(100, 10.0)])[:, None]
    rgb, info = draw(points, np.repeat([0, 1], [300, 100]) if labelled else None)
    assert (info.width, info.height) == (200, 66)
    seen = painted(rgb)
    heights = [seen[:, place(info, x)[1]].sum() for x in (0, 5, 10)]
    assert heights[0] > 2.5 * heights[2] > 0
    assert heights[1] == 0
    assert seen[place(info, 0)]
    if labelled:
        assert rgb[place(info, 0)].argmax() == 2
        assert rgb[place(info, 10)].argmax() == 0


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("block", [1, 67, 5000])
def test_bytes_do_not_depend_on_blocks_or_storage(labelled, block, monkeypatch, tmp_path):
    points, labels = blob(150), np.arange(150) % 40 if labelled else None
    stream = io.BytesIO()
    embedding_png(points, stream, labels, 120)
    monkeypatch.setattr(window, "READ_ROWS", block)
    stored = zarr.create_array(store=str(tmp_path / "e.zarr"), data=points, chunks=(100, 1))
    embedding_png(stored, tmp_path / "e.png", labels, 120)
    assert (tmp_path / "e.png").read_bytes() == stream.getvalue()


def test_limits_are_percentiles():
    points = np.random.default_rng(3).standard_t(1.2, size=(50_001, 2)).astype(np.float32)
    limits, count = window.find_limits(points)
    assert count == 50_001
    for j in range(2):
        low, high = np.quantile(points[:, j], window.ROBUST, method="nearest")
        room = window.GENEROUS * (high - low)
        np.testing.assert_allclose(limits[j], (low - room, high + room), rtol=1e-2)


def test_sortable_keys():
    values = np.float32([-np.inf, -3e38, -1, -1e-40, 0, 1e-40, 1, 1.0000001, 3e38, np.inf])
    keys = window._sortable(values)
    assert (np.diff(keys) > 0).all()
    np.testing.assert_array_equal(window._unsorted(keys), values)
