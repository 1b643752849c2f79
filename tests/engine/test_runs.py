"""Engines: retries and failures, progress, addresses, one BLAS thread inside tasks."""

import dataclasses
import io
import json
import logging
import threading
import time

import pytest
from conftest import sha
from daskumap.engine.cluster import DaskEngine
from daskumap.planning.held import held
from distributed import LocalCluster
from threadpoolctl import threadpool_info, threadpool_limits

import daskumap
from daskumap.engine import cluster as cluster_module
from daskumap.engine.base import SequentialEngine
from daskumap.errors import ParameterError, SourceError, TaskError
from daskumap.params import make_params
from daskumap.pipeline import STEPS
from daskumap.planning.job import Job
from daskumap.planning.sizes import Resources, make_sizes
from daskumap.planning.stage import Stage
from daskumap.testing.faults import FailingEngine, Fault

OPTIONS = {"n_epochs": 20, "checkpoint_every": 5, "max_cell_rows": 512}


@pytest.fixture(params=["sequential", "1x1", "1x2"])
def engine(request, sequential):
    if request.param == "sequential":
        return sequential
    return DaskEngine(request.getfixturevalue(f"client_{request.param}"))


@pytest.fixture
def data(clustered):
    return clustered[:3000]


@pytest.fixture
def job():
    params = make_params({"random_state": 0})
    resources = Resources(4 * 10**9)
    return Job("", "job", {}, params, make_sizes(1000, 4, 15, 2, resources), resources)


def square(job, number):
    time.sleep(0.001 * (number % 3))
    return {"square": number**2}


def fail_at_three(job, number):
    if number == 3:
        raise SourceError("row 7 is broken")
    return {}


def hold(job, number):
    return {"token": held(job, "token", object)}  # not JSON, but no receipt of these goes to a store


def test_what_a_stage_holds_is_freed_by_the_next(sequential, job):
    """One object for all tasks of a stage, another for the next stage's, and for another run's."""

    def tokens(name, job):
        receipts = dict(sequential.run(Stage(name, hold, 3, {}), job, [0, 1, 2], print))
        return {receipt["token"] for receipt in receipts.values()}

    first = tokens("hold", job)
    assert len(first) == 1
    assert tokens("hold", job) == first
    other = tokens("hold", dataclasses.replace(job, id="other"))
    seen = [first, other, tokens("rest", job), tokens("hold", job)]
    assert len(set.union(*seen)) == 4


def most_threads():
    return max(pool["num_threads"] for pool in threadpool_info())


def blas_threads(job, number):
    time.sleep(0.02)  # so that both threads are in a task
    return {"threads": most_threads()}


def run(engine, job, task, todo, **options):
    stage = Stage("probe", task, len(todo), {}, **options)
    return list(engine.run(stage, job, todo, lambda number, share: None))


def test_each_task_is_run_once(engine, job):
    todo = list(range(5, 45))
    done = run(engine, job, square, todo)
    assert sorted(number for number, _ in done) == todo
    for number, receipt in done:
        assert receipt["square"] == number**2
        assert receipt["seconds"] > 0
        assert receipt["peak_bytes"] > 10**7


def test_ordered_tasks_are_run_in_order(engine, job):
    done = run(engine, job, square, list(range(12)), ordered=True)
    assert [number for number, _ in done] == list(range(12))


def test_errors_in_our_words_arrive_as_they_are(engine, job):
    with pytest.raises(SourceError, match="row 7 is broken"):
        run(engine, job, fail_at_three, list(range(6)))


def test_one_blas_thread_inside_tasks(engine, job):
    """Also after another thread of this process has set a limit; and the user's limit is back afterwards."""
    with threadpool_limits(2):
        assert most_threads() == 2
        assert {receipt["threads"] for _, receipt in run(engine, job, blas_threads, list(range(6)))} == {1}
        assert most_threads() == 2


