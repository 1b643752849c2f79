"""Where a run store can lie: what a path, a URL or a Zarr store means, and what there is."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, MemoryStore

from daskumap.errors import ParameterError, StoreError
from daskumap.store.places import Folder, Held, Memory, Url, find_place


@pytest.mark.parametrize(
    ("run", "kind", "url"),
    [
        ("/data/run.zarr", Folder, "/data/run.zarr"),
        (Path("/data/run.zarr"), Folder, "/data/run.zarr"),
        (LocalStore("/data/run.zarr"), Folder, "/data/run.zarr"),
        ("s3://bucket/run.zarr/", Url, "s3://bucket/run.zarr"),
        ("memory://run.zarr", Url, "memory://run.zarr"),
        (MemoryStore(), Held, None),
        (None, Memory, None),
    ],
)
def test_what_is_meant(run, kind, url):
    place = find_place(run)
    assert type(place) is kind
    assert place.shared == (kind not in (Held, Memory))
    assert place.url == url or kind in (Held, Memory)


@pytest.mark.parametrize("run", [7, b"run.zarr", object()])
def test_what_is_no_place(run):
    with pytest.raises(ParameterError, match="must be the path or URL of a run store, or a Zarr store"):
        find_place(run)


def test_an_estimator_is_no_place_and_its_run_is_named():
    with pytest.raises(ParameterError, match=r"or a Zarr store\. Pass its run_\."):
        find_place(SimpleNamespace(run_=None))


@pytest.mark.parametrize("run", ["s3://", "://run.zarr"])
def test_what_is_no_url(run):
    with pytest.raises(ParameterError, match=r"is no URL\. Write scheme://address"):
        find_place(run)


def test_memory_is_new_each_time_and_a_store_stays_the_caller_s():
    assert find_place(None).store() is not find_place(None).store()
    store = MemoryStore()
    assert find_place(store).store() is store


@pytest.fixture(params=["folder", "url", "held"])
def place(request, tmp_path):
    url = f"memory://{tmp_path}/run.zarr"
    return find_place({"folder": tmp_path / "run.zarr", "url": url, "held": MemoryStore()}[request.param])


def test_a_place_is_free_until_something_is_there(place):
    assert not place.is_occupied()
    zarr.create_group(place.store())
    assert place.is_occupied()


def test_free_bytes(place):
    """Buckets have no end, and what a caller's store can hold is the caller's knowledge."""
    assert (place.free_bytes() or 0) > 0 if isinstance(place, Folder) else place.free_bytes() is None


def test_what_dead_writers_left_is_swept(place, tmp_path):
    group = zarr.create_group(place.store())
    group.create_array("x", data=np.array([1.0, 2.0]))
    left = tmp_path / "run.zarr" / "x" / "c" / "0.abc.partial"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    place.sweep()
    assert left.exists() == (not isinstance(place, Folder))
    assert list(group["x"][:]) == [1.0, 2.0]


def test_a_file_is_no_place(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for name in ("file", "link"):
        with pytest.raises(StoreError, match="is a file or a link to nowhere"):
            find_place(tmp_path / name).is_occupied()
    assert not find_place(tmp_path / "empty").is_occupied()
