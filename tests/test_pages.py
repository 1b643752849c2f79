"""The pages of the documentation whose code runs as it stands, from top to bottom."""

from pathlib import Path

import pytest

PAGES = Path(__file__).parents[1] / "docs"


def code_of(page):
    """Return the Python of a page, each line where it stands there, so that a traceback names it."""
    lines, python = [], False
    for line in (PAGES / page).read_text().splitlines():
        lines.append(line if python and not line.startswith("```") else "")
        if line.startswith("```"):
            python = line == "```python"
    return "\n".join(lines)


@pytest.mark.parametrize("page", ["step-by-step.md", "geometry.md", "parametric.md"])
def test_a_page_runs_as_written(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = code_of(page)
    assert code.count("assert") > 5
    exec(compile(code, page, "exec"), {"__name__": page})
