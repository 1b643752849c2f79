"""A cluster by SSH: a server on the loopback, and the bits of a fit in this process."""

import getpass
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "clusters"))
from places import PARAMS, changed, expected, free_port, same_bits, write_rows

import daskumap
from daskumap.errors import ClusterError

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start a server that knows one key; return what the cluster file has to say of it."""
    folder, port = tmp_path_factory.mktemp("ssh"), free_port()
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where its part without rights works
    options = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
        "PidFile": "none",
    }
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", folder / "config"], stderr=log)
    until = time.monotonic() + 20
    while "listening" not in (folder / "log").read_text():
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < until
        time.sleep(0.1)
    yield {
        "hosts": ["127.0.0.1"],
        "port": port,
        "user": getpass.getuser(),
        "identity": str(folder / "user"),
        "known_hosts": str(folder / "known"),
        "threads": 1,
        "memory": "2GB",
    }
    process.terminate()
    process.wait(10)


def test_the_bits_of_a_fit_in_this_process(server, tmp_path):
    rows = write_rows(tmp_path)
    file = changed("ssh", tmp_path, **server)
    run = daskumap.fit(rows, tmp_path / "run.zarr", cluster=file, progress=False, **PARAMS)
    assert same_bits(run.embedding[:], expected(rows))


def test_who_is_not_known_is_told_what_to_look_at(server, tmp_path):
    file = changed("ssh", tmp_path, **{**server, "identity": server["identity"].replace("user", "stranger")})
    with pytest.raises(ClusterError, match=r"kind ssh could not be started \(.*works without a password"):
        daskumap.fit(write_rows(tmp_path), tmp_path / "run.zarr", cluster=file, progress=False, **PARAMS)


def test_workers_have_what_is_shipped(server, tmp_path):
    def has(dask_worker):
        import dask

        settings = [
            dask.config.get(f"distributed.worker.{name}") for name in ("profile.enabled", "memory.terminate")
        ]
        return [os.environ["HERE"], os.environ["OMP_NUM_THREADS"], *settings, dask_worker.state.nthreads]

    file = changed("ssh", tmp_path, **server, environment={"HERE": "there"})
    with daskumap.start_cluster(file) as client:
        found = client.run(has)
        assert list(found.values()) == [["there", "1", False, 0.95, 1]] * 2
        addresses = [client.scheduler.address, *found]
    assert all(address.startswith("tcp://127.0.0.1:") for address in addresses)
