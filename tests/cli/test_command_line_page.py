"""The commands of docs/command-line.md, run by a shell as they stand there, from top to bottom."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from daskumap.cli.reference import MARK, PAGE

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def blocks():
    """Kind and content of each block of the part that is written by hand."""
    page = (Path(__file__).parents[2] / PAGE).read_text().partition(MARK)[0]
    return re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_page_runs_as_written(blocks, tmp_path):
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "daskumap"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m daskumap "$@"\n')
    command.chmod(0o755)
    where = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    said = ""
    # What is written into a file comes before the commands that read it.
    for kind, content in sorted(blocks, key=lambda block: block[0] != "yaml"):
        if kind == "yaml":
            (tmp_path / "values.yaml").write_text(content)
        elif kind == "text":
            assert said.endswith(content)
        else:
            script = content.replace("python -m", f"{sys.executable} -m")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=tmp_path,
                env=where,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
            said = done.stdout
    assert {kind for kind, _ in blocks} == {"bash", "yaml", "text"}
    assert (tmp_path / "work" / "map.png").read_bytes().startswith(b"\x89PNG")
    assert any("daskumap" in path.read_text() for path in (tmp_path / ".bash_completions").iterdir())
