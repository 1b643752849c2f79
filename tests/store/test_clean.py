"""`daskumap clean`: a finished run shrinks to a lower level of `keep`, also where it is killed meanwhile."""

import itertools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import zarr
from conftest import copied, damage_in, sha
from zarr.storage import MemoryStore

import daskumap
from daskumap.cli.main import main
from daskumap.errors import LockedError, ParameterError, StoreError
from daskumap.store import lock, schema
from daskumap.store.documents import Documents
from daskumap.store.lock import RunLock
from daskumap.store.places import Held, find_place
from daskumap.store.run import RunStore

QUIET = {"client": "sequential", "progress": False}
OPTIONS = {"n_epochs": 5, "random_state": 1, **QUIET}
LEVELS = list(schema.KEEP)


@pytest.fixture(scope="module")
def source(tmp_path_factory, small):
    path = tmp_path_factory.mktemp("source") / "data.zarr"
    zarr.create_array(str(path), data=small, chunks=(128, 8))
    return path


@pytest.fixture(scope="module", autouse=True)
def _as_on_disk():
    """Runs in memory are locked and copied as those on disk, and found by their place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Held, "shared", True)
        patch.setattr(lock, "SETTLE_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def kept(source):
    """A finished run for each `keep`, to be copied before it is changed."""
    made = {keep: MemoryStore() for keep in LEVELS}
    for keep, place in made.items():
        daskumap.fit(source, place, keep=keep, **OPTIONS)
    return made


@pytest.fixture(scope="module")
def placed(kept, small):
    """The digest of new rows on the map."""
    return sha(daskumap.transform(daskumap.open(kept["all"]), small[:50] + 0.01, **QUIET).embedding)


def contents(place):
    """Return the arrays and exchanges that a run store holds, and the bytes of all of it."""
    names = {key.rpartition("/")[0] for key in place._store_dict if key.endswith("zarr.json")}
    return names, sum(len(value) for value in place._store_dict.values())


def works(place, small, placed):
    """Check all that a run of its level is to do, or to refuse."""
    run = daskumap.open(place)
    keep = run.params["keep"]
    assert run.finished
    assert daskumap.verify(place) == {}
    assert run.report["measures"]
    if keep in ("all", "graph"):
        assert run.knn()[0].shape == (400, 14)
        assert run.graph().nnz
    else:
        with pytest.raises(StoreError, match="has no knn/indices"):
            run.knn()
    if keep == "embedding":
        with pytest.raises(StoreError, match="kept its embedding alone"):
            run.transform(small[:50], **QUIET)
    else:
        assert sha(run.transform(small[:50] + 0.01, **QUIET).embedding) == placed
    return keep


@pytest.mark.parametrize(("before", "after"), list(itertools.combinations(LEVELS, 2)))
def test_a_run_shrinks_to_what_a_fit_with_that_keep_has(kept, small, placed, before, after):
    place = copied(kept[before])
    whole = sha(daskumap.open(place).embedding)
    promised = daskumap.clean(place)
    assert promised.keep == before
    assert list(promised.levels) == LEVELS[LEVELS.index(before) :]
    assert promised.bytes == contents(place)[1] == promised.levels[before]

    found = daskumap.clean(place, after)
    assert found.keep == after
    assert found.bytes == contents(place)[1]
    assert found.freed == promised.bytes - promised.levels[after]
    assert 0 <= found.bytes - promised.levels[after] < 8_000  # what a model has in place of distances
    assert contents(place)[0] == contents(kept[after])[0]
    assert works(place, small, placed) == after
    assert sha(daskumap.open(place).embedding) == whole
    assert daskumap.clean(place, after).freed == 0


def test_a_higher_level_than_that_of_the_run_deletes_nothing(kept):
    place = copied(kept["model"])
    assert daskumap.clean(place, "all").keep == "model"
    assert contents(place)[0] == contents(kept["model"])[0]


def test_no_level_deletes_nothing(kept):
    place = copied(kept["all"])
    daskumap.clean(place)
    assert place._store_dict == kept["all"]._store_dict


class Killed(BaseException):
    """What no handler catches."""


@pytest.mark.parametrize("keep", ["model", "embedding"])
def test_a_run_that_is_killed_before_a_write_still_opens_and_is_cleaned_again(
    kept, small, placed, monkeypatch, keep
):
    direct, seen = copied(kept["all"]), set()
    daskumap.clean(direct, keep)
    calls = {name: getattr(Documents, name) for name in ("save_bytes", "delete", "delete_folder")}
    for step in (*range(9), 14, 25):
        place, left = copied(kept["all"]), [step]
        with monkeypatch.context() as patch:
            for name, call in calls.items():

                def dying(self, *arguments, call=call, left=left):
                    if not left[0]:
                        raise Killed
                    left[0] -= 1
                    return call(self, *arguments)

                patch.setattr(Documents, name, dying)
            with pytest.raises(Killed):
                daskumap.clean(place, keep)
        run = daskumap.open(place)
        found, gone = run.params["keep"], len(run.store.ledger.freed())
        assert run.finished
        assert daskumap.verify(place) == {}
        if (found, gone) not in seen and found != "embedding":
            assert sha(run.transform(small[:50] + 0.01, **QUIET).embedding) == placed
        seen.add((found, gone))
        with RunLock(RunStore.open(find_place(place)), take_over=True):  # of the process that was killed
            pass
        daskumap.clean(place, keep)
        assert contents(place)[0] == contents(direct)[0]
        assert works(place, small, placed) == keep if step == 25 else daskumap.verify(place) == {}
    # Killed before and after each of the two writes that count.
    assert [found for found, _ in sorted(seen)] == sorted(["all", keep, keep])


def test_what_is_refused(kept, tmp_path):
    place = copied(kept["all"])
    with pytest.raises(
        ParameterError, match="keep is 'some'; it must be one of all, graph, model, embedding"
    ):
        daskumap.clean(place, "some")
    with RunLock(RunStore.open(find_place(place))), pytest.raises(LockedError, match="is in use by process"):
        daskumap.clean(place, "model")
    damage_in(place, "embedding/c/0/0")
    for keep in (None, "embedding"):
        with pytest.raises(StoreError, match=r"is unfinished, or its result is damaged.*daskumap resume"):
            daskumap.clean(place, keep)
    with pytest.raises(StoreError, match="There is no run store"):
        daskumap.clean(tmp_path / "none.zarr", "model")
    zarr.create_array(str(tmp_path / "array.zarr"), data=np.zeros((4, 2)))
    with pytest.raises(StoreError, match="is a Zarr array, not a run store"):
        daskumap.clean(tmp_path / "array.zarr", "embedding")
    assert zarr.open_array(str(tmp_path / "array.zarr")).shape == (4, 2)


def test_an_unfinished_run_is_refused(source, sequential, tmp_path):
    from daskumap.testing.faults import FailingEngine, Fault

    place = MemoryStore()
    with pytest.raises(Fault):
        daskumap.fit(
            source, place, **{**OPTIONS, "client": FailingEngine(sequential, tmp_path, stop_at="layout")}
        )
    before = dict(place._store_dict)
    with pytest.raises(StoreError, match="is unfinished"):
        daskumap.clean(place, "embedding")
    assert {name for name in before if not name.startswith("generations")} <= set(place._store_dict)


def test_a_run_of_this_process_and_its_rows(small):
    """Rows that came from memory go with the model; the object says what it has now."""
    run = daskumap.fit(small, MemoryStore(), report=False, **OPTIONS)
    assert run.clean("model").keep == "model"
    assert run.params["keep"] == "model"
    assert run.store.has("input/rows")
    assert run.transform(small[:9], **QUIET).embedding.shape == (9, 2)
    run.clean("embedding")
    assert not run.store.has("input/rows")
    assert run.embedding.shape == (400, 2)
    with pytest.raises(StoreError, match="kept its embedding alone"):
        run.transform(small[:9], **QUIET)


def test_what_is_made_by_a_run_loses_its_scratch(kept, small):
    place = MemoryStore()
    made = daskumap.transform(kept["all"], small[:50] + 0.01, place, **QUIET)
    whole = sha(made.embedding)
    assert daskumap.clean(place).keep == "all"
    found = daskumap.clean(place, "embedding")
    assert found.freed > 0
    assert found.keep == "embedding"
    assert sha(daskumap.open(place).embedding) == whole
    assert daskumap.transform(kept["all"], small[:50] + 0.01, place, **QUIET).finished


def test_the_command(source, tmp_path, capsys):
    runs = [str(tmp_path / name) for name in ("a.zarr", "b.zarr")]
    for run in runs:
        daskumap.fit(source, run, report=False, **OPTIONS)
    assert main(["clean", *runs]) == 0
    said = capsys.readouterr().out
    assert said.count("keeps 'graph'") == 2
    assert "--keep embedding" in said
    assert "--keep all" not in said
    assert main(["clean", "--keep", "model", "--json", *runs]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["run"], one["keep"]) for one in found] == [(run, "model") for run in runs]
    assert all(one["freed"] > 0 for one in found)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "a.zarr").rglob("*") if path.is_file())
    assert found[0]["bytes"] == on_disk
    assert main(["clean", "--keep", "embedding", runs[0], str(tmp_path / "none.zarr")]) != 0
    assert daskumap.open(runs[0]).params["keep"] == "model"  # one that is refused leaves all as they are


KILLED = """
import os, signal, sys
from daskumap.store.documents import Documents
count, delete = [int(sys.argv[2])], Documents.delete_folder
def dying(self, name):
    count[0] -= 1
    if not count[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    delete(self, name)
Documents.delete_folder = dying
import daskumap
daskumap.clean(sys.argv[1], "embedding")
"""


@pytest.mark.processes
def test_a_process_that_is_killed(source, tmp_path):
    run = tmp_path / "run.zarr"
    daskumap.fit(source, run, report=False, **OPTIONS)
    for count in (1, 3):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(run), str(count)], env=os.environ, timeout=300, check=False
        )
        assert ended.returncode == -signal.SIGKILL
        assert daskumap.open(run).params["keep"] == "embedding"
        assert daskumap.verify(run) == {}
    assert daskumap.clean(run, "embedding").freed > 0
    assert daskumap.open(run).embedding.shape == (400, 2)
