"""A map is looked at while it forms, from outside of the run."""

import hashlib
import http.client
import json
import threading
import zlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

import daskumap
from daskumap.cli.main import main
from daskumap.errors import ParameterError
from daskumap.store.places import find_place
from daskumap.store.run import RunStore
from daskumap.watching import sights as seeing
from daskumap.watching.serve import Page
from daskumap.watching.show import alongside, watch
from daskumap.watching.sights import Sight, Watcher

X = load_digits().data[:200].astype(np.float32)
QUICK = {"client": "sequential", "report": False, "n_epochs": 20, "checkpoint_every": 5, "random_state": 1}


def longer_side(png):
    size = int.from_bytes(png[33:37])
    zlib.decompress(png[41 : 41 + size])
    assert png.endswith(b"IEND\xaeB`\x82")
    return max(int.from_bytes(png[at : at + 4]) for at in (16, 20))


class Eye:
    """Hears of a run, and looks at it from outside whenever it hears of its layout."""

    def __init__(self, place):
        self.place, self.seen, self.sights, self.stage = place, [], None, ""

    def start(self, stage, tasks, done):
        self.stage = stage
        if self.sights is None:
            store = RunStore.open(find_place(self.place), mode="r")
            self.sights = Watcher(store).sights(sleep=self.rest)
            self.seen.append(next(self.sights))

    def rest(self, seconds):
        raise StopIteration  # nothing new: the generator ends, and is begun again

    def advance(self, done):
        if self.stage == "layout":
            self.seen.append(next(Watcher(RunStore.open(find_place(self.place), mode="r")).sights()))

    def finish(self):
        pass


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    place = tmp_path_factory.mktemp("watched") / "run.zarr"
    eye = Eye(place)
    run = daskumap.fit(X, place, progress=eye, **QUICK)
    return run, eye.seen


def digest(run):
    return hashlib.sha256(run.embedding[:].tobytes()).hexdigest()


def test_each_checkpoint_is_seen(watched):
    _, seen = watched
    assert seen[0] == Sight("no map yet", None)
    texts = [one.text for one in seen[1:]]
    assert {"epoch 5 of 20", "epoch 10 of 20", "epoch 15 of 20", "epoch 20 of 20"} <= set(texts)
    for one in seen[1:]:
        assert not one.over
        assert longer_side(one.png) == 600
    assert len({one.png for one in seen[1:]}) >= 4


def test_nothing_changes_the_bits(watched):
    assert digest(watched[0]) == digest(daskumap.fit(X, progress=False, **QUICK))


def test_what_is_seen_is_the_checkpoint(watched, monkeypatch):
    """The picture is that of the positions: here the finished map's, row by row."""
    drawn = []
    monkeypatch.setattr(seeing, "raster", lambda values, *_: drawn.append(values) or (X[:2, :3, None], None))
    monkeypatch.setattr(seeing, "write_png", lambda *_: None)
    next(Watcher(watched[0].store).sights())
    np.testing.assert_array_equal(drawn[0][0:200], watched[0].embedding[:])


def test_a_look_is_followed_by_a_long_rest(watched, monkeypatch):
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr(seeing.time, "thread_time", lambda: next(now))
    monkeypatch.setattr(Watcher, "_state", lambda self: ("running", ""))
    rests = []

    def rest(seconds):
        rests.append(seconds)
        if len(rests) == 2:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        list(Watcher(watched[0].store).sights(rest))
    assert rests == [150, 150]


def stop(*_):
    raise KeyboardInterrupt


def test_a_run_that_is_over_ends_the_watch(tmp_path, monkeypatch, watched):
    assert watch(watched[0].store, tmp_path / "map.png").state == "finished"
    for name, ends, state in [("a", stop, "unfinished"), ("b", lambda *_: 1 / 0, "failed")]:
        monkeypatch.setattr("daskumap.session.run_pipeline", ends)
        with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
            daskumap.fit(X, tmp_path / name, progress=False, **QUICK)
        last = watch(daskumap.open(tmp_path / name).store, tmp_path / "none.png")
        assert last.state == state
        assert "resume" in last.text or "division" in last.text
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["map.png"]


