"""The pages of the documentation whose code runs as it stands, from top to bottom."""

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[1] / "docs"


def code_of(page):
    """Return the Python of a page, each line where it stands there, so that a traceback names it."""
    text, code = (PAGES / page).read_text(), []
    for part, block in enumerate(re.split(r"^```(?:python)?\n", text, flags=re.MULTILINE)):
        code.append(block if part % 2 else "\n" * (block.count("\n")))
    return "\n".join(code)


@pytest.mark.parametrize("page", ["step-by-step.md"])
def test_a_page_runs_as_written(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = code_of(page)
    assert code.count("assert") > 5
    exec(compile(code, page, "exec"), {"__name__": page})
