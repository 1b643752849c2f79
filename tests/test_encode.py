"""New rows through a trained network: the same bits however they come, whole or in blocks, through a kill."""

import dataclasses
import logging

import dask.array as da
import numpy as np
import pytest
import zarr
from dask.base import DaskMethodsMixin
from scipy.sparse import csr_array

import daskumap
from daskumap.encoder import Encoder
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import ParameterError, RunMismatchError, SourceError, StoreError
from daskumap.report.progress import Silent
from daskumap.request import encode_params, make_encode_request
from daskumap.session import fit_request
from daskumap.store.model import open_model_group
from daskumap.store.places import find_place
from tests.conftest import QUIET, damage

HERE = {"client": "sequential", "progress": False}
SHORT = {"steps": 120, "hidden": (12, 12), "batch_edges": 60, "report": False, **HERE}


def train(data, **options):
    run = daskumap.fit(data, **QUIET, transform_mode="graph", report=False)
    return daskumap.train(run, **{**SHORT, **options})


@pytest.fixture(scope="module")
def trained(small):
    """A training with all parts, on labels of one row in ten."""
    labels = np.where(np.arange(400) % 10, -1, np.arange(400) % 3)
    return train(small, decoder=True, labels=labels)


def in_blocks(trained, encodes, data, out, rows=90, progress=None):
    """Let rows go through a network as a run of row blocks of so many rows."""
    model = trained.encoder.model
    request = make_encode_request(data, model, encode_params(model), encodes)
    request = dataclasses.replace(request, adjust=lambda made: dataclasses.replace(made, row_block=rows))
    return fit_request(request, out, SequentialEngine(4 * 10**9), progress or Silent(), restart=False)


def test_the_fitted_rows_are_where_the_map_of_the_training_has_them(trained, small):
    found = daskumap.transform(trained, small, **HERE)
    assert isinstance(found, daskumap.Encoded)
    np.testing.assert_array_equal(found.embedding[:], trained.embedding[:])


def test_arrays_in_memory_on_disk_and_of_dask_give_the_same_bits(trained, small, write):
    encoder, wanted = trained.encoder, trained.embedding[:]
    kinds = (small, np.asfortranarray(small), small.astype(np.float64), csr_array(small))
    for given in kinds:
        np.testing.assert_array_equal(encoder.made_of("encode", given), wanted)
    path = write(small, chunks=(70, 3))
    for given in (path, zarr.open_array(path)):
        np.testing.assert_array_equal(encoder.made_of("encode", given, **HERE)[:], wanted)
    lazy = encoder.made_of("encode", da.from_array(small, chunks=(130, 5)))
    assert lazy.chunks == ((130, 130, 130, 10), (2,))
    np.testing.assert_array_equal(lazy.compute(), wanted)


@pytest.mark.parametrize(
    ("encodes", "item"), [("encode", "embedding"), ("decode", "inverted"), ("predict", "probabilities")]
)
def test_in_blocks_is_as_at_once(trained, small, encodes, item):
    given = trained.embedding[:] if encodes == "decode" else small
    made = in_blocks(trained, encodes, given, None)
    assert made.about["sizes"]["row_block"] == 90
    whole = trained.encoder.made_of(encodes, given)
    np.testing.assert_array_equal(made.array(item)[:], whole)
    np.testing.assert_array_equal(trained.encoder.made_of(encodes, given[7:8]), whole[7:8])


def test_a_cluster_gives_the_same_bits(trained, small, write, tmp_path, client_1x2):
    place = trained.save(tmp_path / "model.zarr").url
    found = daskumap.transform(place, write(small, chunks=(64, 8)), tmp_path / "out", client=client_1x2)
    np.testing.assert_array_equal(found.embedding[:], trained.embedding[:])


def test_dask_computes_nothing_before_it_is_asked(trained, small, monkeypatch):
    lazy = da.from_array(small, chunks=100)
    monkeypatch.setattr(DaskMethodsMixin, "compute", lambda *_, **__: pytest.fail("computed"))
    assert trained.encoder.made_of("predict", lazy).shape == (400, 3)
    assert trained.encoder.labels_of(lazy).shape == (400,)


def test_classes_are_those_of_the_greatest_probability(trained, small, write):
    found = daskumap.predict(trained, write(small), **HERE)
    probabilities = found.probabilities[:]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.labels[:], probabilities.argmax(axis=1))
    assert found.classes == (0, 1, 2)
    np.testing.assert_array_equal(trained.encoder.labels_of(da.from_array(small)).compute(), found.labels[:])


class Stops(Silent):
    """Stops a run after some of its tasks, as a signal does."""

    def advance(self, done):
        if done >= 2:
            raise KeyboardInterrupt


def test_a_run_that_was_stopped_goes_on_without_its_model(trained, small, write, tmp_path):
    path, out = write(small), tmp_path / "out.zarr"
    with pytest.raises(KeyboardInterrupt):
        in_blocks(trained, "encode", path, out, progress=Stops())
    stopped = daskumap.open(out)
    assert stopped.status() == {"encode": 2}
    assert not stopped.finished
    with pytest.raises(StoreError, match="has no embedding yet"):
        stopped.embedding  # noqa: B018
    before = {task: record.stat().st_mtime_ns for task, record in records(out).items()}
    assert len(before) == 2
    found = daskumap.resume(out, **HERE)
    assert {task: records(out)[task].stat().st_mtime_ns for task in before} == before
    np.testing.assert_array_equal(found.embedding[:], trained.embedding[:])