@pytest.mark.parametrize(
    ("stage", "task"),
    [("scan", 0), ("partition.order", 0), ("neighbors", 1), ("layout", 2), ("report.ranks", 0)],
)
def test_a_task_that_fails_twice_is_tried_again(fit, fit_bits, data, client_1x2, tmp_path, stage, task):
    faults = {(stage, task): [Fault("once"), Fault("twice")]}
    engine = FailingEngine(DaskEngine(client_1x2), tmp_path / "witnesses", faults)
    run = fit(data, client=engine, **OPTIONS)
    assert sha(run.embedding) == fit_bits(data, **OPTIONS)
    status = run.status()
    assert engine.counts() == status | {stage: status[stage] + 2}


def test_a_task_that_always_fails(fit, data, client_1x2, tmp_path):
    faults = {("layout", 2): [OSError("disk is gone")] * 9}
    engine = FailingEngine(DaskEngine(client_1x2), tmp_path / "witnesses", faults)
    with pytest.raises(TaskError, match=r"Stage 'layout', task 2 failed 3 times, .* OSError: disk is gone"):
        fit(data, tmp_path / "run.zarr", client=engine, **OPTIONS)
    # What was finished is kept, and nothing after it was begun.
    status = daskumap.open(tmp_path / "run.zarr").status()
    assert status["layout"] == 2
    assert engine.counts()["layout"] == 5
    assert status["initialize"] == 1
    assert not status["publish"]
    rest = FailingEngine(DaskEngine(client_1x2), tmp_path / "rest")
    run = fit(data, tmp_path / "run.zarr", client=rest, **OPTIONS)
    assert rest.counts()["layout"] == 2
    assert "calibrate" not in rest.counts()
    assert sha(run.embedding) == sha(fit(data, **OPTIONS).embedding)


class Recorder:
    """A progress that remembers what it was told."""

    def __init__(self):
        self.events = []

    def start(self, stage, tasks, done):
        self.events.append(("start", stage, tasks, done))

    def advance(self, done):
        self.events.append(("advance", done))

    def finish(self):
        self.events.append(("finish",))

    def stages(self):
        """Return {stage: (tasks, done at the start, advances)}; starts and finishes must alternate."""
        found, open_ = {}, None
        for kind, *values in self.events:
            if kind == "start":
                assert open_ is None
                open_, found[values[0]] = values[0], (values[1], values[2], [])
            elif kind == "advance":
                found[open_][2].append(values[0])
            else:
                open_ = None
        assert open_ is None
        return found


@pytest.mark.parametrize("client", ["sequential", "1x1", "1x2"])
def test_progress(fit, data, client):
    progress = Recorder()
    status = fit(data, client=client, progress=progress, **OPTIONS).status()
    stages = progress.stages()
    assert tuple(stages) == STEPS
    for name, (tasks, done, advances) in stages.items():
        assert (tasks, done) == (status[name], 0)
        assert advances == sorted(advances), name
        assert advances[-1] == tasks
        assert len(advances) >= tasks
    if client == "sequential":  # long tasks say how far they are
        assert len(stages["layout"][2]) >= OPTIONS["n_epochs"]


def test_progress_of_a_run_that_goes_on(fit, data, sequential, tmp_path):
    engine = FailingEngine(sequential, tmp_path / "witnesses", {("layout", 3): [Fault()]})
    with pytest.raises(TaskError, match="Stage 'layout', task 3 failed with Fault"):
        fit(data, tmp_path / "run.zarr", client=engine, **OPTIONS)
    progress = Recorder()
    fit(data, tmp_path / "run.zarr", progress=progress, **OPTIONS)
    stages = progress.stages()
    assert stages["scan"] == (stages["scan"][0], stages["scan"][0], [])
    assert stages["layout"][:2] == (4, 3)
    assert stages["layout"][2][0] >= 3
    assert stages["layout"][2][-1] == 4


