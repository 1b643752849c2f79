"""Assets of a job file in this process: what they make, what Dagster shows of it, and how failures go on."""

import base64
import json
import logging

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.errors import ParameterError
from daskumap.store.ledger import Ledger

pytestmark = pytest.mark.services
dagster = pytest.importorskip("dagster")

PARAMETERS = {"n_neighbors": 5, "n_epochs": 10, "random_state": 7}
JOB = f"""
source: X.zarr
run: map.zarr
parameters: {json.dumps(PARAMETERS)}
transform:
  - source: new.zarr
    out: placed.zarr
"""
NOW = dagster.RetryPolicy(max_retries=2, delay=0)


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    return (random.normal(size=(200, 4)) + 8 * random.integers(3, size=(200, 1))).astype(np.float32)


@pytest.fixture
def folder(tmp_path, rows):
    zarr.save_array(str(tmp_path / "X.zarr"), rows)
    zarr.save_array(str(tmp_path / "new.zarr"), rows[:20] + 0.01)
    (tmp_path / "digits.yaml").write_text(JOB)
    return tmp_path


@pytest.fixture
def instance():
    with dagster.DagsterInstance.ephemeral() as instance:
        yield instance


def define(folder, name="digits.yaml", **options):
    from daskumap.dagster import definitions

    return definitions(folder / name, **{"retry": NOW, **options})


def run(defs, instance, name="digits", **options):
    return defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False, **options)


def shown(result):
    """Return the metadata of each asset that was made."""
    made = [
        event.step_materialization_data.materialization for event in result.get_asset_materialization_events()
    ]
    return {
        one.asset_key.path[-1]: {name: value.value for name, value in one.metadata.items()} for one in made
    }


def lines(instance, result):
    return [record.user_message for record in instance.all_logs(result.run_id)]


@pytest.fixture(scope="module")
def first(tmp_path_factory, rows):
    """Make all assets of a job file once."""
    folder = tmp_path_factory.mktemp("first")
    zarr.save_array(str(folder / "X.zarr"), rows)
    zarr.save_array(str(folder / "new.zarr"), rows[:20] + 0.01)
    (folder / "digits.yaml").write_text(JOB)
    with dagster.DagsterInstance.ephemeral() as instance:
        defs = define(folder)
        result = run(defs, instance)
        yield folder, defs, instance, result


def test_the_map_has_the_bits_of_a_fit(first, rows):
    folder, _, _, result = first
    assert result.success
    fitted = daskumap.fit(rows, client="sequential", progress=False, **PARAMETERS)
    found = daskumap.open(folder / "map.zarr")
    assert np.array_equal(found.embedding[:], fitted.embedding[:])
    placed = daskumap.open(folder / "placed.zarr").embedding[:]
    assert np.array_equal(placed, fitted.transform(rows[:20] + np.float32(0.01), progress=False).embedding[:])


def test_measures_and_picture_are_shown(first):
    folder, _, _, result = first
    found, report = shown(result), daskumap.open(folder / "map.zarr").report
    assert found["embedding"]["dagster/row_count"] == 200
    assert found["embedding"]["run"] == str(folder / "map.zarr")
    assert found["embedding"]["parameters"]["n_epochs"] == 10
    assert found["report"]["trustworthiness"] == report["measures"]["trustworthiness"]
    assert found["report"]["verdict"] == report["verdict"]["sentence"]
    assert found["transformed"]["rows"] == 20
    picture = base64.b64decode(found["report"]["map"].partition("base64,")[2].rstrip(")"))
    daskumap.open(folder / "map.zarr").save_picture(folder / "map.png")
    assert picture == (folder / "map.png").read_bytes()


def test_the_verdict_is_a_check(first):
    folder, _, _, result = first
    (check,) = result.get_asset_check_evaluations()
    assert check.passed == daskumap.open(folder / "map.zarr").report["verdict"]["sound"]
    assert check.severity == dagster.AssetCheckSeverity.WARN


def test_messages_and_stages_are_in_the_log(first):
    _, _, instance, result = first
    told = lines(instance, result)
    assert "layout: 1 task" in told
    assert any("The job 'digits' is finished" in line for line in told)
    assert not [one for one in logging.getLogger("daskumap").handlers if "dagster" in type(one).__module__]


def test_what_is_unchanged_is_not_made_again(first):
    folder, defs, instance, before = first
    made = (folder / "map.zarr" / "zarr.json").stat().st_mtime_ns
    again = run(defs, instance)
    assert again.success
    assert shown(again)["embedding"]["state"] == shown(again)["transformed"]["state"] == "unchanged"
    assert (folder / "map.zarr" / "zarr.json").stat().st_mtime_ns == made
    versions = [
        instance.get_latest_materialization_event(
            dagster.AssetKey(["digits", name])
        ).asset_materialization.tags
        for name in ("embedding", "transformed")
    ]
    assert all("dagster/data_version" in tags for tags in versions)
    old = {
        event.asset_key: event.step_materialization_data.materialization.tags
        for event in before.get_asset_materialization_events()
    }
    assert (
        versions[0]["dagster/data_version"]
        == old[dagster.AssetKey(["digits", "embedding"])]["dagster/data_version"]
    )


