"""Contexts on workers: one a worker and run, opened by its first task, closed with the run. Lost clusters."""

import contextlib
import functools
import logging
import os
import pickle
import signal
import sys
import threading
import time

import dask
import pytest
from conftest import say_into, sha
from distributed import Client, Future, LocalCluster
from stand_ins import OPENED, FakeContext, deaf, open_fake, run, stage_in_rounds, stage_of, whole

import daskumap
from daskumap.engine.clusters import make_engine
from daskumap.engine.dask import ContextPlugin, DaskEngine, _lean, _quiet
from daskumap.errors import ClusterError, DaskumapError, TaskError
from daskumap.planning.stage import Receipt
from daskumap.runtime.listen import tell
from daskumap.testing.faults import FailingEngine, Kill


@pytest.fixture
def opened():
    OPENED.clear()
    return OPENED


def start_cluster(workers):
    # Without a time to live: a machine that pauses must not lose its worker.
    with dask.config.set({"distributed.scheduler.worker-ttl": None}):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=2,
            processes=False,
            protocol="tcp",
            memory_limit="4GB",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=50,
        )


@pytest.fixture(scope="module")
def cluster():
    with start_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster, set_as_default=False) as client:
        yield client


def plugins(client):
    """Return the names of the contexts that workers keep for runs."""

    def names(dask_worker):
        return [name for name in dask_worker.plugins if name.startswith("daskumap-")]

    return [name for found in client.run(names).values() for name in found]


def test_each_worker_opens_one_context(client, opened):
    run(DaskEngine(client), stage_of(tasks=40))
    assert len(opened) == 2
    assert [context.closed for context in opened] == [1, 1]
    assert plugins(client) == []


def test_a_context_lasts_for_the_run(client, opened):
    engine = DaskEngine(client)
    engine.begin(FakeContext())
    for name in ("one", "two"):
        assert len(list(engine.run(stage_of(tasks=40, name=name), list(range(40)), deaf))) == 40
    assert [context.entered for context in opened] == [["one", "two"]] * 2
    assert [context.closed for context in opened] == [0, 0]
    engine.end()
    assert [context.closed for context in opened] == [1, 1]
    engine.end()  # also after `begin` failed, or twice


def test_contexts_are_closed_after_an_error(client, opened):
    def fail(context, number):
        raise ValueError("no")

    with pytest.raises(RuntimeError, match="failed 3 times, at last with ValueError: no"):
        run(DaskEngine(client), stage_of(fail))
    assert opened
    assert all(context.closed == 1 for context in opened)
    assert plugins(client) == []


def test_a_worker_that_joins_later_opens_a_context(opened):
    with start_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        engine = DaskEngine(client)
        engine.begin(FakeContext())
        list(engine.run(stage_of(), list(range(6)), deaf))
        cluster.scale(2)
        client.wait_for_workers(2, timeout=30)
        list(engine.run(stage_of(tasks=40), list(range(40)), deaf))
        engine.end()
        assert [context.closed for context in opened] == [1, 1]


def test_a_run_closes_the_contexts_of_drivers_that_died(client, opened):
    """They hold memory for nobody; if the driver is alive after all, its next task opens one again."""
    first, second = DaskEngine(client), DaskEngine(client)
    first.begin(FakeContext("memory://first"))
    list(first.run(stage_of(tasks=40), list(range(40)), deaf))
    second.begin(FakeContext("memory://second"))
    assert [context.closed for context in opened] == [1, 1]
    assert len(list(first.run(stage_of(tasks=40), list(range(40)), deaf))) == 40
    assert [context.url for context in opened] == ["memory://first"] * 4
    second.end()
    assert [context.closed for context in opened] == [1, 1, 0, 0]
    first.end()
    assert [context.closed for context in opened] == [1, 1, 1, 1]


def test_a_context_in_use_is_closed_after_its_task():
    plugin = ContextPlugin(FakeContext)
    with plugin.use() as one:
        with plugin.use() as other:
            assert one is other
            plugin.release()
        assert not one.closed
    assert one.closed == 1
    with plugin.use() as again:
        assert again is not one
    assert not again.closed


