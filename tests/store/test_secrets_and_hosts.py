"""What a run store names is not obeyed blindly, and passwords and tokens are neither stored nor shown."""

import base64
import functools
import http.server
import json
import logging
import threading
import traceback
import zlib

import pytest
from conftest import sha

import daskumap
from daskumap.cli.main import main
from daskumap.errors import DaskumapError, ParameterError, StoreError
from daskumap.planning.job import Job
from daskumap.secrets import hide_secrets
from daskumap.sources.find import check_stored_spec, find
from daskumap.sources.specs import public_spec
from daskumap.store.documents import as_text
from daskumap.store.places import find_place
from daskumap.testing.faults import FailingEngine, Fault

PASSWORD, TOKEN = "pa55w0rd", "t0ken"
OPTIONS = {"n_epochs": 20, "checkpoint_every": 5}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder to whoever has the password, or the token, and counts who asks."""

    def __init__(self, *args, asked, **options):
        self.asked = asked
        super().__init__(*args, **options)

    def do_GET(self):
        self.asked.append(self.path)
        wanted = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") == wanted:
            super().do_GET()
        else:
            self.send_error(401)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def server(tmp_path, small, write):
    """Host and port of a server of x.zarr, and the paths that it was asked for."""
    write(small)
    asked = []
    handler = functools.partial(Handler, asked=asked, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "run.zarr"


def stored(place):
    return b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())


def stop_in_layout(fit, source, place, sequential, tmp_path):
    engine = FailingEngine(sequential, tmp_path / "witnesses", {("layout", 1): [Fault()]})
    with pytest.raises(daskumap.errors.TaskError) as stopped:
        fit(source, place, client=engine, **OPTIONS)
    return stopped.value


def test_a_password_is_neither_stored_nor_shown(fit, small, server, place, sequential, tmp_path, caplog):
    host, asked = server
    url = f"http://me:{PASSWORD}@{host}/x.zarr"
    caplog.set_level(logging.DEBUG, "daskumap")
    stop_in_layout(fit, url, place, sequential, tmp_path)
    assert PASSWORD.encode() not in stored(place)
    asked.clear()
    with pytest.raises(
        StoreError, match=rf"names http://{host}/x\.zarr as its input.*resume\(run, data="
    ) as told:
        daskumap.resume(place, client="sequential", progress=False)
    assert daskumap.verify(place) == {}
    assert asked == []  # The host is not contacted before the caller names it.
    run = daskumap.resume(place, data=url, client="sequential", progress=False)
    assert sha(run.embedding) == sha(fit(small, **OPTIONS).embedding)
    assert fit(url, place, **OPTIONS).finished
    texts = [str(told.value), caplog.text, str(run), repr(run), repr(find(url)), json.dumps(run.report)]
    assert not any(PASSWORD in text for text in texts)
    assert PASSWORD.encode() not in stored(place)


def test_the_command_line_takes_the_input_again(fit, server, place, sequential, tmp_path, capsys):
    url = f"http://me:{PASSWORD}@{server[0]}/x.zarr"
    stop_in_layout(fit, url, place, sequential, tmp_path)
    assert main(["resume", str(place), "--scheduler", "sequential"]) == 5
    assert main(["resume", str(place), "--source", url, "--scheduler", "sequential"]) == 0
    said = capsys.readouterr()
    assert PASSWORD not in said.out + said.err
    assert "--source" in said.err


@pytest.mark.parametrize(
    "tail", ["none.zarr", "x.zarr?X-Amz-Signature=" + TOKEN, "x.zarr?sig=a&token=" + TOKEN]
)
@pytest.mark.parametrize("user", ["", f"me:{PASSWORD}@", f"{TOKEN}@"])
def test_no_error_tells_a_secret(server, place, tail, user, recwarn):
    """Not as its cause either, which a traceback shows; nor does a warning."""
    url = f"http://{user}{server[0]}/{tail}"
    with pytest.raises(DaskumapError) as told:
        daskumap.fit(url, place, client="sequential", progress=False)
    shown = "".join([*traceback.format_exception(told.value), repr(told.value), *map(str, recwarn)])
    assert "x.zarr" in shown or "none.zarr" in shown
    assert PASSWORD not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://me:p@ss@host/a.zarr, then", "see https://host/a.zarr, then"),
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("https://ghp_token@host/a", "https://host/a"),
        ("https://host/a?X-Amz-Signature=1&sig=2'", "https://host/a'"),
        ("abfs://container@account.dfs.core/a", "abfs://container@account.dfs.core/a"),
        ("abfs://container:key@account.dfs.core/a", "abfs://account.dfs.core/a"),
        ("simplecache::https://me:pw@host/a", "simplecache::https://host/a"),
        ("/home/me@host/a?b.zarr", "/home/me@host/a?b.zarr"),
        ("s3://bucket/run.zarr", "s3://bucket/run.zarr"),
    ],
)
def test_what_is_hidden(text, shown):
    assert hide_secrets(text) == shown
    assert hide_secrets(shown) == shown


def test_specs_are_stored_without_secrets():
    options = {"endpoint_url": "https://me:pw@host", "anon": True}
    spec = {"kind": "zarr", "path": "s3://a:b@bucket/x?token=t", "storage_options": options}
    wanted = {"kind": "zarr", "path": "s3://bucket/x"}
    assert public_spec(spec) == wanted | {"storage_options": {"endpoint_url": "https://host", "anon": True}}
    assert public_spec(None) is None
    assert "pw" not in repr(Job("", "", spec, None, None, None))


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/run.zarr", "https://host/run.zarr?sig=secret"])
def test_run_stores_have_no_secrets_in_their_url(url):
    with pytest.raises(ParameterError, match=r"of the run store has a password or a token") as told:
        find_place(url)
    assert "secret" not in str(told.value)


# What a run store names.

BUCKET = "s3://bucket/run.zarr"
OBEYED = [
    ("/data/x.zarr", {}, "/runs/run.zarr"),
    ("/data/a::b.zarr", {}, "/runs/run.zarr"),
    ("s3://bucket/x.zarr", {}, BUCKET),
    ("s3://another/x.zarr", {"anon": False}, BUCKET),
    ("abfs://data@account.dfs.core/x", {}, "abfs://runs@account.dfs.core/run"),
]
REFUSED = [
    ("s3://bucket/x.zarr", {}, "/runs/run.zarr"),
    ("s3://bucket/x.zarr", {"endpoint_url": "https://evil"}, BUCKET),
    ("gs://bucket/x.zarr", {}, BUCKET),
    ("http://169.254.169.254/x", {}, "/runs/run.zarr"),
    ("http://host/x", {}, BUCKET),
    ("http://host/x", {}, "http://host/run.zarr"),
    ("abfs://data@evil/x", {}, "abfs://runs@account.dfs.core/run"),
    ("az://data/x", {"account_name": "evil"}, "az://data/run"),
    ("simplecache::s3://bucket/x", {}, BUCKET),
    ("filecache::file:///data/x", {}, "/runs/run.zarr"),
    ("blockcache::http://host/x", {}, "/runs/run.zarr"),
    ("dir::/data/x", {}, "/runs/run.zarr"),
    ("reference://x", {}, "/runs/run.zarr"),
    ("zip://x::file:///data.zip", {}, "/runs/run.zarr"),
    ("memory://x", {}, "/runs/run.zarr"),
    ("file:///x::http://host/x", {}, "/runs/run.zarr"),
    ("relative/x", {}, "/runs/run.zarr"),
]
MALFORMED = [
    {"path": "/x"},
    {"kind": "other", "path": "/x"},
    {"kind": "zarr", "path": "/x", "fo": "/y"},
    {"kind": "zarr", "path": "/x", "storage_options": {"cache_storage": "/home/me"}},
    {"kind": "zarr", "path": "/x", "storage_options": {"target_protocol": "http"}},
    {"kind": "zarr", "path": "/x", "storage_options": ["anon"]},
]


@pytest.mark.parametrize(("path", "options", "run"), OBEYED)
def test_specs_that_are_obeyed(path, options, run):
    check_stored_spec({"kind": "zarr", "path": path, "storage_options": options}, run)


@pytest.mark.parametrize(("path", "options", "run"), REFUSED)
def test_specs_that_need_the_callers_word(path, options, run):
    with pytest.raises(StoreError, match=r"not contacted on the word of a run store.*data=\.\.\..*--source"):
        check_stored_spec({"kind": "zarr", "path": path, "storage_options": options}, run)


@pytest.mark.parametrize("spec", MALFORMED)
def test_specs_that_daskumap_does_not_write(spec):
    with pytest.raises(StoreError, match="in the way that daskumap writes it"):
        check_stored_spec(spec, "/runs/run.zarr")


def name_input(place, **spec):
    """Let a run store name another input, with a checksum that is right."""
    document = json.loads((place / "zarr.json").read_text())
    about = document["attributes"]["daskumap"]
    about["spec"] = {"kind": "zarr", **spec}
    content = {name: value for name, value in about.items() if name not in ("schema", "crc32")}
    about["crc32"] = zlib.crc32(as_text(content))
    (place / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize("prefix", ["", "simplecache::", "filecache::", "blockcache::"])
def test_no_host_is_asked_and_no_cache_written(fit, server, place, sequential, tmp_path, monkeypatch, prefix):
    host, asked = server
    stop_in_layout(fit, tmp_path / "x.zarr", place, sequential, tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("TMPDIR", str(home))
    name_input(place, path=f"{prefix}http://{host}/x.zarr", storage_options={})
    with pytest.raises(StoreError, match="not contacted"):
        daskumap.resume(place, client="sequential", progress=False)
    assert daskumap.verify(place) == {}
    name_input(place, path=str(tmp_path / "x.zarr"), storage_options={"cache_storage": str(home)})
    with pytest.raises(StoreError, match="in the way that daskumap writes it"):
        daskumap.resume(place, client="sequential", progress=False)
    assert asked == []
    assert list(home.iterdir()) == []


def test_the_caller_names_the_input(fit, small, write, place, sequential, tmp_path):
    path = write(small)
    stop_in_layout(fit, path, place, sequential, tmp_path)
    other = write(small + 1, name="other.zarr")
    with pytest.raises(daskumap.errors.RunMismatchError, match="holds another run"):
        daskumap.resume(place, data=other, client="sequential", progress=False)
    with pytest.raises(ParameterError, match="Give data as the path or URL of it"):
        daskumap.resume(place, data=small, client="sequential", progress=False)
    run = daskumap.resume(place, data=path, client="sequential", progress=False)
    assert sha(run.embedding) == sha(fit(small, **OPTIONS).embedding)


def test_a_copy_is_the_runs_own(fit, small, write, place, sequential, tmp_path):
    stop_in_layout(fit, small, place, sequential, tmp_path)
    with pytest.raises(ParameterError, match="has a copy of its input"):
        daskumap.resume(place, data=write(small), client="sequential", progress=False)
