"""The bar in a cell of a notebook; a kernel shows it in tests/services."""

import sys

import pytest

from daskumap.report import cell, progress
from daskumap.report.cell import Cell, Html


class Painted:
    def __init__(self):
        self.said = []

    def paint(self, share, text, state):
        self.said.append((round(share, 2), text, state))


@pytest.fixture
def painted(monkeypatch):
    one = Painted()
    monkeypatch.setattr(cell, "_painter", lambda: one)
    monkeypatch.setattr(cell, "EVERY", -1.0)
    return one.said


def test_steps_share_one_bar(painted):
    bar = Cell()
    bar.start("scan", 4, 0)
    bar.advance(1.0)
    bar.finish()
    bar.start("layout", 2, 2)  # of an earlier attempt
    bar.finish()
    bar.close()
    assert [one[0] for one in painted] == [0.0, 0.25, 1.0]
    assert [one[2] for one in painted] == ["running", "running", "finished"]
    assert painted[1][1].startswith("scan: 25%, ")


def test_the_bar_is_not_renewed_each_time(monkeypatch):
    one = Painted()
    monkeypatch.setattr(cell, "_painter", lambda: one)
    bar = Cell()
    bar.start("scan", 1000, 0)
    for task in range(1000):
        bar.advance(task)
    assert len(one.said) < 500


@pytest.mark.parametrize(
    ("error", "between", "how"),
    [
        (ValueError, False, "failed in scan"),
        (ValueError, True, "failed in scan"),
        (KeyboardInterrupt, False, "stopped in scan"),
    ],
)
def test_a_run_that_broke_off_says_so(painted, error, between, how):
    bar = Cell()

    def run():
        try:
            bar.start("scan", 4, 0)
            if between:
                bar.finish()
            raise error
        except BaseException:
            bar.close()
            raise

    with pytest.raises(error):
        run()
    assert painted[-1][2] == "failed"
    assert painted[-1][1].startswith(how)


def test_a_run_within_the_handling_of_an_error_is_none(painted):
    try:
        raise ValueError
    except ValueError:
        bar = Cell()
        bar.start("scan", 1, 0)
        bar.finish()
        bar.close()
    assert painted[-1][2] == "finished"


def test_nothing_to_do_shows_nothing(painted):
    bar = Cell()
    bar.start("scan", 1, 1)
    bar.finish()
    bar.close()
    assert painted == []


def test_text_is_text():
    assert "<b>" not in Html.bar(0.5, "<b>", "running")


def test_only_a_kernel_has_cells(monkeypatch):
    class Shell:
        kernel = None

        def get_ipython(self):
            return self

    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert not progress.in_notebook()
    shell.kernel = object()
    assert isinstance(progress.choose_progress(True), Cell)
