"""docs/nightly.md runs as it stands, from top to bottom, as a user's shell would run it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daskumap.jobs.reading import read_job
from daskumap.jobs.schema import Job

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "nightly.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with what the page refers to: the command, and small jobs for the ready ones."""
    command = tmp_path / "bin" / "daskumap"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m daskumap "$@"\n')
    command.chmod(0o755)
    python = tmp_path / "bin" / "python"  # a link would lose its environment
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "workflows" / "sweep.py", tmp_path)
    (tmp_path / "many").mkdir()
    fast = "parameters: {n_neighbors: 10, n_epochs: 20, random_state: 1}\n"
    for name in ("a", "b"):
        (tmp_path / "many" / f"{name}.yaml").write_text(f"source: ../store.zarr\nrun: ../{name}.zarr\n{fast}")
    sweep = "sweep: {n_neighbors: [5, 10], min_dist: [0.1, 0.5]}\n"
    (tmp_path / "sweep.yaml").write_text(f"source: store.zarr\nrun: swept/base.zarr\n{fast}{sweep}")
    return tmp_path


@pytest.mark.processes
def test_the_page_runs_as_written(folder):
    said, started = [], False
    for kind, code in BLOCKS:
        if kind == "yaml" and not started:
            (folder / "nightly.yaml").write_text(code)
            started = True
        if kind not in ("python", "sh"):
            continue
        words = [sys.executable, "-c", code] if kind == "python" else ["sh", "-ec", code]
        path = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder)}
        done = subprocess.run(words, cwd=folder, env=path, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    first, grown, seen, many = [text for text in said if text]
    assert "nightly: finished" in first
    assert "nightly: unchanged" in first
    assert '"row 0"' in first or "row 0," in first
    assert json.loads((folder / "told.json").read_text())["state"] == "finished"
    assert "new rows             50, " in grown
    assert ".new-0000001000-0000001050.csv" in grown
    assert '"state": "finished"' in seen
    assert json.loads(seen.splitlines()[-1])["event"] == "job"
    assert "2 jobs: 2 finished" in many
    assert many.count("n_neighbors=") == 4
    assert (folder / "swept" / "n_neighbors=5-min_dist=0.1.png").exists()
    assert (
        json.loads((folder / "job.schema.json").read_text())["properties"].keys() == Job.model_fields.keys()
    )


def test_the_page_has_all_keys():
    listed = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    keys = {key for line in listed for key in re.findall(r"`(\w+)`", line)}
    assert keys == set(Job.model_fields)


def test_the_first_job_of_the_page_holds(folder):
    (folder / "nightly.yaml").write_text(next(code for kind, code in BLOCKS if kind == "yaml"))
    assert read_job(folder / "nightly.yaml").results[0].path == str(folder / "results" / "{date}.csv")
