"""`collect_garbage`: what can be reached stays, whatever happens meanwhile; the rest goes."""

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import RequestFactory
from django.utils import timezone

from notifications.models import Election
from realms.access.auth import Caller
from realms.content import files
from realms.content.blobs import Stored, blob_name, read_blob, store_blob
from realms.content.files import write_stored
from realms.content.history import difference, versions_at
from realms.content.locks import realm_write_lock
from realms.errors import Unprocessable
from realms.housekeeping import garbage
from realms.housekeeping.garbage import Collected, collect_garbage
from realms.models import Blob, FileVersion, Publication, Realm, TranspiledModule
from realms.publishing import publish
from realms.publishing.publish import delete_realm, rollback_realm, unpublish_realm
from realms.serving import pinned_reads, transpiling
from realms.serving.answers import source_at
from realms.tasks import collect_garbage as collect_garbage_task
from reindex.models import (
    Hang,
    IndexedCard,
    IndexHead,
    OwnerUsage,
    ReindexBatch,
    ReindexJob,
)
from reindex.reading.pins import Pin
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.gates import Gate, in_thread
from tests.support.indexed import put_index
from tests.support.web import everything, waiting_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"
ADA = Caller("ada")
LARGE = bytes(range(256)) * 257
GRACE = timedelta(hours=24)


@pytest.fixture(autouse=True)
def empty_storage() -> None:
    """Other tests leave objects without rows: they empty tables and not the storage."""
    shutil.rmtree(storages["blobs"].path(""), ignore_errors=True)


def age(days: float = 30) -> None:
    """Makes everything that has happened so far happen earlier."""
    with transaction.atomic(), connection.cursor() as cursor:
        # The triggers hold history to be immutable, and so it is but for tests.
        cursor.execute("SET LOCAL session_replication_role = replica")
        for table, column in (
            ("realms_fileversion", "closed_at"),
            ("realms_publication", "at"),
            ("realms_blob", "stored_at"),
            ("reindex_reindexjob", "finished_at"),
        ):
            cursor.execute(
                f"UPDATE {table} SET {column} = {column} - %s::interval", [f"{days} days"]
            )


def collect(**options: Any) -> Collected:
    return collect_garbage(**{"grace": GRACE, **options})


def publications() -> dict[int, dict[str, bytes]]:
    """What each publication shows, byte by byte."""
    shown = {}
    for each in Publication.objects.select_related("realm"):
        versions = versions_at(each.realm, each.generation).select_related("blob")
        files = {v.path: read_blob(v.blob_id, v.blob.data) for v in versions}
        assert all(Blob.objects.get(pk=v.blob_id).size == len(files[v.path]) for v in versions)
        shown[each.generation] = files
    return shown


def edition(source: Realm, number: int) -> None:
    """Changes a file, makes one, deletes the one made before, and publishes."""
    make.write_paths(
        source, {"index.json": str(number).encode(), f"{number}.md": LARGE + b"%d" % number}
    )
    if number:
        make.remove(source, f"{number - 1}.md")
    make.publish(source, PAGE)


def in_storage(data: bytes) -> bool:
    return storages["blobs"].exists(blob_name(sha256(data).hexdigest()))


# --- What stays and what goes ------------------------------------------------------------------


def test_the_last_ten_publications_stay_whole_and_older_ones_go(
    source: Realm,
) -> None:
    for number in range(13):
        edition(source, number)
    before = publications()
    age()
    done = collect()
    # The first editions' index and large file, and the index that the site began with.
    assert (done.publications, done.versions, done.blobs) == (3, 7, 7)
    assert done.bytes >= 3 * len(LARGE)
    after = publications()
    assert len(after) == garbage.KEPT_PUBLICATIONS
    assert after == {generation: before[generation] for generation in after}
    assert not in_storage(LARGE + b"2")
    assert in_storage(LARGE + b"3")
    with pytest.raises(Unprocessable, match="no publication of generation 2"):
        rollback_realm(PAGE, ADA, 2)
    rollback_realm(PAGE, ADA, min(after))
    assert publications()[Realm.objects.get(url=PAGE).generation] == before[min(after)]
    again = collect()
    assert (again.publications, again.versions, again.blobs) == (1, 0, 0), "it is shown anew"
    assert publications()[Realm.objects.get(url=PAGE).generation] == before[min(after)]


