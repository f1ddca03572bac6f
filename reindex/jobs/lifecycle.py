"""Leases jobs, creates their batches, and records what jobs read.

A job renders the cards of one realm at one generation. A worker leases the job, plans it, and
divides the cards into batches. Cards may use files of other realms. For each of these realms, the
job's row stores a pin: the generation at which all batches of the job read the realm.
"""

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
#: How long a worker waits for each lock in `wait_for_writers`. After that, the worker postpones the
#: job or batch.
WRITERS_SECONDS = 2.0
#: Rendering fewer cards than this takes less time than starting a process that renders cards.
WORTH_A_PROCESS = 250


@dataclass(frozen=True)
class Plan:
    """A job's work. The job renders the files in `paths`. `pins` maps the URLs of realms to the
    generations at which the job reads them. `addresses` maps the URLs of other realms to the
    addresses of their pages. `renderer` is the hash of the code that renders cards.

    If `base` is None, the job renders every card. Otherwise `base` is the id of the job that made
    the index that visitors see now. The job carries over `carried` cards of this index, which means
    that it keeps their rows.
    """

    paths: list[str]
    pins: dict[str, int]
    base: int | None = None
    carried: int = 0
    renderer: str = ""
    addresses: dict[str, str] = field(default_factory=dict)


# --- Planning ----------------------------------------------------------------------------------


def lease_job(job_id: int) -> ReindexJob | None:
    """Leases a queued job. Returns None if another worker has the lease, or if the job is no longer
    queued or isn't due yet.

    Before the first lease, a write to the realm may raise the job's generation. After that, a write
    makes another job follow instead.
    """
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
    """Stores in a job's row which realms the job is about to read (`pins`), and which addresses of
    realms' pages it depends on (`addresses`). If one of these realms or addresses changes later,
    `queue.enqueue` makes another job follow this job. Does nothing if the caller has lost the
    lease."""
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
    # If the plan has no files, this transaction shows the new index to visitors, so the commit must
    # wait for the disk. Otherwise a crash of the database server could bring back the old index
    # after visitors have seen the new index.
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
    """Returns the maximum number of cards in each batch of a job: a quarter of the job's cards, so
    that several workers can render the job. The number is at least WORTH_A_PROCESS, but never more
    than REALM_BATCH_CARDS."""
    return min(settings.REALM_BATCH_CARDS, max(WORTH_A_PROCESS, -(-cards // 4)))


def pin_realm(job_id: int, realm_url: str, generation: int) -> int:
    """Stores a pin for another realm in a job's row, unless the row already has a pin for this
    realm. Returns the generation of the stored pin."""
    with connection.cursor() as cursor:
        named: dict[str, Any] = {"id": job_id, "url": realm_url, "generation": generation}
        cursor.execute(sql.PIN_REALM, named)
        row = cursor.fetchone()
    return int(row[0]) if row else generation


def note_missing(job_id: int, realm_urls: Iterable[str]) -> None:
    """Adds pins for missing realms, which a job has looked for, to the job's row.

    The pin of a missing realm is UNREADABLE_GENERATION, as for a realm that the job may not read.
    If a realm with this pin becomes readable, another job follows. If the job has MAX_SOUGHT pins
    or more, `note_missing` adds nothing. Then no job follows when one of the realms is created, and
    the cards that looked for it stay unchanged until the next job.
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
    """Stores the address of another realm's pages in a job's row, unless the row already has an
    address for this realm. Returns the stored address."""
    with connection.cursor() as cursor:
        cursor.execute(sql.NOTE_ADDRESS, {"id": job_id, "url": realm_url, "address": address})
        row = cursor.fetchone()
    return str(row[0]) if row else address


def request_rerun(job_id: int) -> None:
    """Makes another job follow a job. The other job is necessary if a generation or an address in
    the row of the first job may be out of date."""
    ReindexJob.objects.filter(pk=job_id).update(
        next_generation=Greatest(F("generation"), "next_generation")
    )


class WritersBusy(Exception):
    """A transaction is changing a realm, so a job can't know yet which generation of the realm to
    read."""


def wait_for_writers(realm_url: str) -> None:
    """Waits until all transactions that are changing a realm or its published address have ended.
    The realm and its address each have a lock. Raises WritersBusy if the wait for one of these
    locks takes WRITERS_SECONDS."""
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
    lease the job again when RETRIED_AFTER has passed. If the job has had MAX_ATTEMPTS attempts, it
    fails. Does nothing if the caller has lost the lease."""
    with transaction.atomic():
        job = held_job(leased)
        if job is None:
            return
        end_lease(job, RETRIED_AFTER)
        count_failure(job, job.attempts, error)


def replace_job(leased: ReindexJob | ReindexBatch, why: object) -> None:
    """Ends a job that can no longer read one of its pinned realms, and queues a new job in its
    place. The job has lost access to the realm, or the realm's history has lost the pinned
    generation. The new job is due when QUIET has passed, because until then some replicas may still
    report that the realm is readable.

    The new job continues the old job's count of attempts. If the old job has had MAX_ATTEMPTS
    attempts, it fails, and no new job is queued. Does nothing if the caller has lost the lease of
    the job or batch.
    """
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
