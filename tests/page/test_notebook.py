"""What cells of a notebook show: runs, plans and estimators."""

import base64
import pickle
import re
import shutil
import zlib

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_digits

import daskumap
from daskumap import UMAP
from daskumap.report.thin import Thin

X = load_digits().data[:300].astype(np.float32)
QUICK = {"client": "sequential", "progress": False, "n_epochs": 5, "random_state": 1}


@pytest.fixture(scope="module")
def fitted():
    return UMAP(report=True, n_epochs=5, n_jobs=1, random_state=1).fit(X)


def picture_in(html):
    """Return width and height of the one picture, whose pixels are whole."""
    (text,) = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    png = base64.b64decode(text)
    width, height = (int.from_bytes(png[at : at + 4]) for at in (16, 20))
    size = int.from_bytes(png[33:37])
    assert len(zlib.decompress(png[41 : 41 + size])) == height * (1 + 3 * width)
    return width, height


def test_a_run_shows_its_map_small(fitted):
    html = fitted.run_._repr_html_()
    assert fitted.run_.report["verdict"]["sentence"] in html
    assert max(picture_in(html)) <= 400
    assert len(html) < 100_000


@pytest.mark.parametrize("keep", ["all", "graph", "model", "embedding"])
def test_a_run_in_a_folder_shows_its_map(tmp_path, keep):
    """Whatever is kept; and names are text, whatever they are."""
    run = daskumap.fit(X, tmp_path / "<b>&.zarr", keep=keep, report=keep == "embedding", **QUICK)
    html = daskumap.open(run.path)._repr_html_()
    assert picture_in(html)
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;.zarr" in html
    shutil.rmtree(run.path)
    assert "&lt;b&gt;" in run._repr_html_()


def test_an_unfinished_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("daskumap.session.run_pipeline", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        daskumap.fit(X, tmp_path / "run.zarr", **QUICK)
    assert "unfinished" in daskumap.open(tmp_path / "run.zarr")._repr_html_()


def test_a_store_that_fails_does_not_fail_the_cell(fitted, monkeypatch):
    monkeypatch.setattr("daskumap.page.notebook.raster", lambda *_: 1 / 0)
    assert "cannot be read" in fitted.run_._repr_html_()


def test_an_estimator_shows_its_diagram_and_below_it_its_map(fitted):
    bare, html = clone(fitted)._repr_html_(), fitted._repr_html_()
    assert "<img" not in bare
    assert picture_in(html)
    assert html.index("sk-container") < html.index("<img")
    assert fitted._repr_mimebundle_()["text/html"].count("<img") == 1
    assert picture_in(pickle.loads(pickle.dumps(fitted))._repr_html_())


def test_an_estimator_is_text_where_the_user_wants_that(fitted):
    with sklearn.config_context(display="text"):
        assert list(fitted._repr_mimebundle_()) == ["text/plain"]
        assert not hasattr(fitted, "_repr_html_")


def test_a_plan_is_a_table():
    plan = daskumap.plan(X)
    html = plan._repr_html_()
    lines = re.findall(r"<tr>(.*?)</tr>", html)
    assert len(lines) == len(plan.stages) + 2
    for stage, line in zip(plan.stages, lines[1:], strict=False):
        cells = re.findall(r">([^<]*)</t[hd]>", line)
        assert cells[:2] == [stage.name, f"{stage.tasks:,}"]
        assert cells[-1] == f"{plan.seconds(stage):,.1f}"
    assert f"{plan.disk_bytes / 1e6:,.0f} MB at most" in html


@pytest.mark.parametrize(("rows", "most"), [(10, 10), (10, 3), (10, 1), (1000, 7), (1, 5)])
def test_thin_rows_are_every_so_many(monkeypatch, rows, most):
    monkeypatch.setattr("daskumap.report.thin.READ_ROWS", 16)
    values = np.arange(2 * rows).reshape(rows, 2)
    thin = Thin(values, most)
    assert thin.shape[0] <= most
    np.testing.assert_array_equal(thin[0 : thin.shape[0]], values[:: thin.step])
    np.testing.assert_array_equal(thin[1:3], values[:: thin.step][1:3])
