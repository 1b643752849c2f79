"""Sources and run stores in a bucket: the same bits, the lock, damage, and a store that fails at times."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zarr
from conftest import is_held, sha
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

import daskumap
from daskumap.engine.machine import plan_resources
from daskumap.errors import SourceError, StoreError
from daskumap.request import make_request
from daskumap.session import describe
from daskumap.store import lock as lock_module
from daskumap.store.lock import RunLock
from daskumap.store.places import Held, Url
from daskumap.store.run import RunStore
from daskumap.testing.faults import FailingEngine, Fault

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
from moto.core import DEFAULT_ACCOUNT_ID  # noqa: E402 - it may be missing
from moto.s3.models import s3_backends  # noqa: E402

OPTIONS = {"n_epochs": 10}


class Unreliable:
    """An application that refuses every n-th request, or lets its connection break."""

    def __init__(self, application):
        self.application, self.lock = application, threading.Lock()
        self.reset()

    def reset(self, every=0, status="503 Slow Down"):
        self.every, self.status, self.count, self.refused = every, status, 0, 0

    def __call__(self, environment, start):
        with self.lock:
            self.count += 1
            bad = self.every and self.count % self.every == 0
            self.refused += bool(bad)
        if not bad:
            return self.application(environment, start)
        if self.status == "reset":
            environment["werkzeug.socket"].shutdown(2)
            raise ConnectionResetError
        start(self.status, [("Content-Type", "text/plain")])
        return [b""]


@pytest.fixture(scope="module")
def server():
    from werkzeug.serving import WSGIRequestHandler, make_server

    class KeepAlive(WSGIRequestHandler):
        """Keeps connections, as buckets do; by itself it makes one, and a thread, for each request."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

    # The service itself: what finds the service of a request looks through hundreds of folders for it.
    application = Unreliable(moto_server.create_backend_app("s3"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    httpd = make_server("127.0.0.1", 0, application, threaded=True, request_handler=KeepAlive)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{httpd.port}"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        # The client waits up to seconds before it asks again.
        patch.setattr("botocore.retryhandler.delay_exponential", lambda **_: 0.01)
        yield application
    httpd.shutdown()
    thread.join()


@pytest.fixture
def bucket(server, monkeypatch, request):
    import s3fs

    server.reset()
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.05)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{abs(hash(request.node.name))}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    yield f"s3://{name}"
    server.reset()


@pytest.fixture
def source(bucket, small):
    zarr.create_array(f"{bucket}/data.zarr/X", data=small, chunks=(100, 8))
    return f"{bucket}/data.zarr/X"


@pytest.fixture
def place(bucket):
    return f"{bucket}/runs/run.zarr"


@pytest.fixture
def stopped(fit, source, place, sequential, tmp_path, monkeypatch):
    """Put a run into the bucket whose driver died before a stage; not by requests, which is cheap."""

    def stopped_(stage, **options):
        memory, engine = MemoryStore(), FailingEngine(sequential, tmp_path / "stopped", stop_at=stage)
        with monkeypatch.context() as patch:
            patch.setattr(Held, "shared", True)
            with pytest.raises(Fault):
                fit(source, memory, client=engine, **OPTIONS, **options)
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        for key, value in memory._store_dict.items():
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, f"{prefix}/{key}", value.to_bytes())

    return stopped_


@pytest.mark.processes
def test_the_same_bits_as_on_disk(fit, small, source, place, sequential, tmp_path, client_1x2):
    """Also of what is kept: scratch goes here as it does there."""
    local = fit(small, tmp_path / "run.zarr", keep="graph", **OPTIONS)
    assert not Url(place).is_occupied()
    run = fit(source, place, client=client_1x2, keep="graph", **OPTIONS)
    assert Url(place).is_occupied()
    assert sha(run.embedding) == sha(local.embedding)
    assert daskumap.open(place).status() == local.status()
    assert run.store.ledger.freed() == local.store.ledger.freed()
    assert not any(run.store.has(name) for name in run.store.ledger.freed())
    assert daskumap.verify(place) == {}
    assert not is_held(place)
    assert sha(zarr.open_array(f"{place}/embedding", mode="r")) == sha(local.embedding)
    reading = FailingEngine(sequential, tmp_path / "w")
    assert fit(source, place, client=reading, keep="graph", **OPTIONS).finished
    assert reading.counts() == {"scan.reread": local.status()["scan"]}
    with pytest.raises(daskumap.DaskumapError, match="min_dist was"):
        fit(source, place, min_dist=0.3, **OPTIONS)


