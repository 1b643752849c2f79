"""The fault matrix: each stage x each kind of death. The same bits or the right error, a clean store, and
which task ran how often.

One run goes through all stages and suffers one kind of death in each of them, so that a row of the matrix
costs one fit. Scratch is freed meanwhile, as by default. Processes come from one fork server that has
imported everything.
"""

import dataclasses
import os
import shutil
import signal
import time
from collections import Counter

import dask
import pytest
import zarr
from conftest import is_held, sha
from distributed import Client, LocalCluster
from shipped_config import ALLOWED_FAILURES, LOCAL

import daskumap
from daskumap.engine.base import RETRIES
from daskumap.engine.clusters import make_engine
from daskumap.engine.dask import DaskEngine
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import ClusterError, SourceError, StoreError, TaskError
from daskumap.opening import (
    open_model,
)
from daskumap.report.progress import Silent
from daskumap.request import make_request, make_transform_request
from daskumap.session import (
    fit_request,
)
from daskumap.testing.datasets import uneven_clusters
from daskumap.testing.faults import FailingEngine, Kill

# One worker that dies, one scheduler that is lost and one driver that is killed are in the default run too:
# in test_dask.py and in tests/store/test_reliability.py.
pytestmark = pytest.mark.processes

PARAMS = {"n_epochs": 12, "checkpoint_every": 4, "max_cell_rows": 512, "random_state": 1}
MEMORY = 4 * 10**9
# The step of each group of stages in which the fault comes, one of its tasks, and how many files that task
# has put in place when it is killed between two: none where it writes one only.
PLACES = {
    "scan": ("scan", 1, 1),
    "partition": ("partition.shuffle", 1, 2),
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
# Deaths of the driver and of the scheduler: each stage at one moment, all moments among them.
MOMENTS = dict(zip(PLACES, ["before", "between", "after"] * 3, strict=True))


def kill(group, when):
    """Return a schedule in which the process that runs a task of a group of stages dies."""
    step, task, writes = (BETWEEN if when == "between" else PLACES)[group]
    return {(step, task): [Kill(when, writes)]}


@pytest.fixture(scope="module")
def workers(forks):
    """Two worker processes with a nanny each, on a scheduler with the shipped configuration."""
    defaults = {"distributed": dask.config.get("distributed")}
    with (
        dask.config.set(dask.config.merge(defaults, LOCAL)),
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


class Patient(FailingEngine):
    """Lets no worker die before the one that died last is back: its task has two to run on."""

    def run(self, stage, *args):
        if any(name == stage.name for name, _ in self.faults):
            self.engine.client.wait_for_workers(2, timeout=60)
        return super().run(stage, *args)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    data = uneven_clusters(2100, 8, 6, seed=3).rows()
    path = tmp_path_factory.mktemp("faults") / "data.zarr"
    zarr.create_array(str(path), data=data, chunks=(700, 8))
    return path


def fit_with(engine, source, run, **sizes):
    """Fit with an engine, and with sizes that may not matter: the same number of tasks for all engines."""
    request = make_request(source, PARAMS, None)
    request = dataclasses.replace(
        request, adjust=lambda made: dataclasses.replace(made, group_rows=1050, **sizes)
    )
    return daskumap.Run(fit_request(request, run, engine, Silent(), restart=False))


@pytest.fixture(scope="module")
def whole(source):
    """An undisturbed run: the digest of its map, and its tasks by step."""
    run = fit_with(SequentialEngine(MEMORY), source, source.parent / "whole.zarr")
    return sha(run.embedding), run.status()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "run.zarr"


@pytest.fixture
def witnesses(tmp_path):
    return tmp_path / "witnesses"


def check_clean(place, whole):
    """The map is the same, nothing is damaged, and nothing is left over."""
    run = daskumap.open(place)
    assert (sha(run.embedding), run.status()) == whole
    assert daskumap.verify(place) == {}
    assert not is_held(place)
    assert not list(place.rglob("*.partial"))
    assert not any((place / name).exists() for name in run.store.ledger.freed())


def check_counts(engine, whole, in_flight=0):
    """Each task ran once, and a failing one once more.

    So many others of its stage may run again: what a dead worker had, or whose receipt a lost scheduler had
    not passed on yet. A run that goes on reads its input again.
    """
    runs = Counter(path.name.rsplit("-", 1)[0] for path in engine.folder.iterdir())
    runs = Counter({task: count for task, count in runs.items() if not task.startswith("scan.reread-")})
    assert runs.keys() == {f"{name}-{number}" for name, tasks in whole[1].items() for number in range(tasks)}
    again = Counter()
    for name, number in engine.faults:
        assert runs.pop(f"{name}-{number}") == 2, name
    for task, count in runs.items():
        again[task.rsplit("-", 1)[0]] += count - 1
    dying = {name for name, _ in engine.faults}
    assert all(count <= (in_flight if name in dying else 0) for name, count in again.items()), again


def test_tasks_that_raise_once(source, whole, place, witnesses, client_1x2):
    faults = {(step, task): [OSError("lightning")] for step, task, _ in PLACES.values()}
    engine = FailingEngine(DaskEngine(client_1x2), witnesses, faults)
    fit_with(engine, source, place)
    check_clean(place, whole)
    check_counts(engine, whole)


def test_tasks_that_always_raise(source, whole, place, tmp_path, client_1x2):
    """Each ends the run, which goes on when the cause is mended, to the next such task."""
    for group, (step, task, _) in PLACES.items():
        faults = {(step, task): [OSError("lightning")] * 9}
        engine = FailingEngine(DaskEngine(client_1x2), tmp_path / group, faults)
        message = (
            rf"Stage '{step}', task {task} failed {RETRIES + 1} times, at last with OSError: lightning\."
        )
        with pytest.raises(
            TaskError, match=message + " Mend the cause. Finished tasks are kept: `daskumap res"
        ):
            fit_with(engine, source, place)
        assert engine.runs(step, task) == RETRIES + 1
        assert not daskumap.open(place).finished
        assert task not in daskumap.open(place).store.ledger.records(step)
        assert not is_held(place)
    daskumap.resume(place, client="sequential", progress=False)
    check_clean(place, whole)


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_workers_that_are_killed(source, whole, place, witnesses, both, when):
    faults = {}
    for group in PLACES:
        faults |= kill(group, when)
    engine = Patient(DaskEngine(both), witnesses, faults)
    fit_with(engine, source, place)
    check_clean(place, whole)
    check_counts(engine, whole, in_flight=3)


def test_tasks_that_kill_their_workers(source, whole, place, witnesses, both):
    """As often as workers may die for one task, and once more; exceptions have a limit of their own."""
    death, error = Kill("before"), OSError("lightning")
    faults = {  # the two do not add up
        ("partition.shuffle", 1): [death, death, error, *[death] * (ALLOWED_FAILURES - 2)],
        ("neighbors", 3): [death, death, error, *[death] * (ALLOWED_FAILURES - 1)],
    }
    engine = Patient(DaskEngine(both), witnesses, faults)
    with pytest.raises(
        TaskError,
        match=rf"Stage 'neighbors', task 3: {ALLOWED_FAILURES + 1} workers died while they ran it, as they "
        r"do when memory runs out .*The plan gives a task \d+ MB \(input window .*\), and a worker [34],\d+ "
        r"MB with 1 thread.*"
        r"Resume with fewer threads a worker, or with more memory.* a lower `max_cell_rows` \(restart\)",
    ):
        fit_with(engine, source, place)
    assert engine.runs("partition.shuffle", 1) == ALLOWED_FAILURES + 2
    assert engine.runs("neighbors", 3) == ALLOWED_FAILURES + 2
    daskumap.resume(place, client="sequential", progress=False)
    check_clean(place, whole)


def test_this_process_keeps_its_threads(both):
    """What a nanny sets before it spawns stays set here, and Numba compiles no more if its pool is larger."""
    assert "NUMBA_NUM_THREADS" not in os.environ


def test_workers_keep_no_profile(workers):
    """It keeps the call stacks of an hour, which no plan knows of."""

    def profiles(dask_worker):
        return [name for name in dask_worker.periodic_callbacks if "profile" in name]

    assert list(workers.run(profiles).values()) == [[]] * len(workers.scheduler_info()["workers"])


def test_limits_of_clusters(workers, client_1x1):
    """Of the shipped configuration; a given cluster has its own, the same by default."""

    def allowed(dask_scheduler):
        return dask_scheduler.allowed_failures

    assert [client.run_on_scheduler(allowed) for client in (workers, client_1x1)] == [ALLOWED_FAILURES] * 2


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


@pytest.fixture
def schedulers(forks):
    """A scheduler for each group of stages: its process, and where its address comes from."""
    made = {}
    for group in PLACES:
        here, there = forks.Pipe()
        made[group] = forks.Process(target=_serve, args=(there,), daemon=True), here
        made[group][0].start()
    yield made
    for process, _ in made.values():
        process.kill()
        process.join(10)


def test_schedulers_that_are_lost(source, whole, place, witnesses, schedulers):
    """In each stage one; another one goes on."""
    faults = {}
    for group, (process, address) in schedulers.items():
        ((step, task),) = fault = kill(group, MOMENTS[group])
        engine = FailingEngine(make_engine(address.recv()), witnesses, fault)
        faults |= fault
        started = time.monotonic()
        message = r"The connection to the scheduler at tcp://127\.0\.0\.1:\d+ was lost in stage "
        with pytest.raises(ClusterError, match=message + rf"'{step}', task \d+\. .* Finished tasks are kept"):
            fit_with(engine, source, place)
        assert time.monotonic() - started < 30
        engine.close()
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
        assert not is_held(place)
        assert engine.runs(step, task) == 1
    rest = FailingEngine(SequentialEngine(MEMORY), witnesses, faults)
    fit_with(rest, source, place)
    check_clean(place, whole)
    check_counts(rest, whole, in_flight=1)


def _drive(source, place, folder, faults):
    fit_with(FailingEngine(SequentialEngine(MEMORY), folder, faults), source, place)


def test_drivers_that_are_killed(source, whole, place, witnesses, forks):
    """In each stage one; the next one takes its place, though nobody gave the lock back."""
    faults = {}
    for group in PLACES:
        fault = kill(group, MOMENTS[group])
        ((step, task),) = fault
        faults |= fault
        driver = forks.Process(target=_drive, args=(source, place, witnesses, faults))
        driver.start()
        driver.join(120)
        assert driver.exitcode == -signal.SIGKILL
        assert is_held(place)  # nobody gave it back
        assert daskumap.open(place).status()[step] == task  # all before it, in order, and not itself
    rest = FailingEngine(SequentialEngine(MEMORY), witnesses, faults)
    fit_with(rest, source, place)
    check_clean(place, whole)
    check_counts(rest, whole)


def test_workers_that_are_killed_in_a_shared_layout(source, whole, place, witnesses, both):
    """With several partitions the engine passes blocks around: a segment is what is done again."""
    moments = {number: Kill(when) for number, when in enumerate(["before", "between", "after"])}
    faults = {("layout", number): [death] for number, death in moments.items()}
    engine = Patient(DaskEngine(both), witnesses, faults)
    run = fit_with(engine, source, place, layout_rows=1024)
    assert run.store.about["sizes"]["layout_rows"] == 1024
    check_clean(place, whole)
    assert engine.runs("layout", 0) >= 2
    assert [engine.runs("layout.save", number) for number in (1, 2)] == [2, 2]


def test_workers_that_are_killed_in_a_transform(source, whole, place, witnesses, both):
    """In each of its steps one: before its task, while it writes, and after."""
    model = daskumap.open(source.parent / "whole.zarr")
    rows = zarr.open_array(str(source), mode="r")[:900] + 0.25
    new = place.with_name("new.zarr")
    zarr.create_array(str(new), data=rows, chunks=(100, 8))
    expected = model.transform(rows, client="sequential", progress=False)
    moments = {
        ("transform.reach", 0): Kill("after"),
        ("transform.scan", 1): Kill("between", 1),
        ("transform.gather", 1): Kill("between", 2),
        ("transform.place", 1): Kill("before"),
        ("transform.place", 2): Kill("between", 1),
    }
    engine = Patient(DaskEngine(both), witnesses, {task: [death] for task, death in moments.items()})
    request = make_transform_request(new, open_model(model.store))
    request = dataclasses.replace(request, adjust=lambda made: dataclasses.replace(made, row_block=300))
    placed = daskumap.Transformed(fit_request(request, place, engine, Silent(), restart=False))
    assert sha(placed.embedding) == sha(expected.embedding)
    assert sha(placed.fit_distance) == sha(expected.fit_distance)
    assert [engine.runs(step, task) for step, task in moments] == [2] * len(moments)
    assert daskumap.verify(place) == {}
    assert not list(place.rglob("*.partial"))


def _race(source, places, barrier, outcomes):
    for place in places:
        barrier.wait()
        try:
            fit_with(SequentialEngine(MEMORY), source, place)
            outcomes.put("finished")
        except StoreError as error:
            outcomes.put(str(error))


def test_two_processes_that_race(source, whole, tmp_path, forks):
    """On a free place: one runs, the other is told by whom the place is taken."""
    places = [tmp_path / f"{attempt}.zarr" for attempt in range(3)]
    barrier, outcomes = forks.Barrier(2), forks.Queue()
    drivers = [
        forks.Process(target=_race, args=(source, places, barrier, outcomes), daemon=True) for _ in range(2)
    ]
    for driver in drivers:
        driver.start()
    pids = {str(driver.pid) for driver in drivers}
    for place in places:
        said = [outcomes.get(timeout=120) for _ in drivers]
        refused = [text for text in said if text != "finished"]
        assert len(refused) == 1
        assert any(f"in use by process {pid} on" in refused[0] for pid in pids)
        check_clean(place, whole)
    for driver in drivers:
        driver.join(60)


def test_a_damaged_chunk_of_the_input_on_dask(source, place, tmp_path, client_1x2):
    path = tmp_path / "data.zarr"
    shutil.copytree(source, path)
    chunk = path / "c" / "1" / "0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:100])
    with pytest.raises(SourceError, match=r"Rows 700 to 1400 of .*data\.zarr cannot be read: chunk 'c/1/0'"):
        daskumap.fit(path, place, client=client_1x2, progress=False, **PARAMS)
    chunk.write_bytes(content)
    assert daskumap.fit(path, place, client=client_1x2, progress=False, **PARAMS).finished