def test_what_was_closed_a_short_while_ago_stays(source: Realm) -> None:
    for number in range(12):
        edition(source, number)
    before = everything()
    assert collect(grace=timedelta(0)) == Collected()
    assert everything() == before


def test_an_unpublished_version_is_collected_after_its_retention(
    source: Realm,
) -> None:
    make.write(source, index__json=b"one", gone__md=b"two")
    make.write(source, index__json=b"three")
    make.remove(source, "gone.md")
    standing = FileVersion.objects.filter(until_generation=None).count()
    age()
    assert collect().versions == 3
    assert FileVersion.objects.count() == standing
    assert {bytes(b.data) for b in Blob.objects.all() if b.data} >= {b"three"}


@pytest.mark.parametrize(
    ("status", "days_ago", "kept"),
    [("rendering", None, True), ("failed", 30, True), ("done", 0, True), ("done", 30, False)],
)
def test_what_a_job_reads_stays_until_its_pins_are_over(
    source: Realm, status: str, days_ago: int | None, kept: bool
) -> None:
    make.publish(source, PAGE)
    first = Realm.objects.get(url=PAGE).generation
    for number in range(12):
        edition(source, number)
    make.write(source, index__json=b"later")
    pinned = Realm.objects.get(pk=source.pk).generation
    # What lies between the pin and today is collected, and with it the unbroken history.
    make.write(source, index__json=b"between")
    make.write(source, index__json=b"now")
    before = publications()[first]
    age()
    ended = None if days_ago is None else timezone.now() - timedelta(days_ago)
    ReindexJob.objects.all().delete()
    ReindexJob.objects.create(
        realm_url="http://other.localhost:4201/",
        generation=1,
        status=status,
        finished_at=ended,
        pins={source.url: pinned, PAGE: first},
    )
    collect()
    versions = versions_at(source, pinned).values_list("path", "blob__data")
    assert ("index.json" in dict(versions)) == kept
    assert (publications().get(first) == before) == kept
    source.refresh_from_db()
    assert source.history_from > pinned
    if kept:
        assert source_at(source.url, pinned, "index.json").content.body == b"later"
        answer = pinned_reads.many(
            RequestFactory().post("/", '{"paths": ["index.json"]}', content_type="text/json"),
            Pin(source.url, pinned),
        )
        assert b"later" in answer.content
    else:
        assert source_at(PAGE, first, "index.json").content.status == 410


def test_what_has_been_collected_is_never_called_unchanged(source: Realm) -> None:
    make.write_paths(source, {"gone.md": LARGE})
    with_it = source.generation
    make.remove(source, "gone.md")
    now = source.generation
    assert difference(source, with_it, now) == {"gone.md": None}
    age()
    assert collect().versions == 1
    assert difference(source, with_it, now) is None, "history doesn't reach back that far any more"
    assert difference(source, now, now) == {}


def test_a_publication_that_has_been_collected_is_compared_with_nothing(source: Realm) -> None:
    for number in range(13):
        edition(source, number)
    page = Realm.objects.get(url=PAGE)
    assert difference(page, 1, 13) is not None
    age()
    assert collect().publications == 3
    assert difference(page, 3, 13) is None
    assert difference(page, 4, 13) == {
        "index.json": sha256(b"12").hexdigest(),
        "3.md": None,
        "12.md": sha256(LARGE + b"12").hexdigest(),
    }


def test_what_a_shown_index_was_made_from_stays(source: Realm) -> None:
    make.write_paths(source, {"gone.md": LARGE})
    with_it = source.generation
    put_index("http://bo.localhost:4201/", 1, {})
    ReindexJob.objects.update(pins={source.url: with_it})
    make.remove(source, "gone.md")
    age()
    assert collect().versions == 0
    assert difference(source, with_it, source.generation) == {"gone.md": None}


def test_content_that_nothing_names_goes_after_the_grace_period(source: Realm) -> None:
    for data in (b"small", LARGE):
        store_blob(data)
    assert (collect().blobs, in_storage(LARGE)) == (0, True)
    age(1.01)
    store_blob(LARGE)
    assert (collect().blobs, in_storage(LARGE)) == (1, True), "stored again is new again"
    done = collect(grace=timedelta(0))
    assert (done.blobs, done.bytes, in_storage(LARGE)) == (1, len(LARGE), False)
    assert publications() == {}
    assert {v.blob_id for v in FileVersion.objects.all()} <= {b.pk for b in Blob.objects.all()}


