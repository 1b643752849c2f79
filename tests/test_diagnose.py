"""How well a map fits its graph: in the report, on the way there, and for maps from elsewhere."""

import json
import logging

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.cli.main import main
from daskumap.errors import ParameterError, SourceError, SourceNotFoundError, StoreError
from daskumap.stages.shared import looks
from daskumap.testing import reference_layout as reference
from daskumap.testing.datasets import digits
from daskumap.testing.faults import FailingEngine, Fault

EXACT = ("attraction", "edge_repulsion", "cross_entropy", "graph_entropy", "kl_divergence", "bits_per_edge")
NAMES = {
    *EXACT,
    "non_edge_repulsion",
    "non_edge_repulsion_se",
    "effective_loss",
    "bits_per_vertex",
    "on_target",
}
WARNING = "hardly nearer on this map"


@pytest.fixture(scope="module")
def made(small, tmp_path_factory):
    """A run on disk with all that stays by default."""
    place = tmp_path_factory.mktemp("made") / "run.zarr"
    options = {"client": "sequential", "progress": False, "random_state": 1, "n_epochs": 20}
    return daskumap.fit(small, place, **options)


def curve_of(run):
    return daskumap.params.make_params({name: run.params[name] for name in ("min_dist", "spread")}).curve()


def expected(run, positions, draws=5):
    return reference.diagnostics(np.asarray(positions), run.graph().toarray(), *curve_of(run), draws)


def check(got, wanted):
    for name in EXACT:
        assert got[name] == pytest.approx(wanted[name], rel=1e-6), name
    error = got["non_edge_repulsion_se"]
    assert abs(got["non_edge_repulsion"] - wanted["non_edge_repulsion"]) < 4 * error
    assert got["effective_loss"] == pytest.approx(wanted["effective_loss"], rel=0.05)


def test_the_report_against_all_pairs_of_digits(fit):
    """1,613,706 pairs; the losses of before are those of ordered pairs."""
    run = fit(digits().rows(), report=True)
    measures, wanted = run.report["measures"], expected(run, run.embedding)
    check(measures, wanted)
    assert measures["attractive_loss"] == pytest.approx(2 * wanted["attraction"], rel=1e-6)
    ordered = 2 * (wanted["edge_repulsion"] + wanted["non_edge_repulsion"])
    assert abs(measures["repulsive_loss"] - ordered) < 8 * measures["non_edge_repulsion_se"]
    assert measures["bits_per_vertex"] == pytest.approx(np.log2(15), abs=1e-4)
    assert measures["on_target"] == 1
    found = run.diagnose()
    assert found.keys() == NAMES
    assert found.items() <= measures.items()


def test_any_partitions_and_engine_give_the_same_bits(fit, small, clustered, block_sizes, made):
    """Of the report, of what it was on the way, and of another look."""
    assert fit(small, client="1x2", report=True).report["measures"] == made.report["measures"]
    rows = clustered[:2500]
    whole = fit(rows, report=True, n_epochs=5).report["measures"]
    block_sizes(chunks=1, layout_rows=700)
    split = fit(rows, report=True, n_epochs=5)
    assert split.report["steps"]["report.loss"]["tasks"] == 3
    assert {name: split.report["measures"][name] for name in (*NAMES, "loss_course")} == {
        name: whole[name] for name in (*NAMES, "loss_course")
    }
    assert split.diagnose().items() <= whole.items()


def test_maps_from_elsewhere(made, tmp_path):
    """As an array, a NumPy file, a Zarr array of small chunks, a dask array and a run; lists do too."""
    own = made.diagnose()
    map_ = made.embedding[:]
    np.save(tmp_path / "map.npy", map_)
    zarr.create_array(str(tmp_path / "map.zarr"), data=map_, chunks=(7, 1))
    places = (tmp_path / "map.npy", str(tmp_path / "map.zarr"), f"{made.path}/embedding")
    for given in (map_, map_.astype(np.float64), map_.tolist(), *places, made, made.path):
        assert daskumap.diagnose(made, given) == own
    assert daskumap.diagnose(made.path) == own


