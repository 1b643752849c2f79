"""The page of examples runs as it stands."""

import pytest
from test_pages import code_of

pytestmark = pytest.mark.torch


def test_the_page_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of("parametric-modules.md"), "page", "exec"), {"__name__": "page"})
    assert len(list(tmp_path.glob("modules-*.png"))) == 4
    assert "5-NN of held-out rows: 0.9" in capsys.readouterr().out
