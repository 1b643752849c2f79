"""What `client=` means, how long workers are waited for, and what is refused in our words."""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import threading
import time

import pytest
from dask.utils import parse_bytes
from distributed import Client, LocalCluster, default_client, get_client
from distributed.system import MEMORY_LIMIT
from stand_ins import run, stage_of

from daskumap.engine import clusters
from daskumap.engine import dask as dask_module
from daskumap.engine.clusters import make_engine
from daskumap.engine.dask import DaskEngine
from daskumap.engine.machine import available_cores, available_memory, parse_memory, plan_resources
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import ParameterError
from daskumap.planning.sizes import Resources


def start_cluster(workers, **options):
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        memory_limit="4GB",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        **options,
    )


@pytest.fixture(scope="module")
def cluster():
    with start_cluster(1, protocol="tcp") as cluster:
        yield cluster


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(dask_module, "WAIT_SECONDS", 10)
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 1)


def check_works(engine):
    """All tasks run on the engine, which then closes what it opened."""
    try:
        assert len(run(engine, stage_of())) == 6
    finally:
        engine.close()


def test_without_a_client_threads_of_this_process_work():
    engine = make_engine(None)
    assert isinstance(engine, ThreadsEngine)
    assert engine.resources == Resources(available_memory(), 1, available_cores())
    assert make_engine(None, 10**9, 3).resources == Resources(10**9, 1, 3)
    assert make_engine("threads", None, 2).resources.threads == 2


def test_a_sequential_engine():
    engine = make_engine("sequential", 10**9, 1)
    assert isinstance(engine, SequentialEngine)
    assert engine.resources == Resources(10**9)


def test_a_local_fit_does_not_import_dask():
    """It costs a third of a second, as much as a small fit."""
    code = (
        "import sys\n"
        "from daskumap.engine.clusters import make_engine\n"
        "make_engine(None).close()\n"
        "print([name for name in ('dask', 'distributed') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_active_client_is_used_and_named(cluster, caplog):
    with Client(cluster) as client, caplog.at_level(logging.INFO, "daskumap"):
        engine = make_engine(None)
        assert engine.client is client
        assert f"The active Dask client is used, of {cluster.scheduler_address}" in caplog.text
        check_works(engine)
        assert client.status == "running"  # it is not ours
        assert isinstance(make_engine("threads"), ThreadsEngine)
    assert isinstance(make_engine(None), ThreadsEngine)


def test_a_cluster_object(cluster):
    engine = make_engine(cluster)
    assert isinstance(engine, DaskEngine)
    check_works(engine)
    assert engine.client.status == "closed"
    assert len(cluster.scheduler_info["workers"]) == 1  # the cluster stays


def test_addresses_and_scheduler_files(cluster, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.scheduler_address}))
    for client in (cluster.scheduler_address, file, str(file)):
        engine = make_engine(client)
        assert engine.resources == Resources(4 * 10**9)
        check_works(engine)
        assert engine.client.status == "closed"


def test_no_default_client_is_left(cluster):
    make_engine(cluster.scheduler_address).close()
    with pytest.raises(ValueError, match="No clients found"):
        default_client()


def test_the_memory_of_workers_can_be_lowered(cluster):
    for memory, allowed in ((10**9, 10**9), (10**12, 4 * 10**9), (None, 4 * 10**9)):
        engine = make_engine(cluster, memory)
        assert engine.resources.memory == allowed
        engine.close()


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (
            "tcp://127.0.0.1:9",
            r"No Dask scheduler answers at tcp://127\.0\.0\.1:9 .* Give a Client, a cluster, ",
        ),
        ("nonsense://x", "No Dask scheduler answers at nonsense"),
        ("nan", "No Dask scheduler answers at nan"),
        ("none.json", r"There is no scheduler file none\.json\. Start one with"),
        (7, "client is 7; give a Client, a cluster, an address such as tcp://host:8786, or a scheduler file"),
    ],
)
def test_what_is_no_cluster(quickly, client, message):
    started = time.monotonic()
    with pytest.raises(ParameterError, match=message):
        make_engine(client)
    assert time.monotonic() - started < 15


def test_threads_beside_a_client(cluster):
    with Client(cluster, set_as_default=False) as client:
        for given in (client, cluster, cluster.scheduler_address):
            with pytest.raises(
                ParameterError, match="threads is 2, and the workers of a cluster have their own"
            ):
                make_engine(given, None, 2)
    with Client(cluster), pytest.raises(ParameterError, match="fit in this process with client='threads'"):
        make_engine(None, None, 2)
    with pytest.raises(ParameterError, match="threads is 2, and the sequential engine has one"):
        make_engine("sequential", None, 2)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_threads_that_are_none(threads):
    with pytest.raises(ParameterError, match=r"threads is .*; it must be an integer from 1"):
        make_engine(None, None, threads)