def test_one_context_is_opened_whoever_comes_first():
    opened, met = [], threading.Barrier(8)

    def open_slowly():
        time.sleep(0.05)
        opened.append(FakeContext())
        return opened[-1]

    plugin = ContextPlugin(open_slowly)

    def use():
        met.wait()
        with plugin.use():
            pass

    users = [threading.Thread(target=use) for _ in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert len(opened) == 1


def test_a_plugin_is_pickled_without_its_context():
    plugin = ContextPlugin(functools.partial(open_fake, "memory://x"))
    with plugin.use(), pickle.loads(pickle.dumps(plugin)).use() as context:
        assert context.url == "memory://x"
        assert plugin._context is not context


def test_two_runs_on_one_client_at_once(client):
    """Each hears of its own tasks."""
    heard = {0: [], 1: []}

    def slow(context, number):
        tell(number / 100)
        time.sleep(0.05)
        return Receipt(1)

    def fit(name):
        engine = DaskEngine(client)
        engine.begin(FakeContext())
        todo = list(range(10 * name, 10 * name + 10))
        list(engine.run(stage_of(slow, 20), todo, lambda *news: heard[name].append(news)))
        time.sleep(0.5)
        engine.end()

    fits = [threading.Thread(target=fit, args=(name,)) for name in heard]
    for thread in fits:
        thread.start()
    for thread in fits:
        thread.join(60)
    for name, news in heard.items():
        assert sorted(news) == [(number, number / 100) for number in range(10 * name, 10 * name + 10)]


def test_what_is_sent_with_a_task_is_small(client):
    """The driver keeps what only it needs, however large."""
    large = stage_of(conclude=functools.partial(print, bytes(10_000_000)))
    done = run(DaskEngine(client), large)
    assert len(done) == 6
    assert len(pickle.dumps(_lean(large))) < 2000


def test_a_given_client_stays_open(client):
    engine = DaskEngine(client)
    run(engine, stage_of())
    engine.close()
    assert client.submit(sum, [1, 2]).result() == 3


def test_tasks_that_someone_else_cancels(client):
    def wait(context, number):
        time.sleep(1)
        return Receipt(1)

    engine = DaskEngine(client)
    engine.begin(FakeContext())
    canceller = threading.Timer(0.3, lambda: client.cancel(_futures(client)))
    canceller.start()
    with pytest.raises(
        ClusterError, match=r"The run was cut off in stage 'probe', task \d: its tasks on the sch"
    ):
        list(engine.run(stage_of(wait, 4), list(range(4)), deaf))
    canceller.join()
    engine.end()


def _futures(client):
    return [Future(key, client) for key in list(client.futures)]


def _serve(pipe):
    """Be a scheduler with a worker: whoever kills the one kills the other."""
    cluster = start_cluster(1)
    pipe.send(cluster.scheduler_address)
    time.sleep(600)


@pytest.fixture
def scheduler(forks):
    """The process of a scheduler with a worker, and its address."""
    here, there = forks.Pipe()
    process = forks.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    yield process, here.recv()
    process.kill()
    process.join()


def _nap(begun, context, number):
    begun.touch()
    time.sleep(0.2)
    return Receipt(1)


def _drive(address, ordered, folder):
    """Be a driver whose scheduler is lost; what it says goes into files."""
    say_into(folder)
    logging.basicConfig(level=logging.ERROR)
    engine = make_engine(address)
    try:
        run(engine, stage_of(functools.partial(_nap, folder / "begun"), 1000, ordered=ordered))
    except DaskumapError as error:
        sys.stdout.write(f"{type(error).__name__} {error}\n")
        sys.stdout.flush()
    finally:
        engine.close()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_a_scheduler_that_is_lost(scheduler, forks, tmp_path, how, ordered):
    """It has an error of its own, which comes soon, and Dask prints nothing."""
    process, address = scheduler
    driver = forks.Process(target=_drive, args=(address, ordered, tmp_path))
    driver.start()
    while not (tmp_path / "begun").exists():
        assert driver.is_alive()
        time.sleep(0.01)
    time.sleep(0.3)  # until several tasks are done
    os.kill(process.pid, how)
    started = time.monotonic()
    driver.join(60)
    assert time.monotonic() - started < 10
    out, err = ((tmp_path / name).read_text() for name in ("stdout", "stderr"))
    assert out.startswith(
        f"ClusterError The connection to the scheduler at {address} was lost in stage 'probe', "
    )
    assert "Look for it, or start another one. Finished tasks are kept: `daskumap resume`, or" in out
    assert err == ""
    assert driver.exitcode == 0


def test_a_scheduler_that_is_lost_before_the_first_stage(scheduler):
    process, address = scheduler
    client = Client(address, set_as_default=False, timeout=2)
    engine = DaskEngine(client)
    process.kill()
    process.join()
    with pytest.raises(
        ClusterError, match=r"The connection to the scheduler .* was lost before the first st"
    ):
        engine.begin(FakeContext())
    engine.end()
    with contextlib.suppress(RuntimeError):  # Dask's own: a time-out that ends while the client closes.
        client.close()


def test_what_else_dask_logs_is_seen(client, caplog):
    """Its logger is silent only while a client of ours is closed, and two that close do not confuse it."""
    logger = logging.getLogger("distributed.client")
    before, filters = logger.level, list(logger.filters)
    with _quiet(), _quiet():
        logger.error("during")
    logger.error("after")
    assert (logger.level, logger.filters) == (before, filters)
    assert "during" not in caplog.text


def test_a_loss_while_the_client_sends(cluster, caplog):
    """Dask logs a traceback then. Of a worker's connection it is still seen."""
    caplog.set_level(logging.INFO, logger="distributed.batched")
    with Client(cluster, set_as_default=False) as client:
        DaskEngine(client)
        stream = client.scheduler_comm

        async def lose():
            stream.send({"op": "heartbeat-client"})
            stream.comm.abort()
            await stream.stopped.wait()

        client.sync(lose)
    assert "Batched Comm Closed" not in caplog.text
    logging.getLogger("distributed.batched").info("Batched Comm Closed %r", "<TCP Worker->Scheduler>")
    assert "Worker->Scheduler" in caplog.text


class Deadly:
    """Ends its process in the first attempts, which it counts in files."""

    def __init__(self, folder, deaths):
        self.folder, self.deaths = folder, deaths

    def __call__(self, context, number):
        if number == 0:
            count = len(list(self.folder.iterdir()))
            (self.folder / str(count)).touch()
            if count < self.deaths:
                time.sleep(0.3)  # a nanny replaces no worker that it has not heard of
                os.kill(os.getpid(), signal.SIGKILL)
        return Receipt(1)


@pytest.fixture(scope="module")
def processes(forks):
    allowed = {"distributed.scheduler.allowed-failures": 1}
    with (
        dask.config.set(allowed),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit="1GB",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_worker_that_dies(processes, tmp_path, deaths):
    """The one in its place opens a context of its own, until too many have died for one task."""
    processes.wait_for_workers(2, timeout=60)
    stage = stage_of(Deadly(tmp_path, deaths), 1)  # others on the worker would be blamed with it
    if deaths == 1:
        assert len(run(DaskEngine(processes), stage)) == 1
        assert plugins(processes) == []
    else:
        message = r"Stage 'probe', task 0: 2 workers died while they ran it, as they do when memory runs out"
        with pytest.raises(TaskError, match=message):
            run(DaskEngine(processes), stage)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_fit_whose_worker_dies(processes, small, fit, write, tmp_path):
    """The same bits; of all stages and moments test_faults.py has a matrix, in the run of processes."""
    processes.wait_for_workers(2, timeout=60)
    options = {"checkpoint_every": 5}
    death = {("layout", 1): [Kill("between", 2)]}
    engine = FailingEngine(DaskEngine(processes), tmp_path / "witnesses", death)
    run = fit(write(small), tmp_path / "run.zarr", client=engine, **options)
    assert engine.runs("layout", 1) == 2
    assert sha(run.embedding) == sha(fit(small, **options).embedding)
    assert daskumap.verify(tmp_path / "run.zarr") == {}


def test_a_part_whose_worker_dies(processes, tmp_path):
    """Its rounds begin anew, on another worker or on the one in its place."""
    processes.wait_for_workers(2, timeout=60)
    die = Deadly(tmp_path, 1)

    def step(context, part, now, state, total):
        die(context, part)
        return [part, state[1] + now * total + part]

    done = run(DaskEngine(processes), stage_in_rounds(step=step))
    assert [receipt.found["sum"] for _, receipt in done] == [
        whole(3, ((1, 2, 3), (4, 5)))(None, segment).found["sum"] for segment in range(2)
    ]
