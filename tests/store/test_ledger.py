"""The ledger: records of tasks, what a generation begins with, and what was freed."""

import pytest
from zarr.storage import LocalStore, MemoryStore

from daskumap.planning.stage import Receipt
from daskumap.store.documents import Documents
from daskumap.store.ledger import Ledger


@pytest.fixture
def documents():
    return Documents(MemoryStore(), "", "the store")


@pytest.fixture
def on_disk(tmp_path):
    return Documents(LocalStore(tmp_path), "", "the store")


@pytest.fixture
def ledger(documents):
    """Of the driver of generation 3, the first of its run."""
    ledger = Ledger(documents, "run")
    ledger.begin(3, {}, set())
    return ledger


def test_records_are_what_tasks_returned(documents, ledger):
    receipts = {0: Receipt(5, {"edges": 7}, 0.25, 1.5, 10**9), 12: Receipt(2)}
    for task, receipt in receipts.items():
        ledger.record("layout", task, receipt)
    for reader in (ledger, Ledger(documents, "run")):
        assert reader.records("layout") == receipts
        assert reader.receipt("layout", 12) == Receipt(2)
        assert reader.receipt("layout", 1) is None
        assert reader.count("layout") == 2
        assert reader.records("publish") == {}
        assert reader.count("publish") == 0


def test_nothing_has_begun(documents):
    ledger = Ledger(documents, "run")
    assert not ledger.has_begun()
    assert (ledger.generation(), ledger.count("layout"), ledger.freed(), ledger.finished()) == (
        -1,
        0,
        set(),
        None,
    )
    ledger.begin(0, {}, set())
    assert ledger.has_begun()
    assert not Ledger(documents, "another").has_begun()


def test_a_damaged_record_is_none(documents, ledger):
    ledger.record("layout", 0, Receipt(5))
    ledger.record("layout", 1, Receipt(6))
    documents.save_bytes("ledger/run/00000003/layout/00000000.json", b"{}")
    assert ledger.records("layout") == {1: Receipt(6)}
    assert ledger.count("layout") == 2


def test_a_record_in_the_place_of_another_is_none(documents, ledger):
    """Of another task, step, generation or run."""
    ledger.record("layout", 0, Receipt(5))
    content = documents.load_bytes("ledger/run/00000003/layout/00000000.json")
    for place in ("run/00000003/layout/00000001", "run/00000003/publish/00000000"):
        documents.save_bytes(f"ledger/{place}.json", content)
    assert ledger.records("layout") == {0: Receipt(5)}
    assert ledger.records("publish") == {}
    other = Ledger(documents, "other")
    other.begin(3, {}, set())
    documents.save_bytes("ledger/other/00000003/layout/00000000.json", content)
    assert other.records("layout") == {}


def test_a_step_is_forgotten_alone(documents, ledger):
    for step in ("neighbors", "neighbors.merge"):
        ledger.record(step, 0, Receipt(1))
    ledger.finish("now")
    Ledger(documents, "run").begin(4, {"neighbors.merge": [0]}, {"found"})
    reader = Ledger(documents, "run")
    assert reader.records("neighbors") == {}
    assert reader.records("neighbors.merge") == {0: Receipt(1)}
    assert reader.finished() is None
    assert reader.freed() == {"found"}


def test_generations_follow_one_another(documents, ledger):
    """Each keeps ranges of what those before it recorded, and writes over none of it."""
    for task in (0, 1, 2, 5):
        ledger.record("scan", task, Receipt(task))
    second = Ledger(documents, "run")
    second.begin(4, {"scan": [0, 1, 5]}, set())
    second.record("scan", 2, Receipt(20))
    third = Ledger(documents, "run")
    third.begin(7, {"scan": range(6)}, set())
    third.record("scan", 3, Receipt(30))
    assert Ledger(documents, "run").records("scan") == {
        task: Receipt(rows) for task, rows in {0: 0, 1: 1, 2: 20, 3: 30, 5: 5}.items()
    }
    assert documents.load("ledger/run/00000007/begun")["kept"] == {
        "scan": {"3": [[0, 1], [5, 5]], "4": [[2, 2]]}
    }


@pytest.mark.parametrize("where", ["documents", "on_disk"])
def test_all_steps_by_one_listing(request, monkeypatch, where):
    """As one by one, whatever else lies there: what a killed driver left of a file, and other names."""
    documents = request.getfixturevalue(where)
    assert Ledger(documents, "run").all_tasks() == {}
    looked = ("scan.look", 0)
    for generation, kept, recorded in (
        (3, {}, (("scan", 0), ("scan", 2), looked)),
        (4, {"scan": [0, 2], "lost": [0]}, (("scan", 2), looked)),
        (7, {"scan": [0, 2], "scan.look": [0]}, (("scan", 5), looked)),
    ):
        ledger = Ledger(documents, "run")
        ledger.begin(generation, kept, set())
        for step, task in recorded:
            ledger.record(step, task, Receipt(task))
        for name in ("scan/00000009.json.0f.partial", "scan/notes.json", "notes"):
            documents.save_bytes(f"ledger/run/{generation:08d}/{name}", b"{}")
    documents.save_bytes("ledger/run/notes/scan/00000000.json", b"{}")
    newest = Ledger(documents, "run")
    one_by_one = {step: newest.tasks(step) for step in ("scan", "scan.look")}
    assert one_by_one["scan"] == {0: 3, 2: 4, 5: 7}
    listed = []
    monkeypatch.setattr(Documents, "members", lambda self, folder: listed.append(folder))
    assert {
        step: tasks for step, tasks in Ledger(documents, "run").all_tasks().items() if tasks
    } == one_by_one
    assert ledger.all_tasks() == Ledger(documents, "run").all_tasks()
    assert ledger.records("scan", one_by_one["scan"]) == {task: Receipt(task) for task in (0, 2, 5)}
    assert listed == []


def test_what_is_recorded_after_another_began_is_not_read(documents, ledger):
    ledger.record("scan", 0, Receipt(0))
    newer = Ledger(documents, "run")
    newer.begin(4, {"scan": [0]}, set())
    for task in (0, 1):
        ledger.record("scan", task, Receipt(99))
    ledger.set_freed({"found"})
    ledger.finish("now")
    for reader in (newer, Ledger(documents, "run")):
        assert reader.tasks("scan") == {0: 3}
        assert (reader.freed(), reader.finished()) == (set(), None)


@pytest.mark.parametrize("lost", [True, False], ids=["deleted", "flipped"])
def test_a_damaged_beginning_holds_nothing(documents, ledger, lost):
    ledger.record("scan", 0, Receipt(0))
    newer = Ledger(documents, "run")
    newer.begin(4, {"scan": [0]}, {"found"})
    newer.record("scan", 1, Receipt(1))
    name = "ledger/run/00000004/begun.json"
    documents.delete(name) if lost else documents.save_bytes(name, b"{")
    assert Ledger(documents, "run").records("scan") == {1: Receipt(1)}
    assert Ledger(documents, "run").freed() == set()


def test_what_was_freed(documents, ledger):
    assert ledger.freed() == set()
    ledger.set_freed({"found", "shuffle"})
    assert ledger.freed() == {"found", "shuffle"}
    ledger.set_freed(ledger.freed() - {"found"})
    assert Ledger(documents, "run").freed() == {"shuffle"}
    assert ledger.count("freed") == 0
