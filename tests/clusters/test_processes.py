"""Clusters of real processes give the bits of a fit in this process, and end as they should."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from places import OPTIONS, PARAMS, changed, expected, run_command, same_bits, write_rows

import daskumap
from daskumap.clusters import resources_of
from daskumap.clusters.files import read
from daskumap.engine.dask import DaskEngine
from daskumap.errors import ClusterError

pytestmark = pytest.mark.processes

SMALL = {"workers": 2, "threads": 1, "memory": "2GB"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def wanted(rows):
    return expected(rows)


def shell(text, folder, log):
    """Run lines of a shell in a group of processes of their own."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    dask = f'dask() {{ {sys.executable} -m dask "$@"; }}\n'
    return subprocess.Popen(
        ["bash", "-c", f"{dask}{text}\nwait"],
        cwd=folder,
        env={**os.environ, "PATH": tools},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def end(process):
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(20)


def test_local(rows, wanted, tmp_path):
    """Several calls on one cluster, which is closed in the end."""
    file = changed("local", tmp_path, **SMALL)
    with daskumap.start_cluster(file) as client:
        run = daskumap.fit(rows, tmp_path / "run.zarr", client=client, progress=False, **PARAMS)
        placed = run.transform(rows, tmp_path / "placed.zarr", client=client, progress=False)
        assert len(client.scheduler_info()["workers"]) == 2
        pids = list(client.run(os.getpid).values())
        address = client.scheduler.address
        assert resources_of(file) == DaskEngine(client).resources
    assert address.startswith("tcp://127.0.0.1:")
    assert same_bits(run.embedding[:], wanted)
    assert placed.embedding.shape == wanted.shape
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_from_the_command_line(rows, wanted, tmp_path):
    file = changed("local", tmp_path, **SMALL)
    done = run_command("fit", rows, tmp_path / "run.zarr", "--cluster", file, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert same_bits(daskumap.open(tmp_path / "run.zarr").embedding[:], wanted)


def test_a_worker_that_is_killed_is_told_of_and_the_bits_are_the_same(rows, wanted, tmp_path, caplog):
    file = changed("local", tmp_path, **SMALL)
    with daskumap.start_cluster(file) as client, caplog.at_level(logging.WARNING, "daskumap"):
        victim = next(iter(client.run(os.getpid).values()))
        store = tmp_path / "run.zarr"

        def kill():
            while not list(store.glob("ledger/*/scan/*")) and not list(store.rglob("scan*/*.json")):
                time.sleep(0.01)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        run = daskumap.fit(rows, store, client=client, progress=False, **PARAMS)
        killer.join(20)
    assert same_bits(run.embedding[:], wanted)
    assert "was lost in stage" in caplog.text


def test_the_three_lines_in_any_order(rows, wanted, tmp_path):
    """The run is there first, then the workers, then their scheduler: as `cluster check` shows them."""
    file = changed("scheduler-file", tmp_path, workers=2, wait=120)
    lines = read(file).shown().splitlines()
    shown = "\n".join(
        [*(line for line in lines if line.startswith("export")), lines[-1], "sleep 2", lines[-2]]
    )
    assert "dask worker" in lines[-1]
    # One that an earlier scheduler left behind.
    (tmp_path / "scheduler.json").write_text('{"address": "tcp://127.0.0.1:9"}')
    command = [sys.executable, "-m", "daskumap", "fit", rows, "run.zarr", "--cluster", file, *OPTIONS]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        time.sleep(3)
        (tmp_path / "scheduler.json").unlink()
        cluster = shell(shown, tmp_path, log)
        try:
            code = run.wait(200)
        finally:
            end(cluster)
    said = (tmp_path / "log").read_text()
    assert code == 0, said
    assert "settings that cost memory" not in said
    assert same_bits(daskumap.open(tmp_path / "run.zarr").embedding[:], wanted)


def test_an_address_and_its_settings(rows, wanted, tmp_path, caplog, monkeypatch):
    """Workers of somebody else's, with Dask's own settings: the run says so, works, and leaves them."""
    text = (
        "dask scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file s.json &\n"
        "dask worker --host 127.0.0.1 --no-dashboard --scheduler-file s.json --nthreads 1 --memory-limit "
        "2GB &"
    )
    with (tmp_path / "log").open("w") as log:
        cluster = shell(text, tmp_path, log)
        try:
            with read(
                {"kind": "scheduler-file", "file": str(tmp_path / "s.json"), "wait": 120}
            ).started() as client:
                address = client.scheduler.address
            file = changed("address", tmp_path, address=address)
            run = daskumap.fit(rows, tmp_path / "a.zarr", cluster=file, progress=False, **PARAMS)
            assert "Workers have settings that cost memory or time" in caplog.text
            assert "distributed.worker.profile.enabled: True" in caplog.text
            planned = daskumap.plan(rows, cluster=file, calibrate=False, **PARAMS)
            assert "1 worker(s) x 1 thread(s), 2.00 GB a worker" in str(planned)
            # As a job of the operator knows it.
            monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
            again = daskumap.fit(
                rows, tmp_path / "b.zarr", cluster={"kind": "address"}, progress=False, **PARAMS
            )
        finally:
            end(cluster)
    assert same_bits(run.embedding[:], wanted)
    assert same_bits(again.embedding[:], wanted)


def test_nobody_there(tmp_path):
    for content in (
        {"kind": "address", "address": "tcp://127.0.0.1:9", "wait": 1},
        {"kind": "scheduler-file", "file": str(tmp_path / "none.json"), "wait": 1},
    ):
        with pytest.raises(
            ClusterError, match=r"No scheduler answered within 1 s .*`daskumap cluster check` shows"
        ):
            read(content).started().__enter__()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Make an authority and one certificate, as docs/clusters.md does."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    folder = tmp_path_factory.mktemp("tls")
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
    lines = page.split("<!-- certificates -->\n```\n")[1].split("```")[0]
    subprocess.run(["bash", "-euc", lines], cwd=folder, check=True, capture_output=True)
    return folder


def test_with_certificates(rows, wanted, tmp_path, certificates):
    tls = {
        "ca": certificates / "ca.pem",
        "cert": certificates / "cluster.pem",
        "key": certificates / "cluster.key",
    }
    file = changed("local", tmp_path, **SMALL, tls={name: str(path) for name, path in tls.items()})
    with daskumap.start_cluster(file) as client:
        addresses = [client.scheduler.address, *client.scheduler_info()["workers"], *client.run(os.getpid)]
        assert all(address.startswith("tls://") for address in addresses)
        run = daskumap.fit(rows, tmp_path / "run.zarr", client=client, progress=False, **PARAMS)
        code = f"from distributed import Client\nClient({client.scheduler.address!r}, timeout=5)"
        stranger = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert same_bits(run.embedding[:], wanted)
    assert stranger.returncode != 0
