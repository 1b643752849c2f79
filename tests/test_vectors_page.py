"""The page for people with vectors: its Python and its commands run as they stand, from top to bottom."""

import shlex
from pathlib import Path

import pytest

from daskumap.cli.main import main

PAGE = Path(__file__).parents[1] / "docs" / "vectors.md"


def blocks_of(page):
    """Return language, number of the first line, and text of each block of code."""
    found, block = [], None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if not line.startswith("```"):
            if block is not None:
                block[2].append(line)
        elif block is None:
            block = [line[3:], number, []]
        else:
            found.append((block[0], block[1], "\n".join(block[2])))
            block = None
    return found


@pytest.mark.processes
def test_the_page_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": PAGE.name}
    commands = 0
    for language, line, text in blocks_of(PAGE):
        if language == "python":
            exec(compile("\n" * line + text, str(PAGE), "exec"), names)
            continue
        for command in text.splitlines():
            words = shlex.split(command)
            if words[0] == "pip":
                continue
            assert words[0] == "daskumap"
            assert main(words[1:]) == 0, f"{command}\n{capsys.readouterr().err}"
            commands += 1
    assert commands > 10
