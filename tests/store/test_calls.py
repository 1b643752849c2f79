"""Calls of a store: without zarr's event loop where nothing waits, and with it where something may."""

import asyncio

import pytest
from zarr.storage import LocalStore, MemoryStore

from daskumap.store import calls
from daskumap.store.documents import Documents


class Waiting(MemoryStore):
    """A store of somebody else's that waits."""

    async def get(self, *args, **options):
        await asyncio.sleep(0.001)
        return await super().get(*args, **options)


@pytest.fixture
def no_loop(monkeypatch):
    def refuse(coroutine):
        coroutine.close()
        raise AssertionError("the event loop was asked")

    return lambda: monkeypatch.setattr(calls, "sync", refuse)


def test_memory_needs_no_event_loop(no_loop):
    no_loop()
    documents = Documents(MemoryStore(), "", "here")
    documents.save("folder/name", {"a": 1})
    assert documents.load("folder/name") == {"a": 1}
    assert documents.members("folder") == ["name.json"]
    documents.delete_folder("folder")
    assert documents.load("folder/name") is None


def test_a_document_of_a_folder_is_read_without_one(no_loop, tmp_path):
    documents = Documents(LocalStore(tmp_path), "", "here")
    documents.save("folder/name", {"a": 1})
    no_loop()
    assert documents.load("folder/name") == {"a": 1}
    assert documents.load_bytes("nothing") is documents.load_bytes("folder") is None
    assert documents.load_bytes("folder/name.json/below") is None


def test_a_store_that_waits_is_waited_for():
    documents = Documents(Waiting(), "", "here")
    documents.save("name", [1])
    assert documents.load("name") == [1]
