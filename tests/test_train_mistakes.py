"""What users give a training by mistake, or as other libraries write it; and what its plan counts."""

import dataclasses

import numpy as np
import pytest

import daskumap
from daskumap import train_request
from daskumap.encoder_params import EncoderParams, make_encoder_params
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import ParameterError, RunMismatchError, SourceError, StoreError
from daskumap.opening import compare_versions, versions
from daskumap.planning.training import windows
from daskumap.report.progress import Silent
from daskumap.session import fit_request
from daskumap.sources.known import open_labels, open_landmarks
from daskumap.testing.faults import FailingEngine, Fault
from daskumap.train_request import make_train_request
from tests.conftest import QUIET

HERE = {"client": "sequential", "progress": False}
SHORT = {"steps": 30, "hidden": (6,), "batch_edges": 30, "report": False, **HERE}


@pytest.fixture(scope="module")
def few(small):
    return small[:100]


@pytest.fixture(scope="module")
def graph(few):
    return daskumap.fit(few, **QUIET, transform_mode="graph", report=False)


class Missing:
    """Stands for pandas' NA, which is equal to nothing and has no truth."""

    def __ne__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


def objects(*values):
    out = np.empty(len(values), object)
    out[:] = values
    return out


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (objects("b", Missing(), "a", None), ["a", "b"], [1, -1, 0, -1]),
        (objects(3, Missing(), np.int64(1), float("nan")), [1, 3], [1, -1, 0, -1]),
        (objects(True, np.bool_(False), None, True), [0, 1], [1, 0, -1, 1]),
        (np.array(["b", "a", "-1", "b"], np.dtypes.StringDType()), ["a", "b"], [1, 0, -1, 1]),
    ],
)
def test_labels_as_frames_have_them(labels, classes, numbers):
    known = open_labels(labels, 4)
    assert known.about["classes"] == classes
    assert known.values.tolist() == numbers


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, np.inf, 1]),
        np.array([0, -np.inf, 1]),
        np.array([0, 1e300, 1]),
        np.array([0, 2**64 - 1, 1], np.uint64),
        objects(np.arange(2), "a", None),
        objects(1, "a", None),
        [[1], [2, 3], [4]],
    ],
)
def test_labels_that_are_none(labels):
    with pytest.raises(ParameterError, match=r"labels (have shape|is no array)"):
        open_labels(labels, 3)


def test_files_that_cannot_be_read(tmp_path):
    np.save(tmp_path / "names.npy", objects("a", "b"))
    (tmp_path / "text.npy").write_text("1, 2")
    (tmp_path / "empty.npy").touch()
    for name in ("names", "text", "empty", "missing"):
        with pytest.raises(ParameterError, match=rf"labels cannot be read from .*{name}.npy .* numpy.save"):
            open_labels(tmp_path / f"{name}.npy", 2)
        with pytest.raises(ParameterError, match="landmarks cannot be read"):
            open_landmarks(str(tmp_path / f"{name}.npy"), 2, 2)


def test_numbers_of_a_grid_are_numbers():
    """As those of fit are: a search of parameters passes NumPy's."""
    given = {
        "steps": np.int64(30),
        "hidden": [np.int32(8)],
        "encoder_learning_rate": np.float32(0.5),
        "decoder": np.bool_(True),
    }
    wanted = {"steps": 30, "hidden": (8,), "encoder_learning_rate": 0.5, "decoder": True}
    assert make_encoder_params(given).fingerprint() == make_encoder_params(wanted).fingerprint()


def test_a_reconstruction_without_a_decoder():
    with pytest.raises(ParameterError, match=r"reconstruction is 'bce' and there is no decoder"):
        make_encoder_params({"reconstruction": "bce"})


