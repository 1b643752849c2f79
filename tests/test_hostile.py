"""Hostile and silly input: always an error of ours, never a library's, a hang, or a damaged store."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr
from conftest import forget, in_memory, sha
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.core.buffer import cpu

import daskumap
from daskumap.errors import (
    DaskumapError,
    ParameterError,
    RunMismatchError,
    SourceError,
    SourceNotFoundError,
    StoreError,
)
from daskumap.params import make_params
from daskumap.pipeline import FIT, steps_of
from daskumap.store.run import KEY

QUICK = {
    "n_epochs": 3,
    "client": "sequential",
    "progress": False,
    "random_state": 1,
    "report": False,
    "keep": "all",
}
STEPS = [step.name for step in steps_of(FIT, make_params({"report": False}))]


def tree(path):
    """Return {file: digest} of all that lies under a path."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def fit_or_refuse(data, **options):
    """Fit; return the map, or None if it was refused in our words."""
    try:
        return daskumap.fit(data, **{**QUICK, **options}).embedding[:]
    except DaskumapError as error:
        if not str(error).endswith("."):  # what was seen, what is allowed, what to do
            raise
        return None


@st.composite
def arrays(draw):
    """Arrays of any shape, type and content, in any chunks."""
    rows, columns = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i4", "i8", "u8", "?"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    kind = draw(st.sampled_from(["normal", "constant", "huge", "duplicates", "sparse"]))
    data = rng.normal(size=(rows, columns))
    if kind == "constant":
        data[:] = 3
    elif kind == "huge":
        data *= 1e30
    elif kind == "duplicates":
        data = data[rng.integers(0, max(1, rows // 4), rows)]
    elif kind == "sparse":
        data[rng.random(data.shape) < 0.9] = 0
    with np.errstate(all="ignore"):
        data = data.astype(dtype)
    if dtype[0] == "f":
        for value in (np.nan, np.inf, -np.inf):
            if draw(st.booleans()) and draw(st.booleans()):
                data[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] = value
    return data, (draw(st.integers(1, rows)), draw(st.integers(1, columns)))


@given(arrays(), st.sampled_from(["euclidean", "cosine", "correlation", "manhattan"]), st.integers(2, 20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:.*encountered in")
def test_any_array_is_embedded_or_refused(tmp_path_factory, case, metric, n_neighbors):
    data, chunks = case
    path = tmp_path_factory.mktemp("source") / "x.zarr"
    zarr.create_array(str(path), data=data, chunks=chunks)
    before = tree(path)
    stored = fit_or_refuse(path, metric=metric, n_neighbors=n_neighbors)
    assert tree(path) == before
    finite = np.isfinite(data.astype("f4")).all() if data.dtype.kind == "f" else True
    far = np.abs(data.astype("f4")).max() > 1e18
    if stored is None:
        assert (
            not finite
            or far
            or metric in ("cosine", "correlation")
            or len(data) <= n_neighbors
            or len(data) < 3
        )
    else:
        assert finite
        assert stored.shape == (len(data), 2)
        assert not np.isinf(stored).any()
    memory = fit_or_refuse(data, metric=metric, n_neighbors=n_neighbors)
    assert (memory is None) == (stored is None)
    assert memory is None or sha(memory) == sha(stored)


@pytest.mark.parametrize(
    ("value", "metric"), [(1.9e19, "euclidean"), (-9.97e36, "sqeuclidean"), (1e30, "l2")]
)
def test_a_row_that_is_farther_than_float32_reaches(small, value, metric):
    """netCDF's fill value, 9.97e36, is one; it ended in an IndexError, for ever."""
    data = small.copy()
    data[7, 3] = value
    with pytest.raises(
        SourceError, match=r"^1 of 400 rows are so large .* the first: row 7\. Divide all rows"
    ):
        daskumap.fit(data, **QUICK, metric=metric)
    assert np.isfinite(daskumap.fit(data, **QUICK, metric="cosine").embedding[:]).all()
    data[7, 3] = 4e18
    assert np.isfinite(daskumap.fit(data, **QUICK, metric=metric).embedding[:8]).any()


NUMBERS = st.one_of(
    st.integers(-2, 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
)
NAMES = sorted(set(make_params({}).fingerprint()) - {"metric", "metric_kwds", "init"})


@given(st.dictionaries(st.sampled_from(NAMES), NUMBERS, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_parameter_is_taken_or_refused(small_memory, options):
    try:
        plan = daskumap.plan(small_memory, **options)
    except DaskumapError as error:
        if not str(error).endswith("."):
            raise
    else:
        assert plan.disk_bytes > 0


@pytest.fixture(scope="session")
def small_memory(small):
    return small


LIMITS = {
    "n_neighbors": (2, 399),
    "n_components": (1, 40),
    "n_epochs": (0,),
    "learning_rate": (1e-12, 1e6),
    "min_dist": (0.0,),
    "spread": (1e-6, 1e6),
    "set_op_mix_ratio": (0.0, 1.0),
    "reconcile_every": (1, 1000),
    "local_connectivity": (0.0, 10_000),
    "repulsion_strength": (0.0, 1e6),
    "max_overlap": (1, 32),
    "negative_sample_rate": (0, 1000),
    "disconnection_distance": (0.0, math.inf),
    "target_recall": (0.0, 1.0),
    "max_cell_rows": (64, 10_000_000),
    "checkpoint_every": (1, 1_000_000),
    "random_state": (0, 2**63 - 1),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in LIMITS.items() for value in values]
)
@pytest.mark.filterwarnings("ignore:.*encountered in", "ignore:Covariance of the parameters")
def test_parameters_at_their_limits(small, name, value):
    options = {name: value} | ({"min_dist": 0.0} if name == "spread" else {})
    map_ = fit_or_refuse(small, **options)
    assert map_ is None or not np.isinf(map_).any()
    assert map_ is not None or name in ("spread", "n_components")


# Metadata.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small):
    folder = tmp_path_factory.mktemp("hostile")
    zarr.create_array(str(folder / "data.zarr"), data=small, chunks=(100, 8))
    run = daskumap.fit(folder / "data.zarr", folder / "run.zarr", **QUICK)
    return folder, sha(run.embedding)


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished[0] / "data.zarr", tmp_path / "data.zarr")
    shutil.copytree(finished[0] / "run.zarr", tmp_path / "run.zarr")
    return tmp_path


@pytest.fixture(scope="module")
def in_ram(finished):
    """What the run store holds, in memory."""
    return in_memory(finished[0] / "run.zarr")


@pytest.fixture
def finished_store(in_ram, held):
    """The finished run in a store in memory that is treated as one that other processes reach."""
    held._store_dict.update(in_ram._store_dict)
    return held


def replace(store, key, content):
    """Put bytes under a key of a store in memory."""
    store._store_dict[key] = cpu.Buffer.from_bytes(content)


GARBAGE = {
    "empty": lambda text: b"",
    "truncated": lambda text: text[: len(text) // 2],
    "binary": lambda text: bytes(range(256)),
    "a list": lambda text: b"[1, 2]",
    "a number": lambda text: b"7",
    "another format": lambda text: text.replace(b'"zarr_format": 3', b'"zarr_format": 9'),
    "deep": lambda text: b"[" * 100_000,
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_metadata_of_a_source(copy, kind):
    file = copy / "data.zarr" / "zarr.json"
    file.write_bytes(GARBAGE[kind](file.read_bytes()))
    with pytest.raises(SourceError, match=r"data\.zarr"):
        daskumap.fit(copy / "data.zarr", **QUICK)


@pytest.mark.parametrize("kind", GARBAGE)
def test_metadata_of_a_run_store(copy, kind):
    """Nothing is done to what cannot be told to be a run store, with restart either."""
    file = copy / "run.zarr" / "zarr.json"
    file.write_bytes(GARBAGE[kind](file.read_bytes()))
    before = tree(copy / "run.zarr")
    place = copy / "run.zarr"
    for command in (
        lambda: daskumap.open(place),
        lambda: daskumap.resume(place, client="sequential"),
        lambda: daskumap.verify(place, repair=True),
        lambda: daskumap.fit(copy / "data.zarr", place, **QUICK),
        lambda: daskumap.fit(copy / "data.zarr", place, restart=True, **QUICK),
    ):
        with pytest.raises(StoreError, match=r"run\.zarr"):
            command()
    assert tree(place) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1}, "a run store of schema 1, .* reads schema 5 to 6"),
        ({"schema": [2]}, r"schema \[2\]"),
        ({"schema": None}, "schema None"),
        ({"params": None}, "wrong are params"),
        ({"params": {"n_neighbors": 14}}, "wrong are its checksum"),
        ({"source": 3, "id": 4}, "wrong are id, source"),
        ({"sizes": "large"}, "wrong are sizes"),
        ({"spec": []}, "wrong are spec"),
        ({"versions": None}, "wrong are versions"),
        ({"crc32": 5}, "wrong are its checksum"),
    ],
)
def test_a_description_that_is_damaged(finished_store, finished, changes, message):
    source = finished[0] / "data.zarr"
    document = json.loads(finished_store._store_dict["zarr.json"].to_bytes())
    document["attributes"][KEY] |= changes
    replace(finished_store, "zarr.json", json.dumps(document).encode())
    for command in (daskumap.open, daskumap.verify, daskumap.resume):
        with pytest.raises(StoreError, match=message):
            command(finished_store)
    with pytest.raises(StoreError, match=message):
        daskumap.fit(source, finished_store, **QUICK)
    # It says that it is a run store, so it may be replaced.
    run = daskumap.fit(source, finished_store, restart=True, **QUICK)
    assert sha(run.embedding) == finished[1]


@pytest.mark.parametrize("kind", ["empty", "truncated", "binary", "a list", "another format"])
@pytest.mark.parametrize(
    ("stage", "node"),
    [
        ("partition.assign", "assign/cells"),
        ("partition.shuffle", "shuffle"),
        ("layout", "layout/00000000/mean"),
        ("symmetrize", "graph/00000000/tails"),
    ],
)
def test_metadata_of_what_a_run_store_holds(finished_store, finished, kind, stage, node):
    """Found, named, and made again to the same bits."""
    key = f"{node}/zarr.json"
    replace(finished_store, key, GARBAGE[kind](finished_store._store_dict[key].to_bytes()))
    assert stage in daskumap.verify(finished_store, repair=True)
    forget(finished_store, *STEPS[STEPS.index(stage) + 1 :])
    run = daskumap.resume(finished_store, client="sequential", progress=False)
    assert sha(run.embedding) == finished[1]
    assert daskumap.verify(finished_store) == {}


def test_a_lock_that_is_damaged(copy):
    forget(copy / "run.zarr", STEPS[-1])
    (copy / "run.zarr" / "lock").mkdir(exist_ok=True)
    for name, text in (("00000000.json", "{"), ("x.json", "{}"), ("00000001.json", "[]"), ("notes.txt", "")):
        (copy / "run.zarr" / "lock" / name).write_text(text)
    assert daskumap.resume(copy / "run.zarr", client="sequential", progress=False).finished


# Paths.


def test_paths_with_dots_and_links(copy, finished):
    (copy / "inner").mkdir()
    (copy / "link").symlink_to(copy / "data.zarr")
    (copy / "place").symlink_to(copy / "inner", target_is_directory=True)
    run = daskumap.fit(copy / "inner" / ".." / "link", copy / "inner" / ".." / "place" / "run.zarr", **QUICK)
    assert sha(run.embedding) == finished[1]
    assert daskumap.open(copy / "inner" / "run.zarr").finished
    assert daskumap.fit(copy / "data.zarr", copy / "inner" / "run.zarr", **QUICK).finished  # the same input


def test_links_in_a_circle(copy):
    (copy / "a").symlink_to(copy / "b")
    (copy / "b").symlink_to(copy / "a")
    (copy / "gone").symlink_to(copy / "nothing")
    for source in (copy / "a", copy / "a" / "x"):
        with pytest.raises(SourceError, match=r"cannot be followed|There is nothing"):
            daskumap.fit(source, **QUICK)
    for place in (copy / "a", copy / "a" / "run.zarr", copy / "gone"):
        with pytest.raises(DaskumapError, match=r"is no path here|link to nowhere"):
            daskumap.fit(copy / "data.zarr", place, **QUICK)
    (copy / "data.zarr" / "loop").symlink_to(copy / "data.zarr")
    assert daskumap.fit(copy / "data.zarr", **QUICK).finished


@pytest.mark.parametrize("name", ["\0", "x" * 300, "~nobody-of-this-name/x", "no://where", "://", ""])
def test_texts_that_are_no_paths(copy, name):
    before = tree(copy)
    with pytest.raises(DaskumapError):
        daskumap.fit(name, **QUICK)
    for command in (daskumap.open, daskumap.verify, daskumap.resume):
        with pytest.raises(DaskumapError):
            command(name)
    with pytest.raises(DaskumapError):
        daskumap.fit(copy / "data.zarr", name, **QUICK)
    assert tree(copy) == before


@pytest.mark.parametrize("inside", ["", "run.zarr", "deep/run.zarr", "../link/run.zarr"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_run_store_in_the_input(copy, inside, restart):
    (copy / "link").symlink_to(copy / "data.zarr")
    before = tree(copy)
    with pytest.raises(ParameterError, match=r"lies in the input .*, which is never written"):
        daskumap.fit(copy / "data.zarr", copy / "data.zarr" / inside, restart=restart, **QUICK)
    assert tree(copy) == before


def test_an_input_in_the_run_store_is_not_deleted(copy):
    before = tree(copy)
    with pytest.raises(ParameterError, match=r"The input .*embedding lies in the run store"):
        daskumap.fit(copy / "run.zarr" / "embedding", copy / "run.zarr", restart=True, **QUICK)
    assert tree(copy) == before


# Starting over.


def test_restart(copy, small, finished):
    place = copy / "run.zarr"
    with pytest.raises(RunMismatchError, match=r"n_neighbors was 15 and is now 7; .*restart \(--restart\)"):
        daskumap.fit(copy / "data.zarr", place, n_neighbors=7, **QUICK)
    (place / "stray").write_text("x")
    other = daskumap.fit(copy / "data.zarr", place, n_neighbors=7, restart=True, **QUICK)
    assert other.params["n_neighbors"] == 7
    assert sha(other.embedding) == sha(daskumap.fit(small, n_neighbors=7, **QUICK).embedding)
    assert not (place / "stray").exists()
    fresh = daskumap.fit(copy / "data.zarr", copy / "free.zarr", restart=True, **QUICK)  # a free place
    assert sha(fresh.embedding) == finished[1]


def test_restart_deletes_nothing_else(copy, small):
    (copy / "notes").mkdir()
    (copy / "notes" / "text").write_text("mine")
    zarr.create_group(str(copy / "group.zarr"), attributes={"mine": 1})
    zarr.create_array(str(copy / "array.zarr"), data=small)
    before = tree(copy)
    for place in ("notes", "group.zarr", "array.zarr", "notes/text"):
        with pytest.raises(StoreError):
            daskumap.fit(copy / "data.zarr", copy / place, restart=True, **QUICK)
    with pytest.raises(ParameterError):  # refused for what is given: the run that is there stays
        daskumap.fit(copy / "data.zarr", copy / "run.zarr", restart=True, n_neighbors=1, **QUICK)
    with pytest.raises(DaskumapError, match="Raise memory"):
        daskumap.fit(copy / "data.zarr", copy / "run.zarr", restart=True, memory="421MB", **QUICK)
    assert tree(copy) == before


def test_restart_draws_another_seed(copy):
    options = {**QUICK, "random_state": None}
    first = daskumap.fit(copy / "data.zarr", copy / "s.zarr", **options).params["random_state"]
    assert daskumap.fit(copy / "data.zarr", copy / "s.zarr", **options).params["random_state"] == first
    again = daskumap.fit(copy / "data.zarr", copy / "s.zarr", restart=True, **options)
    assert again.params["random_state"] != first


# The input is read only; arrays in memory are known by all they hold.


@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
@pytest.mark.parametrize("stage", ["publish", "scan", None])
def test_one_value_of_an_array_in_memory(small, held, lazy, stage):
    dask_array = pytest.importorskip("dask.array")

    def given(values):
        return dask_array.from_array(values, chunks=(90, 3)) if lazy else values

    daskumap.fit(given(small), held, **QUICK)
    if stage is not None:
        forget(held, stage)
    other = small.copy()
    other[7, 3] += 1  # not one of the 16 rows of the fingerprint
    with pytest.raises(RunMismatchError, match=r"another input: its values differ.*restart \(--restart\)"):
        daskumap.fit(given(other), held, **QUICK)
    assert daskumap.fit(given(small), held, **QUICK).finished


UNPRIVILEGED = """if True:
    import os, sys
    import daskumap
    from daskumap.errors import DaskumapError
    daskumap.fit(sys.argv[1], client="sequential", progress=False, n_epochs=3)  # while imports may be read
    os.setgid(65534), os.setuid(65534)
    for source, place in zip(sys.argv[1::2], sys.argv[2::2]):
        try:
            run = daskumap.fit(source, place, client="sequential", progress=False, n_epochs=3, random_state=1)
            print("finished")
        except DaskumapError as error:
            print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root, to become somebody else")
def test_permissions(copy, tmp_path):
    """A source that may be read but not written is enough; what may not be read is an error of ours."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for parent in [folder, *folder.parents][:-1]:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 1:
            os.chmod(parent, parent.stat().st_mode | 0o55)
    os.chmod(folder, 0o777)
    (copy / "secret.zarr").mkdir(mode=0o700)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o755)
    before = tree(copy / "data.zarr")
    cases = [
        (copy / "data.zarr", folder / "run.zarr"),
        (copy / "secret.zarr" / "X", folder / "b.zarr"),
        (copy / "secret.zarr", folder / "c.zarr"),
        (copy / "data.zarr", locked / "run.zarr"),
        (copy / "data.zarr", copy / "secret.zarr" / "run.zarr"),
    ]
    arguments = [str(path) for case in cases for path in case]
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HOME": str(folder)},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "finished"
    assert [line.split()[0] for line in said[1:]] == [
        "SourceError",
        "SourceError",
        "StoreError",
        "StoreError",
    ]
    assert all("ermission" in line for line in said[1:])
    assert tree(copy / "data.zarr") == before


def test_nothing_is_unpickled(copy, monkeypatch):
    """A source or a run store may come from anybody; a pickle would run their code."""
    import pickle

    def refuse(*args, **options):
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    forget(copy / "run.zarr", "layout")
    assert daskumap.resume(copy / "run.zarr", client="sequential", progress=False).finished
    assert daskumap.verify(copy / "run.zarr") == {}
    assert daskumap.fit(copy / "data.zarr", **QUICK).finished


WITHOUT_ASSERTS = """if True:
    import sys
    import daskumap
    data, place, free = sys.argv[1:]
    commands = [daskumap.verify, daskumap.resume, daskumap.open]
    for command in (*(lambda c=c: c(place) for c in commands), lambda: daskumap.fit(data, free)):
        try:
            print(command())
        except daskumap.DaskumapError as error:
            print(type(error).__name__, error)
"""


def test_a_python_without_asserts(copy):
    """Where zarr reads no group: a whole run store does not pass for a damaged one, and none is begun."""
    before = tree(copy)
    arguments = [str(copy / name) for name in ("data.zarr", "run.zarr", "free.zarr")]
    done = subprocess.run(
        [sys.executable, "-O", "-c", WITHOUT_ASSERTS, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 4
    for line in said:
        assert line.startswith("ProcessError Python runs with -O")
        assert line.endswith("Run it without.")
    assert tree(copy) == before


def test_a_path_to_nothing_names_what_is_near(copy):
    with pytest.raises(SourceNotFoundError, match=r"Near it, .*data\.zarr"):
        daskumap.fit(copy / "dat.zarr", **QUICK)
