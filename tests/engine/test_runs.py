"""Whole runs on engines: tasks that fail, and how far a run says it is."""

import pytest
from conftest import QUIET, sha

import daskumap
from daskumap.engine.dask import DaskEngine
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import TaskError
from daskumap.kernels.layout.firing import MASKED
from daskumap.params import OPTIMIZERS, make_params
from daskumap.pipeline import FIT, steps_of
from daskumap.testing.faults import FailingEngine, Fault

STEPS = tuple(step.name for step in steps_of(FIT, make_params({"report": False})))
OPTIONS = {"n_epochs": 20, "checkpoint_every": 5, "max_cell_rows": 512}
MEMORY = 4 * 10**9


@pytest.fixture(scope="module")
def data(clustered):
    """Rows of several cells, and of two tasks of each stage."""
    return clustered[:1300]


@pytest.fixture(scope="module")
def expected(data):
    return sha(daskumap.fit(data, **QUIET, **OPTIONS, report=False).embedding)


@pytest.fixture(params=["threads", "1x2"])
def retrying(request):
    """An engine that tries a task again."""
    if request.param == "threads":
        return ThreadsEngine(MEMORY, 2)
    return DaskEngine(request.getfixturevalue(f"client_{request.param}"))


def test_tasks_that_fail_twice_are_tried_again(fit, data, expected, retrying, tmp_path):
    tasks = {"scan": 0, "partition.order": 0, "neighbors": 1, "layout": 2, "report.ranks": 0}
    faults = {task: [Fault("once"), Fault("twice")] for task in tasks.items()}
    engine = FailingEngine(retrying, tmp_path / "witnesses", faults)
    run = fit(data, tmp_path / "run.zarr", client=engine, report=True, **OPTIONS)
    assert sha(run.embedding) == expected
    status = run.status()
    assert engine.counts() == status | {stage: status[stage] + 2 for stage in tasks}


def test_a_task_that_always_fails(fit, data, expected, retrying, tmp_path):
    faults = {("layout", 2): [OSError("disk is gone")] * 9}
    engine = FailingEngine(retrying, tmp_path / "witnesses", faults)
    with pytest.raises(TaskError, match=r"Stage 'layout', task 2 failed 3 times, .* OSError: disk is gone"):
        fit(data, tmp_path / "run.zarr", client=engine, **OPTIONS)
    # What was finished is kept, and nothing after it was begun.
    status = daskumap.open(tmp_path / "run.zarr").status()
    assert status["layout"] == 2
    assert engine.counts()["layout"] == 5
    assert status["initialize"] == 1
    assert not status["publish"]
    rest = FailingEngine(retrying, tmp_path / "rest")
    run = fit(data, tmp_path / "run.zarr", client=rest, **OPTIONS)
    assert rest.counts()["layout"] == 2
    assert "calibrate" not in rest.counts()
    assert sha(run.embedding) == expected


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


@pytest.mark.parametrize("client", ["sequential", "threads", "1x2"])
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
    if client != "1x2":  # long tasks say how far they are, after each set of masks
        assert len(stages["layout"][2]) >= OPTIONS["n_epochs"] * OPTIMIZERS["adam"] / MASKED


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
        def run(self, stage, todo, listener):
            for number, receipt in super().run(stage, todo, listener):
                yield number, receipt
                listener(number, 0.5)

    progress = Recorder()
    fit(data, client=Late(MEMORY), progress=progress, **OPTIONS)
    for tasks, _, advances in progress.stages().values():
        assert advances == sorted(advances)
        assert advances[-1] == tasks
