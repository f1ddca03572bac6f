"""Leases jobs, creates their batches, and records the generation of each realm that a job reads."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import OperationalError as DatabaseOperationalError
from django.db import connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest
from django.utils import timezone
from psycopg.errors import LockNotAvailable

from notifications.locks import address_lock, lock_key
from reindex import sql
from reindex.index import swap
from reindex.jobs.leases import (
    MAX_ATTEMPTS,
    RETRIED_AFTER,
    bookkeeping,
    count_failure,
    end_lease,
    held_batch,
    held_job,
    locked_job,
    start_lease,
    take_lease,
)
from reindex.jobs.queue import QUIET, Status, create_unless_live, enqueue_successor
from reindex.models import (
    ReindexBatch,
    ReindexJob,
)
from reindex.reading.pins import UNREADABLE_GENERATION

#: If a job has this many pins or more, `note_missing` adds no missing realms to the pins.
MAX_SOUGHT = 500
#: How long a worker waits for a realm's writers before it postpones the work.
WRITERS_SECONDS = 2.0
#: Starting a process is worthwhile for at least this many cards. With fewer cards, starting the
#: process takes longer than rendering the cards.
WORTH_A_PROCESS = 250


@dataclass(frozen=True)
class Plan:
    """A job's work: the files to render, the generations to read, and the number of cards to carry
    over.

    `base` is the id of the job that rendered the last index. Unchanged cards are carried over from
    the last index. If `base` is None, the job renders every card.
    """

    paths: list[str]
    pins: dict[str, int]
    base: int | None = None
    carried: int = 0
    renderer: str = ""
    addresses: dict[str, str] = field(default_factory=dict)


# --- Planning ----------------------------------------------------------------------------------


def lease_job(job_id: int) -> ReindexJob | None:
    """Leases a queued job. Later writes to the realm no longer change the generation of a leased
    job. Returns None if another worker has the lease, or if the job is no longer queued or isn't
    due yet."""
    now = timezone.now()
    with bookkeeping():
        job = (
            ReindexJob.objects.free(now)
            .select_for_update(skip_locked=True)
            .filter(
                Q(started_at__isnull=False) | Q(due_at__isnull=True) | Q(due_at__lte=now),
                pk=job_id,
                status=Status.QUEUED,
            )
            .first()
        )
        if job is None:
            return None
        job.started_at = job.started_at or now
        take_lease(job)
    return job


def watch_realms(job: ReindexJob, pins: dict[str, int], addresses: dict[str, str]) -> None:
    """Stores `pins`, the realms that a job is about to read, and `addresses`, the published
    addresses on which the job depends. If a realm in `pins` or an address in `addresses` changes
    later, `enqueue` arranges for another job to run after this job. Does nothing if the caller has
    lost the lease."""
    with bookkeeping():
        ReindexJob.objects.filter(
            pk=job.pk, status=Status.QUEUED, lease_number=job.lease_number
        ).update(pins=pins, addresses=addresses)


def create_batches(
    leased: ReindexJob, plan: Plan, *, lease_first: bool = False
) -> list[ReindexBatch]:
    """Divides a queued job's files into batches and returns the batches. If `lease_first` is true,
    the caller gets the lease of the first batch. If the plan has no files, shows the new index at
    once and returns an empty list. If the caller has lost the lease or the job is no longer queued,
    changes nothing and returns an empty list."""
    size = _batch_size(len(plan.paths))
    # If the plan has no files, this transaction shows the new index to visitors, and the commit
    # waits for the disk. Without this wait, a crash of the database server could bring back the old
    # index after visitors have seen the new index.
    with bookkeeping() if plan.paths else transaction.atomic():
        job = held_job(leased)
        if job is None:
            return []
        job.status = Status.RENDERING
        job.started_at = job.started_at or timezone.now()
        job.total, job.pins, job.addresses = len(plan.paths), plan.pins, plan.addresses
        job.base, job.carried, job.renderer = plan.base, plan.carried, plan.renderer
        job.lease_until = None
        job.save()
        batches = [
            ReindexBatch(job=job, paths=plan.paths[start : start + size])
            for start in range(0, len(plan.paths), size)
        ]
        if lease_first and batches:
            start_lease(batches[0])
        ReindexBatch.objects.bulk_create(batches)
        if not batches:
            swap.swap(job)
            enqueue_successor(job)
        return batches


def _batch_size(cards: int) -> int:
    """Returns the number of cards in each batch. A medium-sized realm is divided into four batches,
    so that several workers render it. A small realm is one batch, because each batch costs the
    start of a process."""
    return min(settings.REALM_BATCH_CARDS, max(WORTH_A_PROCESS, -(-cards // 4)))


def pin_realm(job_id: int, realm_url: str, generation: int) -> int:
    """Stores the generation at which a job reads another realm. If the job already has a generation
    of this realm, keeps that one. Returns the stored generation, which all batches read."""
    with connection.cursor() as cursor:
        named: dict[str, Any] = {"id": job_id, "url": realm_url, "generation": generation}
        cursor.execute(sql.PIN_REALM, named)
        row = cursor.fetchone()
    return int(row[0]) if row else generation


def note_missing(job_id: int, realm_urls: Iterable[str]) -> None:
    """Adds the missing realms that a job looked for to the job's pins.

    The pin of a missing realm is UNREADABLE_GENERATION, as for a realm that the job may not read.
    If a realm with this pin becomes readable, another job follows. If the job has MAX_SOUGHT pins
    or more, `note_missing` adds nothing. If a missing realm without a pin is created later, no job
    follows, and the cards that looked for the realm stay unchanged until the next job.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            sql.NOTE_MISSING,
            {
                "id": job_id,
                "sought": json.dumps(dict.fromkeys(realm_urls, UNREADABLE_GENERATION)),
                "most": MAX_SOUGHT,
            },
        )


