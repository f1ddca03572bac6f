"""Queues and plans reindex jobs, leases batches, and expires leases. A job renders the cards of a
realm, and a batch is a part of these cards. A lease lets one worker plan a job or render a
batch until a set time."""

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from reindex.jobs import batches, leases, lifecycle, queue
from reindex.models import ReindexBatch, ReindexJob

URL = "http://ada.localhost:4201/"
Status = ReindexJob.Status


def owe(generation: int, url: str = URL) -> ReindexJob:
    with transaction.atomic():
        return queue.enqueue_job(url, generation)


def plan(job: ReindexJob, *names: str) -> list[int]:
    paths = [f"{name}.json" for name in names]
    made = lifecycle.create_batches(job, lifecycle.Plan(paths, {URL: job.generation}))
    return [batch.pk for batch in made]


def results(*names: str, edition: str = "new") -> list[dict[str, Any]]:
    """Returns results like those of the prerenderer, the process that renders cards."""
    return [
        {"url": URL + name, "html": {"isolated": f"{edition} {name}"}, "search": {}, "ms": 1.5}
        for name in names
    ]


def taken(batch_id: int) -> ReindexBatch:
    """Leases a batch and returns it."""
    batch = batches.lease_batch(batch_id)
    assert batch is not None
    return batch


def run_out(*batches: int) -> None:
    """Expires the leases of batches."""
    ReindexBatch.objects.filter(pk__in=batches).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )


def long_ago(job: ReindexJob) -> None:
    """Sets the time of a job's last message to one hour ago. If the job has ended, also sets the
    time of its end to one hour ago."""
    past = timezone.now() - timedelta(hours=1)
    ReindexJob.objects.filter(pk=job.pk).update(sent_at=past)
    ReindexJob.objects.filter(pk=job.pk, finished_at__isnull=False).update(finished_at=past)


def status(job: ReindexJob) -> str:
    job.refresh_from_db()
    return job.status


def plan_two(job: ReindexJob) -> list[int]:
    """Plans two batches with one card each."""
    with override_settings(REALM_BATCH_CARDS=1):
        return plan(job, "a", "b")


def fail(job: ReindexJob) -> None:
    for _ in range(leases.MAX_ATTEMPTS):
        ReindexJob.objects.filter(pk=job.pk).update(lease_until=None)
        leased = lifecycle.lease_job(job.pk)
        assert leased is not None
        lifecycle.record_failure(leased, "nobody there")
    assert status(job) == Status.FAILED
