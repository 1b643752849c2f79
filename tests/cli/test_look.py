"""`daskumap inspect` and `doctor`."""

import json
import os
import subprocess
import sys

import dask
import numpy as np
import pytest
import zarr

import daskumap
import daskumap.doctor
from daskumap.cli.main import main
from daskumap.doctor import Finding, examine
from daskumap.engine.settings import problems


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an array, a run of it and a copy of what transform needs."""
    folder = tmp_path_factory.mktemp("look")
    rows = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    array = zarr.create_array(
        folder / "rows.zarr", shape=(300, 6), shards=(200, 6), chunks=(50, 6), dtype="f4"
    )
    array[:] = rows
    run = daskumap.fit(
        folder / "rows.zarr",
        folder / "map.zarr",
        client="sequential",
        report=False,
        progress=False,
        n_epochs=5,
    )
    assert run.finished
    return folder


def test_inspect_says_what_an_array_is(made, capsys):
    assert main(["inspect", str(made / "rows.zarr"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == [300, 6]
    assert found["dtype"] == "float32"
    assert found["chunks"] == {"outer": [200, 6], "inner": [50, 6], "rows": 50}
    assert found["missing_chunks"] == 0
    assert "storage_options" in found["options"]
    plan = daskumap.plan(made / "rows.zarr", calibrate=False)
    assert found["fit"]["peak_bytes"] == max(map(plan.peak_bytes, plan.stages))
    assert found["fit"]["disk_bytes"] == plan.disk_bytes
    assert main(["inspect", str(made / "rows.zarr")]) == 0
    said = capsys.readouterr().out
    assert "shape           300 x 6\n" in said
    assert "chunks          outer 200 x 6, inner 50 x 6, read by 50 rows\n" in said


def test_inspect_takes_options_of_the_input(tmp_path, capsys):
    np.savez(tmp_path / "two.npz", a=np.ones((300, 6), "f4"), b=np.ones((200, 4), "f4"))
    assert main(["inspect", str(tmp_path / "two.npz"), "--source-option", "array=b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [200, 4]
    assert main(["inspect", str(tmp_path / "two.npz"), "--source-option", "b"]) == 2
    assert "write --source-option NAME=VALUE" in capsys.readouterr().err


def test_inspect_says_what_a_run_is(made, capsys):
    assert main(["inspect", str(made / "map.zarr"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["of"], found["finished"]) == ("run store", "Run", True)
    assert found["shape"] == [300, 6]
    assert found["params"]["n_epochs"] == 5


def test_inspect_says_why_a_fit_is_refused(tmp_path, capsys):
    zarr.create_array(tmp_path / "two.zarr", shape=(1, 6), dtype="f4")[:] = 1
    assert main(["inspect", str(tmp_path / "two.zarr")]) == 0
    assert "fit             refused: " in capsys.readouterr().out


def test_inspect_of_nothing(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "no.zarr")]) == 3
    assert "There is nothing at" in capsys.readouterr().err


def test_doctor_of_a_healthy_machine(capsys):
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    names = {one["name"] for one in found["findings"]}
    assert names == set(daskumap.doctor.CHECKS)
    wrong = [one for one in found["findings"] if one["state"] == "wrong"]
    assert found["healthy"] == (not wrong) == (code == 0)
    (versions, *_) = [one["text"] for one in found["findings"] if one["name"] == "versions"]
    assert f"numpy {np.__version__}" in versions


def test_doctor_of_a_sick_one(monkeypatch, capsys):
    def broken():
        raise OSError("no such thing")

    monkeypatch.setattr(
        daskumap.doctor, "CHECKS", {"disk": broken, "cores": lambda: [("note", "few", "More.")]}
    )
    assert examine()[0] == Finding("disk", "wrong", "OSError: no such thing", "Install daskumap anew.")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "WRONG disk" in said
    assert "note  cores             few\n" in said
    assert "-> More." in said
    assert said.endswith("\n1 wrong.\n")


def test_doctor_finds_variables_that_are_no_options(monkeypatch, capsys):
    monkeypatch.setattr(daskumap.doctor, "CHECKS", {})
    monkeypatch.setenv("DASKUMAP_N_NEIGBORS", "30")
    monkeypatch.setenv("DASKUMAP_N_EPOCHS", "30")
    assert main(["doctor", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert found["text"] == "DASKUMAP_N_NEIGBORS is set; no option has that name."
    assert "DASKUMAP_N_NEIGHBORS" in found["remedy"]


def wrong(name):
    return [one.text for one in examine() if one.state == "wrong" and one.name == name]


def test_doctor_finds_a_compiler_that_is_off(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert "NUMBA_DISABLE_JIT" in wrong("compiled kernels")[0]


def test_doctor_finds_a_full_temporary_folder(monkeypatch):
    monkeypatch.setattr(daskumap.doctor, "LEAST_TEMPORARY", 10**18)
    assert "GB free" in wrong("temporary folder")[0]


def test_doctor_finds_too_little_memory(monkeypatch):
    monkeypatch.setattr(daskumap.doctor, "available_memory", lambda: 10**8)
    assert "0.1 GB" in wrong("memory")[0]


def test_doctor_finds_packages_that_are_missing_or_old(monkeypatch):
    needs = ["numpy>=99", "no-such-package>=1", "no-such-other>=1 ; extra == 'remote'"]
    monkeypatch.setattr(daskumap.doctor.importlib.metadata, "requires", lambda name: needs)
    old, missing = wrong("versions")
    assert old == f"numpy {np.__version__} is not >=99."
    assert missing == "no-such-package is missing."
    texts = [one.text for one in examine() if one.name == "extras"]
    assert "remote: missing (no-such-other); to have it: pip install 'daskumap[remote]'" in texts


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"distributed.scheduler.worker-ttl": "5s"}, "worker-ttl is 5s"),
        ({"distributed.scheduler.allowed-failures": 0}, "allowed-failures is 0"),
        ({"temporary-directory": "/no/such/folder"}, "temporary-directory is /no/such/folder"),
        ({"scheduler": "synchronous"}, "scheduler is synchronous"),
    ],
)
def test_doctor_finds_settings_of_dask(settings, said):
    assert problems() == []
    with dask.config.set(settings):
        ((text, remedy),) = problems()
    assert said in text
    assert remedy


def test_doctor_finds_files_of_settings_that_are_not_there(monkeypatch):
    monkeypatch.setenv("DASK_CONFIG", "/no/such/file.yaml")
    assert "DASK_CONFIG is /no/such/file.yaml" in problems()[0][0]


@pytest.mark.processes
def test_settings_that_are_no_yaml(tmp_path):
    """Dask reads them when it is imported."""
    (tmp_path / "dask.yaml").write_text("a: [")
    code = "from daskumap.engine.settings import problems; print(problems())"
    where = {**os.environ, "DASK_CONFIG": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=where, capture_output=True, text=True)
    assert "Dask cannot read its settings" in done.stdout, done.stderr