def test_what_weighs_nothing_is_not_looked_at(graph):
    """A classifier that no step trains would say classes at random."""
    plain = daskumap.train(graph, **SHORT)
    words = {"labels": "nowhere.npy", "landmarks": "nowhere.npy"}
    same = daskumap.train(graph, label_weight=0, landmark_weight=0.0, **words, **SHORT)
    np.testing.assert_array_equal(same.embedding[:], plain.embedding[:])
    assert same.encoder.classes == ()


def test_rows_beyond_probabilities_leave_nothing(few, tmp_path, monkeypatch):
    """By the first rows before all work; by one that is far behind when it is read, and the run goes."""
    words = {**SHORT, "decoder": True, "reconstruction": "bce"}
    inside = np.clip(np.abs(few) / 20, 0, 1)
    beyond = inside.copy()
    beyond[90, 2] = 1.5
    monkeypatch.setattr(train_request, "LOOKED_ROWS", 50)
    for rows, first in ((np.abs(few) + 2, "rows 0, 1"), (beyond, "row 90")):
        run = daskumap.fit(rows, **QUIET, transform_mode="graph", report=False)
        with pytest.raises(SourceError, match=rf"'bce', .* the first: {first}"):
            daskumap.train(run, tmp_path / "out.zarr", **words)
        assert not (tmp_path / "out.zarr").exists()


def nearly(x, y):
    """Measure over what both rows have."""
    total = 0.0
    for i in range(len(x)):
        if x[i] == x[i] and y[i] == y[i]:
            total += (x[i] - y[i]) ** 2
    return total


@pytest.mark.processes
def test_rows_with_nan_that_a_function_measures(small, fit):
    """The graph takes them, a network cannot."""
    gaps = small.copy()
    gaps[::40, 3] = np.nan
    run = fit(gaps, metric=nearly, ensure_all_finite="allow-nan", n_epochs=1)
    with pytest.raises(
        ParameterError, match=r"fitted with ensure_all_finite='allow-nan', and a network maps nothing but"
    ):
        daskumap.train(run, **SHORT)
    whole = daskumap.train(fit(small, metric=nearly, n_epochs=1), **SHORT)
    with pytest.raises(SourceError, match="10 of 400 rows hold NaN"):
        daskumap.transform(whole, gaps, **HERE)


def test_rows_that_float32_resolves_elsewhere_go_on_from_what_was_learnt(few):
    """The first rows were moved by one centre, these are by another one, and those that follow by none."""
    far = few.astype(np.float64) + 1e9
    words = {**SHORT, "decoder": True}

    def train(rows, **more):
        return daskumap.train(
            daskumap.fit(rows, **QUIET, transform_mode="graph", report=False), **words, **more
        )

    first, still = train(far), {"steps": 1, "encoder_learning_rate": 1e-9}
    places = first.encoder.made_of("encode", far + 3)
    rows = first.encoder.made_of("decode", places)
    words |= still
    again = train(far + 3, start=first)
    np.testing.assert_allclose(again.embedding[:], places, atol=1e-4)
    np.testing.assert_allclose(again.encoder.made_of("decode", places), rows, atol=1e-3)
    assert again.encoder.model.cast["centre"] != first.encoder.model.cast["centre"]
    # One that was not moved, by its own arithmetic.
    known = train(few).encoder
    assert known.model.cast["centre"] is None
    values = far
    for layer in known.model.layers("encoder")[:-1]:
        values = np.maximum(values @ layer.weights.astype(float) + layer.bias, 0)
    last = known.model.layers("encoder")[-1]
    places = values @ last.weights.astype(float) + last.bias
    np.testing.assert_allclose(train(far, start=known).embedding[:], places, rtol=1e-4)


