"""The page of a report as a file; its look is tested in a browser, under tests/services."""

import base64
import json
import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

import daskumap
from daskumap.cli.main import main
from daskumap.errors import ParameterError, StoreError
from daskumap.page import sample, write_page
from daskumap.stages.measures import summary

ROWS = 300


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    X = load_digits().data[:ROWS].astype(np.float32)
    place = tmp_path_factory.mktemp("page") / "run.zarr"
    return daskumap.fit(X, place, client="sequential", progress=False, n_epochs=30, random_state=1)


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    return json.loads(text)["runs"]


def numbers(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_page_has_each_row_with_its_place(run, tmp_path):
    classes = np.array([f"</script>{c}" for c in load_digits().target[:ROWS]])
    (one,) = data_of(write_page([run], tmp_path / "p.html", classes))
    np.testing.assert_array_equal(numbers(one["rows"], "<f8"), np.arange(ROWS))
    np.testing.assert_array_equal(numbers(one["places"], "<f4").reshape(-1, 2), run.embedding[:])
    column = one["columns"][0]
    named = np.array(column["names"])[numbers(column["codes"], "<i2")]
    np.testing.assert_array_equal(named, classes)


def test_many_rows_are_sampled(tmp_path, monkeypatch, run):
    monkeypatch.setattr(sample, "SAMPLE_ROWS", 50)
    (one,) = data_of(write_page([run], tmp_path / "p.html"))
    rows = numbers(one["rows"], "<f8").astype(int)
    assert len(set(rows.tolist())) == 50
    np.testing.assert_array_equal(numbers(one["places"], "<f4").reshape(-1, 2), run.embedding[:][rows])


def test_the_page_says_what_the_report_says(run, tmp_path):
    page = write_page([run], tmp_path / "p.html").read_text()
    assert run.report["verdict"]["sentence"] in page
    for measure in run.report["verdict"]["measures"]:
        assert measure["what"].replace("'", "&#x27;") in page
    for stage, found in run.report["stages"].items():
        assert f'>{stage}</th><td role="cell" class="number">{found["tasks"]:,}</td>' in page
    assert "n_neighbors" in page
    assert f"numba {run.report['versions']['numba']}" in page
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert not re.search(r"url\((?!data:)|@import", page)


def test_intervals_are_of_the_probes(tmp_path, monkeypatch):
    """Of a sample of probes a figure has an interval that holds it; of all rows none."""
    X = load_digits().data[:900].astype(np.float32)
    run = daskumap.fit(X, client="sequential", progress=False, n_epochs=10, random_state=1)
    found = run.report["measures"]
    assert found["probe_rows"] < 900
    for name, (low, high) in found["intervals"].items():
        assert low <= found[name] <= high
    low, high = found["intervals"]["trustworthiness"]
    assert 0 < high - low < 0.2
    assert set(found["intervals"]) == {"recall", "knn_preservation", "trustworthiness"}
    assert summary.SUMMARY


def test_a_notebook_shows_verdict_and_picture(run):
    shown = run._repr_html_()
    assert run.report["verdict"]["sentence"] in shown
    assert "data:image/png;base64," in shown
    assert "kNN preservation" in shown


def test_an_unfinished_run_has_a_line(tmp_path):
    X = load_digits().data[:100].astype(np.float32)
    run = daskumap.fit(X, client="sequential", progress=False, transform_mode="graph", report=False)
    assert "daskumap.Run" in run._repr_html_()


def test_mistakes(run, tmp_path):
    with pytest.raises(ParameterError, match=r"ends in '.htmx'; the page is .html"):
        write_page([run], tmp_path / "p.htmx")
    with pytest.raises(ParameterError, match="runs is empty"):
        write_page([], tmp_path / "p.html")
    flat = daskumap.fit(
        load_digits().data[:100],
        n_components=1,
        client="sequential",
        progress=False,
        report=False,
        n_epochs=2,
    )
    with pytest.raises(ParameterError, match="n_components=2"):
        write_page([flat], tmp_path / "p.html")
    graph = daskumap.fit(
        load_digits().data[:100], transform_mode="graph", client="sequential", progress=False, report=False
    )
    with pytest.raises(StoreError, match="has no map"):
        write_page([graph], tmp_path / "p.html")
    assert not list(tmp_path.iterdir())


def test_the_command(run, tmp_path, capsys):
    page = tmp_path / "p.html"
    assert main(["report", run.path, run.path, "--html", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(page)
    assert [one["name"] for one in data_of(page)] == ["run.zarr (1)", "run.zarr (2)"]
    assert main(["report", run.path, "--color", "x"]) == 2
    assert "--html FILE" in capsys.readouterr().err