@pytest.mark.parametrize("columns", [1, 3])
def test_maps_of_any_number_of_columns(made, columns):
    places = 10 * np.random.default_rng(0).random((400, columns))
    check(made.diagnose(places), expected(made, np.float32(places)))


def test_a_map_has_its_own_curve(fit, small, made):
    """That of a run is known; those of others are given."""
    tight = daskumap.fit(made, client="sequential", progress=False, n_epochs=20, random_state=1, min_dist=0.5)
    a, b = curve_of(tight)
    got = made.diagnose(tight)
    assert got == made.diagnose(tight.embedding[:], a=a, b=b) != made.diagnose(tight.embedding[:])
    assert got == tight.diagnose()
    check(got, reference.diagnostics(tight.embedding[:], made.graph().toarray(), a, b, 5))


def test_the_same_graph_tells_which_map_fits_better(fit, small, made):
    start = fit(small, n_epochs=0)
    assert made.diagnose()["kl_divergence"] < made.diagnose(start)["kl_divergence"]
    assert made.diagnose()["graph_entropy"] == made.diagnose(start)["graph_entropy"]


def test_the_sampling_of_the_run_counts(fit, small):
    run = fit(small, negative_sample_rate=2, repulsion_strength=3.0)
    assert run.diagnose()["effective_loss"] == pytest.approx(
        expected(run, run.embedding, 6)["effective_loss"], rel=0.05
    )


def test_rows_in_another_order_are_told(made, caplog):
    with caplog.at_level(logging.WARNING):
        made.diagnose()
        assert WARNING not in caplog.text
        made.diagnose(made.embedding[:][np.random.default_rng(0).permutation(400)])
    assert WARNING in caplog.text


def test_a_runs_own_map_is_in_order_however_bad_it_is(fit, caplog):
    with caplog.at_level(logging.WARNING):
        run = fit(np.ones((50, 3), np.float32))
        run.diagnose()
    assert WARNING not in caplog.text


@pytest.fixture(scope="module")
def doubled(small):
    """Ten rows twice, and one far from all others, in an order that is not theirs."""
    far = np.full((1, small.shape[1]), 1e3, np.float32)
    return np.concatenate([small[:10], far, small])[::-1].copy()


def test_copies_count_once_and_rows_without_neighbours_do_not(fit, doubled):
    """Wherever copies lie on a map from elsewhere: the place of the first one counts."""
    run = fit(doubled, unique=True, disconnection_distance=100.0, report=True)
    map_, own = run.embedding[:], run.diagnose()
    assert np.isnan(map_).any(axis=1).sum() == 1
    firsts = np.unique(run.inverse(), return_index=True)[1]
    here = np.isfinite(map_[firsts]).all(axis=1)
    graph = run.graph().toarray()[np.ix_(here, here)]
    check(own, reference.diagnostics(map_[firsts][here], graph, *curve_of(run), 5 * 400 / 401))
    assert own.items() <= run.report["measures"].items()
    assert own["on_target"] == pytest.approx(400 / 401, abs=1e-6)
    copies = np.setdiff1d(np.arange(len(map_)), firsts)
    map_[copies] = 77
    map_[np.isnan(map_)] = -500
    assert run.diagnose(map_) == own


def test_rows_on_which_the_metric_is_not_defined(fit, small):
    rows = small.copy()
    rows[5:9] = 0
    run = fit(rows, metric="cosine", undefined="isolate", report=True)
    assert run.diagnose().items() <= run.report["measures"].items()
    assert run.diagnose()["on_target"] == 1


def test_maps_of_hardly_any_row(fit):
    run = fit(np.eye(3, dtype=np.float32), report=True, n_neighbors=2)
    assert run.diagnose().items() <= run.report["measures"].items()


def gaps(map_):
    map_ = map_.copy()
    map_[[17, 3]] = np.nan
    return map_


