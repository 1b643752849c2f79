"""The cache of compiled kernels: what runs is the source, in every install, and it compiles once."""

import ctypes
import json
import logging
import os
import pickle
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

import daskumap
from daskumap.kernels import cache

# Of linux/capability.h.
CAP_VERSION_3, CAP_DAC_OVERRIDE = 0x20080522, 1

# Prints a digest of what kernels made, and what the cache did.
BEGIN = """
import hashlib, json, logging, sys
logging.basicConfig(stream=sys.stdout, format="WARNED %(message)s")
import numpy as np
def say(made, kernels):
    stats = [kernel.stats for kernel in kernels]
    hits, misses = sum(len(s.cache_hits) for s in stats), sum(len(s.cache_misses) for s in stats)
    print(json.dumps({"digest": hashlib.sha256(made).hexdigest(), "hits": hits, "misses": misses}))
"""
# Four kernels that compile fast.
FOUR = (
    BEGIN
    + """
from daskumap.kernels.layout.firing import _edge_rates, edge_rates
from daskumap.kernels.layout.sampling import draw_pool, negative_pool
from daskumap.kernels.neighbors.equal import _hash, hash_rows
from daskumap.kernels.neighbors.lists import cut_off
pool = negative_pool(np.random.default_rng(0).random((200, 2), np.float32), 1, 0)
ids, distances = np.arange(6).reshape(2, 3), np.arange(6, dtype=np.float32).reshape(2, 3)
cut_off(ids, distances, 2.0)
made = pool, edge_rates(pool[0], 1.0, 10), ids, distances, *hash_rows(pool)
say(b"".join(part.tobytes() for part in made), (draw_pool, _edge_rates, _hash, cut_off))
"""
)
# Marks which edges fire, by a kernel that inlines a hash from another file.
MASK = (
    BEGIN
    + """
from daskumap.kernels.layout import firing
rates = firing.edge_rates(np.random.default_rng(0).random(1000, np.float32), 1.0, 10)
edges = firing.Edges(np.arange(201) * 5, np.zeros(1000, np.int32), rates)
edges = firing.mask_edges(edges, 0, 1, 0)
say(b"".join(np.asarray(part).tobytes() for part in edges), [firing.mask_rows])
"""
)
# Moves a few vertices by one epoch.
EPOCH = (
    BEGIN
    + """
from daskumap.kernels.jit import is_compiled
from daskumap.kernels.layout import firing, iterations, forces, sampling
from daskumap.kernels.layout.components import TwoComponents
from daskumap.kernels.layout.optimizers import Sgd
from daskumap.kernels.parts import build
n = 200
rng = np.random.default_rng(0)
positions = (rng.random((n, 2)) * 1e-3).astype(np.float32)
rates = firing.edge_rates(rng.random(5 * n, np.float32), 1.0, 10)
edges = firing.Edges(np.arange(n + 1) * 5, rng.integers(0, n, 5 * n).astype(np.int32), rates)
edges = firing.mask_edges(edges, 0, 1, 0)
table, pool = forces.forces(1.6, 0.9, 1.0, 5), sampling.negative_pool(positions, 1, 0)
out = np.empty_like(positions)
state = iterations.State(out[:0], out[:0])
iterations.sgd_iteration(positions, out, 0, 0, n, edges, state, pool, table, 1, 0, 10, 1.0)
walk = build(iterations.WALKS[Sgd], Sgd, TwoComponents, forces.Forces)
say(out, (walk, firing._edge_rates, firing.mask_rows, sampling.draw_pool))
"""
)


class Started:
    """Code in a process that finds the package in a folder, and its cache beside it.

    It begins with Numba imported, which takes each a second, and without this package and its settings.
    """

    def __init__(self, forks, package, code, settings=None, prepare=None):
        self.said = Path(tempfile.mkdtemp()) / "said"
        self.process = forks.Process(
            target=_execute, args=(str(package), code, settings or {}, prepare, self.said)
        )
        self.process.start()

    def end(self):
        """Return its last line, and what it warned of."""
        self.process.join(240)
        text = self.said.read_text()
        shutil.rmtree(self.said.parent)
        assert self.process.exitcode == 0, text
        *said, last = text.splitlines()
        return json.loads(last), [line for line in said if line.startswith("WARNED")]


def _execute(package, code, settings, prepare, said):
    with said.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "NUMBA_DISABLE_JIT"):
        os.environ.pop(name, None)
    os.environ.update(settings)
    config.reload_config()
    for name in [name for name in sys.modules if name.split(".")[0] == "daskumap"]:
        del sys.modules[name]
    # A compiled file of Python's could be taken for that of a source changed within its second.
    sys.dont_write_bytecode = True
    sys.path.insert(0, package)
    os.chdir("/")
    if prepare:
        prepare()
    exec(code, {"__name__": "__main__"})


