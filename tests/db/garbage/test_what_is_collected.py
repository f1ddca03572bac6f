"""Tests that the garbage collector keeps the content that current files, kept publications and jobs
need, and removes all other old content. An interrupted collection loses no content that is
needed."""

import os
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from django.core.files.storage import storages
from django.test import RequestFactory
from django.utils import timezone

from realms.access.auth import Caller
from realms.content.blobs import blob_name, read_blob, store_blob
from realms.content.history import difference, versions_at
from realms.errors import Unprocessable
from realms.housekeeping import garbage
from realms.housekeeping.garbage import Collected
from realms.models import Blob, FileVersion, Realm
from realms.publishing.publish import delete_realm, rollback_realm, unpublish_realm
from realms.serving import pinned_reads
from realms.serving.answers import source_at
from reindex.models import ReindexJob
from reindex.reading.pins import Pin
from tests.support import make
from tests.support.data.garbage import LARGE, age, collect, edition, in_storage, publications
from tests.support.data.indexed import put_index
from tests.support.web import everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"
ADA = Caller("ada")


def test_the_last_ten_publications_stay_whole_and_older_ones_go(
    source: Realm,
) -> None:
    for number in range(13):
        edition(source, number)
    before = publications()
    age()
    done = collect()
    # The collector removes three publications. Their index.json and their large files make six
    # versions. The seventh version is the index.json from before the first publication.
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
    assert (again.publications, again.versions, again.blobs) == (1, 0, 0), "the rollback shows them"
    assert publications()[Realm.objects.get(url=PAGE).generation] == before[min(after)]


def test_versions_that_were_closed_recently_stay(source: Realm) -> None:
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
def test_files_that_a_job_has_pinned_stay_until_its_pins_expire(
    source: Realm, status: str, days_ago: int | None, kept: bool
) -> None:
    make.publish(source, PAGE)
    first = Realm.objects.get(url=PAGE).generation
    for number in range(12):
        edition(source, number)
    make.write(source, index__json=b"later")
    pinned = Realm.objects.get(pk=source.pk).generation
    # The versions between the pinned generation and the current one are collected, so the realm's
    # history has gaps.
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


def test_a_comparison_with_a_collected_generation_has_no_result(source: Realm) -> None:
    make.write_paths(source, {"gone.md": LARGE})
    with_it = source.generation
    make.remove(source, "gone.md")
    now = source.generation
    assert difference(source, with_it, now) == {"gone.md": None}
    age()
    assert collect().versions == 1
    assert difference(source, with_it, now) is None, "a version of that time is collected"
    assert difference(source, now, now) == {}


def test_a_collected_publication_cannot_be_compared(source: Realm) -> None:
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


def test_files_that_a_shown_index_was_made_from_stay(source: Realm) -> None:
    make.write_paths(source, {"gone.md": LARGE})
    with_it = source.generation
    put_index("http://bo.localhost:4201/", 1, {})
    ReindexJob.objects.update(pins={source.url: with_it})
    make.remove(source, "gone.md")
    age()
    assert collect().versions == 0
    assert difference(source, with_it, source.generation) == {"gone.md": None}


def test_content_that_no_version_names_goes_after_the_grace_period(source: Realm) -> None:
    for data in (b"small", LARGE):
        store_blob(data)
    assert (collect().blobs, in_storage(LARGE)) == (0, True)
    age(1.01)
    store_blob(LARGE)
    assert (collect().blobs, in_storage(LARGE)) == (1, True), "storing begins a new grace period"
    done = collect(grace=timedelta(0))
    assert (done.blobs, done.bytes, in_storage(LARGE)) == (1, len(LARGE), False)
    assert publications() == {}
    assert {v.blob_id for v in FileVersion.objects.all()} <= {b.pk for b in Blob.objects.all()}


def test_the_content_of_a_deleted_realm_is_collected(source: Realm) -> None:
    make.write_paths(source, {"large.bin": LARGE})
    edition(source, 0)
    unpublish_realm(PAGE, ADA)
    delete_realm(source.url, ADA)
    blobs = Blob.objects.count()
    age()
    assert collect().blobs == blobs - FileVersion.objects.values("blob_id").distinct().count()
    assert not in_storage(LARGE)


def test_only_leftovers_of_killed_writers_are_removed_from_the_storage(source: Realm) -> None:
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


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_collector_killed_at_a_deletion_leaves_no_row_without_content(
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
    assert Blob.objects.filter(size=len(LARGE)).exists(), "the row's deletion is rolled back"
    make.write_paths(source, {"large.bin": LARGE})
    assert read_blob(FileVersion.objects.get(path="large.bin").blob_id) == LARGE