def test_what_a_realm_held_goes_with_it(source: Realm) -> None:
    make.write_paths(source, {"large.bin": LARGE})
    edition(source, 0)
    unpublish_realm(PAGE, ADA)
    delete_realm(source.url, ADA)
    blobs = Blob.objects.count()
    age()
    assert collect().blobs == blobs - FileVersion.objects.values("blob_id").distinct().count()
    assert not in_storage(LARGE)


def test_what_killed_writers_left_in_the_storage_goes_and_nothing_else(source: Realm) -> None:
    storage = storages["blobs"]
    folder = Path(storage.path("aa/bb"))
    folder.mkdir(parents=True, exist_ok=True)
    digest = "aabb" + "0" * 60
    for name in (digest, ".draft-x1", "readme.txt"):
        (folder / name).write_bytes(b"left")
        os.utime(folder / name, (0, 0))
    (folder / f"{digest[:-1]}1").write_bytes(b"new")
    make.write_paths(source, {"large.bin": LARGE})
    os.utime(storage.path(blob_name(FileVersion.objects.get(path="large.bin").blob_id)), (0, 0))
    assert collect(dry_run=True).strays == 2
    done = collect()
    assert (done.strays, done.blobs) == (2, 1)
    assert sorted(os.listdir(folder)) == [f"{digest[:-1]}1", "readme.txt"]
    assert in_storage(LARGE)
    (folder / f"{digest[:-1]}1").unlink()


def test_a_dry_run_counts_what_a_run_removes_and_changes_nothing(source: Realm) -> None:
    for number in range(13):
        edition(source, number)
    store_blob(b"unnamed")
    age()
    before = everything()
    would = collect(dry_run=True)
    assert everything() == before
    assert in_storage(LARGE + b"0")
    assert would == collect()
    assert would.versions > 0


# --- Crashes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_collector_that_dies_at_an_object_leaves_no_name_without_it(
    source: Realm, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    storage = storages["blobs"]
    original = storage.delete

    def dies(name: str) -> None:
        if moment == "after":
            original(name)
        raise KeyboardInterrupt

    store_blob(LARGE)
    age()
    monkeypatch.setattr(type(storage), "delete", lambda self, name: dies(name))
    with pytest.raises(KeyboardInterrupt):
        collect()
    monkeypatch.undo()
    assert Blob.objects.filter(size=len(LARGE)).exists(), "rolled back"
    make.write_paths(source, {"large.bin": LARGE})
    assert read_blob(FileVersion.objects.get(path="large.bin").blob_id) == LARGE


# --- At the same time --------------------------------------------------------------------------


def unnamed() -> None:
    """Content that is to be collected, and that somebody is about to write again."""
    store_blob(LARGE)
    age()


def stands(path: str) -> bool:
    version = FileVersion.objects.get(path=path, until_generation=None)
    return read_blob(version.blob_id, version.blob.data) == LARGE


