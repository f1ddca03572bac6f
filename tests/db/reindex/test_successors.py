"""Tests the successor of a job, which is the next job of the same realm. The tests check the
successor's generation, and whether it is full. A full job renders all cards, and any other job
renders only the cards that changes affect."""

import pytest
from django.db import transaction

from reindex.jobs import batches, leases, lifecycle, queue
from reindex.models import ReindexJob

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sent")]

URL = "http://ada.localhost:4201/"


def job_with_a_successor(*, full: bool) -> ReindexJob:
    """Makes a job that is being rendered, and requests a successor."""
    with transaction.atomic():
        made = queue.enqueue_job(URL, 1, full=full)
    lifecycle.create_batches(made, lifecycle.Plan(["a.json"], {URL: 1}))
    lifecycle.request_rerun(made.pk)
    return ReindexJob.objects.get(pk=made.pk)


@pytest.mark.parametrize("full", [True, False])
def test_the_successor_of_a_failed_full_job_is_full(full: bool) -> None:
    failed = job_with_a_successor(full=full)
    for _ in range(leases.MAX_ATTEMPTS):
        batch = batches.lease_batch(failed.batches.get().pk)
        assert batch is not None
        batches.release(batch, "no replica answered")
        failed.batches.update(lease_until=None)
    following = ReindexJob.objects.live().get(realm_url=URL)
    assert (following.generation, following.full) == (1, full)


def test_the_successor_of_a_finished_full_job_is_not_full() -> None:
    batch = batches.lease_batch(job_with_a_successor(full=True).batches.get().pk)
    assert batch is not None and batches.finish(batch, [])
    assert ReindexJob.objects.live().get(realm_url=URL).full is False
