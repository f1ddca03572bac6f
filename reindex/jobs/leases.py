"""Leases: a worker holds the job it plans, or the batch it renders, until its lease expires.

Then another worker can take the next lease. Each lease has a random number. Plans, results and the
end of a lease are accepted only with the number of the current lease. Some notes go by the job's id
instead: which realms and addresses the job reads, and how much time it has lost. They only add to
the job's row.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from reindex.jobs.presence import worker_name
from reindex.jobs.queue import Status, enqueue_successor
from reindex.models import (
    ReindexBatch,
    ReindexJob,
)

MAX_ATTEMPTS = 5
#: A batch that has just failed would most likely fail again within the same second.
RETRIED_AFTER = timedelta(seconds=1)
POSTPONED = timedelta(seconds=10)
#: Lease numbers are below this: what a Postgres integer holds.
MAX_NUMBER = 2**31


@contextmanager
def bookkeeping() -> Iterator[None]:
    """A transaction that commits without waiting for the disk: if the database server crashes and
    loses it, the job continues from the step before."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
        yield


def renew(leased: ReindexJob | ReindexBatch) -> bool:
    """Extends a lease; returns False if the worker has lost it or the job has ended."""
    with bookkeeping():
        held: ReindexJob | ReindexBatch | None
        if isinstance(leased, ReindexJob):
            held = held_job(leased)
        else:
            held = held_batch(leased)
            if held is not None and held.job.status != Status.RENDERING:
                return False
        if held is None:
            return False
        held.lease_until = timezone.now() + lease_time()
        held.save(update_fields=["lease_until"])
    return True


def postpone(leased: ReindexJob | ReindexBatch, why: object) -> None:
    """Gives back a job or a batch to be tried again after POSTPONED; this attempt doesn't count.
    Does nothing if the caller has lost the lease."""
    with transaction.atomic():
        held = held_job(leased) if isinstance(leased, ReindexJob) else held_batch(leased)
        if held is None:
            return
        held.attempts -= 1
        end_lease(held, POSTPONED)
        job_id = held.pk if isinstance(held, ReindexJob) else held.job_id
        ReindexJob.objects.live().filter(pk=job_id).update(error=str(why))


def held_batch(leased: ReindexBatch) -> ReindexBatch | None:
    """The batch of a lease, locked in the caller's transaction; None if the lease was lost, or the
    batch is done."""
    return (
        ReindexBatch.objects.select_for_update()
        .filter(pk=leased.pk, job=leased.job_id, done=False, lease_number=leased.lease_number)
        .first()
    )


def held_job(leased: ReindexJob) -> ReindexJob | None:
    """The job of a lease, locked in the caller's transaction; None if the lease was lost, or the
    job was planned or has ended."""
    return (
        ReindexJob.objects.select_for_update()
        .filter(pk=leased.pk, status=Status.QUEUED, lease_number=leased.lease_number)
        .first()
    )


def take_lease(work: ReindexJob | ReindexBatch) -> None:
    """Takes the next lease of a job or a batch whose row the caller has locked."""
    start_lease(work)
    work.save()


def start_lease(work: ReindexJob | ReindexBatch) -> None:
    """Gives a job or a batch its next lease; the caller saves it."""
    work.lease_until = timezone.now() + lease_time()
    work.lease_number = _new_number(work.lease_number)
    work.worker = worker_name()
    work.attempts += 1


def end_lease(work: ReindexJob | ReindexBatch, rest: timedelta | None = None) -> None:
    """Ends a lease, and lets no worker take the next one before `rest` has passed. The caller has
    locked the row."""
    work.lease_until = None if rest is None else timezone.now() + rest
    work.lease_number = _new_number(work.lease_number)
    # Until `rest` has passed, the row looks as if somebody worked on it.
    work.worker = ""
    work.save()


def _new_number(before: int) -> int:
    """A number that no lease has had. It is random: a crash of the database may undo leases and the
    creation of batches, and a counter, like a batch's key, would then be given out again."""
    while (number := secrets.randbelow(MAX_NUMBER)) == before:
        pass
    return number


def locked_job(job_id: int) -> ReindexJob | None:
    return ReindexJob.objects.select_for_update().filter(pk=job_id).first()


def lease_time() -> timedelta:
    return timedelta(seconds=settings.REALM_BATCH_LEASE_SECONDS)


def count_failure(job: ReindexJob, attempts: int, error: object) -> None:
    """Records why a job, which the caller has locked, could not continue. After MAX_ATTEMPTS the
    job fails, until the sweeper retries it."""
    job.error = str(error)
    if attempts >= MAX_ATTEMPTS:
        job.status, job.finished_at = Status.FAILED, timezone.now()
    job.save()
    if job.status == Status.FAILED:
        enqueue_successor(job)
