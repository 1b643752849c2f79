"""What tasks share with all else in their process, and processes that are forked from it."""

import time
from pathlib import Path

import pytest

from daskumap.engine.process import peak_bytes

FORK = """
import faulthandler, os, sys, threading
sys.path.insert(0, {folder!r})
from stand_ins import run, stage_of
from daskumap.engine.clusters import make_engine
from daskumap.errors import DaskumapError
{before}

def attempt():
    done = run(make_engine({client!r}, 10**9), stage_of())
    return len(done)

{parent}
if (child := os.fork()) == 0:
    faulthandler.dump_traceback_later(20, exit=True)
    try:
        print(attempt(), flush=True)
    except DaskumapError as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os._exit(os.waitpid(child, 0)[1] >> 8)
"""


@pytest.fixture
def in_a_fork(execute):
    """What a fit says in a forked child, and how long it took."""

    def run(client, parent="attempt()", before=""):
        code = FORK.format(folder=str(Path(__file__).parent), client=client, parent=parent, before=before)
        started = time.monotonic()
        ended, out, err = execute(code)
        assert ended == 0, err
        return out.strip(), time.monotonic() - started

    return run


@pytest.mark.parametrize("client", [None, "threads", "sequential"])
def test_a_forked_child_works_after_its_parent(in_a_fork, client):
    assert in_a_fork(client)[0] == "6"


def test_a_child_forked_while_its_parent_works(in_a_fork):
    """The locks and counts of tasks that run in other threads are not the child's."""
    busy = (
        "from daskumap.engine.process import one_thread, _tasks\n"
        "inside = one_thread()\n"
        "inside.__enter__()\n"
        "_tasks.lock.acquire()\n"
    )
    assert in_a_fork(None, busy)[0] == "6"


OPENMP = """
import numba, numpy
@numba.njit(parallel=True)
def total(values):
    found = 0.0
    for place in numba.prange(len(values)):
        found += values[place]
    return found
numba.config.THREADING_LAYER = "omp"
total(numpy.ones(10))
"""


@pytest.mark.parametrize("client", [None, "sequential"])
def test_a_child_that_numba_would_end_is_refused(in_a_fork, client):
    """As after a fit whose neighbours were searched by descent, in threads of GNU OpenMP."""
    said, seconds = in_a_fork(client, OPENMP)
    assert said.startswith(
        "ProcessError This process was forked from one that had used OpenMP, which does not"
    )
    assert "multiprocessing.get_context('spawn')" in said
    assert seconds < 40


CLIENT = """
from distributed import Client, LocalCluster
cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", memory_limit="1GB",
    dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0")
client = Client(cluster)
from daskumap.engine import dask
dask.ANSWER_SECONDS = 1
"""


def test_a_client_that_was_forked_is_refused(in_a_fork):
    """Its event loop is in the parent alone: whoever asks waits for ever."""
    said, _ = in_a_fork(None, CLIENT)
    assert said.startswith("ParameterError The client of the scheduler at tcp://127.0.0.1:")
    assert (
        "If it was made before this process was forked, it does not work here: give tcp://127.0.0.1:" in said
    )


def test_the_peak_is_of_this_process():
    block = bytearray(100_000_000)
    assert peak_bytes() > len(block)
