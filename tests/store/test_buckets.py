"""Buckets as users have them: options, clear errors, secrets, servers that stop, and two processes."""

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import sha

import daskumap
from daskumap.errors import DaskumapError, DependencyError, SourceError, StoreError
from daskumap.extras import PROTOCOLS

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

pytestmark = pytest.mark.processes
KEY, SECRET = "AKIDEXAMPLEKEY", "wJalrXUtnFEMIK7MDENGsecret"
QUIET = {"client": "sequential", "progress": False, "report": False, "n_epochs": 5, "random_state": 1}
# A bucket whose requests need the key; what else they say is moto's.
SERVER = """
import logging, sys
from moto.server import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
service = create_backend_app("s3")
DENIED = b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>"
def known(environment, start):
    if "Credential=%s/" % sys.argv[2] in environment.get("HTTP_AUTHORIZATION", ""):
        return service(environment, start)
    body = b"" if environment["REQUEST_METHOD"] == "HEAD" else DENIED
    start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
class KeepAlive(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
logging.getLogger("werkzeug").setLevel(logging.ERROR)
make_server("127.0.0.1", int(sys.argv[1]), known, threaded=True, request_handler=KeepAlive).serve_forever()
"""


@pytest.fixture(scope="module")
def server():
    """A process that serves buckets on the loopback, and the address of it; this one has no credentials."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port), KEY])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setattr("botocore.retryhandler.delay_exponential", lambda **_: 0.01)
        for _ in range(300):
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield process, f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def options(server):
    return {"key": KEY, "secret": SECRET, "endpoint_url": server[1]}


@pytest.fixture(scope="module")
def bucket(options, small):
    s3fs.S3FileSystem(**options, skip_instance_cache=True).mkdir("maps-of-mine")
    url = "s3://maps-of-mine"
    zarr.create_array(f"{url}/x.zarr", data=small, chunks=(100, 8), storage_options=options)
    return url


@pytest.fixture(scope="module")
def expected(small):
    return sha(daskumap.fit(small, **QUIET).embedding)


def test_credentials_of_the_caller_stay_in_memory(bucket, options, expected, caplog, capfd):
    """Neither the store, nor a log, message or pickle has them; who opens the run gives them again."""
    caplog.set_level(logging.DEBUG, "daskumap")
    place = daskumap.place(f"{bucket}/run.zarr", options)
    source = daskumap.source(f"{bucket}/x.zarr", storage_options=options)
    run = daskumap.fit(source, place, **QUIET)
    assert sha(run.embedding) == expected
    assert sha(daskumap.open(place).embedding) == expected
    assert daskumap.verify(place) == {}
    assert daskumap.resume(place, data=source, client="sequential", progress=False).finished
    placed = daskumap.transform(place, source, fitted=source, client="sequential", progress=False)
    np.testing.assert_array_equal(placed.embedding[:], run.embedding[:])
    with pytest.raises(StoreError) as refused:
        daskumap.open(f"{bucket}/run.zarr")
    said = [caplog.text, *capfd.readouterr(), repr(place), repr(source), repr(run), repr(run.store.place)]
    said += traceback.format_exception(refused.value)
    files = s3fs.S3FileSystem(**options, skip_instance_cache=True)
    stored = b"".join(files.cat(files.find("maps-of-mine/run.zarr")).values())
    assert len(stored) > 10_000
    for secret in (KEY, SECRET):
        assert not any(secret in text for text in said)
        assert secret.encode() not in stored
        assert secret.encode() not in pickle.dumps(place)


def test_a_bucket_run_gives_the_bits_of_the_local_one(bucket, options, expected, small):
    """On two worker processes, that have the caller's credentials from nowhere else than the run."""
    from distributed import Client, LocalCluster

    place = daskumap.place(f"{bucket}/workers.zarr", options)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    with cluster, Client(cluster, set_as_default=False) as client:
        source = daskumap.source(f"{bucket}/x.zarr", storage_options=options)
        run = daskumap.fit(source, place, **{**QUIET, "client": client})
        assert sha(run.embedding) == expected
        copied = daskumap.fit(
            small, daskumap.place(f"{bucket}/copied.zarr", options), **{**QUIET, "client": client}
        )
        assert sha(copied.embedding) == expected


