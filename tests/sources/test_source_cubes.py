"""Cubes: arrays with named dimensions, by path and as objects of xarray's, against xarray itself."""

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.errors import SourceError
from daskumap.sources.cubes.coordinates import decode_dates
from daskumap.sources.cubes.grid import boxes, windows
from daskumap.sources.cubes.open import open_cube

xr = pytest.importorskip("xarray")


@pytest.fixture(scope="module")
def cube():
    """Two variables of time x lat x lon and one of lat x lon; a sea without values, and some gaps."""
    rng = np.random.default_rng(0)
    shape = (7, 40, 61)
    sea = np.zeros(shape[1:], bool)
    sea[10:25, 5:40] = True
    t2m = np.where(sea, np.nan, rng.normal(280, 10, shape)).astype(np.float32)
    t2m[3, 30, 7] = np.nan  # at one time only
    rain = np.where(sea, np.nan, rng.random(shape)).astype(np.float64)
    return xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), t2m, {"units": "K"}),
            "rain": (("lat", "time", "lon"), rain.transpose(1, 0, 2)),
            "height": (("lat", "lon"), rng.random(shape[1:]).astype(np.float32)),
        },
        coords={
            "time": np.datetime64("2020-01-01") + np.arange(7) * np.timedelta64(1, "D"),
            "lat": np.linspace(60, 20, 40),
            "lon": np.linspace(0, 90, 61),
            "region": (("lat", "lon"), rng.integers(0, 5, shape[1:])),
        },
    )


def stacked(cube, names):
    """Return what xarray makes of it: rows by lat and lon, columns by variable and time."""
    parts = []
    for name in names:
        rows = cube[name].stack(row=("lat", "lon")).transpose("row", ...)
        parts.append(np.asarray(rows).reshape(rows.sizes["row"], -1).astype(np.float64))
    return np.concatenate(parts, axis=1)


def whole(rows):
    return rows[~np.isnan(rows).any(axis=1)]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("chunks", [(7, 11, 13), (2, 40, 61), (1, 9, 21)])
def test_a_cube_by_path_is_what_xarray_stacks(cube, tmp_path, zarr_format, chunks):
    path = tmp_path / "cube.zarr"
    sizes = dict(zip(("time", "lat", "lon"), chunks, strict=True))
    cube.chunk(sizes).to_zarr(path, zarr_format=zarr_format)
    source = open_cube(zarr.open_group(path, mode="r"), feature_dim="time")
    names = source.spec()["options"]["variables"]
    assert sorted(names) == ["height", "rain", "t2m"]
    expected = whole(stacked(cube, names))
    assert source.shape == expected.shape == (40 * 61 - 15 * 35 - 1, 15)
    np.testing.assert_array_equal(source.read_stored(0, len(expected)), expected)
    for start, stop in ((0, 1), (700, 1111), (len(expected) - 3, len(expected)), (5, 5)):
        np.testing.assert_array_equal(source.read(start, stop), expected[start:stop].astype(np.float32))
    np.testing.assert_array_equal(np.concatenate(list(source.blocks())), expected)


@pytest.mark.parametrize("kind", ["memory", "dask", "lazy", "tree"])
def test_objects_of_xarray(cube, tmp_path, kind):
    names = ["t2m", "rain"]
    if kind == "dask":
        pytest.importorskip("dask")
        data = cube.chunk({"time": 3, "lat": 7})
    elif kind == "lazy":
        cube.to_zarr(tmp_path / "cube.zarr")
        data = xr.open_zarr(tmp_path / "cube.zarr", chunks=None)
    else:
        data = cube if kind == "memory" else xr.DataTree.from_dict({"/": xr.Dataset(), "/air": cube})
    if kind == "tree":
        names = ["air/t2m", "air/rain"]
    source = open_cube(data, variables=names, feature_dim="time")
    expected = whole(stacked(cube, ["t2m", "rain"]))
    np.testing.assert_array_equal(source.read_stored(0, source.shape[0]), expected)
    assert source.in_place == (kind in ("memory", "tree"))
    assert source.spec() is None


def test_variables_as_features(cube):
    source = open_cube(cube, variables=["t2m", "rain"])
    expected = whole(
        np.stack([cube[n].transpose("time", "lat", "lon").values.ravel() for n in ("t2m", "rain")], 1)
    )
    np.testing.assert_array_equal(source.read_stored(0, source.shape[0]), expected)


