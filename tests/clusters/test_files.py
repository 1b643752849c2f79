"""Each file in cluster_configs/ is one that the schema takes; all that is wrong is said in one message."""

from pathlib import Path

import pytest

import daskumap
from daskumap.clusters.files import KINDS, read
from daskumap.errors import ParameterError

FILES = sorted((Path(__file__).parents[2] / "cluster_configs").glob("*.yaml"))
BATCH = {"workers": 4, "threads": 2, "memory": "4GB", "interface": "lo"}
X = [[float(i), float(i % 3)] for i in range(20)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_read(path: Path) -> None:
    cluster = read(path)
    assert cluster.explain()
    assert cluster.wait > 0


def test_there_is_a_file_of_each_kind() -> None:
    assert {read(path).kind for path in FILES} == set(KINDS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"says no kind of cluster\. Write `kind:` with one of local, address, "),
        ({"kind": "slum"}, r"kind is 'slum', did you mean slurm\?; it is one of "),
        ({"kind": "local", **BATCH}, r"unknown key interface; kind local has kind, wait, "),
        ({"kind": "slurm", **BATCH, "walltme": "1"}, r"unknown key walltme, did you mean walltime\?"),
        (
            {"kind": "slurm", "workers": 4, "threads": 2, "memory": "4GB"},
            r"kind slurm needs interface \(network",
        ),
        (
            {"kind": "slurm", **BATCH, "workers": 0},
            r"workers is 0: it should be greater than or equal to 1",
        ),
        ({"kind": "slurm", **BATCH, "threads": 1.5}, r"threads is 1\.5: it should be a valid integer"),
        (
            {"kind": "slurm", **BATCH, "memory": "lots"},
            r"memory is 'lots'; give bytes, or text such as '4GB'",
        ),
        (
            {"kind": "slurm", **BATCH, "wait": "soon"},
            r"wait is 'soon': 'soon' is no time; give seconds, or text",
        ),
        (
            {"kind": "slurm", **BATCH, "walltime": 43200},
            r"walltime is 43200: without quotes YAML takes 12:00:0",
        ),
        ({"kind": "slurm", **BATCH, "wait": -1}, r"wait is -1: it should be greater than 0"),
        (
            {"kind": "slurm", **BATCH, "workers_per_job": 3},
            r"workers is 4 and workers_per_job is 3; all jobs are",
        ),
        ({"kind": "slurm", **BATCH, "maximum": 9}, r"maximum is refused: a cluster that adapts ends workers"),
        ({"kind": "slurm", **BATCH, "tls": {"ca": "a", "cert": "b", "kee": "c"}}, r"did you mean key\?"),
        (
            {"kind": "slurm", **BATCH, "environment": {"AWS_SECRET_ACCESS_KEY": "hush"}},
            r"AWS_SECRET_ACCESS_KEY looks like a credential",
        ),
    ],
)
def test_what_is_wrong_is_said(content: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as refused:
        daskumap.fit(X, cluster=content)
    assert "hush" not in str(refused.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(
        ParameterError, match=r"threads is 'x'.*needs memory.*unknown key worker, did you mean"
    ):
        read({"kind": "local", "worker": 2, "workers": 2, "threads": "x"})


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"none\.yaml cannot be read \(No such file or directory\)"):
        read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("kind: [")
    with pytest.raises(ParameterError, match=r"bad\.yaml is no YAML"):
        read(tmp_path / "bad.yaml")
    with pytest.raises(ParameterError, match="cluster is 3; give the path of a cluster file"):
        read(3)


@pytest.mark.parametrize("call", ["fit", "umap", "parametric", "resume", "train"])
def test_a_client_and_a_cluster_are_one_too_many(call: str) -> None:
    both = {"client": "sequential", "cluster": {"kind": "local", "workers": 1, "threads": 1, "memory": "1GB"}}
    calls = {
        "fit": lambda: daskumap.fit(X, **both),
        "umap": lambda: daskumap.UMAP(**both).fit(X),
        "parametric": lambda: daskumap.ParametricUMAP().fit(X, **both),
        "resume": lambda: daskumap.resume("none.zarr", **both),
        "train": lambda: daskumap.train("none.zarr", **both),
    }
    with pytest.raises(ParameterError, match="client is 'sequential' and cluster is given too"):
        calls[call]()