def test_labels_that_were_lost_are_brought_again(few, tmp_path):
    """What came from the caller's memory is verified too, and no dead end."""
    out, words = tmp_path / "out.zarr", {**SHORT, "labels": np.arange(100) % 3}
    graph = daskumap.fit(few, tmp_path / "run.zarr", **QUIET, transform_mode="graph", report=False)
    wanted = daskumap.train(graph, **words)
    stops = FailingEngine(SequentialEngine(4 * 10**9), tmp_path / "w", stop_at="encoder.project")
    with pytest.raises(Fault):
        daskumap.train(graph, out, **{**words, "client": stops})
    (out / "input/labels/c/0").unlink()
    with pytest.raises(StoreError, match=r"input/labels/c/0 is missing .* `daskumap verify --repair`"):
        daskumap.resume(out, **HERE)
    assert daskumap.verify(out, repair=True) == {"input": ["input/labels: 1 of 1 chunks are missing"]}
    with pytest.raises(StoreError, match=r"arrays that it does not hold. Call daskumap.train again"):
        daskumap.resume(out, **HERE)
    np.testing.assert_array_equal(daskumap.train(graph, out, **words).embedding[:], wanted.embedding[:])
    assert daskumap.verify(out) == {}


def test_callers_for_whom_each_rounding_is_an_error(pictures):
    """NumPy's own switch is theirs; a training casts to float32 all the same."""
    run = daskumap.fit(pictures[:100], **QUIET, transform_mode="graph", report=False)
    for replicas in (1, 2):
        plain = daskumap.train(run, **SHORT, replicas=replicas)
        with np.errstate(all="raise"):
            found = daskumap.train(run, **SHORT, replicas=replicas)
        np.testing.assert_array_equal(found.embedding[:], plain.embedding[:])


# What a plan counts.


def stage_of(run, **words):
    planned = daskumap.plan(run, encoder={**words, "hidden": (6,)}, calibrate=False)
    return planned, next(stage for stage in planned.stages if stage.name == "encoder.train")


def test_a_plan_counts_classes_pairs_and_replicas(graph):
    plain = stage_of(graph)[1].memory["batch"]
    classes = stage_of(graph, labels=np.arange(100))[1].memory["batch"]
    # Scores and their gradients, of as many rows as edges.
    assert classes - plain == EncoderParams.batch_edges * 100 * 16
    rates = stage_of(graph, negative_sample_rate=1000)[1].memory["batch"]
    assert rates - plain == EncoderParams.batch_edges * 995 * 8
    assert stage_of(graph, replicas=4)[1].memory["batch"] == 4 * plain


def test_windows_of_replicas_that_one_worker_trains():
    one, four = (make_encoder_params({"window_rows": 2_000, "replicas": n}) for n in (1, 4))
    assert [windows(e, 10_000, threads) for e in (one, four) for threads in (1, 2, 8)] == [2, 2, 2, 2, 3, 5]
    assert windows(make_encoder_params({}), 10_000, 8) == 1


def test_the_steps_of_one_network_take_one_thread(graph):
    times = {}
    for replicas in (1, 2):
        for threads in (1, 8):
            words = {"encoder": {"replicas": replicas}, "threads": threads, "calibrate": False}
            planned = daskumap.plan(graph, **words)
            stage = next(stage for stage in planned.stages if stage.name == "encoder.train")
            times[replicas, threads] = planned.seconds(stage)
    assert times[1, 8] == pytest.approx(times[1, 1], rel=0.1)
    assert times[2, 8] == pytest.approx(times[2, 1] / 2, rel=0.1)


# On what kind of device.


def test_another_kind_of_device_does_not_go_on(graph, held):
    """Bits would mix. Of a finished run it is said, and no more."""
    request = make_train_request(graph.model(), {"report": False, "steps": 5, "hidden": (6,)}, None, None)
    there = dataclasses.replace(request, device="one kind")
    store = fit_request(there, held, SequentialEngine(4 * 10**9), Silent(), restart=False)
    assert store.about["versions"] == versions(device="one kind")
    compare_versions(store, finished=True, device="another")
    compare_versions(store, finished=False)
    with pytest.raises(RunMismatchError, match="device was 'one kind' and is now 'another'"):
        compare_versions(store, finished=False, device="another")
