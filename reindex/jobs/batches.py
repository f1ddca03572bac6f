"""Batches: claimed, rendered, finished. With the last batch the index is swapped.

Whoever locks a batch and its job locks the batch first.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Q
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

# --- Batches -----------------------------------------------------------------------------------
# Whoever locks a batch and its job locks the batch first.


def claim(batch_id: int) -> ReindexBatch | None:
    """Takes the lease of a batch; None if another worker has it, it is done, or its job ended."""
    now = timezone.now()
    with bookkeeping():
        # Who holds the lock is taking the batch, or finishing it.
        batch = (
            ReindexBatch.objects.select_for_update(skip_locked=True)
            .filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now), pk=batch_id, done=False)
            .first()
        )
        # Asked after the lock: one statement would see the batch as it is, its job as it was.
        if batch is None or batch.job.status != Status.RENDERING:
            return None
        take_lease(batch)
    return batch


def release(leased: ReindexBatch, error: object) -> None:
    """Gives back a batch that could not be rendered; the sweeper has it tried again. Nothing if the
    worker has lost its lease."""
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
    """Stores a batch's results, and with the last batch swaps the index. False if the worker has
    lost its lease, or the job ended. Each part of the `rest` are paths that have no result yet: a
    batch of its own.

    All of it is one transaction: a batch that is rendered twice is stored once.
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
    """Ends the lease of a batch whose job has ended: its owner has the worker no longer. Nothing if
    the worker has lost it."""
    with bookkeeping():
        held = held_batch(batch)
        if held is not None:
            end_lease(held)