def test_a_failed_attempt_is_gone_on_with(folder, instance, monkeypatch):
    record, failures = Ledger.record, []

    def failing(self, stage, task, receipt):
        if stage == "calibrate" and not failures:
            failures.append(stage)
            raise OSError("the disk was away")
        return record(self, stage, task, receipt)

    monkeypatch.setattr(Ledger, "record", failing)
    result = run(define(folder), instance)
    assert result.success
    assert failures
    told = lines(instance, result)
    assert told.count("neighbors: 1 task") == told.count("layout: 1 task") == 1
    assert told.count("calibrate: 1 task") == 2


def test_a_mistake_is_not_tried_again(folder, instance):
    assert run(define(folder), instance).success
    (folder / "digits.yaml").write_text(JOB.replace('"n_epochs": 10', '"n_epochs": 20'))
    result = run(define(folder), instance)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "n_epochs" in str(failure.step_failure_data.error_display_string)
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, dagster.DagsterExecutionInterruptedError])
def test_a_run_that_somebody_stops_is_not_tried_again(folder, instance, monkeypatch, stop):
    from daskumap.dagster import assets

    calls = []

    def stopped(job, **options):
        calls.append(job)
        raise stop

    monkeypatch.setattr(assets, "run_job", stopped)
    assert not run(define(folder), instance).success
    assert len(calls) == 1


def test_data_sets_are_partitions(folder, instance, rows):
    for name, factor in (("a", 1), ("b", 2)):
        zarr.save_array(str(folder / f"{name}.zarr"), rows * np.float32(factor))
    names = {"source": "{partition}.zarr", "run": "maps/{partition}.zarr"}
    (folder / "sets.yaml").write_text(json.dumps({**names, "parameters": PARAMETERS}))
    defs = define(folder, "sets.yaml", partitions=["a", "b"])
    assert run(defs, instance, "sets", partition_key="b").success
    found = daskumap.open(folder / "maps/b.zarr").embedding[:]
    fitted = daskumap.fit(rows * np.float32(2), client="sequential", progress=False, **PARAMETERS)
    assert np.array_equal(found, fitted.embedding[:])
    assert not (folder / "maps/a.zarr").exists()
    assert instance.get_materialized_partitions(dagster.AssetKey(["sets", "report"])) == {"b"}


def test_new_rows_of_each_day_go_into_one_map(folder, instance, rows):
    zarr.save_array(str(folder / "2026-01-02.zarr"), rows[:10] + 0.5)
    job = JOB.replace("new.zarr", "'{partition}.zarr'").replace("placed.zarr", "'placed-{partition}.zarr'")
    (folder / "days.yaml").write_text(job)
    days = dagster.DailyPartitionsDefinition("2026-01-01")
    defs = define(folder, "days.yaml", partitions=days)
    assert run(defs, instance, "days", partition_key="2026-01-02").success
    assert daskumap.open(folder / "placed-2026-01-02.zarr").embedding.shape == (10, 2)
    assert instance.get_materialized_partitions(dagster.AssetKey(["days", "transformed"])) == {"2026-01-02"}


def test_a_store_that_grows_has_its_new_rows_placed(folder, instance, rows):
    (folder / "grows.yaml").write_text(
        json.dumps({"source": "X.zarr", "run": "maps/{date}.zarr", "growing": {}, "parameters": PARAMETERS})
    )
    defs = define(folder, "grows.yaml")
    assert shown(run(defs, instance, "grows"))["transformed"]["dagster/row_count"] == 0
    (fitted,) = (folder / "maps").glob("*.zarr")
    array = zarr.open_array(str(folder / "X.zarr"))
    array.append(rows[:30] + np.float32(0.01))
    found = shown(run(defs, instance, "grows"))
    assert found["embedding"]["new_rows"] == found["transformed"]["dagster/row_count"] == 30
    assert found["embedding"]["run"] == str(fitted)


@pytest.mark.parametrize(
    ("text", "partitions", "message"),
    [
        (JOB, ["a"], "has no {partition} in a name"),
        (JOB.replace("X.zarr", "'{partition}.zarr'"), ["a"], "writes all partitions to the run"),
        (JOB.replace("new.zarr", "'{partition}.zarr'"), ["a"], "places all partitions in"),
        (
            JOB.replace("new", "'{partition}'").replace("placed", "'{partition}'"),
            None,
            "no partitions are given",
        ),
        (JOB, "daily", "must be a list of names or partitions of Dagster's"),
        (JOB + "scedule: daily\n", None, "scedule: no such key"),
    ],
)
def test_a_job_that_does_not_fit_is_refused(folder, text, partitions, message):
    if "'{partition}'" in text and "zarr'" not in text:
        text = JOB.replace("new.zarr", "'{partition}.zarr'").replace("placed.zarr", "'p-{partition}.zarr'")
    (folder / "digits.yaml").write_text(text)
    with pytest.raises(ParameterError, match=message.replace("{", r"\{")):
        define(folder, partitions=partitions)
