"""A cluster of ranks of MPI gives the bits of a fit in this process, and ends with the run."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "clusters"))
from places import OPTIONS, changed, expected, run_command, same_bits, write_rows

import daskumap

pytestmark = pytest.mark.services


def mpirun(count):
    """Return the words that start so many ranks here, also as root and on fewer cores."""
    few = ["--oversubscribe", *(["--allow-run-as-root"] if os.getuid() == 0 else [])]
    return [shutil.which("mpirun"), "-n", str(count), *few]


def test_the_bits_of_a_fit_in_this_process(tmp_path):
    rows, run = write_rows(tmp_path), tmp_path / "run.zarr"
    file = changed("mpi", tmp_path, threads=1, memory="2GB")
    done = run_command("fit", rows, run, "--cluster", file, *OPTIONS, before=mpirun(4))
    assert done.returncode == 0, done.stderr
    found = daskumap.open(run)
    assert same_bits(found.embedding[:], expected(rows))


def test_an_error_of_the_run_ends_all_ranks(tmp_path):
    file = changed("mpi", tmp_path, threads=1, memory="2GB")
    done = run_command(
        "fit", tmp_path / "none.zarr", tmp_path / "run.zarr", "--cluster", file, before=mpirun(3)
    )
    assert done.returncode != 0
    assert "none.zarr" in done.stderr


@pytest.mark.parametrize("count", [None, 2])
def test_too_few_ranks_are_refused(tmp_path, count):
    file = changed("mpi", tmp_path)
    before = mpirun(count) if count else ()
    rows = write_rows(tmp_path)
    done = run_command("fit", rows, tmp_path / "run.zarr", "--cluster", file, *OPTIONS, before=before)
    assert done.returncode == 8
    assert "of at least 3 processes. Start the run with `mpirun daskumap fit ...`" in done.stderr
    assert not (tmp_path / "run.zarr").exists()
