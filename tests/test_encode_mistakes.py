"""Rows that a fit leaves out or refuses, through its network; one look at a place; what an export leaves."""

import dask.array as da
import numpy as np
import onnxruntime
import pytest

import daskumap
from daskumap.errors import SourceError, StoreError
from daskumap.planning.stage import Stage
from daskumap.store.documents import Documents
from tests.conftest import QUIET

HERE = {"client": "sequential", "progress": False}
SHORT = {"steps": 20, "hidden": (6,), "batch_edges": 30, "report": False, **HERE}


def train(rows, words=None, **fit):
    run = daskumap.fit(rows, **QUIET, transform_mode="graph", report=False, **fit)
    return daskumap.train(run, **{**SHORT, **(words or {})})


@pytest.fixture(scope="module")
def few(small):
    return small[:100]


@pytest.fixture(scope="module")
def trained(few):
    return train(few, {"decoder": True, "labels": np.arange(100) % 3})


@pytest.fixture(scope="module")
def with_zeros(few):
    rows = np.abs(few)
    rows[::50] = 0.0
    return rows


def test_rows_that_are_left_out_of_a_map_are_so_when_they_come_again(with_zeros):
    """Under "cosine" a row of zeros has no direction: it is NaN, however it comes."""
    found = train(with_zeros, {"labels": np.arange(100) % 2}, metric="cosine", undefined="isolate")
    wanted = found.embedding[:]
    assert np.isnan(wanted[::50]).all()
    np.testing.assert_array_equal(daskumap.transform(found, with_zeros, **HERE).embedding[:], wanted)
    np.testing.assert_array_equal(found.encoder.made_of("encode", with_zeros), wanted)
    lazy = found.encoder.made_of("encode", da.from_array(with_zeros, chunks=(30, 8)))
    np.testing.assert_array_equal(lazy.compute(), wanted)
    # Its class is the network's.
    assert np.isfinite(found.encoder.made_of("predict", with_zeros)).all()


def test_rows_that_a_fit_would_refuse_are_refused(with_zeros, few, tmp_path):
    found = train(np.abs(few) + 1, {"decoder": True}, metric="cosine")
    said = r"The metric 'cosine' is not defined on 2 of 100 rows; the first: rows 0, 50"
    with pytest.raises(SourceError, match=said):
        daskumap.transform(found, with_zeros, tmp_path / "out", **HERE)
    with pytest.raises(SourceError, match=said):
        found.encoder.made_of("encode", with_zeros)
    assert not (tmp_path / "out").exists()
    # The middle of the map is a point like any other.
    assert found.encoder.made_of("decode", np.zeros((1, 2))).shape == (1, 8)
    apart = train(with_zeros, metric="cosine", undefined="apart")
    np.testing.assert_array_equal(apart.encoder.made_of("encode", with_zeros), apart.embedding[:])


def test_a_place_is_looked_at_once(trained, tmp_path, monkeypatch):
    """Over a network each look is a request."""
    trained.save(tmp_path / "model.zarr")
    looked, load = [], Documents.load_bytes
    monkeypatch.setattr(Documents, "load_bytes", lambda self, name: looked.append(name) or load(self, name))
    for call in (daskumap.open, daskumap.Encoder.open):
        looked.clear()
        call(tmp_path / "model.zarr")
        assert looked.count("zarr.json") == 1


def test_a_plan_counts_the_units_of_a_wide_network(few):
    """384 rows of 30,000 units take more than a hundred rows do."""
    wide = train(few, {"hidden": (30_000,), "steps": 1})
    (stage,) = daskumap.plan(few, run=wide, calibrate=False).stages
    assert isinstance(stage, Stage)
    assert stage.memory["network"] > 384 * 30_000 * 4


def test_chunks_without_rows(trained, few):
    rows = da.from_array(few, chunks=(50, 8))
    found = trained.encoder.made_of("encode", da.concatenate([rows[:0], rows]))
    np.testing.assert_array_equal(found.compute(), trained.embedding[:])


def test_an_export_by_where_the_network_is(trained, few, tmp_path):
    trained.save(tmp_path / "model.zarr")
    for run in (trained, trained.encoder, tmp_path / "model.zarr"):
        encoder, decoder = daskumap.export_onnx(run, tmp_path / "encoder.onnx")
        assert (encoder.name, decoder.name) == ("encoder.onnx", "encoder.decoder.onnx")
        places, _ = onnxruntime.InferenceSession(encoder).run(None, {"rows": few})
        np.testing.assert_allclose(places, trained.embedding[:], atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"model.zarr", encoder.name, decoder.name}


def test_an_export_that_cannot_be_written(trained, tmp_path):
    with pytest.raises(
        StoreError, match=r"nowhere/encoder.onnx cannot be written .* Name a file in a folder"
    ):
        daskumap.export_onnx(trained, tmp_path / "nowhere" / "encoder.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="folder cannot be written"):
        daskumap.export_onnx(trained, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