def test_what_is_wrong_is_said(bucket, options, small):
    wrong = {**options, "key": "AKIDOTHER"}
    for given in (wrong, {"endpoint_url": options["endpoint_url"]}):
        with pytest.raises(SourceError, match=r"it may not be read.*Credentials come"):
            daskumap.source(f"{bucket}/x.zarr", storage_options=given)
        with pytest.raises(StoreError, match=r"may not be read or written.*daskumap\.place"):
            daskumap.fit(small, daskumap.place(f"{bucket}/none.zarr", given), **QUIET)
    with pytest.raises(SourceError, match=r"There is no Zarr array or group at s3://not-there/x\.zarr"):
        daskumap.source("s3://not-there/x.zarr", storage_options=options)
    with pytest.raises(StoreError, match=r"is in no bucket that is there.*Make the bucket, or name another"):
        daskumap.fit(small, daskumap.place("s3://not-there/run.zarr", options), **QUIET)


@pytest.mark.parametrize("protocol", ["s3", "gs", "az", "abfs", "https"])
def test_a_missing_package_names_its_extra(protocol, monkeypatch, small):
    import fsspec

    package, extra = PROTOCOLS[protocol]

    def missing(name):
        raise ImportError(f"Install {package} to access {name}")

    monkeypatch.setattr(fsspec.core, "get_filesystem_class", missing)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "get_filesystem_class", missing)
    url = f"{protocol}://bucket/x.zarr"
    for act in (lambda: daskumap.source(url), lambda: daskumap.fit(small, url, **QUIET)):
        with pytest.raises(DependencyError, match=rf"without {package}, .*pip install 'daskumap\[{extra}\]'"):
            act()


def test_paths_have_no_options():
    with pytest.raises(DaskumapError, match=r"is no URL, which alone has storage_options"):
        daskumap.place("run.zarr", {"key": "x"})


def test_a_server_that_stops_for_a_while(server, bucket, options, expected):
    """A run waits for it, and says nothing."""
    process, _ = server
    place = daskumap.place(f"{bucket}/paused.zarr", options)
    stop = threading.Timer(1.0, lambda: os.kill(process.pid, signal.SIGSTOP))
    go = threading.Timer(5.0, lambda: os.kill(process.pid, signal.SIGCONT))
    for timer in (stop, go):
        timer.start()
    try:
        run = daskumap.fit(daskumap.source(f"{bucket}/x.zarr", storage_options=options), place, **QUIET)
    finally:
        for timer in (stop, go):
            timer.join()
    assert sha(run.embedding) == expected


def test_a_server_that_stops_for_good(server, bucket, options):
    """The caller's time-outs end the wait with an error that says what to do."""
    process, _ = server
    quick = {
        **options,
        "config_kwargs": {"read_timeout": 0.3, "connect_timeout": 0.3, "retries": {"max_attempts": 0}},
    }
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match=r"is out of reach.*daskumap resume"):
            daskumap.open(daskumap.place(f"{bucket}/run.zarr", quick))
        with pytest.raises(SourceError, match="it is out of reach"):
            daskumap.source(f"{bucket}/x.zarr", storage_options=quick)
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_stores_of_obstore(small, expected, tmp_path):
    store = pytest.importorskip("obstore.store")
    zarr.create_array(tmp_path / "x.zarr", data=small, chunks=(100, 8))
    source = daskumap.source(store.LocalStore(str(tmp_path / "x.zarr")))
    assert sha(daskumap.fit(source, **QUIET).embedding) == expected


def test_sessions_of_icechunk(small, expected, tmp_path):
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repository")))
    session = repository.writable_session("main")
    zarr.create_group(session.store).create_array("x", data=small, chunks=(100, 8))
    session.commit("rows")
    source = daskumap.source(repository.readonly_session("main"))
    run = daskumap.fit(source, tmp_path / "run.zarr", **QUIET)
    assert sha(run.embedding) == expected


class Ranges:
    """A web server of a folder that knows ranges, and counts the bytes that it sent."""

    def __init__(self, folder):
        import http.server

        outer, self.sent = self, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = Path(folder, self.path.lstrip("/"))
                if not path.is_file():
                    self.send_error(404)
                    return
                content, status, asked = path.read_bytes(), 200, self.headers.get("Range")
                if asked:
                    first, _, last = asked.removeprefix("bytes=").partition("-")
                    start = int(first) if first else len(content) - int(last)
                    content, status = content[start : int(last) + 1 if first and last else None], 206
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)
                    outer.sent += len(content)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args):
                """Say nothing."""

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"


def test_parts_of_shards_are_read_by_ranges(tmp_path):
    rows = np.random.default_rng(0).random((4000, 64)).astype(np.float32)
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(100, 64), shards=(4000, 64), compressors=None)
    server = Ranges(tmp_path)
    try:
        source = daskumap.source(f"{server.url}/x.zarr")
        np.testing.assert_array_equal(source.read(700, 900), rows[700:900])
        assert 200 * 256 <= server.sent < rows.nbytes / 4
    finally:
        server.httpd.shutdown()