def test_samples_in_the_order_asked_for(cube):
    source = open_cube(cube["height"].rename("h"), sample_dims=("lon", "lat"))
    np.testing.assert_array_equal(
        source.read(0, 40 * 61)[:, 0], cube["height"].transpose("lon", "lat").values.ravel()
    )


def test_packed_values_are_unpacked_and_their_gaps_left_out(cube, tmp_path):
    encoding = {"t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}}
    for zarr_format in (2, 3):
        path = tmp_path / f"packed{zarr_format}.zarr"
        cube[["t2m"]].to_zarr(path, encoding=encoding, zarr_format=zarr_format)
        source = open_cube(zarr.open_group(path, mode="r"), feature_dim="time")
        expected = whole(stacked(xr.open_zarr(path).load(), ["t2m"]))
        np.testing.assert_allclose(source.read_stored(0, source.shape[0]), expected, rtol=1e-6)
        assert source.shape[0] == 40 * 61 - 15 * 35 - 1


def test_counts_go_with_the_spec_and_nothing_is_read_to_count_again(cube, tmp_path, monkeypatch):
    cube.to_zarr(tmp_path / "cube.zarr")
    group = zarr.open_group(tmp_path / "cube.zarr", mode="r")
    first = open_cube(group, variables=["t2m"], feature_dim="time")
    spec = first.spec()
    monkeypatch.setattr("daskumap.sources.cubes.source.count_whole", None)
    again = open_cube(group, **spec["options"])
    assert again.identity() == first.identity()
    assert again.digest() == first.digest()


def test_chunks_that_are_not_stored_are_seas(cube, tmp_path):
    data = cube[["t2m"]].where(cube.lat > 30)
    data.chunk(lat=10, lon=30).to_zarr(tmp_path / "cube.zarr", write_empty_chunks=False)
    source = open_cube(zarr.open_group(tmp_path / "cube.zarr", mode="r"), feature_dim="time")
    assert source.count_missing() == 0
    zeros = xr.Dataset({"a": (("x", "y", "z"), np.zeros((4, 5, 6), np.int32))})
    zeros.chunk(x=2).to_zarr(tmp_path / "zeros.zarr", write_empty_chunks=False)
    assert open_cube(zarr.open_group(tmp_path / "zeros.zarr", mode="r"), feature_dim="z").count_missing() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"the dimensions time \(7\), lat \(40\), lon \(61\).*feature_dim='time'"),
        ({"feature_dim": "tim"}, r"feature_dim names 'tim'; the dimensions are time \(7\)"),
        ({"feature_dim": "time", "sample_dims": ["time"]}, "'time' is among sample_dims and feature_dim"),
        ({"feature_dim": ["time", "lat", "lon"]}, "names all dimensions"),
        ({"feature_dim": "lon"}, "Variable 'height' .*lacks time of the sample dimensions"),
        ({"sample_dims": "lat", "feature_dim": "time"}, "'lon', which is neither"),
        ({"variables": ["snow"], "feature_dim": "time"}, "no variable 'snow'; it has t2m, rain, height"),
        ({"variables": ["time"], "feature_dim": "time"}, r"'time' holds datetime64.*allowed are float16"),
        ({"variables": []}, "must name each variable once"),
    ],
)
def test_options_that_do_not_fit(cube, options, message):
    with pytest.raises(SourceError, match=message):
        open_cube(cube, **options)


def test_rows_that_miss_values_are_left_out_on_request_only():
    matrix = xr.DataArray(np.arange(12.0).reshape(4, 3), dims=("station", "month"), name="t")
    assert open_cube(matrix).shape == (4, 3)
    gaps = matrix.where(matrix != 4)
    with pytest.raises(SourceError, match=r"1 of 4 rows .* miss a value.*sample_dims='station'"):
        open_cube(gaps)
    assert open_cube(gaps, sample_dims="station").shape == (3, 3)
    with pytest.raises(SourceError, match="Each of the 4 points"):
        open_cube(matrix * np.nan, sample_dims="station")