@pytest.mark.parametrize(
    ("given", "curve", "error", "message"),
    [
        (lambda map_: map_[:-1], {}, ParameterError, r"embedding has 399 rows, the run 400\. Give one place"),
        (lambda map_: map_[:, 0], {}, SourceError, "has 1 dimensions"),
        (gaps, {}, SourceError, r"no finite place, in float32, for 2 rows .* first for row 3"),
        (lambda map_: map_ * 1e300, {}, SourceError, "no finite place, in float32, for 400 rows"),
        (lambda map_: map_.astype(str), {}, SourceError, "holds <U"),
        (lambda map_: "no/such.npy", {}, SourceNotFoundError, "There is no file no/such.npy"),
        (lambda map_: "no/such.zarr", {}, SourceNotFoundError, "no"),
        (lambda map_: map_, {"a": 1.0}, ParameterError, r"a is 1\.0 and b is None\. Give both"),
        (lambda map_: map_, {"a": -1.0, "b": 1.0}, ParameterError, "a is -1"),
        (lambda map_: map_, {"a": 1.0, "b": float("nan")}, ParameterError, "b is nan"),
    ],
)
def test_what_is_no_map_is_refused(made, given, curve, error, message):
    with pytest.raises(error, match=message):
        made.diagnose(given(np.float64(made.embedding[:])), **curve)


def test_a_file_that_is_no_numpy_file(made, tmp_path):
    (tmp_path / "map.npy").write_text("0 1")
    with pytest.raises(SourceError, match=r"cannot be read as a NumPy file .*\. Write it with numpy\.save"):
        made.diagnose(tmp_path / "map.npy")


def test_a_map_that_lacks_chunks(made, tmp_path):
    map_ = zarr.create_array(str(tmp_path / "map.zarr"), shape=(400, 2), chunks=(100, 2), dtype="f4")
    map_[:300] = made.embedding[:300]
    with pytest.raises(SourceError, match=r"embedding lacks 1 chunks, .*\. Write them again"):
        made.diagnose(tmp_path / "map.zarr")


@pytest.mark.parametrize("keep", ["model", "embedding"])
def test_a_run_that_did_not_keep_its_graph(fit, small, keep):
    run = fit(small, keep=keep, report=True)
    assert run.report["measures"].keys() >= NAMES
    with pytest.raises(StoreError, match=r"has no graph, .* Fit with keep='graph'"):
        run.diagnose()


def test_what_is_no_finished_run_of_a_map(fit, small, made, sequential, tmp_path):
    placed = made.transform(small[:9], client="sequential", progress=False)
    with pytest.raises(StoreError, match=r"was made by a run\. Give the run that the map is of"):
        daskumap.run.Run(placed.store).diagnose(small)
    with pytest.raises(ParameterError, match="embedding has 9 rows"):
        made.diagnose(placed)
    with pytest.raises(StoreError, match="has no graph"):
        made.save(tmp_path / "model.zarr").diagnose()
    engine = FailingEngine(sequential, tmp_path / "w", stop_at="publish")
    with pytest.raises(Fault):
        fit(small, tmp_path / "stopped.zarr", client=engine)
    with pytest.raises(StoreError, match="has no embedding yet"):
        daskumap.diagnose(tmp_path / "stopped.zarr")
    with pytest.raises(StoreError, match=r"is unfinished\. Finish it: daskumap resume"):
        daskumap.diagnose(tmp_path / "stopped.zarr", small)


def test_maps_that_are_no_plane_are_refused_and_others_of_their_graph_are_not(fit, small, made):
    run = fit(small, output_metric="manhattan", n_epochs=2)
    for of in (run, made):
        with pytest.raises(ParameterError, match=r"has output_metric 'manhattan', and the diagnostics are"):
            of.diagnose(run)
    assert run.diagnose(made.embedding) == made.diagnose()


def test_a_run_that_ends_with_its_graph(fit, small, made):
    run = fit(small, transform_mode="graph")
    assert run.diagnose(made) == made.diagnose()
    with pytest.raises(StoreError, match="has no map"):
        run.diagnose()


def test_what_calibration_found_goes_with_the_graph(made, small):
    """A fit of neighbours copies it; with other memberships it looks again."""
    options = {"client": "sequential", "progress": False, "n_epochs": 0}
    same, other = daskumap.fit(made, **options), daskumap.fit(made, n_neighbors=8, **options)
    assert same.diagnose()["bits_per_vertex"] == made.diagnose()["bits_per_vertex"]
    assert other.diagnose()["bits_per_vertex"] == pytest.approx(3, abs=1e-4)


