"""The pages on cubes and on buckets run as they stand."""

import logging
import threading

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
def test_the_page_on_buckets(tmp_path, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    moto_server = pytest.importorskip("moto.server")
    from werkzeug.serving import make_server

    monkeypatch.chdir(tmp_path)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    httpd = make_server("127.0.0.1", 0, moto_server.create_backend_app("s3"), threaded=True)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{httpd.port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("maps")
        run_page("buckets.md")
    finally:
        httpd.shutdown()
        s3fs.S3FileSystem.clear_instance_cache()
