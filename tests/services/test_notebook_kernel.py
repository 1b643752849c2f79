"""Cells of a notebook as a kernel runs them: one bar a fit, and what stays of it."""

import re
import shlex
import signal
import textwrap
import threading
import time
from pathlib import Path

import pytest

from daskumap.cli.main import main

pytest.importorskip("ipykernel")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

pytestmark = pytest.mark.services

BEGIN = """
import sys
import numpy as np, daskumap
X = np.random.default_rng(0).random((300, 8), dtype=np.float32)
quick = dict(client="sequential", report=False, n_epochs=5, random_state=1)
"""
WITHOUT_WIDGETS = "sys.modules['ipywidgets'] = None"
FIT = "daskumap.fit(X, **quick);"
FAILS = "X[3] = np.nan; daskumap.fit(X, **quick);"
LONG = "daskumap.fit(X[:, :2], {place!r}, **(quick | dict(n_epochs=100_000)));"
RESUME = "daskumap.resume({place!r}).status()"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Return what runs cells in a kernel of its own; folders of the user's are left alone."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))

    def run(*cells, interrupt=None):
        book = nbformat.v4.new_notebook()
        book.cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in cells]
        client = nbclient.NotebookClient(
            book, timeout=400, allow_errors=True, kernel_name="python3", interrupt_on_timeout=False
        )
        if interrupt is not None:
            interrupt(client)
        client.execute()
        return client.nb

    return run


def texts(cell, kind="text/plain"):
    return [out["data"][kind] for out in cell.outputs if kind in out.get("data", {})]


def test_a_fit_has_one_bar_that_ends_complete(kernel):
    book = kernel(BEGIN, WITHOUT_WIDGETS, FIT, FAILS)
    *_, fitted, failed = book.cells
    (html,) = texts(fitted, "text/html")
    assert "width:100.0%" in html
    assert "#16a34a" in html
    assert re.search(r"finished in [\d.]+ s", html)
    assert [out.output_type for out in fitted.outputs] == ["display_data"]
    (html,) = texts(failed, "text/html")
    assert "failed in scan after" in html
    assert "#dc2626" in html
    assert [out.output_type for out in failed.outputs] == ["display_data", "error"]


def test_a_fit_has_one_widget(kernel):
    pytest.importorskip("ipywidgets")
    book = kernel(BEGIN, FIT, FAILS)
    states = book.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    bars = [one["state"] for one in states if one["model_name"] == "FloatProgressModel"]
    labels = [one["state"]["value"] for one in states if one["model_name"] == "LabelModel"]
    assert [bar["bar_style"] for bar in bars] == ["success", "danger"]
    assert bars[0]["value"] == 1.0
    assert "finished in" in labels[0]
    assert "failed in scan" in labels[1]
    for cell in book.cells[1:]:
        assert sum(out.output_type != "error" for out in cell.outputs) == 1


def test_a_cell_that_is_interrupted_says_how_to_go_on(kernel, tmp_path):
    """The interrupt of a notebook's stop button; what is there goes on in the next cell."""
    place = str(tmp_path / "run.zarr")

    def interrupt(client):
        def when_the_layout_runs():
            while not list((tmp_path / "run.zarr").glob("ledger/*/*/layout/*")):
                time.sleep(0.2)
            client.km.provisioner.process.send_signal(signal.SIGINT)

        threading.Thread(target=when_the_layout_runs, daemon=True).start()

    long = LONG.format(place=place)
    book = kernel(BEGIN, WITHOUT_WIDGETS, long, f"daskumap.open({place!r})", interrupt=interrupt)
    *_, stopped, after = book.cells
    (html,) = texts(stopped, "text/html")
    assert "stopped in layout after" in html
    said = "".join(out.text for out in stopped.outputs if out.output_type == "stream")
    assert f"daskumap.resume('{place}')" in said
    (error,) = [out for out in stopped.outputs if out.output_type == "error"]
    assert error.ename == "KeyboardInterrupt"
    assert "unfinished" in texts(after)[0]


def test_the_page_runs_as_written(kernel, tmp_path, monkeypatch):
    """Its Python in one kernel, a cell a block, and its commands after it."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "notebooks.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.S | re.M)
    cells = [text for kind, text in blocks if kind == "python"]
    book = kernel(*cells)
    errors = [out for cell in book.cells for out in cell.outputs if out.output_type == "error"]
    assert not errors
    plan, fit, run, estimator, _, seen, _ = book.cells
    assert "layout" in texts(plan, "text/html")[0]
    assert len(fit.outputs) == 1
    for cell in (run, estimator, seen):
        (html,) = texts(cell, "text/html")
        assert "data:image/png;base64," in html
    commands = [line for kind, text in blocks if kind == "sh" for line in text.splitlines()]
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "pip" or main(arguments) == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"map.png", "other.png"}
