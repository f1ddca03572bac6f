"""Leases, releases and finishes batches. A batch is a part of a job, rendered by one worker.
Finishing the last batch of a job shows the new index to visitors.

A transaction locks a batch before it locks the batch's job.
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
        # A locked batch is skipped, because another worker is leasing or finishing it.
        batch = (
            ReindexBatch.objects.free(now)
            .select_for_update(skip_locked=True)
            .filter(pk=batch_id, done=False)
            .first()
        )
        # `batch.job` is queried after the lock, because one joined query would see an outdated job.
        if batch is None or batch.job.status != Status.RENDERING:
            return None
        take_lease(batch)
    return batch


def release(leased: ReindexBatch, error: object) -> None:
    """Gives back a batch after an error. Ends the lease and stores the error in the job. Workers
    may lease the batch again after RETRIED_AFTER, but after MAX_ATTEMPTS attempts the job fails.
    Does nothing if the caller has lost the lease."""
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
    Returns False if the caller has lost the lease or the job has ended. Each list of paths in
    `rest` becomes a new batch; these paths have no result yet.

    `finish` is one transaction. So if two workers render the same batch, only one of them stores
    results.
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
    """Ends a batch's lease after the batch's job has ended. So `turns` no longer counts the worker
    as busy for the owner. Does nothing if the caller has lost the lease."""
    with bookkeeping():
        held = held_batch(batch)
        if held is not None:
            end_lease(held)
