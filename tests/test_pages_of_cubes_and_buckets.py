"""The pages on cubes and on buckets run as they stand."""

import pytest
from test_pages import code_of


def run_page(page):
    code = code_of(page)
    assert code.count("assert") >= 2
    exec(compile(code, page, "exec"), {"__name__": page})


@pytest.mark.processes
def test_the_page_for_geoscientists(tmp_path, monkeypatch):
    pytest.importorskip("xarray")
    monkeypatch.chdir(tmp_path)
    run_page("geoscientists.md")


@pytest.mark.processes
def test_the_page_on_buckets(tmp_path, monkeypatch, maps_bucket):
    monkeypatch.chdir(tmp_path)
    run_page("buckets.md")
