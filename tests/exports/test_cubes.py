"""Maps of cubes on their grids: against the map of the rows that xarray stacks, and as xarray reads them."""

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.errors import ParameterError, RunMismatchError
from daskumap.sources.cubes import unstack

xr = pytest.importorskip("xarray")
OPTIONS = {"client": "sequential", "progress": False, "report": False, "n_epochs": 5, "random_state": 1}


@pytest.fixture(scope="module")
def cube():
    rng = np.random.default_rng(0)
    field = rng.normal(280, 10, (6, 20, 31)).astype(np.float32)
    field[:, 4:9, 3:20] = np.nan
    field[2, 15, 8] = np.nan
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), field), "crs": 0},
        coords={
            "time": np.datetime64("2020-01-01") + np.arange(6) * np.timedelta64(1, "D"),
            "lat": ("lat", np.linspace(60, 20, 20), {"units": "degrees_north"}),
            "lon": np.linspace(0, 90, 31),
            "land": (("lat", "lon"), np.char.add("r", rng.integers(0, 5, (20, 31)).astype(str))),
            "since": ("lat", np.datetime64("1999-01-01T12") + np.arange(20) * np.timedelta64(1, "h")),
        },
    )


@pytest.fixture(scope="module")
def expected(cube):
    """The map of the rows that xarray stacks, unstacked by xarray."""
    rows = cube.t2m.stack(row=("lat", "lon")).transpose("row", "time").dropna("row")
    made = daskumap.fit(rows.values, **OPTIONS)
    found = xr.DataArray(made.embedding[:], dims=("row", "component"), coords={"row": rows.row})
    return found.unstack("row").reindex(lat=cube.lat, lon=cube.lon).transpose("lat", "lon", "component")


@pytest.fixture(scope="module")
def path(cube, tmp_path_factory):
    path = tmp_path_factory.mktemp("cubes") / "cube.zarr"
    cube.chunk(time=2, lat=7, lon=11).to_zarr(path)
    return path


@pytest.fixture(scope="module")
def run(path):
    source = daskumap.source(path, feature_dim="time")
    return daskumap.fit(source, path.parent / "run.zarr", **OPTIONS)


def test_the_map_of_a_cube_is_that_of_its_stacked_rows(run, cube, expected):
    """Known by the plan too: points that miss a value are no rows of it."""
    whole = int(cube.t2m.notnull().all("time").sum())
    assert run.store.about["sizes"]["rows"] == whole == 20 * 31 - 5 * 17 - 1
    found = run.to_xarray()
    np.testing.assert_array_equal(found.umap, expected)
    assert found.umap.dims == ("lat", "lon", "component")
    for name in ("lat", "lon", "land", "since"):
        np.testing.assert_array_equal(found[name], cube[name])
    assert found.lat.attrs == {"units": "degrees_north"}
    again = daskumap.open(run.path).to_xarray()
    xr.testing.assert_identical(again, found)
    np.testing.assert_array_equal(run.labels["lat"][:], cube.t2m.stack(row=("lat", "lon")).dropna("row").lat)


def test_an_object_gives_the_same_map(cube, expected):
    made = daskumap.fit(daskumap.source(cube, feature_dim="time"), **OPTIONS)
    np.testing.assert_array_equal(made.to_xarray().umap, expected)


@pytest.mark.parametrize("block", [None, 40, 500])
def test_a_zarr_cube_is_what_xarray_reads(run, tmp_path, monkeypatch, block):
    """Whatever is held at a time: less than a line of the grid too."""
    if block:
        monkeypatch.setattr(unstack, "BLOCK_VALUES", block)
    daskumap.export(run, tmp_path / "map.zarr")
    found = xr.open_zarr(tmp_path / "map.zarr")
    wanted = run.to_xarray()
    xr.testing.assert_equal(found.load(), wanted)
    assert found.attrs["run"] == run.store.about["id"]
    assert set(found.coords) == set(wanted.coords)
    assert zarr.open_group(tmp_path / "map.zarr").metadata.consolidated_metadata is not None


def test_an_export_is_whole_or_not_there(run, tmp_path, monkeypatch):
    target = tmp_path / "map.zarr"

    def fail(*_):
        raise OSError(5, "no disk")

    with monkeypatch.context() as patch:
        patch.setattr(unstack, "on_grid", fail)
        with pytest.raises(daskumap.StoreError):
            daskumap.export(run, target)
    assert list(tmp_path.iterdir()) == []
    daskumap.export(run, target)
    with pytest.raises(ParameterError, match="is there already"):
        daskumap.export(run, target)
    daskumap.export(run, target, overwrite=True)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(ParameterError, match="nothing that daskumap exported, and stays"):
        daskumap.export(run, tmp_path / "other.zarr", overwrite=True)


def test_a_run_says_what_it_needs_of_a_cube(cube, tmp_path, expected):
    run = daskumap.fit(daskumap.source(cube, feature_dim="time"), tmp_path / "run.zarr", **OPTIONS)
    opened = daskumap.open(run.path)
    with pytest.raises(ParameterError, match=r"was in memory.*run\.to_xarray\(dataset\)"):
        opened.to_xarray()
    np.testing.assert_array_equal(opened.to_xarray(cube).umap, expected)
    with pytest.raises(RunMismatchError):
        opened.to_xarray(cube + 1)
    with pytest.raises(ParameterError, match="is no cube with named dimensions"):
        opened.to_xarray(daskumap.source(np.ones((5, 3))))


def test_cubes_by_path_need_no_xarray(run, path, tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['xarray'] = None; import daskumap\n"
        f"run = daskumap.open({run.path!r})\n"
        f"print(daskumap.source({str(path)!r}, feature_dim='time').shape)\n"
        f"daskumap.export(run, {str(tmp_path / 'map.zarr')!r})\n"
        "try:\n    run.to_xarray()\nexcept daskumap.DependencyError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "(534, 6)" in said
    assert "daskumap[xarray]" in said
