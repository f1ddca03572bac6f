"""Tests that the admin shows why rendering jobs and single cards have failed, and can retry and
cancel jobs."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from realms.models import Realm
from reindex.models import ReindexBatch, ReindexJob, Worker
from tests.support.clients.admin import PUBLISHED, words_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

START = "/_admin/"


def test_a_failed_job_says_why_and_is_retried_or_cancelled(root: Client, published: Realm) -> None:
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    ReindexJob.objects.filter(pk=job.pk).update(
        status="failed", error="no replica answered", finished_at=timezone.now()
    )
    assert "no replica answered" in words_of(root.get("/_admin/work/"))
    assert f"The last rendering of {PUBLISHED} failed" in words_of(root.get(START))
    said = root.post(f"/_admin/work/{job.pk}/retry/", follow=True)
    assert f"Job {job.pk} is queued again." in words_of(said)
    job.refresh_from_db()
    assert job.status == "queued"
    said = root.post(f"/_admin/work/{job.pk}/retry/", follow=True)
    assert f"Not done: job {job.pk} has not failed" in words_of(said)
    said = root.post(f"/_admin/work/{job.pk}/cancel/", follow=True)
    assert f"Cancelled the rendering of {PUBLISHED}" in words_of(said)
    job.refresh_from_db()
    assert job.status == "cancelled"


def test_the_work_page_shows_each_worker_and_its_batch(root: Client, published: Realm) -> None:
    assert "No worker is running." in words_of(root.get("/_admin/work/"))
    now = timezone.now()
    for name, heard_at in (("w@one", now), ("w@two", now - timedelta(minutes=5))):
        Worker.objects.create(
            name=name, host="host", pid=1, processes=2, started_at=now, heard_at=heard_at
        )
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    ReindexJob.objects.filter(pk=job.pk).update(status="rendering")
    ReindexBatch.objects.create(
        job=job, paths=["a.json", "b.json"], lease_until=now + timedelta(minutes=1), worker="w@one"
    )
    said = words_of(root.get("/_admin/work/"))
    assert f"w@one host, process 1 2 just now renders 2 cards of job {job.pk}" in said
    assert "w@two host, process 1 2 5 minutes ago" in said
    assert "No worker is running." not in said


def test_errors_of_cards_are_grouped_by_kind_with_file_and_line(
    root: Client, published: Realm
) -> None:
    kind = {"status": 500, "title": "The template failed", "message": "x is undefined",
            "causes": [], "module": f"{PUBLISHED}post.tsx", "line": 7, "count": 31,
            "cards": ["a"]}  # fmt: skip
    ReindexJob.objects.filter(realm_url=PUBLISHED).update(
        status="done", errors=31, summary={"errors": [kind]}, finished_at=timezone.now()
    )
    said = words_of(root.get("/_admin/work/"))
    assert f"31 The template failed: x is undefined {PUBLISHED}post.tsx, line 7" in said
