"""The ledger: records of tasks, and what was freed."""

import pytest
from zarr.storage import MemoryStore

from daskumap.planning.stage import Receipt
from daskumap.store.documents import Documents
from daskumap.store.ledger import Ledger


@pytest.fixture
def ledger():
    return Ledger(Documents(MemoryStore(), "", "the store"))


def test_records_are_what_tasks_returned(ledger):
    assert not ledger.has_begun()
    receipts = {0: Receipt(5, {"edges": 7}, 0.25, 1.5, 10**9), 12: Receipt(2)}
    for task, receipt in receipts.items():
        ledger.record("layout", task, receipt)
    assert ledger.has_begun()
    assert ledger.records("layout") == receipts
    assert ledger.count("layout") == 2
    assert ledger.records("publish") == {}
    assert ledger.count("publish") == 0


def test_a_damaged_record_is_none(ledger):
    ledger.record("layout", 0, Receipt(5))
    ledger.record("layout", 1, Receipt(6))
    ledger.documents.save_bytes("ledger/layout/00000000.json", b"{}")
    assert ledger.records("layout") == {1: Receipt(6)}


def test_a_step_is_forgotten_alone(ledger):
    for step in ("neighbors", "neighbors.merge"):
        ledger.record(step, 0, Receipt(1))
    ledger.forget("neighbors")
    assert ledger.records("neighbors") == {}
    assert ledger.records("neighbors.merge") == {0: Receipt(1)}
    ledger.forget("neighbors")


def test_what_was_freed(ledger):
    assert ledger.freed() == set()
    ledger.set_freed({"found", "shuffle"})
    assert ledger.freed() == {"found", "shuffle"}
    ledger.set_freed(ledger.freed() - {"found"})
    assert ledger.freed() == {"shuffle"}
    assert ledger.count("freed") == 0
