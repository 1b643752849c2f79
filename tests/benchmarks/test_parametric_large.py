"""A training of 100,000 rows under a limit: its peaks are below the plan's, and deaths change no bit."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/parametric_large.py"


@pytest.mark.slow
def test_promises_are_kept(tmp_path):
    options = ["--rows", "100000", "--memory", "1.2e9", "--steps", "4000", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