def test_a_file_is_renewed_while_a_fit_runs(tmp_path, watched):
    with alongside(tmp_path / "run.zarr", str(tmp_path / "map.png")):
        run = daskumap.fit(X, tmp_path / "run.zarr", progress=False, **QUICK)
    assert longer_side((tmp_path / "map.png").read_bytes()) == 600
    assert not list(tmp_path.glob(".*"))
    assert digest(run) == digest(watched[0])
    assert not [one for one in threading.enumerate() if one.name == "daskumap-live"]


def test_a_picture_that_fails_does_not_end_the_fit(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(seeing, "raster", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with alongside(tmp_path / "run.zarr", str(tmp_path / "map.png")):
        run = daskumap.fit(X, tmp_path / "run.zarr", progress=False, **QUICK)
    assert run.finished
    assert "The live picture has ended, and the run goes on: no room" in caplog.text


def test_a_run_that_others_go_on_with_is_not_waited_for(tmp_path, watched, monkeypatch):
    """As where another driver took it over: the thread ends with the fit."""
    monkeypatch.setattr(Watcher, "_state", lambda self: ("running", ""))
    with alongside(watched[0].path, str(tmp_path / "map.png")):
        pass
    assert not [one for one in threading.enumerate() if one.name == "daskumap-live"]


def test_a_fit_that_is_refused_leaves_nothing(tmp_path):
    with pytest.raises(ParameterError), alongside(tmp_path / "run.zarr", str(tmp_path / "map.png")):
        daskumap.fit(X, tmp_path / "run.zarr", n_neighbors=-1)
    assert not list(tmp_path.iterdir())


def get(page, path, host="localhost"):
    port = page.server.server_port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_page_shows_the_newest_sight(watched):
    with Page(0) as page:
        assert page.server.server_address[0] == "127.0.0.1"
        assert b"<img" in get(page, "/")[1]
        assert get(page, "/map.png")[0] == 404
        page.show(watched[1][-1])
        state = json.loads(get(page, "/state")[1])
        assert state == {"number": 1, "text": watched[1][-1].text, "over": False, "png": True}
        assert get(page, "/map.png?1") == (200, watched[1][-1].png)
        assert get(page, "/../etc/passwd")[0] == 404
        page.show(Sight("finished", watched[1][-1].png, "finished"))
        threading.Thread(target=get, args=(page, "/map.png")).start()
        page.linger(60)
        assert page.seen_last.is_set()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "0.0.0.0", ""])
def test_another_name_of_this_machine_is_refused(host):
    with Page(0) as page:
        assert get(page, "/", host)[0] == 403
        assert get(page, "/state", host)[0] == 403
        assert get(page, "/", "127.0.0.1")[0] == 200


def test_mistakes(tmp_path, watched):
    store = watched[0].store
    with pytest.raises(ParameterError, match="Outside a notebook"):
        watch(store)
    with pytest.raises(ParameterError, match="Name one of them"):
        watch(store, tmp_path / "a.png", 0)
    with pytest.raises(ParameterError, match=r"ends in '.jpg'"):
        watch(store, tmp_path / "a.jpg")
    with pytest.raises(ParameterError, match=r"folder of .* is not there"):
        watch(store, tmp_path / "no" / "a.png")
    with pytest.raises(ParameterError, match="65535"):
        watch(store, port=70_000)
    with Page(0) as page, pytest.raises(ParameterError, match="cannot be had"):
        Page(page.server.server_port)
    graph = daskumap.fit(X, client="sequential", progress=False, report=False, transform_mode="graph")
    with pytest.raises(ParameterError, match="makes a graph"):
        watch(graph.store, tmp_path / "a.png")


def test_the_commands(tmp_path, watched, capsys):
    picture = tmp_path / "map.png"
    assert main(["watch", watched[0].path, "--png", str(picture), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finished"
    assert longer_side(picture.read_bytes())
    assert main(["watch", str(tmp_path / "none.zarr"), "--png", str(picture)]) == 5
    capsys.readouterr()
    np.save(tmp_path / "x.npy", X)
    arguments = ["--no-report", "--scheduler", "sequential", "--n-epochs", "3"]
    live = tmp_path / "live.png"
    assert main(["fit", str(tmp_path / "x.npy"), str(tmp_path / "r"), *arguments, "--live", str(live)]) == 0
    assert longer_side(live.read_bytes())
    assert main(["fit", str(tmp_path / "x.npy"), "--live", str(live), "--write-back"]) == 2