def test_content_is_not_collected_between_its_storing_and_its_naming(
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


def test_a_writer_of_what_is_being_collected_waits_and_stores_it_again(
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


def test_an_old_blob_named_only_now_is_whole_or_refused(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that takes longer than the grace period."""
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


def test_what_a_publish_is_about_to_show_is_not_collected(
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


def test_what_a_rollback_is_about_to_show_is_not_collected(
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


def test_a_rollback_to_collected_history_is_refused(
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


def test_a_realm_that_is_being_written_to_is_left_for_the_next_time(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.write(source, index__json=b"one")
    make.write(source, index__json=b"two")
    age()
    monkeypatch.setattr("realms.content.locks.LOCK_WAIT_SECONDS", 1)
    with realm_write_lock(source.url):
        assert in_thread(collect).result(20).busy == [source.url]
    assert collect().versions == 2


def test_nothing_is_lost_while_many_write_publish_and_roll_back_at_once(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers in turn with the same few contents, and a collector that spares nothing."""
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
    """Whether a connection waits for another's transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple')"
        )
        return int(cursor.fetchone()[0]) > 0


# --- The command and the task ------------------------------------------------------------------


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("collect_garbage", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_the_command_says_what_it_would_remove_and_what_it_removed(source: Realm) -> None:
    store_blob(LARGE)
    age(0.5)
    assert "would remove 0 publications, 0 file versions, 0 blobs" in run("--dry-run")
    assert "1 blobs with 0.1 MB" in run("--dry-run", "--grace", "0.5")
    assert "removed 0 publications, 0 file versions, 1 blobs" in run("--grace", "0.5")
    assert not in_storage(LARGE)


@pytest.mark.parametrize("hours", ["soon", "-1", "", "nan", "1e400"])
def test_a_grace_period_that_is_none_is_named(hours: str) -> None:
    with pytest.raises(CommandError, match="is not a number of hours"):
        run(f"--grace={hours}")


def test_the_daily_task_removes_what_is_old(source: Realm) -> None:
    store_blob(LARGE)
    collect_garbage_task()
    assert in_storage(LARGE)
    age()
    collect_garbage_task()
    assert not in_storage(LARGE)


# --- Rows of finished work ----------------------------------------------------------------------


def job(status: str, days: float, **more: Any) -> ReindexJob:
    """A job with a batch, that ended some days ago."""
    ended = timezone.now() - timedelta(days=days)
    made = ReindexJob.objects.create(
        realm_url=PAGE, generation=1, status=status, finished_at=ended, **more
    )
    ReindexBatch.objects.create(job=made, paths=["a.json"], done=True)
    return made


def test_jobs_and_batches_that_are_over_go_and_what_is_shown_or_owed_stays(owner: Any) -> None:
    shown, carried, failed = job("done", 30), job("done", 40), job("failed", 30)
    young = job("superseded", 1)
    IndexHead.objects.create(realm_url=PAGE, job=shown, generation=1, swapped_at=timezone.now())
    IndexedCard.objects.create(job=carried, realm_url=PAGE, path="a", current=True)
    for status in ("done", "superseded", "cancelled"):
        old = job(status, 30)
        IndexedCard.objects.create(job=old, realm_url=PAGE, path="a", current=False)
    IndexedCard.objects.create(job=failed, realm_url=PAGE, path="b", current=False)
    counted = collect(dry_run=True).rows
    assert counted == {"cards": 3, "batches": 5, "jobs": 3}
    assert collect().rows == counted
    assert set(ReindexJob.objects.all()) == {shown, carried, failed, young}
    assert {batch.job for batch in ReindexBatch.objects.all()} == {failed, young}
    assert set(IndexedCard.objects.values_list("job", "path")) == {
        (carried.pk, "a"),
        (failed.pk, "b"),
    }
    assert collect().rows == {}


def test_javascript_of_what_no_version_holds_goes_and_nothing_else(source: Realm) -> None:
    held = FileVersion.objects.get(realm=source, path="post.tsx").blob_id
    made = []
    for name, each in (("held", held), ("gone", sha256(b"gone").hexdigest())):
        for made_by in (transpiling.transpiler(), "an older one"):
            key = sha256(f"{each}.tsx".encode()).hexdigest()
            TranspiledModule.objects.filter(sha256=key, transpiler=made_by).delete()
            row = TranspiledModule(sha256=key, transpiler=made_by, body=name)
            row.save()
            made.append(row.pk)
    # Other tests' JavaScript is kept, and young.
    own = TranspiledModule.objects.filter(pk__in=made)
    collect()
    assert own.count() == 4
    own.update(made_at=timezone.now() - timedelta(days=30))
    assert collect().rows == {"transpiled modules": 3}
    assert own.get().body == "held"
    own.delete()


def test_what_has_been_counted_remembered_or_leased_goes_after_its_time(owner: Any) -> None:
    now = timezone.now()
    for name, at in (("old", now - timedelta(days=30)), ("new", now)):
        OwnerUsage.objects.create(owner=name, seconds=1, counted_at=at)
        Hang.objects.create(
            key=name, realm_url=PAGE, url=PAGE, error={}, signs=1, job_id=1, seen_at=at
        )
        Election.objects.create(key=len(name) + at.day, holder=1, lease_until=at)
        Session.objects.create(
            session_key=name, session_data="", expire_date=at + timedelta(hours=1)
        )
    assert collect().rows == {"owner usage": 1, "hangs": 1, "elections": 1, "sessions": 1}
    assert collect().rows == {}
