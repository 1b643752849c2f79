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


def test_a_case_runs_again_by_its_number(tmp_path):
    ends = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        ends.append([DRIVER["run_case"](number, tmp_path / attempt / "") for number in (3,)])
    assert ends[0] == ends[1]
