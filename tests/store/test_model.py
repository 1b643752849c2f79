"""The model group: what is written is read, and anything else is refused in words."""

import json
import shutil
import zlib
from itertools import pairwise

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.errors import StoreError
from daskumap.store.documents import Documents, as_text
from daskumap.store.model import Model, find_damaged_model, open_model_group
from daskumap.store.places import Memory, find_place
from tests.conftest import damage


def made(classes=("cat", "dog")):
    """Return a small model with all parts, by numbers that tell its arrays apart."""
    rng = np.random.default_rng(0)

    def layers(*widths):
        return tuple(
            (rng.normal(size=pair).astype(np.float32), rng.normal(size=pair[1]).astype(np.float32))
            for pair in pairwise(widths)
        )

    parts = {"encoder": layers(5, 4, 2), "decoder": layers(2, 4, 5), "head": layers(4, 2)}
    return Model.of_parts(
        parts,
        columns=5,
        dtype="<f4",
        components=2,
        curve=(1.5, 0.9),
        cast={"exponent": 0, "centre": None},
        params={"n_neighbors": 15},
        run="0f",
        classes=classes,
        features=("a", "b", "c", "d", "e"),
        history=({"step": 10, "edges": 0.25},),
    )


@pytest.fixture
def saved(tmp_path):
    place = tmp_path / "model.zarr"
    made().save(find_place(place))
    return place


def same(one, other):
    assert one._description() == other._description()
    assert list(one.weights) == list(other.weights)
    for name, values in one.weights.items():
        np.testing.assert_array_equal(values, other.weights[name])


def test_what_is_saved_is_read_to_the_bit(saved):
    found = open_model_group(find_place(saved))
    same(found, made())
    assert found.widths["encoder"] == (5, 4, 2)
    np.testing.assert_array_equal(found.layers("head")[0][0], made().weights["head.0.weights"])
    assert found.layers("none") == ()
    assert found.digest() == made().digest() != made(classes=("cat", "cow")).digest()


def test_any_reader_of_zarr_reads_the_weights(saved):
    group = zarr.open_group(saved, mode="r")
    np.testing.assert_array_equal(group["weights/encoder.1.bias"][:], made().weights["encoder.1.bias"])


def test_a_group_in_a_run_store_and_one_in_memory_are_read_too(tmp_path):
    store = Memory().store()
    documents = Documents(store, "model", "memory")
    made().write(documents)
    same(Model.read(documents), made())
    place = find_place(tmp_path / "run.zarr")
    made().write(Documents(place.store(), "model", place.url))
    same(open_model_group(place), made())


def test_arrays_of_a_module_of_any_shape(tmp_path):
    odd = {"scale": np.float32(3), "kernel": np.zeros((2, 3, 4), np.float32), "none": np.zeros((0, 2))}
    rest = {name: value for name, value in vars(made()).items() if name not in ("weights", "widths")}
    place = find_place(tmp_path / "model.zarr")
    Model(**{**rest, "weights": odd, "widths": {}, "backend": "torch"}).save(place)
    found = open_model_group(place).weights
    assert {name: np.shape(values) for name, values in found.items()} == {
        name: np.shape(values) for name, values in odd.items()
    }


@pytest.mark.parametrize("kind", ["flipped", "truncated", "deleted"])
@pytest.mark.parametrize(
    "file", ["weights/encoder.0.weights/c/0/0", "weights/encoder.0.weights/zarr.json", "zarr.json"]
)
def test_damage_is_named(saved, file, kind):
    damage(saved / file, kind)
    with pytest.raises(StoreError, match=r"damaged|missing|no model") as caught:
        open_model_group(find_place(saved))
    assert str(saved) in str(caught.value)
    assert find_damaged_model(Documents(find_place(saved).store(), "", str(saved)))


def rewritten(saved, **changes):
    """Change what the group says of its model, and make its checksum right again."""
    path = saved / "zarr.json"
    document = json.loads(path.read_text())
    about = document["attributes"]["daskumap_model"]
    about.update(changes)
    content = {name: value for name, value in about.items() if name not in ("schema", "crc32")}
    about["crc32"] = zlib.crc32(as_text(content))
    path.write_text(json.dumps(document))


def test_a_model_of_a_later_version_says_what_to_install(saved):
    rewritten(saved, schema=2, version="9.0")
    with pytest.raises(StoreError, match=r"schema 2, written by daskumap 9\.0; this version reads schema 1"):
        open_model_group(find_place(saved))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backend": "jax"}, "its backend is 'jax'; known are mlp, torch"),
        ({"widths": {"encoder": [5, 3, 2]}}, "are not those of widths"),
        ({"widths": None}, "is none of a model"),
        ({"weights": {"../x": {"shape": [1], "crc32": 0}}}, "called ../x"),
        ({"more": 1}, "lacks or adds more"),
    ],
)
def test_a_description_that_no_writer_of_ours_makes_is_refused(saved, changes, said):
    rewritten(saved, **changes)
    with pytest.raises(StoreError, match=said):
        open_model_group(find_place(saved))


def test_weights_of_another_model_do_not_pass(saved, tmp_path):
    shutil.copytree(saved / "weights/head.0.bias", tmp_path / "kept")
    other = Model(**{**vars(made()), "weights": {k: v + 1 for k, v in made().weights.items()}})
    shutil.rmtree(saved)
    other.save(find_place(saved))
    shutil.rmtree(saved / "weights/head.0.bias")
    shutil.copytree(tmp_path / "kept", saved / "weights/head.0.bias")
    with pytest.raises(StoreError, match=r"head\.0\.bias are not the values"):
        open_model_group(find_place(saved))


def test_foreign_groups_and_places_that_hold_something_are_refused(tmp_path, saved):
    zarr.open_group(tmp_path / "foreign.zarr", mode="w", attributes={"daskumap": {}})
    with pytest.raises(StoreError, match="There is no model at"):
        open_model_group(find_place(tmp_path / "foreign.zarr"))
    with pytest.raises(StoreError, match="There is no model at"):
        open_model_group(find_place(tmp_path / "nothing.zarr"))
    with pytest.raises(StoreError, match="holds something already"):
        made().save(find_place(saved))


def test_a_save_that_was_cut_short_says_so_and_is_done_again(tmp_path, monkeypatch):
    place = find_place(tmp_path / "model.zarr")
    save = Documents.save_bytes

    def dies(self, name, value):
        if "head" in name:
            raise KeyboardInterrupt
        save(self, name, value)

    with monkeypatch.context() as patched:
        patched.setattr(Documents, "save_bytes", dies)
        with pytest.raises(KeyboardInterrupt):
            made().save(place)
    with pytest.raises(StoreError, match="is not whole"):
        open_model_group(place)
    made().save(place)
    same(open_model_group(place), made())


def test_a_run_store_is_no_model(tmp_path, fit, small):
    run = daskumap.fit(small, tmp_path / "run.zarr", n_epochs=2, client="sequential", progress=False)
    with pytest.raises(StoreError, match="There is no model at"):
        open_model_group(find_place(run.path))
