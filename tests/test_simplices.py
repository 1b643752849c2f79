"""`simplices`: edges weighed by triangles and tetrahedra, out of core, resumable, the same bits anywhere."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import in_memory
from zarr.storage import MemoryStore

import daskumap
from daskumap import UMAP
from daskumap.cli.main import main
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import ParameterError
from daskumap.params import make_params
from daskumap.stages.graph import simplices as stage
from daskumap.store import schema
from daskumap.testing.datasets import fashion_mnist, uneven_clusters
from daskumap.testing.faults import FailingEngine, Fault, ShufflingEngine
from daskumap.testing.reference_graph import simplex_weights

MEMORY = 4 * 10**9
GRAPH = {"transform_mode": "graph"}
QUIET = {"client": "sequential", "progress": False}
# Of 700 rows.
PARTITIONS = {1: 700, 3: 300, 7: 100}


def same(first, second):
    return first.shape == second.shape and (first != second).nnz == 0


@pytest.fixture(scope="module")
def rows():
    return uneven_clusters(700, 6, 5, seed=2).rows()


@pytest.fixture
def cut(fit, block_sizes, rows):
    """Fit the 700 rows to their graph in 1, 3 or 7 partitions."""

    def cut_(partitions, run=None, **options):
        block_sizes(vertex_chunk=100, partition_rows=PARTITIONS[partitions])
        return fit(rows, run, **{**GRAPH, "simplices": 3, "max_cell_rows": 128, **options})

    return cut_


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def expected(made, cut):
    """The graph of one partition."""
    if "graph" not in made:
        made["graph"] = cut(1).graph()
    return made["graph"]


# What the weights are.


@pytest.mark.parametrize(("simplices", "vr_delta"), [(2, np.inf), (3, 0.5)])
def test_the_graph_is_that_of_all_cliques(fit, small, simplices, vr_delta):
    plain = fit(small[:200], **GRAPH).graph()
    run = fit(small[:200], simplices=simplices, vr_delta=vr_delta, **GRAPH)
    weights, sizes = simplex_weights(plain.toarray().astype(np.float64), simplices, vr_delta)
    found = run.graph()
    np.testing.assert_allclose(found.toarray(), weights, atol=1e-6)
    assert (found.indices == plain.indices).all()
    assert (found.data >= plain.data).all()
    assert same(found, found.T.tocsr())
    counts = run.store.documents.load(schema.SIMPLICES.name)
    wanted = {"triangles": sizes[0], "capped_rows": 0, "tetrahedra": sizes[1]}
    assert counts == {name: wanted[name] for name in list(wanted)[:simplices]}


def test_longer_edges_keep_their_weight(fit, small):
    """With vr_delta=0 only edges of weight 1 form simplices, which weigh 1."""
    assert same(fit(small, simplices=3, vr_delta=0, **GRAPH).graph(), fit(small, **GRAPH).graph())


def test_the_map_and_the_report_follow_the_weights(fit, small):
    plain, run = fit(small), fit(small, simplices=2, report=True)
    assert not np.array_equal(plain.embedding[:], run.embedding[:])
    adjacency = run.graph() > 0
    triangles = (adjacency.astype(int) @ adjacency.astype(int)).multiply(adjacency).sum() // 6
    measures = run.report["measures"]
    assert measures["triangles"] == triangles
    assert (measures["capped_rows"], "tetrahedra" in measures) == (0, False)
    assert f"triangles         {triangles:,}" in str(run)
    assert measures["edges"] == run.graph().nnz


def test_hubs_are_counted(fit, monkeypatch):
    """300 copies of a row are all joined to the same 14 of them."""
    rows = np.concatenate([np.zeros((300, 3)), np.random.default_rng(0).normal(size=(200, 3)) + 50])
    monkeypatch.setattr(stage, "MAX_SIMPLEX_DEGREE", 40)
    run = fit(rows.astype(np.float32), simplices=3, report=True, **{"n_epochs": 2})
    degrees = np.diff(run.graph().indptr)
    assert run.report["measures"]["capped_rows"] == (degrees > 40).sum() > 5
    assert same(run.graph(), run.graph().T.tocsr())


@pytest.mark.slow
def test_triangles_of_fashion_mnist(fit):
    """268,724 among the exact 15 nearest of the first 10,000 rows, each row itself counted."""
    rows = fashion_mnist().rows()[:10_000]
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)
    found = []
    for start in range(0, len(rows), 500):
        block = (
            squares
            + squares[start : start + 500, None]
            - 2 * rows[start : start + 500] @ rows.T.astype(float)
        )
        block[np.arange(500), np.arange(start, start + 500)] = -1  # before its copies
        nearest = np.argsort(block, axis=1, kind="stable")[:, :15]
        found.append((nearest, np.sqrt(np.maximum(np.take_along_axis(block, nearest, 1), 0))))
    knn = tuple(np.concatenate(part) for part in zip(*found, strict=True))
    run = fit(rows, precomputed_knn=knn, simplices=2, **GRAPH)
    adjacency = (run.graph() > 0).astype(int)
    triangles = (adjacency @ adjacency).multiply(adjacency).sum() // 6
    assert run.store.documents.load(schema.SIMPLICES.name)["triangles"] == triangles == 268_724


# The same bits.


def assert_sent_once(store, rows):
    """Check that each list went to each other partition with a neighbour of its vertex, once."""
    expected, found = {}, {}
    for number in range(len(store.ledger.records("simplices"))):
        batch = {name: store.read(f"union/{number:08d}/{name}") for name in ("indptr", "tails")}
        for row, tails in enumerate(np.split(batch["tails"], batch["indptr"][1:-1])):
            others = set((tails // rows).tolist()) - {number}
            expected |= dict.fromkeys(((number * rows + row, other) for other in others), len(tails))
        batch = {name: store.read(f"halo/{number:08d}/{name}") for name in ("offsets", "heads")}
        for other, heads in enumerate(np.split(batch["heads"], batch["offsets"][1:-1])):
            for head, size in zip(*np.unique(heads, return_counts=True), strict=True):
                found[int(head), other] = int(size)
    assert found == expected


@pytest.mark.parametrize(
    ("partitions", "engine"),
    [
        (7, lambda: ShufflingEngine(SequentialEngine(MEMORY), 0)),
        (7, lambda: ThreadsEngine(MEMORY, 3)),
        (3, lambda: SequentialEngine(MEMORY)),
    ],
    ids=["7 shuffled", "7 in threads", "3"],
)
def test_same_bits_for_any_partitions(cut, expected, partitions, engine):
    run = cut(partitions, client=engine())
    assert run.status()["simplices"] == partitions
    assert same(run.graph(), expected)
    assert expected.nnz > 10_000
    assert_sent_once(run.store, PARTITIONS[partitions])


def test_same_bits_on_a_cluster(fit, block_sizes, rows, expected, write, tmp_path, client_1x2):
    block_sizes(vertex_chunk=100, partition_rows=100)
    options = {"simplices": 3, "max_cell_rows": 128, **GRAPH}
    run = fit(write(rows, chunks=(130, 3)), tmp_path / "run.zarr", client=client_1x2, **options)
    assert same(run.graph(), expected)


def test_few_lists_at_a_time_give_the_same_bits(cut, expected, monkeypatch):
    """A task with room for few lists of others weighs fewer edges at a time."""
    asked = []

    def ranges(own, halo, most):
        for begin, end, needed in found(own, halo, 1500):
            asked.append(halo.sizes[needed].sum())
            yield begin, end, needed

    found = stage.ranges
    monkeypatch.setattr(stage, "ranges", ranges)
    assert same(cut(3).graph(), expected)
    assert len(asked) > 6
    assert max(asked) <= 1500


@pytest.mark.parametrize(("most", "longest"), [(0, 1), (20, 4), (100, 16)])
def test_ranges_are_as_long_as_fits(most, longest):
    """Down to a single edge, of which no less can be weighed."""
    own = stage.Own(np.array([0, 16]), np.arange(16), np.ones(16, np.float32), None, 0)
    halo = SimpleNamespace(
        sizes=np.full(16, 5), needed=lambda own, begin, end: np.arange(16) // (end - begin) < 1
    )
    found = list(stage.ranges(own, halo, most))
    assert [begin for begin, _, _ in found] == list(range(0, 16, longest))
    assert [end for _, end, _ in found] == list(range(longest, 17, longest))
    assert all(needed.sum() == longest for _, _, needed in found)


# Death, damage, and what is kept.


def test_an_interrupted_run_goes_on(cut, expected, tmp_path):
    store = MemoryStore()
    for step in ("symmetrize", "simplices.halo", "simplices"):
        engine = FailingEngine(SequentialEngine(MEMORY), tmp_path / step, stop_at=step)
        with pytest.raises(Fault):
            cut(3, store, client=engine, keep="graph")
    run = cut(3, store, keep="graph")
    assert same(run.graph(), expected)
    assert not {"union", "halo"} & set(run.store.documents.members(""))


@pytest.mark.parametrize("keep", ["all", "graph"])
def test_damage_is_mended(cut, expected, tmp_path, keep):
    """Also where what it takes was scratch, and is gone."""
    cut(3, tmp_path / "run.zarr", keep=keep)
    items = {"union": "symmetrize", "halo": "simplices.halo", "graph": "simplices"}
    damaged = [item for item in items if (tmp_path / f"run.zarr/{item}").exists()]
    assert damaged == {"all": list(items), "graph": ["graph"]}[keep]
    for item in damaged:
        (tmp_path / f"run.zarr/{item}/00000001/weights/c/0").write_bytes(b"other")
    store = in_memory(tmp_path / "run.zarr")
    assert list(daskumap.verify(store, repair=True)) == [items[item] for item in damaged]
    run = daskumap.resume(store, **QUIET)
    assert same(run.graph(), expected)


def test_what_is_kept(fit, small):
    for keep, there in (("all", {"union", "halo", "graph"}), ("graph", {"graph"}), ("model", set())):
        run = fit(small, simplices=2, keep=keep)
        assert {"union", "halo", "graph"} & set(run.store.documents.members("")) == there


# Other ways to a graph, and from it.


def test_a_fit_of_neighbours_weighs_anew(fit, small):
    rows = small[:150]
    plain, weighed = fit(rows), fit(rows, simplices=2, report=True)
    later = fit(plain, simplices=2)
    assert np.array_equal(later.embedding[:], weighed.embedding[:])
    assert "simplices" in later.status()
    taken = fit(weighed, report=True)
    assert same(taken.graph(), weighed.graph())
    assert taken.report["measures"] == weighed.report["measures"]
    assert "simplices" not in taken.status()
    assert np.array_equal(fit(taken, simplices=1).embedding[:], plain.embedding[:])
    short = {"vr_delta": 0.5, **GRAPH}
    assert same(fit(weighed, **short).graph(), fit(rows, simplices=2, **short).graph())


def test_given_neighbours_and_distances_are_weighed_too(fit, small):
    weighed = fit(small, simplices=2, **GRAPH).graph()
    given = fit(small, precomputed_knn=fit(small, **GRAPH).knn(), simplices=2, **GRAPH)
    assert same(given.graph(), weighed)
    squares = ((small[:, None].astype(np.float64) - small) ** 2).sum(axis=2)
    of_distances = fit(np.sqrt(squares).astype(np.float32), metric="precomputed", simplices=2, **GRAPH)
    assert abs(of_distances.graph() - weighed).max() < 1e-3


def test_copies_and_rows_alone(fit, small):
    """Twins are in no simplex; a row that nothing is joined to keeps an empty list."""
    rows = np.concatenate([small[:100], small[:100], [small[0] + 1e4]]).astype(np.float32)
    options = {"unique": True, "disconnection_distance": 1e3}
    run = fit(rows, simplices=3, **options)
    plain = fit(rows, **options).graph().toarray().astype(np.float64)
    np.testing.assert_allclose(run.graph().toarray(), simplex_weights(plain, 3)[0], atol=1e-6)
    assert np.isnan(run.embedding[:]).all(axis=1).sum() == 1


def test_new_rows_have_memberships_as_ever(fit, small, tmp_path):
    plain, weighed = (fit(small[:350], simplices=n, **GRAPH) for n in (1, 2))
    found = [run.transform(small[350:], **QUIET).graph() for run in (plain, weighed)]
    assert same(*found)
    weighed.save(tmp_path / "model.zarr", rows=True)
    saved = daskumap.open(tmp_path / "model.zarr")
    assert same(saved.transform(small[350:], **QUIET).graph(), found[0])


def test_the_estimator(fit, small):
    options = {"random_state": 1, "n_epochs": 2, "simplices": 3, "vr_delta": 2.0, "init": "pca"}
    model = UMAP(**options).fit(small)
    run = fit(small, **options)
    assert same(model.graph_, run.graph())
    assert np.array_equal(model.embedding_, run.embedding[:])
    assert same(model.to_umap().graph_, run.graph())


def test_the_command_line(small, write, tmp_path, fit):
    words = ["--scheduler", "sequential", "--quiet", "--seed", "1", "--n-epochs", "2", "--no-report"]
    out = tmp_path / "run.zarr"
    assert main(["fit", str(write(small)), str(out), *words, "--simplices", "3", "--vr-delta", "0.5"]) == 0
    run = daskumap.open(out)
    assert (run.params["simplices"], run.params["vr_delta"]) == (3, 0.5)
    assert same(run.graph(), fit(small, simplices=3, vr_delta=0.5, **GRAPH).graph())


def test_the_plan(small):
    plan, plain = (daskumap.plan(small, simplices=n, calibrate=False) for n in (2, 1))
    names = [stage.name for stage in plan.stages]
    assert names[names.index("symmetrize") :][:3] == ["symmetrize", "simplices.halo", "simplices"]
    kept, as_kept = plan.kept_by_level, plain.kept_by_level
    assert kept.pop("all") > as_kept.pop("all")
    assert kept == as_kept


def test_the_plan_counts_what_partitions_send():
    """Lists of others are held and sent where there is more than one partition."""
    data = np.zeros((100_000, 4), np.float32)
    found = daskumap.plan(data, simplices=3, memory="900MB", threads=2, calibrate=False)
    halo, weigh = (stage for stage in found.stages if stage.name.startswith("simplices"))
    assert found.job.sizes.partitions > 1
    assert halo.made_bytes == 100_000 * 28 * 12
    assert weigh.written_bytes == 100_000 * (28 * 8 + 8 + 4)
    assert weigh.task_bytes < 3 * halo.task_bytes


# What is refused, and what is written down.


@pytest.mark.parametrize(
    ("name", "value"),
    [("simplices", value) for value in (0, 4, 2.0, True, "2", None)]
    + [("vr_delta", value) for value in (-0.1, float("nan"), "far", None)],
)
def test_what_is_out_of_range_is_refused(name, value):
    with pytest.raises(ParameterError, match=f"^{name} is "):
        make_params({name: value})


def test_a_limit_of_simplices_where_there_are_none_is_refused(fit, small):
    with pytest.raises(ParameterError, match=r"vr_delta is 0\.5 and simplices is 1, with which no edge is"):
        fit(small, vr_delta=0.5)
    # Neighbours are fitted again without the simplices of their run, and without their limit.
    run = fit(small, simplices=2, vr_delta=0.5, n_epochs=1)
    assert fit(run, simplices=1, n_epochs=1).params["vr_delta"] == "inf"
    with pytest.raises(ParameterError, match=r"vr_delta is 0\.4 and simplices is 1"):
        fit(run, simplices=1, vr_delta=0.4)


@pytest.mark.parametrize("membership", ["morse", "harmonic"])
def test_weights_that_are_no_probabilities_are_refused(small, membership):
    with pytest.raises(
        ParameterError, match=f"simplices is 2, and memberships by '{membership}' may be above 1"
    ):
        daskumap.fit(small, simplices=2, membership=membership)


def test_no_limit_is_written_as_json_has_it(fit, small, tmp_path):
    """JSON has no infinity, and other tools than Python's read what a run store says of itself."""
    fit(small, tmp_path / "run.zarr", n_epochs=1)
    about = json.loads((tmp_path / "run.zarr/zarr.json").read_text(), parse_constant=pytest.fail)
    assert about["attributes"]["daskumap"]["params"]["vr_delta"] == "inf"
    assert make_params({"vr_delta": "inf"}).vr_delta == np.inf
    assert dataclasses.asdict(make_params({}))["vr_delta"] == np.inf