def test_a_run_goes_on(fit, fit_bits, small, source, place, stopped, sequential, tmp_path):
    """Damage is found and mended here too."""
    stopped("layout")
    RunStore.open(Url(place)).documents.delete("initial/c/0/0")
    assert list(daskumap.verify(place, repair=True)) == ["initialize"]
    engine = FailingEngine(sequential, tmp_path / "rest")
    run = fit(source, place, client=engine, **OPTIONS)
    assert set(engine.counts()) == {"scan.reread", "initialize", "layout", "publish"}
    assert sha(run.embedding) == fit_bits(small, **OPTIONS)


def about(data, seed=1):
    """Return what a run store says of its run."""
    request = make_request(data, {"random_state": seed, "keep": "all", "report": False, **OPTIONS}, None)
    return describe(request.plan(plan_resources("4GB", 1, 1), ingested=True), request)


@pytest.fixture
def begun(small, place):
    """A run store in which nothing is done yet."""
    return RunStore.open_or_create(Url(place), about(small))


def test_an_object_is_read_by_one_request(begun, place, server):
    """Also one that is not there."""
    documents = RunStore.open(Url(place)).documents
    server.reset()
    assert documents.load_bytes("zarr.json") is not None
    assert documents.load_bytes("nothing.json") is None
    assert server.count == 2


@pytest.mark.processes
def test_one_driver_at_a_time(fit, small, begun, place, sequential, tmp_path):
    with RunLock(RunStore.open(Url(place))):
        for restart in (False, True):
            with pytest.raises(StoreError, match="in use by process"):
                fit(small, place, restart=restart, **OPTIONS)
    assert RunStore.open(Url(place)).about["id"] == begun.about["id"]
    engine = FailingEngine(sequential, tmp_path / "w", stop_at="partition.cells")
    with pytest.raises(Fault):
        fit(small, place, client=engine, restart=True, **OPTIONS)
    store = RunStore.open(Url(place))
    assert store.about["id"] != begun.about["id"]
    assert sha(store.array("input/rows")) == sha(small)  # the copy of an array in memory
    assert store.ledger.count("scan") == engine.counts()["scan"]


@pytest.mark.processes
@pytest.mark.parametrize("conditional", [True, False], ids=["if-none-match", "last-wins"])
def test_of_many_who_lock_at_a_time_one_succeeds(begun, place, monkeypatch, conditional):
    """Also on a store that knows no exclusive creation: there the last one wins, and all look again."""
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.0 if conditional else 2.0)
    if not conditional:
        monkeypatch.setattr("daskumap.store.documents.create_object", _overwrite)
    barrier, held = threading.Barrier(4), []

    def enter(lock):
        barrier.wait()
        try:
            held.append(lock.__enter__())
        except StoreError as error:
            if "in use by process" not in str(error):
                raise

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, [RunLock(RunStore.open(Url(place))) for _ in range(4)]))
    assert len(held) == 1
    held[0].__exit__(None, None, None)
    assert not is_held(place)


async def _overwrite(store, key, value):
    await store.set(key, default_buffer_prototype().buffer.from_bytes(value))


@pytest.mark.processes
def test_of_many_who_start_at_a_time_one_says_what_runs(small, place):
    """The others find its run, and are refused if theirs is another."""
    barrier = threading.Barrier(4)

    def start(seed):
        mine = about(small, seed)
        barrier.wait()
        found = RunStore.open_or_create(Url(place), mine).about
        return found["id"], found["id"] == mine["id"], found["params"]["random_state"] == seed

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(start, range(4)))
    assert len({name for name, _, _ in found}) == 1
    assert sum(own for _, own, _ in found) == 1
    assert all(own == same for _, own, same in found)
    assert RunStore.open(Url(place)).about["params"]["random_state"] in range(4)