def test_closed_clients_and_clusters():
    with start_cluster(0, protocol="tcp") as cluster:
        client = Client(cluster, set_as_default=False)
        client.close()
        with pytest.raises(ParameterError, match=r"The client is closed\. Give one that is open: a Client, "):
            make_engine(client)
    with pytest.raises(ParameterError, match=r"No Dask scheduler answers at the cluster LocalCluster\("):
        make_engine(cluster)


def test_asynchronous_clients(cluster):
    address = cluster.scheduler_address

    async def attempt():
        async with Client(address, asynchronous=True, set_as_default=False) as client:
            with pytest.raises(
                ParameterError, match=rf"The client is asynchronous, .*\({address}\), or fit in a"
            ):
                make_engine(client)
            # Both ways out that the message names.
            check_works(make_engine(address))
            await asyncio.to_thread(lambda: check_works(make_engine(client)))

    asyncio.run(attempt())


def test_asynchronous_clusters():
    async def attempt():
        async with start_cluster(1, protocol="tcp", asynchronous=True) as cluster:
            with pytest.raises(ParameterError, match="The cluster is asynchronous, "):
                make_engine(cluster)

    asyncio.run(attempt())


@contextlib.contextmanager
def later(seconds, action):
    timer = threading.Timer(seconds, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_workers_that_come_later(quickly, caplog):
    """As those of a batch system, and those of a scheduler that was just started."""
    with start_cluster(0) as cluster, later(1.0, lambda: cluster.scale(2)):
        engine = make_engine(cluster)
        assert engine.resources.workers == 2
        assert caplog.text.count("Waiting up to 10 s for workers of the Dask scheduler at") == 1
        check_works(engine)


def test_workers_that_come_when_there_is_work(quickly):
    with start_cluster(0) as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        check_works(make_engine(cluster))


def test_workers_that_never_come(monkeypatch):
    monkeypatch.setattr(dask_module, "WAIT_SECONDS", 1)
    with start_cluster(0, protocol="tcp") as cluster:
        with pytest.raises(ParameterError) as refused:
            make_engine(cluster)
        address = cluster.scheduler_address
        assert str(refused.value) == (
            f"The Dask cluster at {address} has no workers: none came within 1 s. Start some, as "
            f"`dask worker {address}` does, or give client='threads' to fit here."
        )


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


def fit_here(client=None, make_client=False):
    if make_client:
        get_client()
    engine = make_engine(client)
    try:
        return type(engine).__name__, engine.resources, len(run(engine, stage_of()))
    finally:
        engine.close()


@pytest.mark.parametrize("make_client", [False, True])
def test_a_fit_in_a_task_is_that_task(cluster, make_client):
    """It has the memory of its worker and one thread, and does not wait for the worker's other threads."""
    with Client(cluster, set_as_default=False) as client:
        found = client.submit(fit_here, make_client=make_client, pure=False).result(30)
    if make_client:
        default_client().close()  # the worker is in this process, and closes its own too late
    assert found == ("ThreadsEngine", Resources(4 * 10**9), 6)


def test_a_fit_in_a_task_with_a_client_of_the_same_scheduler(cluster):
    """The worker has one thread: a task that kept it would wait for ever."""
    with Client(cluster, set_as_default=False) as client:
        tasks = [client.submit(fit_here, cluster.scheduler_address, pure=False) for _ in range(2)]
        assert [task.result(30) for task in tasks] == [("DaskEngine", Resources(4 * 10**9), 6)] * 2
        assert client.submit(sum, [1, 2]).result(30) == 3  # the thread is there again


def test_what_is_planned_for():
    assert plan_resources("2GB", 3, 4) == Resources(2 * 10**9, 3, 4)
    assert plan_resources(None, 1, None) == Resources(available_memory(), 1, available_cores())
    with pytest.raises(ParameterError, match="threads is 0"):
        plan_resources(None, 1, 0)


def test_available_memory_is_what_dask_finds():
    assert available_memory() == int(MEMORY_LIMIT * 0.6)


@pytest.mark.parametrize(
    "text",
    [
        "4GB",
        "512MiB",
        "1e6",
        "1e6 kB",
        "5.4 kB",
        "100",
        "MB",
        "1.5Gi",
        "100M",
        " 4 gb",
        "7B",
        "2TiB",
        5.5,
        12,
    ],
)
def test_sizes_are_read_as_dask_reads_them(text):
    assert parse_memory(text) == parse_bytes(text)


@pytest.mark.parametrize("text", ["4 foos", "GBs", "1..2MB", "inf", float("inf"), float("nan"), []])
def test_what_is_no_size(text):
    with pytest.raises(ParameterError, match=r"memory is .*; give bytes, or text such as '4GB'"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["-4GB", "0", 0, -1])
def test_sizes_above_0(text):
    with pytest.raises(ParameterError, match=r"memory is .*; it must be above 0"):
        parse_memory(text)
