"""A cluster of a Dask Gateway: a server on the loopback, and the bits of a fit in this process."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "clusters"))
from places import PARAMS, changed, expected, free_port, same_bits, write_rows

import daskumap
from daskumap.errors import ClusterError, ParameterError

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

# A site's file. Its clusters are processes of the server's own user, and users choose the size of a worker.
SITE = """
from dask_gateway_server.options import Float, Integer, Mapping, Options

c.DaskGateway.address = "127.0.0.1:{private}"
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.UnsafeLocalBackend.clusters_directory = "{folder}"
c.UnsafeLocalBackend.sigint_timeout = 1
c.Proxy.address = "127.0.0.1:{http}"
c.Proxy.tcp_address = "127.0.0.1:{tcp}"
c.ClusterConfig.scheduler_cmd = ["{python}", "-m", "distributed.cli.dask_scheduler"]
c.ClusterConfig.worker_cmd = ["{python}", "-m", "distributed.cli.dask_worker"]

def size(options):
    return {{
        "worker_cores": options.worker_cores,
        "worker_memory": int(options.worker_memory * 2**30),
        "environment": options.environment,
    }}

c.Backend.cluster_options = Options(
    Integer("worker_cores", default=1, min=1),
    Float("worker_memory", default=1, min=1),
    Mapping("environment", default={{}}),
    handler=size,
)
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """Start a server; return what the cluster file has to say of it."""
    pytest.importorskip("dask_gateway")
    folder = tmp_path_factory.mktemp("gateway")
    ports = {"private": free_port(), "http": free_port(), "tcp": free_port()}
    site = SITE.format(**ports, folder=folder, python=sys.executable)
    (folder / "site.py").write_text(site)
    command = [sys.executable, "-m", "dask_gateway_server", "-f", folder / "site.py"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    until = time.monotonic() + 60
    try:
        while not all(map(answers, ports.values())):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.2)
        yield {
            "address": f"http://127.0.0.1:{ports['http']}",
            "proxy_address": f"gateway://127.0.0.1:{ports['tcp']}",
            "auth": "basic",
            "workers": 2,
            "options": {"worker_cores": 1, "worker_memory": 2},
        }
    finally:
        process.terminate()  # with its proxy
        process.wait(30)


def answers(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_the_bits_of_a_fit_in_this_process(gateway, tmp_path, caplog):
    from dask_gateway import Gateway

    rows = write_rows(tmp_path)
    run = daskumap.fit(
        rows, tmp_path / "run.zarr", cluster=changed("gateway", tmp_path, **gateway), progress=False, **PARAMS
    )
    assert same_bits(run.embedding[:], expected(rows))
    assert "settings that cost memory" not in caplog.text
    with Gateway(gateway["address"], proxy_address=gateway["proxy_address"], auth="basic") as server:
        assert not server.list_clusters()
    server.close = lambda: None  # as it would once more, and complain


def test_workers_have_what_was_asked_for(gateway, tmp_path):
    file = changed("gateway", tmp_path, **gateway)
    with daskumap.start_cluster(file) as client:
        found = client.scheduler_info(n_workers=-1)["workers"].values()
        assert [(one["nthreads"], one["memory_limit"]) for one in found] == [(1, 2 * 2**30)] * 2
        assert all(address.startswith("tls://") for address in client.scheduler_info(n_workers=-1)["workers"])


def test_what_the_site_does_not_offer_is_refused(gateway, tmp_path):
    wrong = {**gateway["options"], "gpus": 1}
    with pytest.raises(
        ParameterError, match=r"options has gpus, which http.* has worker_cores, worker_memory"
    ):
        daskumap.fit(
            write_rows(tmp_path),
            tmp_path / "run.zarr",
            cluster=changed("gateway", tmp_path, **{**gateway, "options": wrong}),
        )


def test_nobody_there_is_said(gateway, tmp_path):
    nowhere = {**gateway, "address": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(ClusterError, match=r"kind gateway could not be started .* Look whether http://127"):
        daskumap.fit(
            write_rows(tmp_path), tmp_path / "run.zarr", cluster=changed("gateway", tmp_path, **nowhere)
        )
