"""The fault matrix: each stage x each kind of death. The same bits or the right error, a clean store, and
which task ran how often.

A case begins where its stage does, on a copy of a run that stopped there, so that it costs what is left.
Processes come from one fork server that has imported everything.
"""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import dask
import distributed.utils
import pytest
import yaml
import zarr
from conftest import sha
from daskumap.engine.cluster import ALLOWED_FAILURES, RETRIES, DaskEngine
from distributed import Client, LocalCluster

import daskumap
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import SourceError, StoreError, TaskError
from daskumap.pipeline import STEPS
from daskumap.planning.sizes import Sizes
from daskumap.testing.datasets import uneven_clusters
from daskumap.testing.faults import FailingEngine, Fault, Kill

OPTIONS = {"n_epochs": 12, "checkpoint_every": 4, "max_cell_rows": 512, "random_state": 1, "progress": False}
MEMORY = 4 * 10**9
# The step of each group of stages in which the fault comes, one of its tasks, and how many files that task
# has put in place when it is killed between two: none where it writes one only.
PLACES = {
    "scan": ("scan", 1, 1),
    "partition": ("partition.shuffle", 2, 2),
    "neighbors": ("neighbors", 3, 2),
    "calibrate": ("calibrate", 1, 3),
    "symmetrize": ("symmetrize", 2, 2),
    "initialize": ("initialize", 0, 1),
    "layout": ("layout", 1, 2),
    "publish": ("publish", 1, 0),
    "report": ("report.loss", 1, 0),
}
# A task that writes nothing cannot be killed between two writes: the summary can, and ends the report.
BETWEEN = PLACES | {"report": ("report.summary", 0, 1)}
# Deaths of the driver: each stage at one moment, all moments among them.
MOMENTS = dict(zip(PLACES, ["before", "between", "after"] * 3, strict=True))


def file_config():
    """What the shipped configuration of a cluster says."""
    path = Path(__file__).parents[2] / "cluster_configs" / "local.yaml"
    return dask.config.merge(
        {"distributed": dask.config.get("distributed")}, yaml.safe_load(path.read_text())
    )


