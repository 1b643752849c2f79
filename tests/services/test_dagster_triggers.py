"""The schedule and the sensor of a job file: what they ask for, and when."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.errors import ParameterError

pytestmark = pytest.mark.services
dagster = pytest.importorskip("dagster")

PARAMETERS = {"n_neighbors": 5, "n_epochs": 5, "random_state": 7}


@pytest.fixture
def instance():
    with dagster.DagsterInstance.local_temp() as instance:
        yield instance


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "X.zarr")
    write_job(tmp_path, source="X.zarr", run="map.zarr")
    return tmp_path


def write(path, rows=30, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
    shutil.rmtree(path, ignore_errors=True)
    zarr.save_array(str(path), values)


def write_job(folder, **job):
    (folder / "job.yaml").write_text(json.dumps({"parameters": PARAMETERS, **job}))


def define(folder, **options):
    from daskumap.dagster import definitions

    return definitions(folder / "job.yaml", **options).get_repository_def()


class Looks:
    """A sensor that is called again and again with the cursor of its last call."""

    def __init__(self, repository, instance):
        self.repository, self.instance, self.cursor = repository, instance, None

    def __call__(self):
        """Return the partitions that are asked for, and what is said."""
        context = dagster.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=self.repository
        )
        context._instance_ref = self.instance.get_ref()  # which the daemon gives, and the builder does not
        found = self.repository.get_sensor_def("job_sensor").evaluate_tick(context)
        self.cursor = found.cursor
        for request in found.dynamic_partitions_requests:
            self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        return [one.partition_key for one in found.run_requests], found.skip_message


def test_an_input_is_made_once_it_has_settled(folder, instance):
    look = Looks(define(folder), instance)
    assert look() == ([], "The input is new or changed; it is made once it has settled.")
    assert look()[0] == [None]
    assert look() == ([], "Nothing changed.")
    write(folder / "X.zarr", seed=1)
    assert look()[0] == []
    write(folder / "X.zarr", seed=2)
    assert look()[0] == []
    assert look()[0] == [None]
    assert look()[0] == []


def test_other_parameters_and_new_rows_are_changes(folder, instance):
    write(folder / "new.zarr", 4)
    job = {"source": "X.zarr", "run": "map.zarr", "transform": [{"source": "new.zarr", "out": "placed.zarr"}]}
    write_job(folder, **job)
    look = Looks(define(folder), instance)
    assert [look()[0] for _ in range(3)] == [[], [None], []]
    write(folder / "new.zarr", 5)
    assert [look()[0] for _ in range(3)] == [[], [None], []]
    write_job(folder, **job, **{"parameters": {**PARAMETERS, "n_epochs": 6}})
    assert [look()[0] for _ in range(3)] == [[], [None], []]


def test_a_data_set_that_cannot_be_read_hides_no_other(folder, instance):
    write(folder / "a.zarr")
    write_job(folder, source="{partition}.zarr", run="maps/{partition}.zarr")
    look = Looks(define(folder, partitions=["missing", "a"]), instance)
    assert "missing.zarr" in look()[1]
    assert look()[0] == ["a"]
    write(folder / "missing.zarr")
    assert [look()[0] for _ in range(2)] == [[], ["missing"]]


def test_data_sets_are_found(folder, instance):
    write_job(folder, source="sets/{partition}/X.zarr", run="maps/{partition}.zarr")
    found = dagster.DynamicPartitionsDefinition(name="sets")
    repository = define(folder, partitions=found)
    look = Looks(repository, instance)
    assert look() == ([], "Nothing changed.")
    for name in ("b", "a"):
        write(folder / "sets" / name / "X.zarr")
    assert look()[0] == []
    assert instance.get_dynamic_partitions("sets") == ["a", "b"]
    assert look()[0] == ["a", "b"]
    assert ticks(repository, instance) == ["a", "b"]


def test_data_sets_of_a_bucket_have_to_be_named(folder, instance):
    write_job(folder, source="s3://bucket/{partition}.zarr", run="maps/{partition}.zarr")
    look = Looks(define(folder, partitions=dagster.DynamicPartitionsDefinition(name="sets")), instance)
    with pytest.raises(ParameterError, match="is a URL, where no data sets are looked for"):
        look()


def ticks(repository, instance, when=datetime(2026, 1, 4, 2, tzinfo=UTC)):
    """Return the partitions that the schedule asks for at a time."""
    context = dagster.build_schedule_context(
        instance, scheduled_execution_time=when, repository_def=repository
    )
    found = repository.get_schedule_def("job_schedule").evaluate_tick(context)
    return [one.partition_key for one in found.run_requests]


def test_the_schedule_asks_for_all_and_of_days_for_the_last_complete_one(folder, instance):
    assert ticks(define(folder), instance) == [None]
    write_job(folder, source="{partition}.zarr", run="maps/{partition}.zarr")
    assert ticks(define(folder, partitions=("a", "b")), instance) == ["a", "b"]
    days = dagster.DailyPartitionsDefinition("2026-01-01")
    assert ticks(define(folder, partitions=days), instance) == ["2026-01-03"]
    early = datetime(2026, 1, 1, 2, tzinfo=UTC)
    assert ticks(define(folder, partitions=days), instance, early) == []


def test_cron_and_zone_are_those_that_were_given(folder):
    schedule = define(folder, schedule="30 1 * * 1", timezone="Europe/Berlin").get_schedule_def(
        "job_schedule"
    )
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 1 * * 1", "Europe/Berlin")
    bare = define(folder, schedule=None, sensor=False)
    assert not bare.schedule_defs
    assert not bare.sensor_defs


def test_a_run_whose_machine_was_switched_off_counts_as_failed(folder, instance):
    """It would be under way for ever, and none would follow it."""
    from daskumap.dagster.runs import PROCESS, sign

    repository = define(folder)
    job = repository.get_job("job")
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    started = [
        instance.create_run_for_job(job, status=dagster.DagsterRunStatus.STARTED).run_id for _ in range(3)
    ]
    for run in started[:2]:
        sign(instance, run)
    process = json.loads(instance.get_run_by_id(started[0]).tags[PROCESS])
    assert process["pid"] == os.getpid()
    instance.add_run_tags(started[0], {PROCESS: json.dumps({**process, "pid": int(dead.stdout)})})
    Looks(repository, instance)()
    status = [instance.get_run_by_id(run).status for run in started]
    assert status == [dagster.DagsterRunStatus.FAILURE, *[dagster.DagsterRunStatus.STARTED] * 2]
    other = {**process, "system": "another-boot 1"}
    instance.add_run_tags(started[1], {PROCESS: json.dumps(other)})
    Looks(repository, instance)()
    assert instance.get_run_by_id(started[1]).status == dagster.DagsterRunStatus.FAILURE


def test_a_run_as_input_is_known_by_its_id(folder, instance):
    daskumap.fit(folder / "X.zarr", folder / "first.zarr", progress=False, report=False, **PARAMETERS)
    write_job(folder, source="first.zarr", run="map.zarr")
    look = Looks(define(folder), instance)
    assert [look()[0] for _ in range(3)] == [[], [None], []]
