"""What tests of jobs share: a small array and a job of it."""

import numpy as np
import pytest
import zarr

from daskumap.jobs import dated

FAST = "parameters: {n_neighbors: 5, n_epochs: 5, random_state: 1, report: false}\ncluster: sequential\n"


def put(path, rows):
    zarr.create_array(path, data=rows, overwrite=True)


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


@pytest.fixture
def job(tmp_path, rows, monkeypatch):
    """Write a job of a small array, its lines after the first two given; return its file."""
    put(tmp_path / "data.zarr", rows)
    monkeypatch.setattr(dated, "today", lambda: "2026-01-31")

    def write(run="maps/{date}.zarr", more=""):
        path = tmp_path / "nightly.yaml"
        path.write_text(f"source: data.zarr\nrun: {run}\n{FAST}{more}")
        return path

    return write
