"""A small model: what `transform` needs, at a place of its own, whole or not at all; and older formats."""

import json
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import sha
from zarr.storage import MemoryStore

import daskumap
from daskumap.cli.main import main
from daskumap.errors import ParameterError, RunMismatchError, SourceError, StoreError
from daskumap.store.documents import as_text
from daskumap.store.places import find_place
from daskumap.store.run import RunStore

QUIET = {"client": "sequential", "progress": False}
FIT = {"n_epochs": 20, "random_state": 1, "max_cell_rows": 128, **QUIET}
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def source(tmp_path_factory, small):
    path = tmp_path_factory.mktemp("source") / "data.zarr"
    zarr.create_array(str(path), data=small[:350], chunks=(128, 8))
    return path


@pytest.fixture(scope="module")
def run(source):
    return daskumap.fit(source, source.parent / "run.zarr", **FIT)


@pytest.fixture(scope="module")
def expected(run, small):
    return placed(run, small)


def placed(run, rows):
    """Return places and scores of all rows, of which most were fitted."""
    found = run.transform(rows, **QUIET)
    return np.column_stack([found.embedding[:], found.fit_distance[:]])


def check(run, small, expected):
    np.testing.assert_array_equal(placed(run, small), expected)


def size(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("rows", [False, True])
def test_a_copy_places_rows_as_its_run_does(run, source, small, expected, tmp_path, rows):
    saved = run.save(tmp_path / "model.zarr", rows=rows)
    check(saved, small, expected)
    again = daskumap.open(tmp_path / "model.zarr")
    check(again, small, expected)
    assert again.finished
    assert again.params == {**run.params, "keep": "model"}
    assert again.report["measures"] == run.report["measures"]
    assert sha(again.calibration()[1]) == sha(run.calibration()[1])
    assert daskumap.verify(again.path) == {}
    assert again.store.has("input/rows") == rows
    for lost in (again.knn, again.graph):
        with pytest.raises(StoreError, match=r"has no .* or saved\. Fit with keep='graph'"):
            lost()


def test_a_copy_with_rows_stands_alone(run, source, small, expected, tmp_path):
    moved = tmp_path / "data.zarr"
    shutil.copytree(source, moved)
    shutil.copytree(run.path, tmp_path / "run.zarr")
    model = daskumap.open(tmp_path / "run.zarr")
    model.save(tmp_path / "alone.zarr", rows=True, fitted=moved)
    model.save(tmp_path / "pointer.zarr", fitted=moved)
    moved.rename(tmp_path / "elsewhere.zarr")
    shutil.rmtree(tmp_path / "run.zarr")
    check(daskumap.open(tmp_path / "alone.zarr"), small, expected)
    pointer = daskumap.open(tmp_path / "pointer.zarr")
    with pytest.raises(SourceError, match=r"data\.zarr"):
        pointer.transform(small, **QUIET)
    with pytest.raises(SourceError, match=r"data\.zarr"):
        pointer.save(tmp_path / "again.zarr")
    found = pointer.transform(small, fitted=tmp_path / "elsewhere.zarr", **QUIET)
    np.testing.assert_array_equal(found.embedding[:], expected[:, :2])
    check(pointer.save(tmp_path / "again.zarr", fitted=tmp_path / "elsewhere.zarr"), small, expected)


@pytest.mark.parametrize("options", [{}, {"keep": "model"}, {"unique": True}], ids=str)
def test_a_run_in_memory_takes_its_rows_along(small, expected, tmp_path, options):
    """Also one that was fitted as a model, and one with copies of rows."""
    model = daskumap.fit(small[:350], **{**FIT, **options})
    check(model.save(tmp_path / "model.zarr"), small, expected)
    check(daskumap.open(tmp_path / "model.zarr").save(MemoryStore()), small, expected)
    assert daskumap.verify(tmp_path / "model.zarr") == {}


def test_a_model_is_small(clustered, tmp_path):
    """A vertex, a place, rho and sigma a row, 24 bytes, and the cells: its plan says so."""
    for keep in ("graph", "model"):
        daskumap.fit(
            clustered[:3000], tmp_path / keep, keep=keep, report=False, n_epochs=2, random_state=1, **QUIET
        )
    names = ("rows", "calibration", "embedding")
    assert sum(size(tmp_path / "model" / name) for name in names) < 3000 * 25 + 20_000
    assert not any((tmp_path / "model" / name).exists() for name in ("knn/indices", "graph", "degrees"))
    assert size(tmp_path / "model") < size(tmp_path / "graph") / 3
    saved = daskumap.open(tmp_path / "graph").save(tmp_path / "saved")
    assert abs(size(tmp_path / "saved") - size(tmp_path / "model")) < 20_000
    assert sha(saved.store.array("typical")) == sha(daskumap.open(tmp_path / "model").store.array("typical"))


class Death(BaseException):
    """What no code of ours catches."""


class Mortal(MemoryStore):
    """A store in memory whose process dies before the n-th write."""

    left = 10**9

    async def set(self, key, value):
        self.left -= 1
        if self.left < 0:
            raise Death
        await super().set(key, value)


def test_a_copy_that_was_cut_short(run, small, expected):
    """Whatever was written, it is no model, and says what to do; the same call makes it whole."""
    writes = Mortal()
    run.save(writes, rows=True)
    total = 10**9 - writes.left
    assert total > 40
    for left in (0, 1, total // 2, total - 1):
        store = Mortal()
        store.left = left
        with pytest.raises(Death):
            run.save(store, rows=True)
        store.left = 10**9
        with pytest.raises(
            StoreError,
            match=r"is a copy of .*run\.zarr that is not whole.*daskumap save" if left else "no run store",
        ):
            daskumap.open(store)
        if left:
            with pytest.raises(StoreError, match="is not whole"):
                daskumap.fit(small, store, **FIT)
        check(run.save(store, rows=left % 2 == 0), small, expected)
        assert daskumap.verify(store) == {}


def test_a_fit_may_start_over_where_a_copy_was_cut_short(run, small):
    store = Mortal()
    store.left = 9
    with pytest.raises(Death):
        run.save(store)
    store.left = 10**9
    assert daskumap.fit(small, store, restart=True, report=False, **FIT).finished
    assert daskumap.verify(store) == {}


def test_only_one_writes_a_copy(run, tmp_path):
    """What a dead process left is taken over, what a living one writes is not."""
    place = find_place(tmp_path / "model.zarr")
    copy = RunStore.begin_copy(place, run.store.about, run.path)
    with daskumap.store.lock.RunLock(copy), pytest.raises(StoreError, match="in use by process"):
        run.save(tmp_path / "model.zarr")
    run.save(tmp_path / "model.zarr")


def test_what_is_there_stays(run, small, tmp_path, source):
    run.save(tmp_path / "model.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("dear")
    for place in (tmp_path / "model.zarr", run.path, tmp_path / "folder"):
        with pytest.raises(StoreError, match="holds something already"):
            run.save(place)
    assert (tmp_path / "folder" / "letter.txt").read_text() == "dear"
    with pytest.raises(ParameterError, match="lies in the input"):
        run.save(source / "model.zarr")
    with pytest.raises(ParameterError, match="rows is 'no'"):
        run.save(tmp_path / "x.zarr", rows="no")


def test_runs_that_are_no_models(small, tmp_path):
    alone = daskumap.fit(small, keep="embedding", report=False, **FIT)
    with pytest.raises(StoreError, match="kept its embedding alone"):
        alone.save(tmp_path / "model.zarr")
    assert not (tmp_path / "model.zarr").exists()


def test_a_damaged_run_makes_no_copy(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run.zarr")
    run = daskumap.open(tmp_path / "run.zarr")
    chunk = tmp_path / "run.zarr" / "cells" / "centroids" / "c" / "0" / "0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:9] + bytes([content[9] ^ 16]) + content[10:])
    with pytest.raises(StoreError, match=r"is damaged: cells/centroids.*verify --repair"):
        run.save(tmp_path / "model.zarr")
    with pytest.raises(StoreError, match="is not whole"):
        daskumap.open(tmp_path / "model.zarr")


def test_rows_that_changed_are_not_brought(run, source, tmp_path):
    changed = tmp_path / "data.zarr"
    shutil.copytree(source, changed)
    zarr.open_array(str(changed))[100, 0] += 1
    with pytest.raises(RunMismatchError, match=r"are not those that the run in .*run\.zarr was fitted to"):
        run.save(tmp_path / "model.zarr", rows=True, fitted=changed)


def test_the_command(run, tmp_path, small, expected, capsys):
    assert main(["save", run.path, str(tmp_path / "model.zarr"), "--rows"]) == 0
    assert "350 x 8, finished" in capsys.readouterr().out
    check(daskumap.open(tmp_path / "model.zarr"), small, expected)
    assert main(["save", run.path, str(tmp_path / "model.zarr")]) == 5


# Formats.


@pytest.fixture
def older(tmp_path):
    """A run store of format 5, which tests/data/make_format.py made, and what its version said of rows."""
    zipfile.ZipFile(DATA / "format5.zip").extractall(tmp_path)
    return tmp_path / "run.zarr", np.load(tmp_path / "expected.npz")


def test_a_run_of_an_older_format(older, tmp_path, caplog):
    place, known = older
    assert json.loads((place / "zarr.json").read_text())["attributes"]["daskumap"]["schema"] == 5
    run = daskumap.open(place)
    assert run.finished
    assert run.params == {**daskumap.params.make_params({}).fingerprint(), **run.params}
    assert run.params["keep"] == "graph"
    assert "The map is sound" in str(run)
    assert run.graph().shape == (300, 300)
    assert "bits_per_vertex" not in run.diagnose()
    assert daskumap.verify(place) == {}
    assert daskumap.resume(place, **QUIET).finished
    for model in (run, run.save(tmp_path / "model.zarr")):
        found = model.transform(known["new"], **QUIET)
        np.testing.assert_array_equal(found.embedding[20:], run.embedding[:10])
        # Kernels round as the processor likes; the layout draws the same edges all the same.
        np.testing.assert_allclose(found.embedding[:], known["places"], atol=1e-3)
        np.testing.assert_allclose(found.fit_distance[:], known["fit_distance"], atol=1e-6)
    assert daskumap.fit(
        known_rows(), place, n_neighbors=6, **{**FIT, "n_epochs": 30, "max_cell_rows": None}
    ).finished


def known_rows():
    return daskumap.testing.datasets.uneven_clusters(320, 6, 3, seed=1).rows()[:300]


def test_parameters_that_an_older_run_had_not(older):
    """Versions add some; where they are missing they have their defaults."""
    place, known = older
    described(place, lambda about: [about["params"].pop(name) for name in ("missing", "unique", "optimizer")])
    run = daskumap.open(place)
    assert run.params["optimizer"] == "adam"
    assert run.transform(known["new"], **QUIET).embedding.shape == (30, 2)
    assert daskumap.verify(place) == {}


def test_an_older_run_that_is_unfinished(older):
    place, _ = older
    next(place.glob("ledger/*/*/finished.json")).unlink()
    described(place, lambda about: about["versions"].update(daskumap="0.0.9"))
    with pytest.raises(RunMismatchError, match=r"begun by other versions: daskumap was '0\.0\.9'"):
        daskumap.resume(place, **QUIET)


def described(place, change, **outside):
    """Change what a run store says of its run."""
    path = place / "zarr.json"
    document = json.loads(path.read_text())
    about = document["attributes"]["daskumap"]
    change(about)
    content = {name: value for name, value in about.items() if name not in ("schema", "crc32")}
    about |= {"crc32": zlib.crc32(as_text(content)), **outside}
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "outside", "message"),
    [
        (
            lambda about: about["versions"].update(daskumap="9.1"),
            {"schema": 7},
            "of schema 7, written by daskumap 9.1;",
        ),
        (lambda about: None, {"schema": 4}, "of schema 4, written by daskumap 0.1.0;"),
        (lambda about: None, {"schema": "x"}, "of schema 'x'"),
        (lambda about: about["params"].update(gravity=9.81), {"schema": 6}, "that names gravity, written by"),
        (lambda about: about["sizes"].update(shelves=3), {"schema": 6}, "that names shelves, written by"),
    ],
)
def test_what_another_version_wrote_is_refused(older, change, outside, message):
    place, _ = older
    described(place, change, **outside)
    with pytest.raises(
        StoreError, match=message + r".*reads schema 5 to 6\. Install .*pip install 'daskumap=="
    ):
        daskumap.open(place)


def test_sizes_that_are_missing_are_damage(older):
    place, _ = older
    described(place, lambda about: about["sizes"].pop("rows"))
    with pytest.raises(StoreError, match="damaged: wrong are sizes"):
        daskumap.open(place)
