"""Zip files of Zarr, references of kerchunk's, chains of file systems, web servers: the bits of the array."""

import functools
import http.server
import io
import json
import re
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

import daskumap
from daskumap.cli.main import main
from daskumap.errors import ParameterError, SourceError, StoreError
from daskumap.sources import zarr as zarr_source
from daskumap.sources.find import check_stored_spec, open_spec

ROWS = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
TOKEN = "zH7-token-of-the-caller"
FIT = {"client": "sequential", "progress": False, "report": False, "n_epochs": 5, "random_state": 1}


def same(source):
    """Check the rows of a source, and those of the source that another process opens."""
    assert np.array_equal(source.read(0, 300), ROWS)
    assert np.array_equal(open_spec(json.loads(json.dumps(source.spec()))).read(0, 300), ROWS)
    return True


def write(store, kind, zarr_format):
    """Write an array, or a group with it, into a store."""
    if kind == "array":
        zarr.create_array(store, data=ROWS, chunks=(64, 8), zarr_format=zarr_format)
    else:
        group = zarr.create_group(store, zarr_format=zarr_format)
        group.create_array("X", data=ROWS, chunks=(64, 8))
        group.create_array("batch", data=np.arange(300))


# -- zip files


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kind", ["array", "group"])
def test_a_zip_store(tmp_path, kind, zarr_format):
    path = tmp_path / "cube.zarr.zip"
    with ZipStore(path, mode="w") as store:
        write(store, kind, zarr_format)
    assert same(daskumap.source(path))
    assert daskumap.source(str(path)).count_missing() == 0
    inside = path / "X" if kind == "group" else path
    assert daskumap.source(path).spec()["path"] == str(inside)
    assert same(daskumap.source(inside))
    assert same(daskumap.source(f"zip::file://{path}"))
    assert same(daskumap.source(f"simplecache::zip::file://{path}"))
    with ZipStore(path, mode="r") as store:
        assert same(daskumap.source(zarr.open(store, mode="r")))


def test_a_fit_of_a_zip_file_goes_on_and_gives_the_same_bits(tmp_path, capsys):
    path, run = tmp_path / "x.zarr.zip", tmp_path / "run.zarr"
    with ZipStore(path, mode="w") as store:
        write(store, "group", 3)
    plain = daskumap.fit(ROWS, **FIT)
    found = daskumap.fit(path, run, **FIT)
    assert np.array_equal(found.embedding[:], plain.embedding[:])
    placed = daskumap.transform(daskumap.open(run), path, client="sequential", progress=False)
    assert np.array_equal(placed.embedding[:], plain.embedding[:])
    assert main(["inspect", str(path)]) == 0
    assert "300 x 8" in capsys.readouterr().out


def test_a_zip_file_of_a_folder_says_what_it_holds(tmp_path):
    zarr.create_array(tmp_path / "d.zarr", data=ROWS, chunks=(64, 8))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as packed:
        for file in (tmp_path / "d.zarr").rglob("*"):
            packed.write(file, file.relative_to(tmp_path))
    with pytest.raises(SourceError, match=r"no Zarr array or group at .*d\.zip\. There is d\.zarr\. Append"):
        daskumap.source(tmp_path / "d.zip")
    assert same(daskumap.source(tmp_path / "d.zip" / "d.zarr"))
    with pytest.raises(SourceError, match="no Zarr array or group at"):
        daskumap.source(tmp_path / "d.zip" / "e.zarr")


def test_a_damaged_zip_file(tmp_path):
    (tmp_path / "d.zip").write_bytes(b"no zip file")
    with pytest.raises(SourceError, match="is a damaged zip file, or none"):
        daskumap.source(tmp_path / "d.zip")


def test_a_zip_store_that_is_being_written_is_no_input_of_other_processes(tmp_path):
    with ZipStore(tmp_path / "d.zip", mode="w") as store:
        write(store, "array", 3)
        assert daskumap.source(zarr.open(store)).spec() is None


