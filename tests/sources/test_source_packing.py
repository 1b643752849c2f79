"""Values that are packed as netCDF and xarray pack them."""

import base64
import struct

import numpy as np
import pytest
import zarr
from source_arrays import store
from zarr.storage import MemoryStore

import daskumap
from daskumap.errors import RunMismatchError, SourceError
from daskumap.sources.find import find, open_spec

PACKED = np.arange(60, dtype="i2").reshape(12, 5) - 20


def packed(data=PACKED, zarr_format=3, fill_value=0, where=None, **attributes):
    return store(
        where or MemoryStore(), data, zarr_format=zarr_format, fill_value=fill_value, attributes=attributes
    )


def encoded(value):
    """Return a float as xarray writes it among the attributes of the format 3."""
    return base64.standard_b64encode(struct.pack("<d", value)).decode()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["i2", ">i2", "u1", "i4", "f4", "f8"])
def test_scale_and_offset(zarr_format, dtype):
    data = np.abs(PACKED).astype(dtype)
    source = find(packed(data, zarr_format, scale_factor=0.01, add_offset=273.15))
    np.testing.assert_array_equal(source.read(3, 9), (data[3:9].astype("f8") * 0.01 + 273.15).astype("f4"))
    assert source.dtype == np.float64
    assert next(source.blocks()).dtype == np.float64


@pytest.mark.parametrize(
    ("dtype", "attributes", "missing"),
    [
        ("i2", {"_FillValue": 7}, [7]),
        ("i2", {"missing_value": [7, 8.0], "scale_factor": [2]}, [7, 8]),
        ("i2", {"_FillValue": 7, "missing_value": 9, "add_offset": 1.5}, [7, 9]),
        ("f4", {"_FillValue": encoded(7.0)}, [7]),
        ("f8", {"_FillValue": encoded(7.0), "scale_factor": 3}, [7]),
        ("f4", {"_FillValue": "NaN", "missing_value": 7}, [7]),
        ("i2", {"valid_min": 1, "scale_factor": 0.1}, range(-20, 1)),
        ("i2", {"valid_max": 30}, range(31, 60)),
        ("i2", {"valid_range": [0, 30]}, [*range(-20, 0), *range(31, 60)]),
        ("i2", {"valid_range": [0.0, 0.3], "scale_factor": 0.01}, [*range(-20, 0), *range(31, 60)]),
        ("f4", {"valid_range": [0, 30.5]}, [*range(-20, 0), *range(31, 60)]),
    ],
)
def test_missing_values(dtype, attributes, missing):
    data = PACKED.astype(dtype)
    scale = float(np.ravel(attributes.get("scale_factor", 1))[0])
    wanted = data * scale + attributes.get("add_offset", 0)
    wanted[np.isin(data, list(missing))] = np.nan
    source = find(packed(data, **attributes))
    np.testing.assert_array_equal(source.read(0, 12), wanted.astype("f4"))
    np.testing.assert_array_equal(np.concatenate(list(source.blocks())), wanted.astype(source.dtype))


def test_the_fill_of_netcdf():
    data = PACKED.astype("f4")
    data[3, 2] = 9.969209968386869e36
    assert np.isnan(find(packed(data, _FillValue=encoded(data[3, 2]))).read(3, 4)[0, 2])
    assert find(packed(data)).read(3, 4)[0, 2] == data[3, 2]


def test_unsigned_values():
    data = np.array([[-1, -128, 3], [4, 5, 6]], "i1")
    source = find(packed(data, _Unsigned="true", _FillValue=-1, scale_factor=2.0))
    np.testing.assert_array_equal(source.read(0, 2), [[np.nan, 256, 6], [8, 10, 12]])


def test_a_fill_value_of_the_format_2_marks_what_is_missing_where_xarray_wrote_it():
    of_xarray = packed(zarr_format=2, fill_value=7, _ARRAY_DIMENSIONS=["a", "b"])
    assert np.isnan(find(of_xarray).read(0, 12)).sum() == 1
    assert not np.isnan(find(packed(zarr_format=2, fill_value=7)).read(0, 12)).any()
    assert not np.isnan(find(packed(fill_value=7, _ARRAY_DIMENSIONS=["a", "b"])).read(0, 12)).any()


