"""A disk that is full: a clear error wherever it strikes, and a run that goes on once there is room."""

import contextlib
import errno
import shutil
import subprocess

import pytest
import zarr
from conftest import is_held, sha

import daskumap
from daskumap.cli.main import main
from daskumap.engine.dask import DaskEngine
from daskumap.errors import StoreError
from daskumap.testing.faults import FailingEngine, Fault

OPTIONS = {"n_epochs": 20, "checkpoint_every": 5}
STAGES = ("scan", "partition.shuffle", "neighbors", "symmetrize", "layout", "report.summary")


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk, left=0):
    """Take all space but so many bytes."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    if left:
        with ballast.open("r+b") as file:
            file.truncate(max(0, ballast.stat().st_size - left))
    return ballast


class Filling(FailingEngine):
    """Fills the disk when a stage begins."""

    def __init__(self, engine, folder, disk, stage, left):
        super().__init__(engine, folder)
        self.disk, self.stage, self.left = disk, stage, left

    def run(self, stage, *args):
        if stage.name == self.stage:
            fill(self.disk, self.left)
        return super().run(stage, *args)


@pytest.fixture(scope="module")
def source(tmp_path_factory, small):
    path = tmp_path_factory.mktemp("source") / "data.zarr"
    zarr.create_array(str(path), data=small, chunks=(100, 8))
    return path


@pytest.fixture(scope="module")
def whole(small):
    """The digest of the map."""
    run = daskumap.fit(small, client="sequential", progress=False, random_state=1, report=False, **OPTIONS)
    return sha(run.embedding)


@pytest.mark.parametrize(
    ("stage", "client"),
    [
        *((stage, "sequential") for stage in STAGES),
        *(pytest.param(stage, "1x2", marks=pytest.mark.processes) for stage in STAGES if stage != "layout"),
        ("layout", "1x2"),
    ],
)
def test_a_disk_that_fills_up(fit, source, whole, disk, sequential, tmp_path, request, stage, client):
    options = {**OPTIONS, "report": stage.startswith("report"), "keep": "graph"}
    engine = sequential if client == "sequential" else DaskEngine(request.getfixturevalue(f"client_{client}"))
    filling = Filling(engine, tmp_path / "w", disk, stage, left=0)
    # A task's error says what its stage writes, a driver's what the whole run does.
    message = rf"Stage '{stage}', task \d+ found no space left in .* \(ENOSPC\); the stage writes \d+ MB\."
    message += r"|There is no space left for .* \(ENOSPC\); the whole run needs \d+ MB\. Free that much\."
    with pytest.raises(StoreError, match=message) as caught:
        fit(source, disk / "run.zarr", client=filling, **options)
    assert caught.value.errno == errno.ENOSPC
    assert not is_held(disk / "run.zarr")
    done = {name: count for name, count in daskumap.open(disk / "run.zarr").status().items() if count}
    # Still full: the same error, and nothing is lost.
    with pytest.raises(StoreError, match="space left"):
        daskumap.resume(disk / "run.zarr", client="sequential", progress=False)
    (disk / "ballast").unlink()
    rest = FailingEngine(sequential, tmp_path / "rest")
    run = fit(source, disk / "run.zarr", client=rest, **options)
    assert sha(run.embedding) == whole
    assert daskumap.verify(disk / "run.zarr") == {}
    assert not list((disk / "run.zarr").rglob("*.partial"))
    assert not set(done) & set(rest.counts()) - {stage}


@pytest.mark.parametrize("stage", ["taken.graph", "encoder.train", "encoder.embed"])
def test_a_disk_that_fills_up_in_a_training(small, disk, sequential, tmp_path, stage):
    """A checkpoint that was not written whole is none; the training goes on once there is room."""
    quick = {"progress": False, "report": False}
    graph = daskumap.fit(small, client="sequential", random_state=1, transform_mode="graph", **quick)
    words = {
        "steps": 40,
        "checkpoint_steps": 10,
        "hidden": (60, 60),
        "batch_edges": 20,
        "decoder": True,
        **quick,
    }
    whole = daskumap.train(graph, client="sequential", **words)
    filling = Filling(sequential, tmp_path / "w", disk, stage, left=0)
    with pytest.raises(StoreError, match=r"space left .*\(ENOSPC\).*MB\. Free that much") as caught:
        daskumap.train(graph, disk / "run.zarr", client=filling, **words)
    assert caught.value.errno == errno.ENOSPC
    assert not is_held(disk / "run.zarr")
    with pytest.raises(StoreError, match="space left"):
        daskumap.train(graph, disk / "run.zarr", client="sequential", **words)
    (disk / "ballast").unlink()
    done = daskumap.train(graph, disk / "run.zarr", client="sequential", **words)
    assert sha(done.embedding) == sha(whole.embedding)
    assert done.history == whole.history
    assert daskumap.verify(disk / "run.zarr") == {}
    assert not list((disk / "run.zarr").rglob("*.partial"))


def test_a_disk_that_is_full_from_the_start(fit, source, disk, capsys):
    """Known before the run starts where there is a plan, and said in one line on the command line."""
    ballast = fill(disk)
    with pytest.raises(daskumap.DaskumapError, match=r"The run store needs .* GB of disk, 0\.00 GB are free"):
        fit(source, disk / "run.zarr", **OPTIONS)
    assert main(["fit", str(source), str(disk / "run.zarr"), "--scheduler", "sequential"]) == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert not (disk / "run.zarr").exists()
    ballast.unlink()
    assert fit(source, disk / "run.zarr", **OPTIONS).finished
    assert (disk / "run.zarr").is_dir()


def test_an_array_in_memory_that_does_not_fit(fit, small, disk, sequential, tmp_path):
    """The copy of the input is part of the run, also of one that was begun while there was room."""
    begun = FailingEngine(sequential, tmp_path / "w", stop_at="scan")
    with pytest.raises(Fault):
        fit(small, disk / "run.zarr", client=begun, **OPTIONS)
    shutil.rmtree(disk / "run.zarr" / "input")
    ballast = fill(disk, left=12_288)
    with pytest.raises(
        StoreError, match=r"There is no space left for .*ENOSPC.*the whole run needs \d+ MB\. Free"
    ):
        fit(small, disk / "run.zarr", **OPTIONS)
    ballast.unlink()
    assert fit(small, disk / "run.zarr", **OPTIONS).finished