@pytest.mark.parametrize(
    ("every", "status"),
    [
        pytest.param(100, "503 Slow Down", marks=pytest.mark.processes),
        pytest.param(20, "500 Internal Server Error", marks=pytest.mark.slow),
        pytest.param(20, "reset", marks=pytest.mark.slow),
    ],
)
def test_a_store_that_fails_now_and_then(fit, small, source, place, stopped, server, every, status):
    """Requests are repeated with back-off, and a run that starts over hears nothing of it."""
    stopped("partition.shuffle")
    before = RunStore.open(Url(place))
    server.reset(every, status)
    run = fit(source, place, restart=True, min_dist=0.3, keep="graph", **OPTIONS)
    assert server.refused > 5
    server.reset()
    assert run.params["min_dist"] == 0.3
    assert run.store.about["id"] != before.about["id"]
    assert run.store.documents.members("ledger") == [run.store.about["id"]]
    assert sha(run.embedding) == sha(fit(small, min_dist=0.3, **OPTIONS).embedding)
    assert daskumap.verify(place) == {}
    assert not is_held(place)


@pytest.mark.processes
def test_a_store_that_is_gone_for_good(fit, source, place, stopped, server, sequential, tmp_path):
    """A clear error, and a run that goes on when the store is back."""
    options = {"keep": "graph", **OPTIONS}
    stopped("publish", keep="graph")

    class Gone(FailingEngine):
        def run(self, stage, *args):
            if stage.name == "publish":
                server.reset(1, "403 Forbidden")
            return super().run(stage, *args)

    with pytest.raises(daskumap.DaskumapError, match=r"may not be read or written|out of reach|failed with"):
        fit(source, place, client=Gone(sequential, tmp_path / "x"), **options)
    with pytest.raises(StoreError, match=r"may not be read|out of reach"):
        daskumap.resume(place)
    with pytest.raises(SourceError, match=r"data\.zarr/X cannot be opened"):
        fit(source, place, **options)
    server.reset()
    with pytest.raises(
        StoreError, match="in use by process"
    ):  # it could not be given back; this process lives
        daskumap.resume(place, client="sequential", progress=False)
    assert daskumap.resume(place, client="sequential", progress=False, take_over=True).finished


@pytest.mark.processes
def test_a_model_in_a_bucket(fit, small, bucket, client_1x2):
    """Saved there with its rows, it places rows that are there too, and writes them there."""
    run = fit(small[:350], **OPTIONS)
    expected = run.transform(small[350:], client="sequential", progress=False)
    zarr.create_array(f"{bucket}/new.zarr", data=small[350:], chunks=(20, 8))
    run.save(f"{bucket}/model.zarr")
    model = daskumap.open(f"{bucket}/model.zarr")
    placed = model.transform(f"{bucket}/new.zarr", f"{bucket}/out.zarr", client=client_1x2, progress=False)
    assert sha(placed.embedding) == sha(expected.embedding)
    assert sha(daskumap.open(f"{bucket}/out.zarr").fit_distance) == sha(expected.fit_distance)
    assert not is_held(f"{bucket}/model.zarr")


@pytest.mark.processes
def test_places_in_a_bucket_that_are_no_run_stores(fit, source, bucket, place):
    with pytest.raises(StoreError, match="There is no run store at"):
        daskumap.open(place)
    with pytest.raises(daskumap.DaskumapError, match="lies in the input"):
        fit(source, f"{source}/run.zarr", **OPTIONS)
    zarr.create_group(f"{bucket}/group.zarr")
    for options in ({}, {"restart": True}):
        with pytest.raises(StoreError, match=r"not a run store|is no run store"):
            fit(source, f"{bucket}/group.zarr", **options, **OPTIONS)
    with pytest.raises(StoreError):
        fit(source, "s3://no-such-bucket/run.zarr", **OPTIONS)
