"""Exchanges: batches that are read in order, by destination and by column."""

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from daskumap.store.exchange import MANY_BATCHES, BatchReader, BatchWriter
from daskumap.store.places import Held
from daskumap.store.run import RunStore
from daskumap.store.schema import SCRATCH, Exchange

NUMBERS = Exchange("x", SCRATCH, "task", "destination", {"a": ("int64", ""), "b": ("float32", "pair")})
BATCHES = MANY_BATCHES + 30  # so that they are read together


@pytest.fixture
def store():
    place = Held(MemoryStore())
    store = RunStore(place, zarr.create_group(place.store()))
    for task in range(BATCHES):
        writer = BatchWriter(store, NUMBERS, task, task % 3, {"a": ("int64", 0), "b": ("float32", 2)})
        writer.write("a", np.full(task % 3, task))
        writer.write("b", np.full((task % 3, 2), task / 2, np.float32))
        writer.close(np.array([0, 0, task % 3]))
    return store


def test_many_batches_are_read_in_order(store):
    lengths = np.arange(BATCHES) % 3
    reader = BatchReader(store, NUMBERS, BATCHES, ("a",), 1, 2)
    assert reader.count(1, 2) == lengths.sum()
    np.testing.assert_array_equal(reader.read(1, 2)["a"], np.repeat(np.arange(BATCHES), lengths))
    assert [len(part["a"]) for part in reader.slices(1, 2)] == [n for n in lengths if n]


def test_columns_come_by_name_and_destinations_alone(store):
    both = BatchReader(store, NUMBERS, BATCHES, ("b", "a"), 0, 2)
    assert both.count(0, 1) == 0
    assert {name: values.shape for name, values in both.read(0, 1).items()} == {"b": (0, 2), "a": (0,)}
    records = both.read(0, 2)
    assert list(records) == ["b", "a"]
    np.testing.assert_array_equal(records["b"], np.repeat(records["a"][:, None] / 2, 2, axis=1))
