"""What every engine does: each task once, in order where it matters, measured, with one BLAS thread."""

import signal
import threading
import time

import pytest
from distributed import Client, LocalCluster
from stand_ins import (
    ATTEMPTS,
    FakeContext,
    Flaky,
    deaf,
    fail_at_three,
    run,
    square,
    square_in_halves,
    stage_in_rounds,
    stage_of,
    whole,
)
from threadpoolctl import threadpool_info, threadpool_limits

from daskumap.engine.dask import DaskEngine
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import WINDOW, ThreadsEngine
from daskumap.errors import SourceError, StoreError, TaskError
from daskumap.planning.sizes import Resources
from daskumap.planning.stage import Receipt
from daskumap.runtime.listen import tell

MEMORY = 4 * 10**9


@pytest.fixture(scope="module")
def client_2x1():
    """Two workers, between which rounds are shared."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=False,
            memory_limit="4GB",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(params=["sequential", "threads", "1x2", "2x1"])
def engine(request):
    if request.param == "sequential":
        return SequentialEngine(MEMORY)
    if request.param == "threads":
        return ThreadsEngine(MEMORY, 2)
    return DaskEngine(request.getfixturevalue(f"client_{request.param}"))


@pytest.fixture
def threads():
    return ThreadsEngine(MEMORY, 2)


def test_each_task_is_run_once(engine):
    done = run(engine, stage_of(tasks=40))
    assert sorted(number for number, _ in done) == list(range(40))
    for number, receipt in done:
        assert receipt.found == {"square": number**2}
        assert receipt.seconds > 0
        assert receipt.peak_bytes > 10**7


def test_ordered_tasks_are_run_in_order(engine):
    done = run(engine, stage_of(tasks=12, ordered=True))
    assert [number for number, _ in done] == list(range(12))


def test_errors_in_our_words_arrive_as_they_are(engine):
    with pytest.raises(SourceError, match="row 7 is broken"):
        run(engine, stage_of(fail_at_three))


def test_a_run_follows_one_that_failed(engine):
    with pytest.raises(SourceError):
        run(engine, stage_of(fail_at_three))
    assert len(run(engine, stage_of())) == 6


def test_long_tasks_say_how_far_they_are(engine):
    heard = []
    run(engine, stage_of(square_in_halves, 4), listener=lambda *news: heard.append(news))
    deadline = time.monotonic() + 5
    while len(heard) < 4 and time.monotonic() < deadline:  # events of a cluster may follow the results
        time.sleep(0.01)
    assert sorted(heard) == [(number, 0.5) for number in range(4)]


def test_a_full_disk_names_the_place(engine):
    def fill(context, number):
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"task \d found no space left in memory://run \(ENOSPC\)"):
        run(engine, stage_of(fill))


def most_threads():
    return max(pool["num_threads"] for pool in threadpool_info())


def blas_threads(context, number):
    time.sleep(0.02)  # so that both threads are in a task
    return Receipt(1, {"threads": most_threads()})


def test_one_blas_thread_inside_tasks(engine):
    """Also after another thread of this process has set a limit; and the user's limit is back afterwards."""
    with threadpool_limits(2):
        assert most_threads() == 2
        assert {receipt.found["threads"] for _, receipt in run(engine, stage_of(blas_threads))} == {1}
        assert most_threads() == 2


@pytest.fixture
def sharing(engine):
    """An engine that runs rounds part by part."""
    if engine.resources.workers == 1 and not engine.local:
        pytest.skip("one worker runs the segment as a task")
    return engine


def test_one_blas_thread_in_rounds(sharing):
    def step(context, part, now, state, total):
        return [part, most_threads()]

    with threadpool_limits(2):
        done = run(sharing, stage_in_rounds(step=step))
    assert [receipt.found["sum"] for _, receipt in done] == [3, 3]


@pytest.mark.parametrize("rounds", [1, 5, 37])
def test_rounds_are_the_same_as_a_whole_segment(engine, rounds):
    segments = (tuple(range(1, rounds + 1)), (3,))
    expected = [whole(3, segments)(None, segment).found["sum"] for segment in range(2)]
    done = run(engine, stage_in_rounds(segments=segments))
    assert [receipt.found["sum"] for _, receipt in done] == expected
    assert [receipt.rows for _, receipt in done] == [3, 3]
    assert all(receipt.seconds > 0 and receipt.peak_bytes > 10**7 for _, receipt in done)


def test_rounds_say_how_far_they_are(sharing):
    """After every round in this process, after every ten on a cluster."""
    heard = []
    run(sharing, stage_in_rounds(segments=(tuple(range(40)),)), listener=lambda *news: heard.append(news))
    assert len(heard) == 40 if sharing.local else 4
    assert {number for number, _ in heard} == {0}
    assert heard == sorted(heard)


def test_a_part_that_fails_is_named(sharing):
    def fail(context, part, now, state, total):
        raise ZeroDivisionError("no")

    with pytest.raises(TaskError, match=r"Stage 'probe', task 0 failed.* ZeroDivisionError: no\."):
        run(sharing, stage_in_rounds(step=fail))