@pytest.fixture(scope="module")
def forks():
    """A context whose processes begin with everything imported: the nanny's, schedulers and drivers."""
    context = multiprocessing.get_context("forkserver")
    distributed.utils.get_mp_context()
    context.set_forkserver_preload(["distributed", "daskumap.pipeline", "daskumap.api", "test_faults"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed.utils, "_forkserver_preload_set", True)
        yield context


@pytest.fixture(scope="module")
def workers(forks):
    """Two worker processes with a nanny each, on a scheduler with the shipped configuration."""
    spawning = {"distributed.worker.multiprocessing-method": "forkserver"}
    with (
        dask.config.set(file_config()),
        dask.config.set(spawning),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit="4GB",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def both(workers):
    """The client, when both workers are there again."""
    workers.wait_for_workers(2, timeout=60)
    return workers


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    data = uneven_clusters(2100, 8, 6, seed=3).rows()
    path = tmp_path_factory.mktemp("faults") / "data.zarr"
    zarr.create_array(str(path), data=data, chunks=(700, 8))
    return path


def fit_with(engine, source, run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daskumap.api._engine", lambda *_: engine)
        return daskumap.fit(source, run, **OPTIONS)


@pytest.fixture(scope="module")
def stopped(source):
    """{step: a run store that stopped before it}, the digest of the whole map, and tasks by step."""
    paths, run = {}, source.parent / "run.zarr"
    for step in sorted({place[0] for place in [*PLACES.values(), *BETWEEN.values()]}, key=STEPS.index):
        engine = FailingEngine(SequentialEngine(MEMORY), source.parent / "w", stop_at=step)
        with pytest.raises(Fault):
            fit_with(engine, source, run)
        paths[step] = source.parent / f"{step}.zarr"
        shutil.copytree(run, paths[step])
    whole = daskumap.resume(run, client="sequential", progress=False)
    return paths, sha(whole.embedding), whole.status()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "run.zarr"


@pytest.fixture
def witnesses(tmp_path):
    return tmp_path / "witnesses"


def check_clean(place, stopped):
    """The map is the same, nothing is damaged, and nothing is left over."""
    assert sha(daskumap.open(place).embedding) == stopped[1]
    assert daskumap.open(place).status() == stopped[2]
    assert daskumap.verify(place) == {}
    assert not list((place / "lock").iterdir())
    assert not list(place.rglob("*.partial"))


def check_counts(engine, stopped, step, attempts, deaths=0):
    """The failing task ran so often; others that a dead worker had may run again, three for each death."""
    runs = {path.name.rsplit("-", 1)[0]: 0 for path in engine.folder.iterdir()}
    for path in engine.folder.iterdir():
        runs[path.name.rsplit("-", 1)[0]] += 1
    names = {f"{name}-{number}" for name in STEPS[STEPS.index(step) :] for number in range(stopped[2][name])}
    assert runs.keys() == names
    for (name, number), count in engine.faults.items():
        assert runs.pop(f"{name}-{number}") == attempts, count
    again = {name: count for name, count in runs.items() if count > 1}
    assert sum(again.values()) - len(again) <= 3 * deaths, again


def begin(stopped, place, step):
    shutil.copytree(stopped[0][step], place)


@pytest.mark.parametrize("group", PLACES)
def test_a_task_that_raises_once(stopped, source, place, witnesses, client_1x2, group):
    step, task, _ = PLACES[group]
    begin(stopped, place, step)
    engine = FailingEngine(DaskEngine(client_1x2), witnesses, {(step, task): [OSError("lightning")]})
    fit_with(engine, source, place)
    check_clean(place, stopped)
    check_counts(engine, stopped, step, attempts=2)


@pytest.mark.parametrize("group", PLACES)
def test_a_task_that_always_raises(stopped, source, place, witnesses, client_1x2, group):
    step, task, _ = PLACES[group]
    begin(stopped, place, step)
    engine = FailingEngine(DaskEngine(client_1x2), witnesses, {(step, task): [OSError("lightning")] * 9})
    message = rf"Stage '{step}', task {task} failed {RETRIES + 1} times, at last with OSError: lightning\. "
    with pytest.raises(TaskError, match=message + "Mend the cause. Finished tasks are kept: `daskumap res"):
        fit_with(engine, source, place)
    assert engine.runs(step, task) == RETRIES + 1
    assert not daskumap.open(place).finished
    assert task not in daskumap.open(place).store.ledger.records(step)
    assert not list((place / "lock").iterdir())
    daskumap.resume(place, client="sequential", progress=False)
    check_clean(place, stopped)


@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("group", PLACES)
def test_a_worker_that_is_killed(stopped, source, place, witnesses, both, group, when):
    step, task, writes = (BETWEEN if when == "between" else PLACES)[group]
    begin(stopped, place, step)
    engine = FailingEngine(DaskEngine(both), witnesses, {(step, task): [Kill(when, writes)]})
    fit_with(engine, source, place)
    check_clean(place, stopped)
    check_counts(engine, stopped, step, attempts=2, deaths=1)


@pytest.mark.parametrize("times", [ALLOWED_FAILURES, ALLOWED_FAILURES + 1])
def test_a_task_that_kills_its_workers(stopped, source, place, witnesses, both, times):
    """As often as workers may die for one task, and once more; exceptions have a limit of their own."""
    begin(stopped, place, "neighbors")
    deaths = [Kill("before")] * times
    faults = [*deaths[:2], OSError("lightning"), *deaths[2:]]  # the two do not add up
    engine = FailingEngine(DaskEngine(both), witnesses, {("neighbors", 3): faults})
    if times <= ALLOWED_FAILURES:
        fit_with(engine, source, place)
    else:
        with pytest.raises(
            TaskError,
            match=r"Stage 'neighbors', task 3: 4 workers died while they ran it, as they do when memory "
            r"runs out .*The plan gives a task \d+ MB \(input window .*\), and a worker [34],\d+ MB with 1 "
            r"thread.*"
            r"Resume with fewer threads a worker, or with more memory.* a lower `max_cell_rows` \(restart\)",
        ):
            fit_with(engine, source, place)
        daskumap.resume(place, client="sequential", progress=False)
    assert engine.runs("neighbors", 3) == times + 1 + (times <= ALLOWED_FAILURES)
    check_clean(place, stopped)


def test_this_process_keeps_its_threads(both):
    """What a nanny sets before it spawns stays set here, and Numba compiles no more if its pool is larger."""
    assert "NUMBA_NUM_THREADS" not in os.environ


def test_workers_keep_no_profile(workers):
    """It keeps the call stacks of an hour, which no plan knows of."""

    def profiles(dask_worker):
        return [name for name in dask_worker.periodic_callbacks if "profile" in name]

    engine = DaskEngine(None, MEMORY, 1)
    try:
        for client in (engine.client, workers):
            assert list(client.run(profiles).values()) == [[]] * len(client.scheduler_info()["workers"])
    finally:
        engine.close()


def test_limits_of_clusters(workers, client_1x1):
    """Of the embedded cluster and the shipped configuration; a given one has its own, the same by default."""

    def allowed(dask_scheduler):
        return dask_scheduler.allowed_failures

    engine = DaskEngine(None, MEMORY, 1)
    try:
        clients = [engine.client, workers, client_1x1]
        assert [client.run_on_scheduler(allowed) for client in clients] == [ALLOWED_FAILURES] * 3
    finally:
        engine.close()


def _serve(pipe):
    """Be a scheduler with a worker of one thread: whoever kills the one kills the other."""
    with dask.config.set({"distributed.scheduler.worker-ttl": None}):
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            protocol="tcp",
            memory_limit="4GB",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=50,
        )
    pipe.send(cluster.scheduler_address)
    time.sleep(600)


@pytest.mark.parametrize("group", PLACES)
def test_a_scheduler_that_is_lost(stopped, source, place, witnesses, forks, group):
    step, task, _ = PLACES[group]
    begin(stopped, place, step)
    here, there = forks.Pipe()
    scheduler = forks.Process(target=_serve, args=(there,), daemon=True)
    scheduler.start()
    engine = FailingEngine(DaskEngine(here.recv()), witnesses, {(step, task): [Kill(MOMENTS[group], 1)]})
    if MOMENTS[group] == "between":
        engine.faults = {BETWEEN[group][:2]: [Kill("between", BETWEEN[group][2])]}
    ((step, task),) = engine.faults
    started = time.monotonic()
    message = (
        rf"Stage '{step}', task \d+ was cancelled, as all are when the connection to the scheduler at tcp://"
    )
    with pytest.raises(TaskError, match=message + r"127\.0\.0\.1:\d+ is lost\. .* Finished tasks are kept"):
        fit_with(engine, source, place)
    assert time.monotonic() - started < 30
    scheduler.join(10)
    assert scheduler.exitcode == -signal.SIGKILL
    assert not list((place / "lock").iterdir())
    assert engine.runs(step, task) == 1
    done = daskumap.open(place).status()
    rest = FailingEngine(SequentialEngine(MEMORY), place.parent / "rest")
    fit_with(rest, source, place)
    check_clean(place, stopped)
    assert {name: count + rest.counts().get(name, 0) for name, count in done.items()} == stopped[2]


def _drive(source, place, folder, faults):
    fit_with(FailingEngine(SequentialEngine(MEMORY), folder, faults), source, place)


@pytest.mark.parametrize("group", PLACES)
def test_a_driver_that_is_killed(stopped, source, place, witnesses, forks, group):
    when = MOMENTS[group]
    step, task, writes = (BETWEEN if when == "between" else PLACES)[group]
    begin(stopped, place, step)
    driver = forks.Process(
        target=_drive, args=(source, place, witnesses, {(step, task): [Kill(when, writes)]})
    )
    driver.start()
    driver.join(120)
    assert driver.exitcode == -signal.SIGKILL
    assert len(list((place / "lock").iterdir())) == 1  # nobody gave it back
    done = daskumap.open(place).status()
    assert done[step] == task  # all before it, in order, and not itself
    rest = FailingEngine(SequentialEngine(MEMORY), place.parent / "rest")
    fit_with(rest, source, place)
    check_clean(place, stopped)
    assert {name: count + rest.counts().get(name, 0) for name, count in done.items()} == stopped[2]


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_worker_that_is_killed_in_a_shared_layout(
    stopped, source, place, witnesses, both, monkeypatch, when
):
    """With several partitions the engine passes blocks around: a segment is what is done again."""
    begin(stopped, place, "layout")
    monkeypatch.setattr("daskumap.api.Sizes", lambda **known: Sizes(**{**known, "layout_rows": 1024}))
    shutil.rmtree(place / "layout", ignore_errors=True)
    engine = FailingEngine(DaskEngine(both), witnesses, {("layout", 1): [Kill(when)]})
    run = fit_with(engine, source, place)
    assert run.store.array("layout/even/positions").chunks[0] == 1024
    check_clean(place, stopped)
    if when != "before":
        assert engine.runs("layout.save", 1) == 2
    assert engine.runs("layout", 1) >= (2 if when == "before" else 1)


def _race(source, place, folder, barrier, outcomes):
    barrier.wait()
    try:
        fit_with(FailingEngine(SequentialEngine(MEMORY), folder), source, place)
        outcomes.put("finished")
    except StoreError as error:
        outcomes.put(str(error))


def test_two_processes_that_race(stopped, source, place, tmp_path, forks):
    """On a free place: one runs, the other is told by whom the place is taken."""
    for attempt in range(3):
        shutil.rmtree(place, ignore_errors=True)
        barrier, outcomes = forks.Barrier(2), forks.Queue()
        drivers = [
            forks.Process(target=_race, args=(source, place, tmp_path / f"{attempt}-{i}", barrier, outcomes))
            for i in range(2)
        ]
        for driver in drivers:
            driver.start()
        said = sorted(outcomes.get(timeout=120) for _ in drivers)
        for driver in drivers:
            driver.join(60)
        assert said[1 if said[0] != "finished" else 0] == "finished"
        pids = {str(driver.pid) for driver in drivers}
        refused = [text for text in said if text != "finished"]
        assert len(refused) == 1
        assert any(f"in use by process {pid} on" in refused[0] for pid in pids)
        check_clean(place, stopped)


def test_a_damaged_chunk_of_the_input_on_dask(place, tmp_path, client_1x2):
    data = uneven_clusters(2100, 8, 6, seed=3).rows()
    path = tmp_path / "data.zarr"
    zarr.create_array(str(path), data=data, chunks=(700, 8))
    chunk = path / "c" / "1" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:100])
    with pytest.raises(SourceError, match=r"Rows 700 to 1400 of .*data\.zarr cannot be read: chunk 'c/1/0'"):
        daskumap.fit(path, place, client=client_1x2, **OPTIONS)
    chunk.write_bytes(whole)
    assert daskumap.fit(path, place, client=client_1x2, **OPTIONS).finished
