"""Leases, releases and finishes batches.

A job renders a realm's cards, and a batch is a part of these cards. A lease of a batch lets one
worker render the batch until a set time. When the last batch of a job is finished, the new index is
shown to visitors.

A transaction that locks a batch and the batch's job locks the batch first, so that two transactions
don't deadlock.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from reindex.index import swap
from reindex.jobs.leases import (
    RETRIED_AFTER,
    bookkeeping,
    count_failure,
    end_lease,
    held_batch,
    locked_job,
    take_lease,
)
from reindex.jobs.messages import send_work
from reindex.jobs.queue import Status, enqueue_successor
from reindex.models import (
    ReindexBatch,
)


def lease_batch(batch_id: int) -> ReindexBatch | None:
    """Leases a batch. Returns None if another worker has the lease, the batch is done, or the
    batch's job has ended."""
    now = timezone.now()
    with bookkeeping():
        # If the batch's row is locked, another worker is leasing or finishing the batch. Then the
        # query doesn't wait, and finds no row.
        batch = (
            ReindexBatch.objects.free(now)
            .select_for_update(skip_locked=True)
            .filter(pk=batch_id, done=False)
            .first()
        )
        # `batch.job` makes a second query, which reads the job after the batch is locked. If the
        # first query joined the job, it would read the job before it locks the batch. The job could
        # end in between.
        if batch is None or batch.job.status != Status.RENDERING:
            return None
        take_lease(batch)
    return batch


def release(leased: ReindexBatch, error: object) -> None:
    """Gives back a batch after an error. Ends the lease and stores the error in the job. Workers
    may lease the batch again when RETRIED_AFTER has passed. If the batch has had MAX_ATTEMPTS
    attempts, the job fails. Does nothing if the caller has lost the lease."""
    with transaction.atomic():
        batch = held_batch(leased)
        if batch is None:
            return
        batch.avoided = leased.avoided
        end_lease(batch, RETRIED_AFTER)
        job = locked_job(batch.job_id)
        if job is not None and job.status == Status.RENDERING:
            count_failure(job, batch.attempts, error)


def finish(
    batch: ReindexBatch, results: Iterable[dict[str, Any]], rest: Sequence[list[str]] = ()
) -> bool:
    """Stores a batch's results. After the job's last batch, shows the new index to visitors.
    Returns False if the caller has lost the lease or the job has ended. `rest` has the paths that
    the caller hasn't rendered. Each list in `rest` becomes a new batch.

    One transaction checks the lease and stores the results. So if two workers render the same
    batch, only the worker with the lease stores results.
    """
    with transaction.atomic():
        if held_batch(batch) is None:
            return False
        left = {path for paths in rest for path in paths}
        batch.paths = [path for path in batch.paths if path not in left]
        job = swap.store(batch, results)
        if job is None:
            transaction.set_rollback(True)
            return False
        if rest:
            ReindexBatch.objects.bulk_create(ReindexBatch(job=job, paths=part) for part in rest)
            transaction.on_commit(lambda: send_work(times=len(rest)))
        elif not job.batches.filter(done=False).exists():
            swap.swap(job)
            enqueue_successor(job)
    return True


def end_lease_of_ended_job(batch: ReindexBatch) -> None:
    """Ends a batch's lease after the batch's job has ended. Otherwise the module `turns` would
    count the worker as busy for the job's owner until the lease expires. Does nothing if the caller
    has lost the lease."""
    with bookkeeping():
        held = held_batch(batch)
        if held is not None:
            end_lease(held)