def test_a_local_engine_tells_its_context_of_every_stage():
    for engine in (SequentialEngine(MEMORY), ThreadsEngine(MEMORY, 2)):
        context = FakeContext()
        for name in ("one", "two"):
            run(engine, stage_of(name=name), context)
        assert context.entered == ["one", "two"]
        assert not context.closed  # it is the driver's
        assert engine.local


def test_the_sequential_engine_tries_once():
    task = Flaky(1)
    with pytest.raises(TaskError, match="Stage 'probe', task 0 failed with OSError: lightning"):
        run(SequentialEngine(MEMORY), stage_of(task))
    assert task.calls == 1


def test_a_thread_tries_again(threads):
    task = Flaky(ATTEMPTS - 1)
    assert len(run(threads, stage_of(task))) == 6
    assert task.calls == 6 + ATTEMPTS - 1


def test_a_thread_gives_up(threads):
    task = Flaky(99)
    with pytest.raises(TaskError, match=rf"failed {ATTEMPTS} times, at last with OSError: lightning\. Mend"):
        run(threads, stage_of(task, 40))
    assert task.calls <= (2 * WINDOW + 2) * ATTEMPTS  # most of what waited was never begun


def test_errors_that_are_no_exceptions_arrive(threads):
    def leave(context, number):
        raise SystemExit("over")

    with pytest.raises(SystemExit, match="over"):
        run(threads, stage_of(leave))


def test_no_more_is_under_way_than_the_window(threads):
    begun = []

    def count(context, number):
        begun.append(number)
        return Receipt(1)

    threads.begin(FakeContext())
    done = threads.run(stage_of(count), list(range(40)), deaf)
    for taken in range(1, 10):
        next(done)
        time.sleep(0.02)
        assert len(begun) <= WINDOW * 2 + taken
    done.close()
    time.sleep(0.02)
    assert len(begun) < 40


def test_tasks_run_at_the_same_time(threads):
    both = threading.Barrier(2, timeout=10)

    def meet(context, number):
        both.wait()
        return Receipt(1)

    assert len(run(threads, stage_of(meet, 2))) == 2


def test_what_runs_ends_soon_after_an_error(threads):
    """Another task that would take for ever ends where it says how far it is."""
    begun = threading.Event()

    def fail_or_go_on(context, number):
        if number == 0:
            begun.wait(10)
            raise SourceError("broken")
        begun.set()
        while True:
            tell(0.1)
            time.sleep(0.001)

    started = time.monotonic()
    with pytest.raises(SourceError, match="broken"):
        run(threads, stage_of(fail_or_go_on, 2))
    assert time.monotonic() - started < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("daskumap-task")]


@pytest.fixture
def interruptible():
    """A process that a shell starts in the background ignores interruptions."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_leaves_no_thread(threads, interruptible):
    def go_on(context, number):
        if number == 1:
            time.sleep(0.2)  # until the driver waits: an interruption of a thread's start is Python's to mend
            signal.raise_signal(signal.SIGINT)
        while True:
            tell(0.1)
            time.sleep(0.001)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(threads, stage_of(go_on, 2))
    assert time.monotonic() - started < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("daskumap-task")]


def test_threads_start_no_server(threads):
    """No port, and no more threads than it was told."""
    import psutil

    seen = []

    def look(context, number):
        time.sleep(0.01)
        seen.append((len(psutil.Process().net_connections()), threading.active_count()))
        return Receipt(1)

    before = len(psutil.Process().net_connections()), threading.active_count()
    run(threads, stage_of(look))
    assert threads.resources == Resources(MEMORY, 1, 2)
    assert max(seen) <= (before[0], before[1] + 2)


def test_two_runs_at_once(engine):
    """Each gets its own receipts, and the limit on BLAS stays until the last one is done."""
    if not engine.local:
        pytest.skip("an engine has one run at a time")
    results, errors = {}, []

    def fit(name):
        one = type(engine)(MEMORY, *([2] if isinstance(engine, ThreadsEngine) else []))
        try:
            results[name] = [run(one, stage_of(blas_threads, 10 if name else 30)) for _ in range(3)]
        except BaseException as error:
            errors.append(error)

    with threadpool_limits(2):
        fits = [threading.Thread(target=fit, args=(name,)) for name in range(2)]
        for thread in fits:
            thread.start()
        for thread in fits:
            thread.join(60)
        assert not errors
        assert {r.found["threads"] for runs in results.values() for done in runs for _, r in done} == {1}
        assert most_threads() == 2


def test_a_peak_is_not_forgotten_while_another_run_needs_it():
    """It is the process', and so is the counter: a stage that starts must not clear what another one saw."""
    mine, theirs = SequentialEngine(MEMORY), SequentialEngine(MEMORY)

    def large(context, number):
        block = bytearray(200_000_000)
        del block
        run(theirs, stage_of(square, 1, name="other"))
        return Receipt(1)

    run(mine, stage_of(square, 1, name="first"))
    low = run(mine, stage_of(square, 1, name="before"))[0][1].peak_bytes
    high = run(mine, stage_of(large, 1, name="large"))[0][1].peak_bytes
    after = run(mine, stage_of(square, 1, name="after"))[0][1].peak_bytes
    assert high > low + 150_000_000
    assert after < high - 100_000_000