def test_boxes_and_windows_cover_a_range_in_order():
    rng = np.random.default_rng(1)
    for _ in range(200):
        shape = tuple(rng.integers(1, 6, rng.integers(1, 5)).tolist())
        points = np.arange(np.prod(shape)).reshape(shape)
        start, stop = sorted(rng.integers(0, points.size + 1, 2).tolist())
        found = [points[box].ravel() for box in boxes(shape, start, stop)]
        assert np.concatenate([*found, np.array([], int)]).tolist() == list(range(start, stop))
        chunks = tuple(rng.integers(1, 4, len(shape)).tolist())
        for box in boxes(shape, start, stop):
            seen = np.zeros(shape, int)
            for window in windows(box, chunks, 7):
                seen[window] += 1
            assert (seen[box] == 1).all()
            assert seen.sum() == seen[box].size


def test_rows_are_called_by_their_coordinates(cube, tmp_path):
    cube.to_zarr(tmp_path / "cube.zarr")
    rows = cube[["t2m"]].stack(row=("lat", "lon")).dropna("row")
    for data in (cube, tmp_path / "cube.zarr"):
        source = daskumap.source(data, variables=["t2m"], feature_dim="time")
        assert list(source.labels) == ["lat", "lon", "region"]
        for name, column in source.labels.items():
            np.testing.assert_array_equal(column[:], rows[name].values)
            np.testing.assert_array_equal(column[700:1111], rows[name].values[700:1111])
    by_time = daskumap.source(tmp_path / "cube.zarr", variables="t2m", sample_dims=["lat", "time"])
    assert by_time.labels["time"].dtype.startswith("datetime64")
    with_days = cube["t2m"].stack(row=("lat", "time")).dropna("row")
    np.testing.assert_array_equal(by_time.labels["time"][:], with_days.time.values)


def test_a_dimension_without_coordinate_has_numbers():
    source = daskumap.source(xr.DataArray(np.ones((4, 5, 3)), dims=("y", "x", "t")), feature_dim="t")
    np.testing.assert_array_equal(source.labels["x"][:], np.tile(np.arange(5), 4))


@pytest.mark.parametrize(
    ("units", "calendar"),
    [
        ("days since 2000-02-27", "standard"),
        ("hours since 1900-01-01 00:00:00.0", "proleptic_gregorian"),
        ("seconds since 1970-01-01T12:30", "standard"),
        ("days since 2000-02-27", "noleap"),
    ],
)
def test_dates_are_those_of_xarray(units, calendar):
    numbers = np.array([0, 1, 2.5, 700])
    made = xr.Dataset({"time": ("time", numbers, {"units": units, "calendar": calendar})})
    ours = decode_dates(numbers, made.time.attrs)
    if calendar == "noleap":
        np.testing.assert_array_equal(ours, numbers)
    else:
        np.testing.assert_array_equal(ours, xr.decode_cf(made).time.values.astype("datetime64[ms]"))


def test_a_matrix_beside_lines_is_the_one_that_is_meant():
    matrix = xr.Dataset({"x": (("a", "b"), np.ones((4, 3))), "id": ("a", np.arange(4))})
    assert daskumap.source(matrix).shape == (4, 3)


def test_what_xarray_did_not_unpack_is_refused():
    raw = xr.DataArray(np.ones((4, 3)), dims=("a", "b"), attrs={"scale_factor": 0.1})
    with pytest.raises(SourceError, match=r"attribute scale_factor\. Unpack it with xarray\.decode_cf"):
        daskumap.source(raw)


def test_objects_that_leave_a_choice(cube):
    with pytest.raises(SourceError, match=r"has no data variable with dimensions; it has n\. Name"):
        daskumap.source(xr.Dataset({"n": 1}))
    tree = xr.DataTree.from_dict({"/a": cube[["t2m"]], "/b": cube[["rain"]]})
    with pytest.raises(SourceError, match=r"several groups: a/t2m, b/rain\. Choose some"):
        daskumap.source(tree, feature_dim="time")
    with pytest.raises(SourceError, match=r"DataArray, 'rain'; leave variables out"):
        daskumap.source(cube.rain, variables="t2m", feature_dim="time")


def test_a_tree_by_path(cube, tmp_path):
    """Coordinates lie above the variables, or beside them."""
    tree = xr.DataTree.from_dict({"/": cube[["region"]], "/air": cube[["t2m"]]})
    tree.to_zarr(tmp_path / "tree.zarr")
    source = daskumap.source(tmp_path / "tree.zarr", variables="air/t2m", feature_dim="time")
    expected = daskumap.source(cube, variables="t2m", feature_dim="time")
    assert source.digest() == expected.digest()
    assert list(source.labels) == ["lat", "lon", "region"]
