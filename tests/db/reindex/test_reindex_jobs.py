"""Tests reindex jobs, which render the pages of realms. When the transaction that queues a job
commits, a message tells workers of the job. A newer job of the same realm supersedes the job, and
an unpublish of the realm cancels it. `readiness` reports the job's progress."""

from typing import Any

import pytest
from django.db import transaction

from realms.access.auth import Caller
from realms.publishing.publish import publish_realm, unpublish_realm
from reindex.index.shown import find_page, readiness
from reindex.jobs import batches, leases, lifecycle, queue, sweeper
from reindex.models import IndexedCard, IndexHead, ReindexJob
from tests.support import make
from tests.support.data.jobs import fail, owe, plan, results, status, taken
from tests.support.rendering import WORK

URL = "http://ada.localhost:4201/"
Status = ReindexJob.Status
Sent = list[tuple[str, Any]]


@pytest.mark.django_db(transaction=True)
def test_a_job_is_sent_after_its_commit_and_never_without_one(sent: Sent) -> None:
    with transaction.atomic():
        queue.enqueue_job(URL, 1)
        assert sent == []
    assert sent == [WORK]
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        queue.enqueue_job(URL, 2)
        _ = 1 / 0
    assert list(ReindexJob.objects.values_list("generation", "status")) == [(1, Status.QUEUED)]
    assert len(sent) == 1


@pytest.mark.django_db(transaction=True)
def test_the_successor_of_a_superseded_full_job_is_full(sent: Sent) -> None:
    with transaction.atomic():
        queue.enqueue_job(URL, 1, full=True)
    assert owe(2).full
    assert not owe(1, "http://bo.localhost:4201/").full


@pytest.mark.django_db(transaction=True)
def test_a_requested_rerun_never_lowers_the_next_generation(sent: Sent) -> None:
    job = owe(3)
    ReindexJob.objects.filter(pk=job.pk).update(next_generation=7)
    lifecycle.request_rerun(job.pk)
    job.refresh_from_db()
    assert job.next_generation == 7


@pytest.mark.django_db(transaction=True)
def test_a_newer_job_supersedes_an_older_one_in_any_state(sent: Sent) -> None:
    other = owe(1, "http://bo.localhost:4201/")
    queued = owe(1)
    rendering = owe(2)
    batch = taken(plan(rendering, "a")[0])
    failed = owe(3)
    fail(failed)
    newest = owe(4)
    assert [status(job) for job in (queued, rendering, failed)] == [Status.SUPERSEDED] * 3
    assert status(newest) == status(other) == Status.QUEUED

    assert plan(queued, "a") == []
    assert not leases.renew(batch)
    assert not batches.finish(batch, results("a"))
    assert not IndexedCard.objects.exists()


def test_an_unpublished_realm_has_no_pages_and_its_jobs_never_finish(
    source: Any, sent: Sent
) -> None:
    make.publish(source, URL)
    first = ReindexJob.objects.get()
    batches.finish(taken(plan(first, "index")[0]), results("index"))
    make.publish(source, URL)
    second = ReindexJob.objects.get(generation=2)
    batch = taken(plan(second, "index")[0])
    unpublish_realm(URL, Caller("ada"))
    assert status(second) == Status.CANCELLED
    assert not batches.finish(batch, results("index"))
    assert not IndexedCard.objects.exists()
    assert not IndexHead.objects.exists()
    assert sweeper.sweep() == 0

    again = publish_realm(source.url, URL, Caller("ada"))
    assert again.generation > 2
    assert find_page(URL, "index").generation is None


@pytest.mark.django_db(transaction=True)
def test_readiness_names_the_missing_phase(sent: Sent) -> None:
    assert readiness(URL, 1).missing == "index"
    job = owe(1)
    assert readiness(URL, 1).missing == "index"
    (pk,) = plan(job, "a")
    assert readiness(URL, 1).missing == "prerender-html"
    batches.finish(taken(pk), results("a"))
    assert readiness(URL, 1).ready
    assert not readiness(URL, 2).ready
    owe(2)
    assert readiness(URL, 1).ready
    assert readiness(URL, 2).missing == "index"
