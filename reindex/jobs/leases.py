"""Takes, renews and ends leases. A lease lets one worker plan a job or render a batch until a set
time. A batch is a part of the cards that a job renders.

When a lease has expired, another worker can take the next lease. Each lease has a random number. A
worker needs the number of the current lease to store a plan or results, and to renew or end the
lease.

A worker needs no lease number to add three kinds of data to a job's row: pins (the generations at
which the job reads realms), the addresses of realms' pages, and the time lost to hanging cards.
These additions overwrite no data of other workers.
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
#: How long workers wait before they retry failed work. An immediate retry would probably fail too.
RETRIED_AFTER = timedelta(seconds=1)
POSTPONED = timedelta(seconds=10)
#: Lease numbers are less than this number, so that they fit into a Postgres integer.
MAX_NUMBER = 2**31


@contextmanager
def bookkeeping() -> Iterator[None]:
    """Opens a transaction that commits without waiting for the disk. If the database server
    crashes, the transaction may be lost. Then a worker repeats the lost step of the job."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
        yield


def renew(leased: ReindexJob | ReindexBatch) -> bool:
    """Extends a lease. Returns False if the worker has lost the lease or the job has ended."""
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
    """Gives back a job or a batch that must wait because a transaction is changing a realm. Ends
    the lease, and doesn't count the attempt. Stores `why` as the job's error. Workers may lease the
    job or batch again when POSTPONED has passed. Does nothing if the caller has lost the lease."""
    with transaction.atomic():
        held = held_job(leased) if isinstance(leased, ReindexJob) else held_batch(leased)
        if held is None:
            return
        held.attempts -= 1
        end_lease(held, POSTPONED)
        job_id = held.pk if isinstance(held, ReindexJob) else held.job_id
        ReindexJob.objects.live().filter(pk=job_id).update(error=str(why))


def held_batch(leased: ReindexBatch) -> ReindexBatch | None:
    """Locks and returns the row of a leased batch, in the caller's transaction. Returns None if the
    caller has lost the lease, or the batch is done."""
    return (
        ReindexBatch.objects.select_for_update()
        .filter(pk=leased.pk, job=leased.job_id, done=False, lease_number=leased.lease_number)
        .first()
    )


def held_job(leased: ReindexJob) -> ReindexJob | None:
    """Locks and returns the row of a leased job, in the caller's transaction. Returns None if the
    caller has lost the lease, or the job is no longer queued."""
    return (
        ReindexJob.objects.select_for_update()
        .filter(pk=leased.pk, status=Status.QUEUED, lease_number=leased.lease_number)
        .first()
    )


def take_lease(work: ReindexJob | ReindexBatch) -> None:
    """Gives the next lease of a job or a batch to this worker, and saves the row. The caller has
    locked the row."""
    start_lease(work)
    work.save()


def start_lease(work: ReindexJob | ReindexBatch) -> None:
    """Sets the fields of the next lease on a job or a batch. The caller saves the row."""
    work.lease_until = timezone.now() + lease_time()
    work.lease_number = _new_number(work.lease_number)
    work.worker = worker_name()
    work.attempts += 1


def end_lease(work: ReindexJob | ReindexBatch, rest: timedelta | None = None) -> None:
    """Ends a lease and saves the row. If `rest` is set, workers can take the next lease only when
    `rest` has passed. The caller has locked the row."""
    work.lease_until = None if rest is None else timezone.now() + rest
    work.lease_number = _new_number(work.lease_number)
    # With `rest`, `lease_until` is in the future although no worker has the lease. Because of the
    # empty name, the admin shows no worker for the row.
    work.worker = ""
    work.save()


def _new_number(before: int) -> int:
    """Returns a random number other than `before` for the next lease. A crash of the database may
    lose the newest leases and batches. If the numbers were counted up, a new lease could get the
    number of a lost lease. Then the worker with the lost lease could store its results under the
    new lease."""
    while (number := secrets.randbelow(MAX_NUMBER)) == before:
        pass
    return number


def locked_job(job_id: int) -> ReindexJob | None:
    return ReindexJob.objects.select_for_update().filter(pk=job_id).first()


def lease_time() -> timedelta:
    return timedelta(seconds=settings.REALM_BATCH_LEASE_SECONDS)


def count_failure(job: ReindexJob, attempts: int, error: object) -> None:
    """Stores in a job why planning or rendering failed. Doesn't end the lease. If `attempts` has
    reached MAX_ATTEMPTS, the job's status becomes FAILED, until the sweeper (a periodic task, see
    `sweeper.py`) retries the job. The caller has locked the job."""
    job.error = str(error)
    if attempts >= MAX_ATTEMPTS:
        job.status, job.finished_at = Status.FAILED, timezone.now()
    job.save()
    if job.status == Status.FAILED:
        enqueue_successor(job)
