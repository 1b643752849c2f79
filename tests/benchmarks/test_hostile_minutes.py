"""A minute of hostile arrays and parameters; `benchmarks/hostile.py` takes as many as are given."""

import runpy
from pathlib import Path

import pytest

DRIVER = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "hostile.py"))


@pytest.mark.slow
def test_hostile_cases_end_in_a_map_or_in_our_words(capsys):
    assert DRIVER["main"](["--minutes", "1", "--first", "50000"]) == 0
    said = capsys.readouterr().out
    assert "'a map'" in said
    assert "'SourceError'" in said
    assert "'ParameterError'" in said


@pytest.mark.parametrize(("number", "end"), [(0, "SourceError"), (4, "ParameterError"), (73, "a map")])
def test_a_case_is_known_by_its_number(tmp_path, number, end):
    assert DRIVER["run_case"](number, tmp_path) == end