def records(out):
    return {path.name: path for path in out.glob("ledger/*/*/encode/*.json")}


def test_a_run_that_goes_on_refuses_other_rows(trained, small, write, tmp_path):
    path, out = write(small), tmp_path / "out.zarr"
    with pytest.raises(KeyboardInterrupt):
        in_blocks(trained, "encode", path, out, progress=Stops())
    zarr.open_array(path)[5, 5] += 1
    with pytest.raises(RunMismatchError, match=r"values differ in 1 of 2 blocks"):
        daskumap.resume(out, **HERE)


def test_what_is_damaged_is_found_and_made_again(trained, small, write, tmp_path):
    out = tmp_path / "out.zarr"
    daskumap.transform(trained, write(small), out, **HERE)
    assert daskumap.verify(out) == {}
    damage(out / "embedding/c/0/0")
    assert "encode" in daskumap.verify(out, repair=True)
    np.testing.assert_array_equal(daskumap.resume(out, **HERE).embedding[:], trained.embedding[:])


def test_bad_rows_are_refused_and_leave_nothing(trained, small, tmp_path):
    out, encoder = tmp_path / "out.zarr", trained.encoder
    gap = small.copy()
    gap[3, 1] = np.nan
    said = r"1 of 400 rows hold NaN .* the first: row 3\."
    with pytest.raises(SourceError, match=said):
        daskumap.transform(trained, gap, out, **HERE)
    with pytest.raises(SourceError, match=said):
        encoder.made_of("encode", gap)
    with pytest.raises(SourceError, match="1 of 100 rows hold NaN"):
        encoder.made_of("encode", da.from_array(gap, chunks=(100, 8))).compute()
    for given in (small[:, :5], csr_array(small[:, :5]), da.from_array(small[:, :5])):
        with pytest.raises(SourceError, match="have 5 columns, and the encoder was trained on rows of 8"):
            encoder.made_of("encode", given)
    with pytest.raises(SourceError, match="The points have 3 columns, and the encoder's map has 2"):
        encoder.made_of("decode", np.zeros((4, 3)))
    with pytest.raises(SourceError, match="allowed are float16"):
        daskumap.transform(trained, small.astype(complex), out, **HERE)
    with pytest.raises(ParameterError, match=r"fitted is 'x', and an encoder maps new rows without"):
        daskumap.transform(trained, small, out, fitted="x", **HERE)
    assert not out.exists()


def test_what_was_not_trained_is_refused(small, tmp_path):
    plain = train(small, steps=5)
    with pytest.raises(ParameterError, match="without labels"):
        daskumap.predict(plain, small, **HERE)
    with pytest.raises(ParameterError, match="without a decoder"):
        plain.encoder.made_of("decode", np.zeros((1, 2)))
    # By neighbours there is a way back for any map, and the result says so.
    points = plain.embedding[:5]
    assert "by 8 neighbours" in str(daskumap.inverse_transform(plain, points, **HERE))
    layout = daskumap.fit(small, **QUIET, n_epochs=1, report=False)
    with pytest.raises(StoreError, match=r"is that of a layout, without a network"):
        layout.encoder  # noqa: B018
    assert isinstance(daskumap.transform(layout, small[:9], **HERE), daskumap.Transformed)


def test_which_map_new_rows_get_is_said(trained, small, caplog):
    with caplog.at_level(logging.INFO, "daskumap"):
        found = daskumap.transform(trained, small, **HERE)
    assert "mapped by the encoder" in caplog.text
    assert "rows mapped by the encoder, not placed by neighbours" in str(found)


def test_a_saved_network_is_a_model_to_all_calls(trained, small, tmp_path, write):
    place = tmp_path / "model.zarr"
    trained.save(place)
    encoder = daskumap.open(place)
    assert isinstance(encoder, Encoder)
    assert "8 columns to 2, encoder and decoder and head" in repr(encoder)
    assert encoder.history == tuple(trained.history)
    assert encoder.model.digest() == open_model_group(find_place(place)).digest()
    path = write(small)
    for model in (place, str(place), encoder):
        found = daskumap.transform(model, path, **HERE)
        np.testing.assert_array_equal(found.embedding[:], trained.embedding[:])
    rows = daskumap.inverse_transform(place, trained.embedding[:], **HERE).rows[:]
    np.testing.assert_array_equal(rows, trained.encoder.made_of("decode", trained.embedding[:]))
    planned = daskumap.plan(path, run=place, calibrate=False)
    assert [stage.name for stage in planned.stages] == ["encode"]
    with pytest.raises(ParameterError, match="where the network itself is"):
        daskumap.transform(place, small, place, **HERE)
    with pytest.raises(ParameterError, match="Leave them out"):
        trained.save(tmp_path / "other.zarr", rows=True)


def test_rows_that_float32_does_not_tell_apart_are_moved_as_the_fitted_ones(small, write):
    far = small.astype(np.float64) + 1e9
    moved = train(far, decoder=True)
    found = moved.encoder.made_of("encode", far)
    np.testing.assert_array_equal(found, moved.embedding[:])
    np.testing.assert_array_equal(moved.encoder.made_of("encode", write(far), **HERE)[:], found)
    np.testing.assert_array_equal(in_blocks(moved, "encode", far, None).array("embedding")[:], found)
    rows = moved.encoder.made_of("decode", found)
    assert rows.dtype == np.float64
    assert abs(rows - far).max() < np.ptp(small)
    np.testing.assert_array_equal(in_blocks(moved, "decode", found, None).array("inverted")[:], rows)