# -- references


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """What kerchunk finds in an HDF5 file: each chunk of it, by its place."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path_factory.mktemp("hdf5") / "cube.h5"
    found = {
        ".zgroup": '{"zarr_format": 2}',
        "batch/.zarray": json.dumps(array((300,), (300,), "<i8")),
        "X/.zarray": json.dumps(array((300, 8), (64, 8), "<f4")),
    }
    with h5py.File(path, "w") as file:
        data = file.create_dataset("X", data=ROWS, chunks=(64, 8))
        for number in range(data.id.get_num_chunks()):
            chunk = data.id.get_chunk_info(number)
            name = ".".join(str(at // size) for at, size in zip(chunk.chunk_offset, data.chunks, strict=True))
            found[f"X/{name}"] = [str(path), chunk.byte_offset, chunk.size]
    return found


def array(shape, chunks, dtype):
    """Return the metadata of an array of Zarr 2."""
    plain = {"compressor": None, "filters": None, "fill_value": 0, "order": "C", "zarr_format": 2}
    return {"shape": shape, "chunks": chunks, "dtype": dtype, **plain}


@pytest.fixture
def json_file(tmp_path, references):
    path = tmp_path / "cube.json"
    path.write_text(json.dumps({"version": 1, "refs": references}))
    return path


def test_references_in_json(json_file):
    assert same(daskumap.source(json_file))
    assert daskumap.source(json_file).count_missing() == 0
    assert same(daskumap.source(f"{json_file}/X"))
    assert same(daskumap.source(f"reference::{json_file}"))
    options = {"fo": str(json_file), "remote_protocol": "file"}
    assert same(daskumap.source("reference://", storage_options=options))


@pytest.mark.parametrize("name", ["cube.parq", "cube.parquet"])
def test_references_in_parquet(tmp_path, references, name):
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pytest.importorskip("kerchunk")  # fsspec writes such references with it
    from fsspec.implementations.reference import LazyReferenceMapper

    lazy = LazyReferenceMapper.create(str(tmp_path / name), record_size=4, engine="pyarrow")
    for key, value in references.items():
        lazy[key] = value.encode() if isinstance(value, str) else value
    lazy.flush()
    assert same(daskumap.source(tmp_path / name))
    assert same(daskumap.source(tmp_path / name / "X"))


def test_a_file_that_is_gone_is_no_fill_value(tmp_path, references):
    gone = {
        name: ["/no/such/file", *at[1:]] if isinstance(at, list) else at for name, at in references.items()
    }
    (tmp_path / "cube.json").write_text(json.dumps(gone))
    with pytest.raises(SourceError, match=r"cube\.json/X cannot be read: chunk .* ReferenceNotReachable"):
        daskumap.source(tmp_path / "cube.json").read(0, 300)


@pytest.mark.parametrize("text", ["no json", '{"a": 1}', "[]", "{}"])
def test_a_json_file_of_anything_else(tmp_path, text):
    (tmp_path / "cube.json").write_text(text)
    with pytest.raises(SourceError, match=r"cube\.json holds no references of kerchunk's"):
        daskumap.source(tmp_path / "cube.json")


def test_a_run_store_may_not_name_references_in_a_bucket(json_file):
    """They lead anywhere, and would be followed with the caller's credentials."""
    check_stored_spec(daskumap.source(json_file).spec(), "/runs/a.zarr")
    for path in ("s3://bucket/cube.json/X", "s3://bucket/cube.parq", "zip::s3://bucket/x.zip"):
        with pytest.raises(StoreError, match="is not contacted"):
            check_stored_spec({"kind": "zarr", "path": path}, "s3://bucket/run.zarr")


# -- web servers