def test_rows_whose_ties_miss_the_target(fit, small):
    """Five copies of each row: more neighbours at distance 0 than there are bits to give."""
    found = fit(np.repeat(small[:80], 5, axis=0), n_neighbors=4).diagnose()
    assert found["bits_per_vertex"] == pytest.approx(3, abs=1e-3)
    assert found["on_target"] == 0


# On the way.


def course(run):
    return run.report["measures"]["loss_course"]


def test_the_loss_on_the_way(fit, small):
    found = course(fit(small, n_epochs=105, report=True))
    assert [look["epoch"] for look in found] == [0, 50, 100, 105]
    for look in found:
        assert look["loss"] == look["attraction"] + look["repulsion"] > 0


def test_all_vertices_on_the_way_say_what_the_report_does(fit, small, monkeypatch):
    """But for edges that never fire in so few iterations."""
    monkeypatch.setattr(looks, "LOOKED_AT", 1)
    monkeypatch.setattr(looks, "PARTNERS", 16)
    run = fit(small, report=True)
    last, measures = course(run)[-1], run.report["measures"]
    assert last["epoch"] == 20
    assert last["attraction"] == pytest.approx(measures["attraction"], rel=0.02)
    repulsion = measures["edge_repulsion"] + measures["non_edge_repulsion"]
    assert last["repulsion"] == pytest.approx(repulsion, rel=0.02)
    start = fit(small, n_epochs=0, report=True)
    first, wanted = course(start), expected(run, start.embedding)
    assert [look["epoch"] for look in first] == [0]
    assert first[0]["attraction"] == pytest.approx(wanted["attraction"], rel=1e-4)


@pytest.mark.parametrize("options", [{"optimizer": "sgd"}, {"reconcile_every": 7}, {"n_epochs": [30, 52]}])
def test_the_way_of_other_layouts(fit, small, options):
    run = fit(small, **{"n_epochs": 52, "report": True, **options})
    assert [look["epoch"] for look in course(run)] == [0, 49 if "reconcile_every" in options else 50, 52]


def test_a_map_that_is_given_has_one_look(fit, small, made):
    run = fit(small, init=made.embedding[:], optimizer="none", report=True)
    assert [look["epoch"] for look in course(run)] == [0]
    assert run.diagnose() == made.diagnose()


def test_a_layout_that_was_killed_has_the_same_course(fit, small, sequential, tmp_path):
    options = {"n_epochs": 55, "checkpoint_every": 20, "report": True, "keep": "graph"}
    engine = FailingEngine(sequential, tmp_path / "w", {("layout", 2): [Fault("power")]})
    with pytest.raises(daskumap.TaskError, match="power"):
        fit(small, tmp_path / "run.zarr", client=engine, **options)
    run = fit(small, tmp_path / "run.zarr", **options)
    assert course(run) == course(fit(small, n_epochs=55, report=True))
    assert daskumap.verify(run.path) == {}


def test_nobody_looks_where_there_is_no_report(fit, small, monkeypatch):
    monkeypatch.setattr(looks, "pair_sums", None)
    fit(small)
    fit(small, output_metric="manhattan", n_epochs=1, report=True)


# What is said.


def test_the_report_shows_all(made):
    lines = str(made).splitlines()
    labels = ("cross-entropy", "KL divergence", "other pairs", "effective loss", "bits an edge", "bits a row")
    for label in labels:
        assert any(line.startswith(label) for line in lines), label
    assert "100.0% of the rows on target" in str(made)
    head = lines.index("epoch              attraction      repulsion           loss")
    assert [line.split()[0] for line in lines[head + 1 : head + 3]] == ["0", "20"]


def test_the_command(made, tmp_path, capsys):
    assert main(["diagnose", made.path]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in str(made).splitlines() if line in said] == said
    assert main(["diagnose", made.path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == made.diagnose()
    np.save(tmp_path / "map.npy", made.embedding[:] * 2)
    arguments = ["--embedding", str(tmp_path / "map.npy"), "--a", "1", "--b", "0.9", "--json"]
    assert main(["diagnose", made.path, *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == made.diagnose(made.embedding[:] * 2, a=1.0, b=0.9)
    assert main(["diagnose", made.path, "--embedding", "no.npy"]) == 3
