"""Tests that writes, publishes and rollbacks lose no content while the garbage collector runs."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.files.storage import storages
from django.db import IntegrityError, connection
from django.utils import timezone

from realms.access.auth import Caller
from realms.content import files
from realms.content.blobs import Stored, read_blob, store_blob
from realms.content.files import write_stored
from realms.content.history import versions_at
from realms.content.locks import realm_write_lock
from realms.errors import Unprocessable
from realms.housekeeping import garbage
from realms.housekeeping.garbage import Collected
from realms.models import Blob, FileVersion, Realm
from realms.publishing import publish
from realms.publishing.publish import rollback_realm
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.data.garbage import LARGE, age, collect, edition, in_storage, publications
from tests.support.gates import Gate, in_thread
from tests.support.web import everything, waiting_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"
ADA = Caller("ada")


def unnamed() -> None:
    """Stores old content that no file version uses, so the garbage collector may remove it."""
    store_blob(LARGE)
    age()


def stands(path: str) -> bool:
    version = FileVersion.objects.get(path=path, until_generation=None)
    return read_blob(version.blob_id, version.blob.data) == LARGE


def test_content_is_not_collected_between_its_storage_and_its_file_row(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    unnamed()
    gate = Gate()
    monkeypatch.setattr(files, "advance", gate.before(files.advance))
    write = in_thread(make.write_paths, source, {"large.bin": LARGE})
    gate.wait_for_arrival()
    limits = garbage.Limits(before=timezone.now(), young=timezone.now(), pins=[])
    assert in_thread(garbage._drop_blobs, limits, Collected()).result(20) == 0
    gate.open()
    write.result(20)
    assert stands("large.bin")


def test_a_writer_waits_for_the_collector_and_stores_the_content_again(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    unnamed()
    gate = Gate()
    original: Callable[..., None] = type(storages["blobs"]).delete
    monkeypatch.setattr(type(storages["blobs"]), "delete", gate.after(original))
    collecting = in_thread(collect)
    gate.wait_for_arrival()
    assert not in_storage(LARGE)
    write = in_thread(make.write_paths, source, {"large.bin": LARGE})
    wait_until(waiting_for_a_row, "the writer waiting for the collector")
    gate.open()
    assert collecting.result(20).blobs == 1
    write.result(20)
    assert stands("large.bin")


def test_a_file_version_that_names_a_collected_blob_is_refused(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates an import that stores a file's content but makes the file's row only after the
    grace period."""
    unnamed()
    stored = Stored(Blob.objects.get(size=len(LARGE)).pk, len(LARGE))

    def name() -> None:
        with realm_write_lock(source.url):
            realm = Realm.objects.get(pk=source.pk)
            write_stored(realm, {"large.bin": stored})

    before = everything()["FileVersion"]
    gate = Gate()
    original: Callable[..., None] = type(storages["blobs"]).delete
    monkeypatch.setattr(type(storages["blobs"]), "delete", gate.after(original))
    collecting = in_thread(collect)
    gate.wait_for_arrival()
    naming = in_thread(name)
    wait_until(waiting_for_a_row, "the import waiting for the collector")
    gate.open()
    collecting.result(20)
    with pytest.raises(IntegrityError):
        naming.result(20)
    assert everything()["FileVersion"] == before


def test_content_that_a_publish_is_about_to_show_is_not_collected(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.write_paths(source, {"large.bin": LARGE})
    gate = Gate()
    monkeypatch.setattr(publish, "_show", gate.before(publish._show))
    publishing = in_thread(make.publish, source, PAGE)
    gate.wait_for_arrival()
    replace = in_thread(make.write_paths, source, {"large.bin": b"other"})
    collecting = in_thread(collect, grace=timedelta(0))
    wait_until(lambda: waiting_for(source.url) == 2, "a writer and the collector waiting")
    gate.open()
    for each in (publishing, replace):
        each.result(20)
    collecting.result(20)
    age()
    collect(grace=timedelta(0))
    (shown,) = publications().values()
    assert shown["large.bin"] == LARGE


def test_content_that_a_rollback_is_about_to_show_is_not_collected(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        edition(source, number)
    oldest = min(publications())
    expected = publications()[oldest]
    age()
    gate = Gate()
    monkeypatch.setattr(publish, "_show", gate.before(publish._show))
    rollback = in_thread(rollback_realm, PAGE, ADA, oldest)
    gate.wait_for_arrival()
    collecting = in_thread(collect)
    wait_until(lambda: waiting_for(PAGE) == 1, "the collector waiting for the rollback")
    gate.open()
    done = rollback.result(20)
    assert collecting.result(20).publications == 3
    assert publications()[done.generation] == expected


def test_a_rollback_to_a_collected_publication_is_refused(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        edition(source, number)
    oldest = min(publications())
    age()
    gate = Gate()
    monkeypatch.setattr(garbage, "_drop_publications", gate.after(garbage._drop_publications))
    collecting = in_thread(collect)
    gate.wait_for_arrival()
    rollback = in_thread(rollback_realm, PAGE, ADA, oldest)
    wait_until(lambda: waiting_for(PAGE) == 1, "the rollback waiting for the collector")
    gate.open()
    collecting.result(20)
    with pytest.raises(Unprocessable, match=f"no publication of generation {oldest}"):
        rollback.result(20)


def test_the_collector_skips_a_realm_that_is_being_written_to(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.write(source, index__json=b"one")
    make.write(source, index__json=b"two")
    age()
    monkeypatch.setattr("realms.content.locks.LOCK_WAIT_SECONDS", 1)
    with realm_write_lock(source.url):
        assert in_thread(collect).result(20).busy == [source.url]
    assert collect().versions == 2


def test_concurrent_writes_publishes_and_rollbacks_lose_nothing(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads repeatedly write the same few contents, publish, and roll back. Meanwhile the
    garbage collector runs. It may remove unused content at once, because its grace period and its
    retention time are zero."""
    monkeypatch.setattr(garbage, "PIN_SECONDS", 0)
    monkeypatch.setattr("django.conf.settings.REALM_RETENTION_SECONDS", 0, raising=False)
    other = make.source("http://localhost:4201/ada/other/", source.owner, {})

    def change(realm: Realm, page: str) -> None:
        for number in range(25):
            make.write_paths(realm, {"large.bin": LARGE + b"%d" % (number % 3)})
            make.publish(realm, page)
            if number % 5 == 4:
                rollback_realm(page, ADA)

    changing = [in_thread(change, source, PAGE), in_thread(change, other, f"{PAGE}other/")]
    removed = 0
    while not all(each.done() for each in changing):
        removed += in_thread(collect, grace=timedelta(0)).result(30).versions
    for each in changing:
        each.result(20)
    assert removed > 0
    for realm in Realm.objects.filter(url__startswith=PAGE):
        assert realm.publications.count() >= garbage.KEPT_PUBLICATIONS
        for publication in realm.publications.all():
            for version in versions_at(realm, publication.generation).select_related("blob"):
                assert len(read_blob(version.blob_id, version.blob.data)) == version.size


def waiting_for_a_row() -> bool:
    """Returns whether a database connection waits for another connection's transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple')"
        )
        return int(cursor.fetchone()[0]) > 0