def test_shares_that_arrive_late_are_ignored(fit, data, sequential):
    """Events come through the scheduler: the news of a task may follow its result."""

    class Late(SequentialEngine):
        def run(self, stage, job, todo, listener):
            for number, receipt in super().run(stage, job, todo, listener):
                yield number, receipt
                listener(number, 0.5)

    progress = Recorder()
    fit(data, client=Late(4 * 10**9), progress=progress, **OPTIONS)
    for tasks, _, advances in progress.stages().values():
        assert advances == sorted(advances)
        assert advances[-1] == tasks


@pytest.fixture(scope="module")
def reachable():
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        memory_limit="4GB",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster.scheduler_address


def test_addresses_and_scheduler_files(fit_bits, small, reachable, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": reachable}))
    expected = fit_bits(small, n_epochs=5)
    for client in (reachable, file, str(file)):
        assert fit_bits(small, client=client, n_epochs=5) == expected


@pytest.mark.parametrize(
    ("client", "message"),
    [
        ("tcp://127.0.0.1:9", r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        ("nonsense://x", "No Dask scheduler answers at nonsense"),
        ("none.json", r"There is no scheduler file none\.json"),
    ],
)
def test_schedulers_out_of_reach(fit, small, monkeypatch, client, message):
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(ParameterError, match=message):
        fit(small, client=client)
    assert time.monotonic() - started < 15


def test_a_cluster_without_workers(fit, small):
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
        pytest.raises(ParameterError, match="The Dask cluster has no workers"),
    ):
        fit(small, client=client)


def test_a_given_client_stays_open(fit, small, client_1x1):
    fit(small, client=client_1x1, n_epochs=5)
    assert client_1x1.submit(sum, [1, 2]).result() == 3


def test_workers_are_seen_while_the_client_asks_for_other_things(client_1x2):
    """A client asks its scheduler every two seconds how it is, without its workers, and keeps the answer."""
    engine, over = DaskEngine(client_1x2), threading.Event()

    def ask():
        while not over.is_set():
            client_1x2.sync(client_1x2._update_scheduler_info)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert [len(engine._workers()) for _ in range(200)] == [1] * 200
    finally:
        over.set()
        asking.join()


def test_the_embedded_cluster_is_reached_by_nobody_else():
    """No port is open beyond this machine, and the cluster goes with its engine."""
    import psutil

    def listening():
        found = psutil.Process().net_connections(kind="inet")
        return {connection.laddr for connection in found if connection.status == psutil.CONN_LISTEN}

    before = listening()
    engine = DaskEngine(None, 2 * 10**9, 1)
    opened = listening() - before
    assert {address.ip for address in opened} <= {"127.0.0.1", "::1"}
    assert engine.resources == Resources(2 * 10**9, 1, 1)
    engine.close()
    assert not (listening() & opened)


def test_closing_prints_no_traceback():
    """What a heartbeat logs that finds its scheduler gone; the same is printed before and after."""
    printed = io.StringIO()
    handlers = [h for h in logging.getLogger("distributed").handlers if isinstance(h, logging.StreamHandler)]
    levels = [handler.level for handler in handlers]
    streams = [handler.setStream(printed) for handler in handlers]
    engine = DaskEngine(threads=1)
    close, log = engine._cluster.close, logging.getLogger("distributed.worker")
    engine._cluster.close = lambda: (log.error("during"), close())
    log.error("before")
    engine.close()
    log.error("after")
    for handler, stream in zip(handlers, streams, strict=True):
        handler.setStream(stream)
    texts = ("before", "during", "after")
    assert [text for text in texts if text in printed.getvalue()] == ["before", "after"]
    assert [handler.level for handler in handlers] == levels


def test_no_default_client_is_left(fit, small):
    from distributed import default_client

    fit(small, client=None, threads=1, n_epochs=5)
    with pytest.raises(ValueError, match="No clients found"):
        default_client()
