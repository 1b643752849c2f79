"""Job files as people write them, and as they should not: what is meant, what is refused, not told."""

import json
import os
from pathlib import Path

import pytest
import yaml

from daskumap.errors import ParameterError
from daskumap.jobs.files import Loader
from daskumap.jobs.reading import read_job
from daskumap.jobs.schema import Job, job_schema

JOB = "source: data.zarr\nrun: 'maps/{date}.zarr'\n"


@pytest.fixture
def write(tmp_path):
    """Return what writes a job file."""

    def file(text, name="nightly.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return file


def test_yaml_means_what_it_says(write):
    text = "notify: [{command: [mail, 2026-01-31, no], on: failure}]\n"
    job = read_job(write(f"{JOB}{text}parameters: {{min_dist: 1e-3, n_epochs: 010}}\n"))
    assert (job.notify[0].on, job.notify[0].command) == ("failure", ["mail", "2026-01-31", "no"])
    assert job.parameters == {"min_dist": 0.001, "n_epochs": 10}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{\n\t"source": "dätä.zarr",\n\t"run": "x"\n}'),
        ("a.yaml", "source: dätä.zarr\nrun: x\n".encode("utf-16")),
        ("a b.yaml", "\ufeffsource: dätä.zarr\nrun: x\n"),
    ],
)
def test_texts_are_read_as_they_are_encoded(write, tmp_path, name, text):
    assert read_job(write(text, name)).source.path == str(tmp_path / "dätä.zarr")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (JOB + "? [a, b]\n: c\n", "a key is no text"),
        ("!!map [a, b]", "expected a mapping node"),
        (JOB + "parameters: &a {x: *a}\n", "holds itself"),
        ("", "holds nothing"),
        ('source: "a\\0b"\nrun: x\n', "control character"),
        ("source: a\nrun: ..\n", "names no file or folder"),
        ("source: a\nrun: '{date}-{date}'\n", "may stand in it once"),
        (JOB + "results: [{path: m.xyz}]\n", "A map is written as"),
        (JOB + "results: [{path: m.csv, colums: [a, b]}]\n", "no option colums"),
        (JOB + "results: [{path: m.csv}, {path: ./m.csv}]\n", "is written twice"),
        (JOB + "results: [{path: 'maps/{date}.zarr/m.csv'}]\n", "one holds the other"),
        (JOB + "results: [{path: data.zarr/m.csv}]\n", "reads .*data.zarr and would write"),
        (JOB + "transform: [{source: x, out: data.zarr}]\n", "reads .*data.zarr and would write"),
        (JOB + "labels: ids.npy\nresults: [{path: ids.npy, overwrite: true}]\n", "reads .*ids.npy and would"),
        (JOB + "growing: {}\nresults: [{path: m.csv}]\n", "those of an older map would stay"),
        (JOB + "notify: [{webhook: 'file:///etc/passwd'}]\n", "begins with http"),
    ],
)
def test_what_cannot_be_meant_is_refused(write, text, said):
    with pytest.raises(ParameterError, match=said):
        read_job(write(text))


def test_json_says_a_key_once(write):
    with pytest.raises(ParameterError, match="'run' stands twice"):
        read_job(write('{"source": "a", "run": "x", "run": "y"}', "a.json"))


@pytest.mark.parametrize(
    "more", ["notify: [{webhook: '${SECRET}'}]", "threads: ${SECRET}", "webhok: ${SECRET}"]
)
def test_values_of_the_environment_are_not_told(write, more, monkeypatch):
    monkeypatch.setenv("SECRET", "hooks.example/T0/token-12345")
    with pytest.raises(ParameterError) as refused:
        read_job(write(f"{JOB}{more}\n"))
    assert "12345" not in str(refused.value)


