"""The layout of few rows: how many threads share it, and that neither they nor the calls change the map."""

import numpy as np

from daskumap.engine.clusters import make_engine
from daskumap.engine.machine import available_cores
from daskumap.engine.sequential import SequentialEngine
from daskumap.stages.map import layout

MEMORY = 2 * 10**9


def test_the_map_is_the_same_in_calls_for_several_iterations_and_in_pieces(fit, small, monkeypatch):
    teams = []

    class Seen(layout.Team):
        def __init__(self, *arguments):
            teams.append(arguments[-1])
            super().__init__(*arguments)

    monkeypatch.setattr(layout, "Team", Seen)
    monkeypatch.setattr(layout, "ROWS_A_THREAD", 100)
    shared = np.asarray(fit(small, client=SequentialEngine(MEMORY, cores=3)).embedding)
    alone = np.asarray(fit(small).embedding)
    assert teams == [3, 1]
    monkeypatch.setattr(layout, "MOST_READ", 0)
    np.testing.assert_array_equal(np.asarray(fit(small).embedding), shared)
    np.testing.assert_array_equal(alone, shared)
    assert teams == [3, 1]


def test_few_rows_have_the_cores_of_this_machine_for_a_task_that_can_share_its_work():
    assert make_engine(None, rows=5_000).resources.cores == available_cores()
    assert make_engine("sequential", rows=5_000).resources.cores == 1
