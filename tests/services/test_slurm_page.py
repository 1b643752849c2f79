"""The page on Slurm: all its commands, from top to bottom, in one shell, on a Slurm."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import sha
from slurm_jobs import command, environment

import daskumap

pytestmark = [pytest.mark.services, pytest.mark.timeout(1150)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "slurm.md"
SECONDS = 1100


def commands():
    """Return what the page has between fences, with the network that the nodes of the test have."""
    return "\n".join(re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)).replace(
        "ib0", "lo"
    )


def test_the_commands_run_as_written(tmp_path):
    (tmp_path / "daskumap").symlink_to(ROOT)
    rows = np.random.default_rng(7).normal(size=(500, 6)).astype(np.float32)
    zarr.create_array(str(tmp_path / "data.zarr"), shape=rows.shape, chunks=(200, 6), dtype="f4")[...] = rows
    # A fit of few rows has many epochs by default: half of the test's time.
    variables = environment() | {"DASKUMAP_N_EPOCHS": "20"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-x", "-c", commands()],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    logs = "\n".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    assert not command("squeue", "--noheader", "--me", "--states=PD,R")
    maps = ("run", "several", "again", "map-1", "map-2", "jobs", "allocation")
    found = {name: sha(daskumap.open(tmp_path / f"{name}.zarr").embedding) for name in (*maps, "first")}
    # A script in Python hears nothing of the environment.
    assert found == dict.fromkeys(maps, local(rows, n_epochs=20)) | {"first": local(rows)}
    assert daskumap.open(tmp_path / "placed.zarr").embedding.shape == (500, 2)
    # A job file has its own parameters.
    assert sha(daskumap.open(tmp_path / "map-3.zarr").embedding) == local(rows)


def local(rows, **options):
    run = daskumap.fit(rows, client="sequential", random_state=1, report=False, progress=False, **options)
    return sha(run.embedding)