def test_attributes_that_change_no_number():
    source = find(packed(units="K", scale_factor=1.0, add_offset=0, _FillValue="NaN", long_name="x"))
    assert source.dtype == np.int16


@pytest.mark.parametrize(
    "attributes",
    [
        {"scale_factor": "0.1x"},
        {"scale_factor": [1.0, 2.0]},
        {"scale_factor": 0},
        {"add_offset": "NaN"},
        {"_FillValue": {"a": 1}},
        {"missing_value": None},
        {"valid_range": [1]},
        {"valid_range": [2, 1]},
        {"_Unsigned": 3},
        {"compress": "lat lon"},
    ],
)
def test_unknown_packing_is_refused(attributes):
    with pytest.raises(
        SourceError, match=rf"not known: its attribute {next(iter(attributes))} is .*Write the"
    ):
        find(packed(**attributes))


def test_rows_with_missing_values_are_refused_by_number(tmp_path, small, fit):
    data = np.rint(small * 100).astype("i2")
    packed(data, where=tmp_path / "x.zarr", scale_factor=0.01, add_offset=5.0, _FillValue=-999)
    unpacked = fit((data * 0.01 + 5.0), n_epochs=3).embedding[:]
    np.testing.assert_array_equal(fit(tmp_path / "x.zarr", n_epochs=3).embedding[:], unpacked)
    zarr.open_array(tmp_path / "x.zarr", mode="r+")[[7, 300], [3, 1]] = -999
    with pytest.raises(SourceError, match=r"^2 of 400 rows hold NaN.*missing.*first: rows 7, 300\. Remove"):
        fit(tmp_path / "x.zarr", n_epochs=3)


def test_another_packing_is_another_input(tmp_path, small, fit):
    data = np.rint(small * 100).astype("i2")
    array = packed(data, where=tmp_path / "x.zarr", scale_factor=0.01, valid_max=30_000)
    fit(tmp_path / "x.zarr", tmp_path / "run.zarr", n_epochs=3)
    assert open_spec(find(array).spec()).dtype == np.float64
    array.attrs["note"] = "changes no number"
    assert fit(tmp_path / "x.zarr", tmp_path / "run.zarr", n_epochs=3).finished
    zarr.open_array(tmp_path / "x.zarr", mode="r+").attrs["valid_max"] = 31_000
    with pytest.raises(RunMismatchError, match=r"metadata was .* and is now"):
        fit(tmp_path / "x.zarr", tmp_path / "run.zarr", n_epochs=3)


def test_new_rows_in_another_packing(tmp_path, small, fit):
    """Each array is decoded by its own attributes."""
    fitted, new = np.rint(small[:350] * 100).astype("i2"), np.rint(small[350:] * 2000).astype("i4")
    packed(fitted, where=tmp_path / "x.zarr", scale_factor=0.01, add_offset=5.0)
    packed(new, 2, where=tmp_path / "new.zarr", scale_factor=0.0005, add_offset=4.75)
    run, quiet = fit(tmp_path / "x.zarr", n_epochs=3), {"client": "sequential", "progress": False}
    places = run.transform(tmp_path / "new.zarr", **quiet)
    unpacked = run.transform(new * 0.0005 + 4.75, **quiet)
    np.testing.assert_array_equal(places.embedding[:], unpacked.embedding[:])
    np.testing.assert_array_equal(places.fit_distance[:], unpacked.fit_distance[:])
    assert places.fit_distance[:].mean() < 0.9  # they lie among the fitted ones
    of_stored_numbers = run.transform(new.astype("f8"), **quiet).fit_distance[:]
    assert of_stored_numbers.mean() > places.fit_distance[:].mean()


def test_bits_that_are_packed(small):
    data = (small > 0).astype("i1")
    np.testing.assert_array_equal(find(packed(data, _FillValue=-1)).read(0, 9, np.uint8), data[:9])
    data[3, 3] = -1
    with pytest.raises(SourceError, match=r"integers in 0 to 255"):
        find(packed(data, _FillValue=-1)).read(0, 9, np.uint8)


def test_plans_know_packed_values(tmp_path, small):
    packed(np.rint(small * 100).astype("i2"), where=tmp_path / "x.zarr", scale_factor=0.01)
    assert daskumap.plan(tmp_path / "x.zarr", calibrate=False).job.sizes.rows == 400