@pytest.fixture(scope="module")
def run(forks):
    """Run code in a process of its own; return its last line, and what it warned of."""
    return lambda package, code=FOUR, **options: Started(forks, package, code, **options).end()


def copy_package(folder):
    """Copy the kernels, without what was compiled of them."""
    source = Path(daskumap.__file__).parent
    package = folder / "daskumap"
    shutil.copytree(source / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    return folder


@pytest.fixture
def package(tmp_path):
    return copy_package(tmp_path)


def made_once(code):
    """Return a fixture: the folder of a package that ran a code, to be copied, and what it printed."""

    @pytest.fixture(scope="module")
    def made(run, tmp_path_factory):
        package = copy_package(tmp_path_factory.mktemp("made"))
        return package, run(package, code)[0]

    return made


made_four, made_epoch = made_once(FOUR), made_once(EPOCH)


@pytest.fixture
def four(made_four, tmp_path):
    """A package with what four kernels compiled to, and what they did."""
    return shutil.copytree(made_four[0], tmp_path / "four"), made_four[1]


@pytest.fixture
def epoch(made_epoch, tmp_path):
    """A package with what an epoch compiled, and what it did."""
    return shutil.copytree(made_epoch[0], tmp_path / "epoch"), made_epoch[1]


def edit(package, file, old, new):
    path = package / "daskumap" / "kernels" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_changed_source_of_one_kernel_is_what_runs(run, package):
    first, _ = run(package, MASK)
    edit(package, "layout/sampling.py", "0x7FEB352D", "0x7FEB352F")
    changed, _ = run(package, MASK)
    assert changed["digest"] != first["digest"]
    assert changed["misses"] == first["misses"] == 1


@pytest.mark.processes
def test_a_changed_source_is_what_runs(run, epoch):
    package, first = epoch
    assert (first["hits"], first["misses"]) == (0, 4)
    # The kernel is in `iterations.py`, and inlines the limit from here.
    edit(package, "layout/components.py", "12.0), np.float32(4.0)", "12.0), np.float32(0.5)")
    assert run(package, EPOCH)[0]["digest"] != first["digest"]
    # What was compiled before the change is still there.
    edit(package, "layout/components.py", "12.0), np.float32(0.5)", "12.0), np.float32(4.0)")
    assert run(package, EPOCH)[0] == {**first, "hits": 4, "misses": 0}


@pytest.mark.processes
def test_the_cache_lies_where_it_is_told(run, package, tmp_path):
    told = tmp_path / "told"
    run(package, settings={"NUMBA_CACHE_DIR": str(told)})
    assert len(list(told.glob("daskumap/kernels-*/daskumap.kernels.neighbors.lists.cut_off-*.nbc"))) == 1
    assert not list(package.glob("daskumap/kernels/__pycache__/kernels-*"))


def unprivileged():
    """Return the options of `run` with which permissions count, also for root."""
    if os.geteuid() != 0:
        return {}
    if sys.platform != "linux":
        pytest.skip("root may write anywhere")
    return {"prepare": _drop}


def _drop():
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(CAP_VERSION_3), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(header, sets) == 0


@pytest.fixture
def readonly_package():
    """A package that nobody can write, where everybody can read it."""
    folder = Path(tempfile.mkdtemp())
    copy_package(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.processes
def test_no_place_to_write(run, readonly_package):
    # A home that cannot be made, by whoever runs this.
    settings = {"HOME": "/proc/none"}
    got, warned = run(readonly_package, settings=settings, **unprivileged())
    assert got["misses"] == 4
    assert len(warned) == 1
    assert "NUMBA_CACHE_DIR" in warned[0]
    assert run(readonly_package, settings=settings, **unprivileged())[0] == got


def test_the_users_folder_where_the_install_is_readonly(run, readonly_package):
    home = tempfile.mkdtemp()
    os.chmod(home, 0o777)
    options = {"settings": {"HOME": home}, **unprivileged()}
    first, warned = run(readonly_package, **options)
    assert not warned
    assert run(readonly_package, **options)[0]["hits"] == first["misses"] == 4
    shutil.rmtree(home)


def test_two_processes_at_once(run, forks, package):
    started = [Started(forks, package, FOUR) for _ in range(2)]
    digests = [process.end()[0]["digest"] for process in started]
    after, _ = run(package)
    assert digests == [after["digest"]] * 2
    assert after["misses"] == 0
    assert not list(package.rglob("*.tmp"))


def test_a_damaged_file_is_compiled_anew(run, four):
    package, first = four
    damage = {"_hash": b"", "cut_off": b"what is this", "_edge_rates": pickle.dumps((("another key",), ()))}
    for kernel, content in damage.items():
        (path,) = package.rglob(f"*.{kernel}-*.nbc")
        path.write_bytes(content)
    assert run(package)[0] == {**first, "hits": 1, "misses": 3}
    assert run(package)[0]["misses"] == 0


IS_COMPILED = """
import json
import numpy as np
from daskumap.kernels import cache
from daskumap.kernels.jit import is_compiled
before = is_compiled()  # The answer of a process stays, for what it compiled stays in its memory.
from daskumap.kernels.graph.calibrate import calibrate
from daskumap.kernels.graph.union import fuzzy_union
rows, one, none = np.ones((3, 1), np.float32), np.ones((3, 1), np.int64), np.empty(0, np.int64)
calibrate(rows, 2, 1.0, 1.0)
between = is_compiled.__wrapped__()
fuzzy_union(one, rows, 0, none, none, np.empty(0, np.float32), 1.0, 1.0)
after = is_compiled(), is_compiled.__wrapped__()
print(json.dumps([before, between, after]))
"""


@pytest.mark.processes
def test_it_knows_whether_kernels_are_compiled(run, epoch):
    package, _ = epoch
    assert run(package, IS_COMPILED)[0] == [False, False, [False, True]]
    asked = "import json; from daskumap.kernels.jit import is_compiled; print(json.dumps(is_compiled()))"
    assert run(package, asked)[0] is True
    (path,) = package.rglob("*.layout.iterations.*.nbc")
    path.rename(package / path.name)
    assert run(package, asked)[0] is False
    (package / path.name).rename(path)
    edit(package, "random.py", "9007199254740992.0", "9007199254740992.5")
    assert run(package, asked)[0] is False


def test_old_sources_do_not_pile_up(tmp_path):
    for age in range(3 * cache.KEPT):
        folder = tmp_path / f"kernels-{age:016}"
        folder.mkdir()
        os.utime(folder, (age, age))
    cache._write(tmp_path / "kernels-new" / "kernel.nbc", b"code")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"kernels-{age:016}" for age in range(2 * cache.KEPT + 1, 3 * cache.KEPT)] + [
        "kernels-new"
    ]


def test_a_full_disk_does_not_stop_a_kernel(tmp_path, monkeypatch, caplog):
    def fail(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write", fail)
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    cache._warn_once.cache_clear()
    from daskumap.kernels.jit import compiled

    def twice(x):
        return 2 * x

    twice.__module__ = "daskumap.kernels.of_a_test"
    with caplog.at_level(logging.WARNING):
        kernel = compiled()(twice)
        assert kernel(2) == 4
        assert kernel(0.5) == 1.0
    assert [record.message.count("No space left") for record in caplog.records] == [1]


CALLABLE = """
import json
import numpy as np
from daskumap.kernels.metrics.metric import resolve
from daskumap.kernels.neighbors.knn import brute_force
def distance(x, y):
    return {body}
X = np.arange(8, dtype=np.float32).reshape(4, 2) ** 2
print(json.dumps(brute_force(X, 2, resolve(distance))[1].tolist()))
"""


@pytest.mark.processes
def test_a_users_function_is_never_that_of_another_process(run, package):
    for body, expected in (("abs(x[0] - y[0])", 4.0), ("abs(x[0] - y[0]) + 1.0", 5.0)):
        assert np.asarray(run(package, CALLABLE.format(body=body))[0])[0, 0] == expected
    assert not list(package.rglob("*distance*.nbc"))


METRICS = """
import json
import numpy as np
from daskumap.kernels.metrics.metric import kernel_of, resolve
from daskumap.kernels.neighbors import knn
X = np.arange(8, dtype=np.float32).reshape(4, 2) ** 2
metrics = [resolve(name) for name in {names}]
found = [knn.brute_force(X, 2, metric)[1].tolist() for metric in metrics]
stats = [kernel_of(knn._pairs, metric).stats for metric in metrics]
print(json.dumps([found, [len(one.cache_hits) for one in stats]]))
"""


@pytest.mark.processes
def test_kernels_of_named_metrics_are_kept(run, package):
    """Each by its name: what two processes compiled is told apart by a third one."""
    first, second, third = (
        run(package, METRICS.format(names=names))[0]
        for names in (["hyperboloid"], ["ll_dirichlet"], ["ll_dirichlet", "hyperboloid"])
    )
    assert first[1] == second[1] == [0]
    assert third == [[second[0][0], first[0][0]], [1, 1]]
    assert first[0] != second[0]