class Unsteady(http.server.SimpleHTTPRequestHandler):
    """Refuses every n-th request of a chunk, or pauses before it answers; sends parts of files."""

    every, status, pause, count, seen = 0, 503, 0.0, 0, set()

    def log_message(self, *arguments):
        """Say nothing."""

    def send_head(self):
        cls = type(self)
        cls.seen.add(self.headers.get("Authorization"))
        if "/c/" in self.path:
            cls.count += 1
            time.sleep(cls.pause)
            if cls.every and cls.count % cls.every == 0:
                self.send_error(cls.status)
                return None
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if part is None:
            return super().send_head()
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = int(part[1]), min(int(part[2]), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        return io.BytesIO(content[first : last + 1])


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    pytest.importorskip("aiohttp")
    folder = tmp_path_factory.mktemp("web")
    zarr.create_array(folder / "x.zarr", data=ROWS, chunks=(64, 8))
    plain = {"zarr_format": 2, "compressors": None}
    zarr.create_array(folder / "plain.zarr", data=ROWS, chunks=(64, 8), **plain)
    with ZipStore(folder / "x.zarr.zip", mode="w") as store:
        write(store, "group", 3)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Unsteady, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _steady():
    Unsteady.every, Unsteady.status, Unsteady.pause, Unsteady.count = 0, 503, 0.0, 0


def test_a_web_server(web):
    assert same(daskumap.source(f"{web}/x.zarr"))
    assert same(daskumap.source(f"simplecache::{web}/x.zarr"))


def test_a_zip_file_behind_a_web_server(web):
    assert same(daskumap.source(f"{web}/x.zarr.zip"))
    assert same(daskumap.source(f"{web}/x.zarr.zip/X"))
    assert same(daskumap.source(f"zip::{web}/x.zarr.zip"))


def test_references_of_a_web_server(web, tmp_path):
    parts = {f"{row}.0": [f"{web}/plain.zarr/{row}.0"] for row in range(5)}
    path = tmp_path / "cube.json"
    path.write_text(json.dumps({".zarray": json.dumps(array((300, 8), (64, 8), "<f4")), **parts}))
    assert same(daskumap.source(path))
    assert same(daskumap.source(path, storage_options={"remote_protocol": "http"}))


def test_what_references_are_reached_by_is_in_no_store_and_no_message(web, tmp_path, caplog, capfd):
    """Options of the file system behind references stay with the caller, who resumes with them."""
    caplog.set_level("DEBUG", "daskumap")
    parts = {f"{row}.0": [f"{web}/plain.zarr/{row}.0"] for row in range(5)}
    path, run = tmp_path / "cube.json", tmp_path / "run.zarr"
    path.write_text(json.dumps({".zarray": json.dumps(array((300, 8), (64, 8), "<f4")), **parts}))
    headers = {"client_kwargs": {"headers": {"Authorization": f"Bearer {TOKEN}"}}}
    options = {"remote_protocol": "http", "remote_options": headers}
    source = daskumap.source(path, storage_options=options)
    assert same(source)
    Unsteady.seen.clear()
    found = daskumap.fit(source, run, **FIT)
    assert f"Bearer {TOKEN}" in Unsteady.seen
    stored = b"".join(one.read_bytes() for one in run.rglob("*") if one.is_file())
    assert b"cube.json" in stored
    said = [caplog.text, *capfd.readouterr(), repr(source), repr(found), json.dumps(found.report)]
    assert TOKEN.encode() not in stored
    assert not any(TOKEN in text for text in said)


def test_an_empty_text_and_a_file_of_bytes(tmp_path):
    """An empty text was the folder of the process; how plain numbers are read has to be told."""
    with pytest.raises(ParameterError, match="The input is an empty text"):
        daskumap.source("")
    (tmp_path / "x.bin").write_bytes(ROWS.tobytes())
    with pytest.raises(SourceError, match="say how: kind=raw, dtype and shape"):
        daskumap.source(tmp_path / "x.bin")
    assert same(daskumap.source(tmp_path / "x.bin", kind="raw", dtype="<f4", shape=[300, 8]))


@pytest.mark.parametrize("status", [403, 500])
def test_a_request_that_fails_is_an_error_and_no_fill_value(web, status, monkeypatch):
    monkeypatch.setattr(zarr_source, "PAUSES", (0.0,))
    source = daskumap.source(f"{web}/x.zarr")
    Unsteady.every, Unsteady.status = 1, status
    with pytest.raises(SourceError, match=rf"x\.zarr.* cannot be read: chunk .* {status}"):
        source.read(0, 300)


def test_a_fit_of_a_server_that_fails_and_pauses(web, tmp_path):
    """It is asked again, and what is read is what is there."""
    Unsteady.every, Unsteady.pause = 4, 0.01
    found = daskumap.fit(f"{web}/x.zarr", tmp_path / "run.zarr", **FIT)
    assert Unsteady.count > 8
    assert np.array_equal(found.embedding[:], daskumap.fit(ROWS, **FIT).embedding[:])
