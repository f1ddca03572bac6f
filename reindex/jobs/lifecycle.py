"""A job from its first lease to its batches: which realms it reads, at which generations."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from django.conf import settings
from django.db import OperationalError as DatabaseOperationalError
from django.db import connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest
from django.utils import timezone
from psycopg.errors import LockNotAvailable

from notifications.locks import address_lock, lock_key
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
    take_lease,
)
from reindex.jobs.queue import QUIET, Status, create_unless_live, enqueue_successor
from reindex.models import (
    ReindexBatch,
    ReindexJob,
)
from reindex.reading.pins import UNREADABLE_GENERATION

#: So many realms a job notes at the most, if it comes to those that are not there.
MAX_SOUGHT = 500
#: A worker waits for who writes to a realm for so long, and comes back so much later.
WRITERS_SECONDS = 2.0
#: A batch of fewer cards would spend more on its process than on them.
WORTH_A_PROCESS = 250


@dataclass(frozen=True)
class Plan:
    """What a job has to do: the files to look at, at which generations, and what it carries over.

    `base` is the job whose index stands where nothing has changed; None renders every card.
    """

    paths: list[str]
    pins: dict[str, int]
    base: int | None = None
    carried: int = 0
    renderer: str = ""
    addresses: dict[str, str] = field(default_factory=dict)


# --- Planning ----------------------------------------------------------------------------------


def begin(job_id: int) -> ReindexJob | None:
    """Takes the lease of a queued job, whose generation stands from then on; None if another worker
    has it, it was planned, has ended, or isn't due yet."""
    now = timezone.now()
    with bookkeeping():
        job = (
            ReindexJob.objects.select_for_update(skip_locked=True)
            .filter(
                Q(lease_until__isnull=True) | Q(lease_until__lt=now),
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


def record_pins(job: ReindexJob, pins: dict[str, int], addresses: dict[str, str]) -> None:
    """Writes down which realms a job is about to read, and of which it asks where they are; see
    `enqueue`. Nothing if the worker has lost its lease."""
    with bookkeeping():
        ReindexJob.objects.filter(
            pk=job.pk, status=Status.QUEUED, lease_number=job.lease_number
        ).update(pins=pins, addresses=addresses)


def create_batches(leased: ReindexJob, plan: Plan) -> list[int]:
    """Cuts a queued job into batches and answers their ids; none if the worker has lost its lease,
    or the job was planned or has ended."""
    size = _batch_size(len(plan.paths))
    # Without batches this is the swap.
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
        batches = ReindexBatch.objects.bulk_create(
            ReindexBatch(job=job, paths=plan.paths[start : start + size])
            for start in range(0, len(plan.paths), size)
        )
        if not batches:
            swap.swap(job)
            enqueue_successor(job)
        return [batch.pk for batch in batches]


def _batch_size(cards: int) -> int:
    """As many cards as a batch may have, but of a realm of middling size every worker gets some: a
    batch costs a process, which small ones don't repay."""
    return min(settings.REALM_BATCH_CARDS, max(WORTH_A_PROCESS, -(-cards // 4)))


def pin_realm(job_id: int, realm_url: str, generation: int) -> int:
    """The generation at which a job reads another realm: the first that any of its batches met."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE reindex_reindexjob SET pins = jsonb_build_object(%(url)s::text,
                %(generation)s::bigint) || pins WHERE id = %(id)s
            RETURNING (pins ->> %(url)s)::bigint
            """,
            {"id": job_id, "url": realm_url, "generation": generation},
        )
        row = cursor.fetchone()
    return int(row[0]) if row else generation


def note_sought(job_id: int, realm_urls: Iterable[str]) -> None:
    """Writes down that a job looked for realms where none is, as for those that it may not read:
    should one come and be opened, the job is followed by another. Beyond `MAX_SOUGHT` they are not
    noted; what looked for them is looked at by the realm's next job."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE reindex_reindexjob SET pins = %(sought)s::jsonb || pins WHERE id = %(id)s
                AND (SELECT count(*) FROM jsonb_object_keys(pins)) < %(most)s
            """,
            {
                "id": job_id,
                "sought": json.dumps(dict.fromkeys(realm_urls, UNREADABLE_GENERATION)),
                "most": MAX_SOUGHT,
            },
        )


def note_address(job_id: int, realm_url: str, address: str) -> str:
    """Where a job has another realm's pages: what the first of its batches was told."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE reindex_reindexjob SET addresses = jsonb_build_object(%(url)s::text,
                %(address)s::text) || addresses WHERE id = %(id)s
            RETURNING addresses ->> %(url)s
            """,
            {"id": job_id, "url": realm_url, "address": address},
        )
        row = cursor.fetchone()
    return str(row[0]) if row else address


def request_rerun(job_id: int) -> None:
    """Has a job followed by another: a realm that it reads has changed while it was pinned."""
    ReindexJob.objects.filter(pk=job_id).update(
        next_generation=Greatest(F("generation"), "next_generation")
    )


class WritersBusy(Exception):
    """A realm is being written to, and what a job reads of it isn't certain before that ends."""


def wait_for_writers(realm_url: str) -> None:
    """Returns when every change of a realm, and of where it is published, that has begun is
    committed, or is not to be. Raises WritersBusy after WRITERS_SECONDS."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{WRITERS_SECONDS}s'")
            for lock in (realm_url, address_lock(realm_url)):
                cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [lock_key(lock)])
    except DatabaseOperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            message = f"{realm_url} is being written to for more than {WRITERS_SECONDS:g} s"
            raise WritersBusy(message) from error
        raise


def record_failure(leased: ReindexJob, error: object) -> None:
    """Gives back a job that could not be planned; after some tries it has failed."""
    with transaction.atomic():
        job = held_job(leased)
        if job is None:
            return
        end_lease(job, RETRIED_AFTER)
        count_failure(job, job.attempts, error)


def replace_job(leased: ReindexJob | ReindexBatch, why: object) -> None:
    """Ends a job that may not read a realm any more as it had pinned it, and owes another in its
    place, a moment later: a replica may not have heard yet of what ended the access. After some
    tries the job has failed. Nothing if the worker has lost the lease of the job, or of the batch
    of it that it rendered."""
    with transaction.atomic():
        batch = None
        if isinstance(leased, ReindexJob):
            job = held_job(leased)
        else:
            batch = held_batch(leased)
            job = None if batch is None else locked_job(leased.job_id)
        if batch is not None:
            end_lease(batch)
        if job is None or job.status not in ReindexJob.LIVE:
            return
        job.error, job.finished_at = str(why), timezone.now()
        tried = job.attempts >= MAX_ATTEMPTS
        job.status = Status.FAILED if tried else Status.SUPERSEDED
        job.save()
        if not tried:
            generation = max(job.generation, job.next_generation or 0)
            again = {"full": job.full, "attempts": job.attempts, "due_at": timezone.now() + QUIET}
            create_unless_live(job.realm_url, generation, job, **again)
