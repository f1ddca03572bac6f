"""Tests that garbage collection removes old rows of finished jobs, unused JavaScript, records of
hanging cards, and expired sessions. It keeps the rows of shown pages and of failed jobs."""

from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from notifications.models import Election
from realms.models import FileVersion, Realm, TranspiledModule
from realms.serving import transpiling
from reindex.models import Hang, IndexedCard, IndexHead, OwnerUsage, ReindexBatch, ReindexJob
from tests.support.data.garbage import collect

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"


def job(status: str, days: float, **more: Any) -> ReindexJob:
    """Makes a job that ended this many days ago. The job has one batch, which is done."""
    ended = timezone.now() - timedelta(days=days)
    made = ReindexJob.objects.create(
        realm_url=PAGE, generation=1, status=status, finished_at=ended, **more
    )
    ReindexBatch.objects.create(job=made, paths=["a.json"], done=True)
    return made


def test_old_finished_jobs_go_and_shown_or_failed_ones_stay(owner: Any) -> None:
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


def test_only_javascript_of_stored_content_by_this_transpiler_stays(source: Realm) -> None:
    held = FileVersion.objects.get(realm=source, path="post.tsx").blob_id
    made = []
    for name, each in (("held", held), ("gone", sha256(b"gone").hexdigest())):
        for made_by in (transpiling.transpiler(), "an older one"):
            key = sha256(f"{each}.tsx".encode()).hexdigest()
            TranspiledModule.objects.filter(sha256=key, transpiler=made_by).delete()
            row = TranspiledModule(sha256=key, transpiler=made_by, body=name)
            row.save()
            made.append(row.pk)
    # The table also has JavaScript of other tests, which is too young to be collected.
    own = TranspiledModule.objects.filter(pk__in=made)
    collect()
    assert own.count() == 4
    own.update(made_at=timezone.now() - timedelta(days=30))
    assert collect().rows == {"transpiled modules": 3}
    assert own.get().body == "held"
    own.delete()


def test_old_usage_hangs_elections_and_sessions_are_removed(owner: Any) -> None:
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
