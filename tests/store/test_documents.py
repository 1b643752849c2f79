"""Small documents: whole or not at all, in a folder and in memory."""

import errno
import json
import threading
from contextlib import suppress

import pytest
from zarr.storage import LocalStore, MemoryStore

from daskumap.store.documents import Documents


@pytest.fixture(params=["folder", "memory"])
def documents(request, tmp_path):
    store = LocalStore(tmp_path) if request.param == "folder" else MemoryStore()
    return Documents(store, "runs/a.zarr", "the store")


@pytest.mark.parametrize("value", [None, 0, "text", [1, 2.5], {"a": {"b": None}}, {}])
def test_what_is_saved_is_loaded(documents, value):
    documents.save("facts/x", value)
    assert documents.load("facts/x") == value
    documents.save("facts/x", "other")
    assert documents.load("facts/x") == "other"


def test_what_is_not_there(documents):
    assert documents.load("facts/x") is None
    assert documents.load_bytes("x.png") is None
    assert documents.members("facts") == []
    assert documents.numbers("facts") == []
    documents.delete("facts/x.json")
    documents.delete_folder("facts")


def _flip(content):
    return content.replace(b"12345", b"12346")


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda content: content[:-9],
        lambda content: b"",
        lambda content: b"[1]",
        lambda content: b"\xff",
    ],
    ids=["flipped", "truncated", "empty", "other JSON", "no text"],
)
def test_a_damaged_document_counts_as_missing(documents, caplog, damage):
    documents.save("facts/x", {"value": 12345})
    documents.save_bytes("facts/x.json", damage(documents.load_bytes("facts/x.json")))
    assert documents.load("facts/x") is None
    assert "facts/x in the store is damaged and counts as missing" in caplog.text


def test_the_first_who_creates_wins(documents):
    documents.create("lock/00000000", "first")
    documents.create("lock/00000000", "second")
    assert documents.load("lock/00000000") == "first"


def test_numbers_and_members(documents):
    for name in ("00000010", "00000002", "about"):
        documents.save(f"ledger/scan/{name}", {})
    assert documents.numbers("ledger/scan") == [2, 10]
    assert set(documents.members("ledger/scan")) == {"00000010.json", "00000002.json", "about.json"}
    assert documents.members("ledger") == ["scan"]


def test_a_folder_goes_with_all_that_it_holds(documents):
    for name in ("a/b/c", "a/d", "ab/e"):
        documents.save(name, 1)
    documents.delete_folder("a")
    assert documents.load("a/b/c") is documents.load("a/d") is None
    assert documents.load("ab/e") == 1
    assert documents.members("") == ["ab"]


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENOTEMPTY])
def test_a_folder_into_which_another_one_writes_goes(documents, monkeypatch, code):
    documents.save("a/b", 1)
    delete, tries = type(documents.store).delete_dir, []

    async def late(store, prefix):
        tries.append(prefix)
        if len(tries) < 3:
            raise OSError(code, "a file came or went")
        await delete(store, prefix)

    monkeypatch.setattr(type(documents.store), "delete_dir", late)
    documents.delete_folder("a")
    assert documents.load("a/b") is None
    assert len(tries) == 3


def test_a_folder_goes_while_a_driver_that_was_taken_for_dead_writes_into_it(tmp_path):
    """Its task writes for as long as it takes, and stumbles where its folder goes."""
    documents, begun = Documents(LocalStore(tmp_path), "", "here"), threading.Event()

    def write():
        for number in range(3000):
            with suppress(OSError):
                path = tmp_path / f"a/{number % 7}/{number}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"late")
            begun.set()

    late = threading.Thread(target=write)
    late.start()
    begun.wait()
    while late.is_alive():
        documents.delete_folder("a")
    documents.delete_folder("a")
    assert documents.members("") == []


def test_numbers_are_plain_json(documents):
    """Anybody can read them."""
    documents.save("facts/x", {"edges": 7})
    assert json.loads(documents.load_bytes("facts/x.json"))["content"] == {"edges": 7}
