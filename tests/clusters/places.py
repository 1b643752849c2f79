"""Rows that a fit in this process and on a cluster share, and the bits that both have to give."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
import zarr

import daskumap

CONFIGS = Path(__file__).parents[2] / "cluster_configs"
PARAMS = {"n_epochs": 5, "random_state": 1, "report": False}
OPTIONS = ["--set", "n_epochs=5", "--seed", "1", "--no-report", "--quiet"]


def write_rows(folder):
    """Write the rows of all tests of clusters; return their path."""
    rows = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    zarr.create_array(folder / "x.zarr", data=rows, chunks=(100, 6))
    return folder / "x.zarr"


def expected(rows):
    """Return the map that a fit in this process gives."""
    return daskumap.fit(rows, client="sequential", progress=False, **PARAMS).embedding[:]


def changed(name, folder, **changes):
    """Write a shipped cluster file with other values for this machine; None leaves a key out."""
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


def run_command(*arguments, before=(), seconds=300, **options):
    """Run `daskumap`, after other words; return what happened."""
    command = [*before, sys.executable, "-m", "daskumap", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, **options)


def same_bits(found, wanted):
    """Return whether two maps are one, bit for bit."""
    return found.tobytes() == wanted.tobytes()


def free_port():
    """Return a port of the loopback that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
