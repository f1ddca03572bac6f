"""Tests the base realm, which is the only realm of the kind `bootstrap`. The realm has no owner,
and has exactly the files of the release's card library."""

from pathlib import Path
from typing import Any

import pytest

from definitions.models import CacheGeneration
from notifications.channels import DEFINITION_CACHE_INVALIDATED, REALM_FILE_CHANGES
from realms.access.auth import Caller
from realms.content.blobs import read_blob
from realms.content.history import versions_at
from realms.errors import Conflict
from realms.models import Blob, Realm, RealmPermission
from realms.publishing import bootstrap
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import delete_realm
from reindex.reading.references import BASE_REALM
from tests.support import make
from tests.support.listening.hearing import ear
from tests.support.web import everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a release with two modules in its card library, and stores the library as the base
    realm. Returns the library's folder."""
    monkeypatch.setattr(bootstrap, "FOLDER", tmp_path)
    (tmp_path / "mod.ts").write_text("export const edition = 1;")
    (tmp_path / "old.ts").write_text("export {};")
    sync_base_realm()
    return tmp_path


def test_everyone_may_read_the_base_realm_and_nobody_owns_it(release: Path) -> None:
    realm = Realm.objects.get(url=BASE_REALM)
    assert (realm.kind, realm.owner, realm.source, realm.publishable) == (
        "bootstrap", None, None, False,
    )  # fmt: skip
    rows = RealmPermission.objects.filter(realm=realm)
    assert list(rows.values_list("audience", "read", "write", "realm_owner")) == [
        ("everyone", True, False, False)
    ]


def test_a_start_of_the_same_release_changes_and_announces_nothing(release: Path) -> None:
    before = everything()
    with ear() as listening:
        sync_base_realm()
        assert listening.heard() == []
    assert everything() == before


def test_a_new_releases_library_replaces_the_old_one_and_is_announced(
    release: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The old release and the new release are in different folders."""
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "mod.ts").write_text("export const edition = 2;")
    monkeypatch.setattr(bootstrap, "FOLDER", moved)
    counter = CacheGeneration.objects.get(scope="realm", key=BASE_REALM).generation
    with ear() as listening:
        sync_base_realm()
        heard = listening.heard()
    told = {payload for channel, payload in heard if channel == REALM_FILE_CHANGES}
    assert told == {f"{BASE_REALM}:mod.ts", f"{BASE_REALM}:old.ts"}
    assert DEFINITION_CACHE_INVALIDATED in {channel for channel, _ in heard}
    realm = Realm.objects.get(url=BASE_REALM)
    files = versions_at(realm, realm.generation).select_related("blob")
    assert {file.path: read_blob(file.blob_id, file.blob.data) for file in files} == {
        "mod.ts": b"export const edition = 2;"
    }
    assert CacheGeneration.objects.get(scope="realm", key=BASE_REALM).generation > counter


def test_a_source_realm_at_the_base_url_is_an_error_and_stays(owner: Any) -> None:
    make.source(BASE_REALM, owner, {"mine.md": b"mine"})
    before = everything()
    with pytest.raises(Conflict, match=f"{BASE_REALM} is a source realm"):
        sync_base_realm()
    assert everything() == before


def test_remains_of_a_deleted_realm_do_not_restore_it_at_a_start(
    release: Path, source: Realm
) -> None:
    """Only the table of realms says which realms exist. The blobs of a deleted realm (the contents
    of its files) remain until garbage collection, but they don't restore the realm."""
    make.publish(source, "http://ada.localhost:4201/")
    delete_realm(source.url, Caller("ada"))
    assert Blob.objects.count() > 2, "the blobs of the deleted realm are still stored"
    sync_base_realm()
    assert list(Realm.objects.values_list("url", flat=True)) == [BASE_REALM]
    assert set(RealmPermission.objects.values_list("realm__url", flat=True)) == {BASE_REALM}