def note_address(job_id: int, realm_url: str, address: str) -> str:
    """Stores the address of another realm's pages for a job, unless a batch of the job has stored
    one already. Returns the stored address."""
    with connection.cursor() as cursor:
        cursor.execute(sql.NOTE_ADDRESS, {"id": job_id, "url": realm_url, "address": address})
        row = cursor.fetchone()
    return str(row[0]) if row else address


def request_rerun(job_id: int) -> None:
    """Arranges for another job to run after a job, because a realm changed while the job was
    pinning the realm."""
    ReindexJob.objects.filter(pk=job_id).update(
        next_generation=Greatest(F("generation"), "next_generation")
    )


class WritersBusy(Exception):
    """A transaction is changing a realm, so a job can't know yet which generation of the realm to
    read."""


def wait_for_writers(realm_url: str) -> None:
    """Waits until all transactions that change a realm or its published address have ended. Raises
    WritersBusy after WRITERS_SECONDS."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{WRITERS_SECONDS}s'")
            for lock in (realm_url, address_lock(realm_url)):
                cursor.execute(sql.WAIT_FOR_WRITERS, [lock_key(lock)])
    except DatabaseOperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            message = f"{realm_url} has been written to for more than {WRITERS_SECONDS:g} s"
            raise WritersBusy(message) from error
        raise


def record_failure(leased: ReindexJob, error: object) -> None:
    """Gives back a job that could not be planned. Ends the lease and stores the error. Workers may
    lease the job again after RETRIED_AFTER, but after MAX_ATTEMPTS attempts the job fails. Does
    nothing if the caller has lost the lease."""
    with transaction.atomic():
        job = held_job(leased)
        if job is None:
            return
        end_lease(job, RETRIED_AFTER)
        count_failure(job, job.attempts, error)


def replace_job(leased: ReindexJob | ReindexBatch, why: object) -> None:
    """Ends a job that may no longer read a realm that it has pinned, and queues another job in its
    place. The new job is due after QUIET, because some replicas may still report for a short time
    that the realm is readable. After MAX_ATTEMPTS attempts the old job fails, and no new job is
    queued. Does nothing if the caller has lost the lease of the job or of its batch."""
    with transaction.atomic():
        batch = None
        if isinstance(leased, ReindexJob):
            job = held_job(leased)
        else:
            batch = held_batch(leased)
            job = None if batch is None else locked_job(leased.job_id)
        if batch is not None:
            end_lease(batch)
        if job is None or not job.is_live:
            return
        job.error, job.finished_at = str(why), timezone.now()
        tried = job.attempts >= MAX_ATTEMPTS
        job.status = Status.FAILED if tried else Status.SUPERSEDED
        job.save()
        if not tried:
            generation = max(job.generation, job.next_generation or 0)
            again = {"full": job.full, "attempts": job.attempts, "due_at": timezone.now() + QUIET}
            create_unless_live(job.realm_url, generation, job, **again)
