"""A job on workers of a cluster file."""

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.engine.dask import DaskEngine


@pytest.mark.processes
def test_a_job_on_workers_is_that_of_this_process(tmp_path, job_rows, monkeypatch):
    engines, make = [], DaskEngine.__init__

    def count(self, *args, **options):
        engines.append(self)
        make(self, *args, **options)

    monkeypatch.setattr(DaskEngine, "__init__", count)
    zarr.create_array(tmp_path / "data.zarr", data=job_rows, chunks=(100, 6))
    (tmp_path / "local.yaml").write_text("kind: local\nworkers: 2\nthreads: 1\nmemory: 1GB\n")
    for name, where, expected in (("here", "sequential", 0), ("there", "local.yaml", 1)):
        (tmp_path / f"{name}.yaml").write_text(
            f"source: data.zarr\nrun: {name}.zarr\ncluster: {where}\n"
            "parameters: {n_neighbors: 5, n_epochs: 5, random_state: 1, report: false}\n"
        )
        assert daskumap.run_job(tmp_path / f"{name}.yaml", progress=False).state == "finished"
        assert len(engines) == expected
    here, there = (daskumap.open(tmp_path / f"{name}.zarr").embedding[:] for name in ("here", "there"))
    np.testing.assert_array_equal(there, here)
