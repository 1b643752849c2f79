"""Jobs in a bucket: the same bits, and what is there stays."""

import io

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.jobs import dated

JOB = {
    "parameters": {"n_neighbors": 5, "n_epochs": 5, "random_state": 1, "report": False},
    "growing": {},
    "retention": 1,
}


def put(where, rows):
    """Write rows, and an id for each, to a folder or bucket."""
    zarr.create_array(f"{where}/data.zarr", data=rows, chunks=(100, 6), overwrite=True)
    zarr.create_array(f"{where}/ids.zarr", data=np.arange(len(rows)), chunks=(1000,), overwrite=True)


def job_in(where, **more):
    return {
        **JOB,
        "source": f"{where}/data.zarr",
        "labels": f"{where}/ids.zarr",
        "run": f"{where}/runs/{{date}}.zarr",
        "results": [{"path": f"{where}/out/{{date}}{ending}"} for ending in (".csv", ".npy")],
        **more,
    }


def run(job):
    return daskumap.run_job(job, progress=False)


@pytest.mark.processes
def test_a_job_in_a_bucket_is_that_on_a_disk(maps_bucket, tmp_path, job_rows, monkeypatch):
    monkeypatch.setattr(dated, "today", lambda: "2026-01-31")
    monkeypatch.setattr("daskumap.store.lock.SETTLE_SECONDS", 0.05)
    here, there = job_in(tmp_path, cluster="sequential"), job_in("s3://maps/a", cluster="sequential")
    part = "out/2026-01-31.new-0000000300-0000000320"
    for job, where in ((here, tmp_path), (there, "s3://maps/a")):
        put(where, job_rows)
        assert run(job).state == "finished"
        put(where, np.concatenate([job_rows, job_rows[:20]]))
        grown = run(job)
        assert (grown.new_rows, [one["state"] for one in grown.transforms]) == (20, ["made"])
    for name in ("out/2026-01-31.csv", "out/2026-01-31.npy", f"{part}.csv", f"{part}.npy"):
        assert maps_bucket.cat_file(f"maps/a/{name}") == (tmp_path / name).read_bytes()
    assert np.load(io.BytesIO(maps_bucket.cat_file("maps/a/out/2026-01-31.npy"))).shape == (300, 2)

    maps_bucket.rm_file("maps/a/out/2026-01-31.csv")  # what is gone is made again
    assert [one["state"] for one in run(there).results] == ["made", "unchanged", "unchanged", "unchanged"]
    put("s3://maps/a", job_rows + 1)
    third = run(there)
    assert third.run == "s3://maps/a/runs/2026-01-31-2.zarr"
    assert "s3://maps/a/runs/2026-01-31.zarr" in third.removed
    left = {path.rpartition("/")[2] for path in maps_bucket.ls("maps/a/runs", detail=False)}
    assert left == {".day.zarr.job", "2026-01-31-2.zarr"}


@pytest.mark.processes
def test_what_somebody_else_put_into_a_bucket_stays(maps_bucket, job_rows, monkeypatch):
    monkeypatch.setattr("daskumap.store.lock.SETTLE_SECONDS", 0.05)
    put("s3://maps/b", job_rows)
    maps_bucket.pipe_file("maps/b/map.npy", b"mine")
    wanted = {"cluster": "sequential", "growing": None, "retention": None, "run": "s3://maps/b/run.zarr"}
    with pytest.raises(daskumap.errors.ParameterError, match="this job did not write it"):
        run(job_in("s3://maps/b", results=[{"path": "s3://maps/b/map.npy"}], **wanted))
    assert maps_bucket.cat_file("maps/b/map.npy") == b"mine"
    assert not maps_bucket.exists("maps/b/run.zarr/zarr.json")
