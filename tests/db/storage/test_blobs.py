"""Tests that content is stored as a whole or not at all, even if the write is interrupted."""

import os
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages

from realms.content.blobs import ROW_BLOB_BYTES, blob_name, read_blob, store_blob, store_blobs
from realms.models import Blob, Realm
from realms.publishing import effects
from settings.storage import blob_storage
from tests.support import make
from tests.support.gates import Gate, in_thread
from tests.support.web import SOURCE, Web

pytestmark = pytest.mark.django_db(transaction=True)

LARGE = b"large " * ROW_BLOB_BYTES


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    """Gives each test its own folder for large content. Returns the folder."""
    settings.STORAGES = {**settings.STORAGES, "blobs": blob_storage(str(tmp_path), tmp_path)}
    return tmp_path


def test_a_reader_during_a_write_gets_the_whole_old_file(
    web: Web, live: None, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, url = Gate(), f"{source.url}index.json"
    monkeypatch.setattr(effects, "drop_definitions", gate.before(effects.drop_definitions))
    write = in_thread(make.write, source, index__json=b"{}")
    gate.wait_for_arrival()
    for asked in (url, f"{url}?noCache"):
        assert web.get(asked, SOURCE).body == make.SITE["index.json"]
    gate.open()
    write.result(20)
    assert web.get(url, SOURCE).body == b"{}"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_while_large_content_is_stored_leaves_no_partial_blob(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, step, crash)
        with pytest.raises(KeyboardInterrupt):
            store_blob(LARGE)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert not Blob.objects.filter(size=len(LARGE)).exists()
    assert read_blob(store_blob(LARGE)) == LARGE


def test_a_file_without_content_fails_alone_and_recovers(
    web: Web, live: None, source: Realm
) -> None:
    """A failed load is not cached, and doesn't affect other files or realms."""
    other = make.source("http://localhost:4201/ada/other/", source.owner, make.SITE)
    make.write(source, large__md=LARGE)
    name = blob_name(Blob.objects.get(size=len(LARGE)).sha256)
    kept = storages["blobs"].path(name)
    os.rename(kept, f"{kept}.away")
    for _ in range(2):
        assert web.get(f"{source.url}large.md", SOURCE).status == 500
    for realm in (source, other):
        assert web.get(f"{realm.url}index.json", SOURCE).body == make.SITE["index.json"]
    os.rename(f"{kept}.away", kept)
    assert web.get(f"{source.url}large.md", SOURCE).body == LARGE


def test_contents_of_every_size_stored_at_once_are_read_as_they_were() -> None:
    at_limit, over = b"r" * ROW_BLOB_BYTES, b"s" * (ROW_BLOB_BYTES + 1)
    contents = [b"", b"a", LARGE, b"b\\x00'\x00\xff", at_limit, over, b"a", bytes(range(256))]
    hashes = store_blobs(contents)
    stored = Blob.objects.in_bulk(hashes)
    assert [stored[each].size for each in hashes] == [len(each) for each in contents]
    assert [read_blob(each, stored[each].data) for each in hashes] == contents
    in_rows = [stored[each].data is not None for each in hashes]
    assert in_rows == [True, True, False, True, True, False, True, True]
    # Every blob now has a row, so storing the contents again only updates the time `stored_at`.
    before = Blob.objects.get(pk=hashes[1]).stored_at
    assert store_blobs(contents) == hashes
    assert Blob.objects.get(pk=hashes[1]).stored_at > before
    assert store_blobs([]) == []