def test_paths_are_those_that_the_system_sees(write, tmp_path, monkeypatch):
    """Whoever calls a job by a link to its folder, or from there, gets the same files."""
    real = tmp_path / "disk" / "jobs"
    real.mkdir(parents=True)
    (tmp_path / "jobs").symlink_to(real)
    (tmp_path / "jobs" / "a.yaml").write_text("source: ../data.zarr\nrun: x\nparameters: {init: old.zarr}\n")
    by_link = read_job(tmp_path / "jobs" / "a.yaml")
    monkeypatch.chdir(tmp_path / "jobs")
    assert by_link == read_job("a.yaml")
    assert by_link.source.path == str(tmp_path / "disk" / "data.zarr")
    assert by_link.parameters["init"] == str(real / "old.zarr")
    # A file that is a link, as in a ConfigMap of Kubernetes, has paths as seen from where the link is.
    (tmp_path / "b.yaml").symlink_to(real / "a.yaml")
    assert read_job(tmp_path / "b.yaml").run == str(tmp_path / "x")


VALID = [
    JOB,
    "source: {path: a, columns: b}\nrun: x\n",
    JOB
    + "cluster: {kind: local}\nmemory: 4GB\nlabels: a.npy\ngrowing: {}\nretention: 2\ntrust_input: true\n",
    JOB + "notify: [{command: [x], on: always}, {webhook: 'http://x/y', timeout: 3, retries: 0}]\n",
    JOB
    + "transform: [{source: a, out: b, results: [{path: c.csv}]}]\nresults: [{path: d.npy, overwrite: true}]",
    "source: ${HERE}/a\nrun: ${HERE}/{date}.zarr\nretention: 2\nnotify: [{webhook: '${HOOK}'}]\n",
    JOB + "name: n\nthreads: 2\ncluster: c.yaml\nmemory: 100000000\n",
]
INVALID = [
    "run: x\n",
    "source: ''\nrun: x\n",
    "source: 5\nrun: x\n",
    JOB + "labls: x\n",
    JOB + "retention: 0\n",
    JOB + "growing: {refit_above: 2}\n",
    JOB + "growing: {refit: 2}\n",
    JOB + "notify: [{command: []}]\n",
    JOB + "notify: [{on: always}]\n",
    JOB + "notify: [{command: [x], webhook: 'http://x'}]\n",
    JOB + "notify: [{webhook: nonsense}]\n",
    JOB + "notify: [{command: [x], on: sometimes}]\n",
    JOB + "results: m.csv\n",
    JOB + "when_changed: delete\n",
    "source: a\nrun: 'x{day}'\n",
    "source: a\nrun: '{date}/x'\n",
    "source: a\nrun: x\nretention: 2\n",
    "source: a\nrun: x\ngrowing: {}\n",
    JOB + "growing: {}\nresults: [{path: m.csv}]\n",
]


def _content(text):
    return yaml.load(text, Loader)


SHIPPED = Path(__file__).parents[2] / "workflows" / "jobs" / "job.schema.json"
SCHEMAS = {"now": job_schema(), "shipped": json.loads(SHIPPED.read_text())}


def test_the_shipped_schema_is_of_these_jobs():
    assert SCHEMAS["shipped"]["properties"].keys() == Job.model_fields.keys()
    for part in ("Growing", "Notify", "Result", "Rows", "Transform"):
        assert SCHEMAS["shipped"]["$defs"][part]["properties"].keys() == (
            SCHEMAS["now"]["$defs"][part]["properties"].keys()
        )


@pytest.mark.parametrize("text", VALID)
def test_the_schema_takes_what_a_job_may_be(write, text, monkeypatch):
    jsonschema = pytest.importorskip("jsonschema")
    monkeypatch.setenv("HERE", "/data")
    monkeypatch.setenv("HOOK", "http://localhost/x")
    read_job(write(text))
    for schema in SCHEMAS.values():
        jsonschema.validate(_content(text), schema)


@pytest.mark.parametrize("text", INVALID)
def test_the_schema_refuses_what_a_job_may_not_be(write, text):
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(ParameterError):
        read_job(write(text))
    for schema in SCHEMAS.values():
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(_content(text), schema)


def test_a_name_with_spaces_and_letters_of_all_kinds(write, tmp_path):
    path = write("source: my data.zarr\nrun: 'карты {date}.zarr'\n", "mein täglicher job.yaml")
    job = read_job(path)
    assert job.name == "mein täglicher job"
    assert job.run == os.path.join(tmp_path, "карты {date}.zarr")
    assert json.loads(job.model_dump_json())["source"]["path"] == str(tmp_path / "my data.zarr")
