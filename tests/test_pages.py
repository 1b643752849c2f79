"""The pages of the documentation whose code runs as it stands, from top to bottom."""

import shlex
from pathlib import Path

import pytest

from daskumap.cli.main import main

PAGES = Path(__file__).parents[1] / "docs"
# Each drawing takes a second: with the slow ones.
PAGES_OF_CODE = [
    "step-by-step.md",
    "geometry.md",
    "parametric.md",
    pytest.param("plots.md", marks=pytest.mark.processes),
]


def code_of(page):
    """Return the Python of a page, each line where it stands there, so that a traceback names it."""
    lines, python = [], False
    for line in (PAGES / page).read_text().splitlines():
        lines.append(line if python and not line.startswith("```") else "")
        if line.startswith("```"):
            python = line == "```python"
    return "\n".join(lines)


def commands_of(page):
    """Return the lines of a page's blocks without a language that call daskumap."""
    blocks = (PAGES / page).read_text().split("```")[1::2]
    lines = [line for block in blocks if block.startswith("\n") for line in block.splitlines()]
    return [line for line in lines if line.startswith("daskumap ")]


@pytest.mark.parametrize("page", PAGES_OF_CODE)
def test_a_page_runs_as_written(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = code_of(page)
    assert code.count("assert") > 5
    exec(compile(code, page, "exec"), {"__name__": page})
    # Commands of the other pages are run by tests of their own.
    for command in commands_of(page) if page == "plots.md" else ():
        assert main(shlex.split(command)[1:]) == 0, command
