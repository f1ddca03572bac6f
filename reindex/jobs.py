"""The life of a job: owed, planned, rendered batch by batch, swapped in, or overtaken.

Every step is a short transaction that begins with a lock on the job's row, so a step finds the job
as it is and not as it was when its message was sent. Nothing here holds a lock while rendering.
How a batch's results become the index is in `landing`.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db import OperationalError as DatabaseOperationalError
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Greatest
from django.utils import timezone
from kombu.exceptions import OperationalError
from psycopg.errors import LockNotAvailable

from definitions.lookup import DefinitionCacheEntryQuery, DefinitionLookup, spellings
from notifications.channels import index_swapped
from notifications.emit import emit
from notifications.locks import address_lock, lock_key
from reindex import landing
from reindex.models import (
    IndexedCard,
    IndexHead,
    ReindexBatch,
    ReindexJob,
    WantedDefinitions,
)
from reindex.pins import CLOSED

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
#: A job that has failed is tried again after this time: whatever was wrong may have been mended.
RETRY_SECONDS = 60.0
#: A source realm is indexed when its last write is this old, or its first unindexed one that.
QUIET = timedelta(milliseconds=300)
AT_MOST = timedelta(seconds=2)
#: Definitions are built so long after the pages that they were met in.
DEFINITIONS_AFTER = timedelta(seconds=1)
#: So many realms a job notes at the most, if it comes to those that are not there.
MAX_SOUGHT = 500
#: As many messages as one sweep sends.
MAX_SWEPT = 100
#: What failed now will most likely fail in the same second again.
RETRIED_AFTER = timedelta(seconds=1)
#: A worker waits for who writes to a realm for so long, and comes back so much later.
WRITERS_SECONDS = 2.0
POSTPONED = timedelta(seconds=10)
#: A batch of fewer cards would spend more on its process than on them.
WORTH_A_PROCESS = 250
Status = ReindexJob.Status


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


@dataclass(frozen=True)
class Work:
    """A job that a realm is to get: its pages at a generation.

    What is unchanged since the last index is carried over, unless `full`. A `draft` is a source
    realm's. One that is `debounced` waits a moment for more to change. The `owner` is a name for
    whoever the worker time is counted for: see `turns`.
    """

    realm_url: str
    generation: int
    owner: str = ""
    full: bool = False
    draft: bool = False
    debounced: bool = False


# --- Owing -------------------------------------------------------------------------------------


def owe(
    realm_url: str, generation: int, *, full: bool = False, draft: bool = False, owner: str = ""
) -> ReindexJob:
    """Writes down, in the caller's transaction, that a realm is to be rendered at a generation. A
    live job of an older generation is superseded: it will never land."""
    enqueue([Work(realm_url, generation, owner, full=full, draft=draft)])
    return ReindexJob.objects.get(realm_url=realm_url, status__in=ReindexJob.LIVE)


def enqueue(
    works: Iterable[Work] = (),
    *,
    changed: Iterable[str] = (),
    appeared: Iterable[str] = (),
    moved: Iterable[str] = (),
    gone: Iterable[str] = (),
) -> None:
    """Writes down, in the caller's transaction, all that its changes make necessary.

    Beside the `works` these are jobs for the realms that read what has `changed`, or that looked
    in vain for what has `appeared`, or lead to what has `moved`, and the end of what is owed to
    realms that are `gone`, and of their pages. After the commit messages are sent; should that
    fail, the sweeper sends others.

    The caller changes these realms and holds the locks for that. A worker writes down that it reads
    a realm, waits for those locks, and only then asks what it is and where: so either it is told of
    the change, or it is found here. All jobs are locked in one order, and all made in another,
    whoever does it: so a transaction that changes several realms calls this once.
    """
    owed = {work.realm_url: work for work in works}
    reading = _Reading(frozenset(changed), frozenset(appeared), frozenset(moved))
    ended = sorted(gone)
    own = {*owed, *ended}
    if not own and not reading:
        return
    heads = reading.heads().exclude(realm_url__in=own) if reading else IndexHead.objects.none()
    theirs = Q(realm_url__in=[*own, *heads.values_list("realm_url", flat=True)])
    unfinished = _lock_jobs(theirs | reading.jobs() if reading else theirs)
    for realm_url in ended:
        _forget(realm_url)
    others = [job for job in unfinished if job.realm_url not in own]
    dependents = {job.realm_url: job for job in others if reading.by(job)}
    failed = {job.realm_url: job for job in others if job.status == Status.FAILED}
    fresh: dict[str, IndexHead] = {}
    # Read after the locks: what landed meanwhile is among them.
    for head in heads.exclude(realm_url__in=dependents).select_related("job"):
        if not reading.by(head.job):
            continue
        if head.realm_url in failed:
            # What failed may be of a newer generation than what is shown.
            dependents[head.realm_url] = failed[head.realm_url]
        else:
            fresh[head.realm_url] = head
    for realm_url in sorted({*owed, *dependents, *fresh}):
        if realm_url in owed:
            _enqueue(owed[realm_url])
        elif realm_url in dependents:
            _rerun(dependents[realm_url])
        else:
            head = fresh[realm_url]
            _create_unless_live(realm_url, head.generation, head.job)


@dataclass(frozen=True)
class _Reading:
    """Who reads realms that have changed, or looked in vain for those that have appeared, or has
    asked where those are that have moved."""

    changed: frozenset[str]
    appeared: frozenset[str]
    moved: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.changed or self.appeared or self.moved)

    def by(self, job: ReindexJob) -> bool:
        """Whether a job does."""
        others = job.pins.keys() - {job.realm_url}
        if any(job.pins[each] != CLOSED for each in others & self.changed):
            return True
        return not (self.appeared.isdisjoint(others) and self.moved.isdisjoint(job.addresses))

    def jobs(self, job: str = "") -> Q:
        """The jobs that may, by the name of the column of the job."""
        named = Q(**{f"{job}pins__has_any_keys": sorted(self.changed | self.appeared)})
        if not self.moved:
            return named
        return named | Q(**{f"{job}addresses__has_any_keys": sorted(self.moved)})

    def heads(self) -> QuerySet[IndexHead]:
        """The indexes whose jobs may."""
        return IndexHead.objects.filter(self.jobs("job__"))


def _forget(realm_url: str) -> None:
    """Cancels what is owed to a realm that is gone, and takes its pages away."""
    _end_live(realm_url, Status.CANCELLED)
    IndexHead.objects.filter(realm_url=realm_url).delete()
    IndexedCard.objects.filter(realm_url=realm_url).delete()
    emit(index_swapped(realm_url))


def _enqueue(work: Work) -> None:
    """A job for work. One that is debounced goes along with a job that waits already, and follows
    one that has begun."""
    kind = {"full": work.full, "draft": work.draft, "owner": work.owner}
    if not work.debounced:
        _create(work.realm_url, work.generation, **kind)
        transaction.on_commit(send_work)
        return
    now = timezone.now()
    live = ReindexJob.objects.filter(realm_url=work.realm_url, status__in=ReindexJob.LIVE).first()
    if live is None:
        due_at = now + QUIET
        _create(work.realm_url, work.generation, due_at=due_at, sent_at=due_at, **kind)
        transaction.on_commit(lambda: send_work(QUIET.total_seconds()))
    elif live.started_at is not None:
        ReindexJob.objects.filter(pk=live.pk).update(next_generation=work.generation)
    else:
        due_at = min(now + QUIET, live.created_at + AT_MOST)
        ReindexJob.objects.filter(pk=live.pk).update(generation=work.generation, due_at=due_at)


def _rerun(job: ReindexJob) -> None:
    """Has a job followed by another, one that has failed at once."""
    job.next_generation = max(job.generation, job.next_generation or 0)
    job.save(update_fields=["next_generation"])
    if job.status == Status.FAILED:
        follow(job)


def cancel(realm_url: str) -> int:
    """Ends what is owed to a realm; its index stays as it is. Answers how many jobs it ended."""
    with transaction.atomic():
        _lock_jobs(Q(realm_url=realm_url))
        return _end_live(realm_url, Status.CANCELLED)


def _lock_jobs(which: Q) -> list[ReindexJob]:
    unfinished = Q(status__in=(*ReindexJob.LIVE, Status.FAILED))
    return list(ReindexJob.objects.select_for_update().filter(unfinished, which).order_by("pk"))


def _create(realm_url: str, generation: int, **more: Any) -> ReindexJob:
    """A job in the place of whatever its realm is owed. A change of another realm may be owing the
    realm one at this moment: the second try finds that."""
    for last in (False, True):
        _end_live(realm_url, Status.SUPERSEDED)
        try:
            with transaction.atomic():
                return ReindexJob.objects.create(
                    realm_url=realm_url,
                    generation=generation,
                    **{"sent_at": timezone.now(), **more},
                )
        except IntegrityError:
            if last:
                raise
    raise AssertionError("unreachable")


def _create_unless_live(realm_url: str, generation: int, last: ReindexJob, **more: Any) -> None:
    """A job for the realm of the `last` one. Somebody else may be owing it one at the same time."""
    job = ReindexJob(
        realm_url=realm_url,
        generation=generation,
        draft=last.draft,
        owner=last.owner,
        sent_at=timezone.now(),
        **more,
    )
    ReindexJob.objects.bulk_create([job], ignore_conflicts=True)
    transaction.on_commit(send_work)


def follow(job: ReindexJob) -> None:
    """Owes the job that is to follow this one, which has ended and is locked by the caller."""
    if job.next_generation is None:
        return
    _end_live(job.realm_url, Status.SUPERSEDED)
    _create_unless_live(job.realm_url, max(job.next_generation, job.generation), job)


def _end_live(realm_url: str, status: Status) -> int:
    unfinished = (*ReindexJob.LIVE, Status.FAILED)
    return ReindexJob.objects.filter(realm_url=realm_url, status__in=unfinished).update(
        status=status, finished_at=timezone.now()
    )


# --- Planning ----------------------------------------------------------------------------------


def begin(job_id: int) -> ReindexJob | None:
    """Takes the lease of a queued job, whose generation stands from then on; None if another worker
    has it, it was planned, has ended, or isn't due yet."""
    now = timezone.now()
    with _bookkeeping():
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
        _take_lease(job)
    return job


def announce(job: ReindexJob, pins: dict[str, int], addresses: dict[str, str]) -> None:
    """Writes down which realms a job is about to read, and of which it asks where they are; see
    `enqueue`. Nothing if the worker has lost its lease."""
    with _bookkeeping():
        ReindexJob.objects.filter(
            pk=job.pk, status=Status.QUEUED, lease_number=job.lease_number
        ).update(pins=pins, addresses=addresses)


def planned(leased: ReindexJob, plan: Plan) -> list[int]:
    """Cuts a queued job into batches and answers their ids; none if the worker has lost its lease,
    or the job was planned or has ended."""
    size = _batch_size(len(plan.paths))
    # Without batches this is the swap.
    with _bookkeeping() if plan.paths else transaction.atomic():
        job = _held_job(leased)
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
            landing.swap(job)
            follow(job)
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
                "sought": json.dumps(dict.fromkeys(realm_urls, CLOSED)),
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


def again(job_id: int) -> None:
    """Has a job followed by another: a realm that it reads has changed while it was pinned."""
    ReindexJob.objects.filter(pk=job_id).update(
        next_generation=Greatest(F("generation"), "next_generation")
    )


@contextmanager
def _bookkeeping() -> Iterator[None]:
    """A transaction that needn't have reached the disk when it ends: should the database server
    lose it with its machine, the job stands a step earlier and goes on from there."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
        yield


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


def failed(leased: ReindexJob, error: object) -> None:
    """Gives back a job that could not be planned; after some tries it has failed."""
    with transaction.atomic():
        job = _held_job(leased)
        if job is None:
            return
        _end_lease(job, RETRIED_AFTER)
        _count_failure(job, job.attempts, error)


def replace(leased: ReindexJob | ReindexBatch, why: object) -> None:
    """Ends a job that may not read a realm any more as it had pinned it, and owes another in its
    place, a moment later: a replica may not have heard yet of what ended the access. After some
    tries the job has failed. Nothing if the worker has lost the lease of the job, or of the batch
    of it that it rendered."""
    with transaction.atomic():
        batch = None
        if isinstance(leased, ReindexJob):
            job = _held_job(leased)
        else:
            batch = held_batch(leased)
            job = None if batch is None else _locked(leased.job_id)
        if batch is not None:
            _end_lease(batch)
        if job is None or job.status not in ReindexJob.LIVE:
            return
        job.error, job.finished_at = str(why), timezone.now()
        tried = job.attempts >= MAX_ATTEMPTS
        job.status = Status.FAILED if tried else Status.SUPERSEDED
        job.save()
        if not tried:
            generation = max(job.generation, job.next_generation or 0)
            again = {"full": job.full, "attempts": job.attempts, "due_at": timezone.now() + QUIET}
            _create_unless_live(job.realm_url, generation, job, **again)


# --- Batches -----------------------------------------------------------------------------------
# Whoever locks a batch and its job locks the batch first.


def claim(batch_id: int) -> ReindexBatch | None:
    """Takes the lease of a batch; None if another worker has it, it is done, or its job ended."""
    now = timezone.now()
    with _bookkeeping():
        # Who holds the lock is taking the batch, or finishing it.
        batch = (
            ReindexBatch.objects.select_for_update(skip_locked=True)
            .filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now), pk=batch_id, done=False)
            .first()
        )
        # Asked after the lock: one statement would see the batch as it is, its job as it was.
        if batch is None or batch.job.status != Status.RENDERING:
            return None
        _take_lease(batch)
    return batch


def release(leased: ReindexBatch, error: object) -> None:
    """Gives back a batch that could not be rendered; the sweeper has it tried again. Nothing if the
    worker has lost its lease."""
    with transaction.atomic():
        batch = held_batch(leased)
        if batch is None:
            return
        batch.avoided = leased.avoided
        _end_lease(batch, RETRIED_AFTER)
        job = _locked(batch.job_id)
        if job is not None and job.status == Status.RENDERING:
            _count_failure(job, batch.attempts, error)


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
        job = landing.store(batch, results)
        if job is None:
            transaction.set_rollback(True)
            return False
        if rest:
            ReindexBatch.objects.bulk_create(ReindexBatch(job=job, paths=part) for part in rest)
            transaction.on_commit(lambda: send_work(times=len(rest)))
        elif not job.batches.filter(done=False).exists():
            landing.swap(job)
            follow(job)
    return True


def put_down(batch: ReindexBatch) -> None:
    """Ends the lease of a batch whose job has ended: its owner has the worker no longer. Nothing if
    the worker has lost it."""
    with _bookkeeping():
        held = held_batch(batch)
        if held is not None:
            _end_lease(held)


def claim_definitions(module_url: str) -> WantedDefinitions | None:
    """Takes the lease of definitions to build; None if another worker has it, or they are built."""
    now = timezone.now()
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=now)
    with _bookkeeping():
        wanted = (
            WantedDefinitions.objects.select_for_update(skip_locked=True)
            .filter(free, pk=module_url)
            .first()
        )
        if wanted is None:
            return None
        if wanted.attempts >= MAX_ATTEMPTS:
            # Whoever asks for them has them built then.
            wanted.delete()
            return None
        wanted.attempts += 1
        wanted.lease_until = now + _lease()
        wanted.save()
    return wanted


def built(wanted: WantedDefinitions) -> None:
    """Takes definitions off the list. Nothing if the worker has lost its lease."""
    WantedDefinitions.objects.filter(pk=wanted.pk, attempts=wanted.attempts).delete()


# --- Leases ------------------------------------------------------------------------------------
# A worker has a job that it plans, or a batch that it renders, until its lease runs out and another
# worker takes the next one. Each lease has a number: who comes with an older one changes nothing.


def renew(leased: ReindexJob | ReindexBatch) -> bool:
    """Holds a lease for longer; False tells the worker that it has lost it, or the job ended."""
    with _bookkeeping():
        held: ReindexJob | ReindexBatch | None
        if isinstance(leased, ReindexJob):
            held = _held_job(leased)
        else:
            held = held_batch(leased)
            if held is not None and held.job.status != Status.RENDERING:
                return False
        if held is None:
            return False
        held.lease_until = timezone.now() + _lease()
        held.save(update_fields=["lease_until"])
    return True


def postpone(leased: ReindexJob | ReindexBatch, why: object) -> None:
    """Gives back a job or a batch that is to be tried again a while later; the try doesn't count.
    Nothing if the worker has lost its lease."""
    with transaction.atomic():
        held = _held_job(leased) if isinstance(leased, ReindexJob) else held_batch(leased)
        if held is None:
            return
        held.attempts -= 1
        _end_lease(held, POSTPONED)
        job_id = held.pk if isinstance(held, ReindexJob) else held.job_id
        ReindexJob.objects.filter(pk=job_id, status__in=ReindexJob.LIVE).update(error=str(why))


def held_batch(leased: ReindexBatch) -> ReindexBatch | None:
    """The batch of a lease, locked in the caller's transaction; None if the lease was lost, or the
    batch is done."""
    return (
        ReindexBatch.objects.select_for_update()
        .filter(pk=leased.pk, done=False, lease_number=leased.lease_number)
        .first()
    )


def _held_job(leased: ReindexJob) -> ReindexJob | None:
    """The job of a lease, locked in the caller's transaction; None if the lease was lost, or the
    job was planned or has ended."""
    return (
        ReindexJob.objects.select_for_update()
        .filter(pk=leased.pk, status=Status.QUEUED, lease_number=leased.lease_number)
        .first()
    )


def _take_lease(work: ReindexJob | ReindexBatch) -> None:
    """Makes the next lease of a job or a batch, which the caller has locked."""
    work.lease_until = timezone.now() + _lease()
    work.lease_number += 1
    work.attempts += 1
    work.save()


def _end_lease(work: ReindexJob | ReindexBatch, rest: timedelta | None = None) -> None:
    """Has whoever holds a lease hold it no longer, and nobody take the next one for a while. The
    caller has locked the row."""
    work.lease_until = None if rest is None else timezone.now() + rest
    work.lease_number += 1
    work.save()


def _locked(job_id: int) -> ReindexJob | None:
    return ReindexJob.objects.select_for_update().filter(pk=job_id).first()


def _lease() -> timedelta:
    return timedelta(seconds=settings.REALM_BATCH_LEASE_SECONDS)


# --- Messages ----------------------------------------------------------------------------------


def sweep() -> int:
    """Sends a message for each piece of work that is owed and has no worker: lost messages, lost
    workers, a broker that was away. Answers how many messages it sent.

    Not more than MAX_SWEPT at once, and they expire with the next sweep: they don't pile up before
    workers that are busy.
    """
    now = timezone.now()
    _give_up(now)
    _try_again(now)
    before = now - timedelta(seconds=settings.REALM_SWEEP_SECONDS)
    overdue = Q(sent_at__isnull=True) | Q(sent_at__lt=before)
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=now)
    due = Q(due_at__isnull=True) | Q(due_at__lte=now)
    queued = ReindexJob.objects.filter(overdue, free, due, status=Status.QUEUED)
    rendering = ReindexJob.objects.filter(overdue, status=Status.RENDERING)
    batches = ReindexBatch.objects.filter(free, done=False, job__in=rendering)
    definitions = WantedDefinitions.objects.filter(free, due_at__lt=before)
    owed = queued.count() + batches.count() + definitions.count()
    queued.update(sent_at=now)
    rendering.update(sent_at=now)
    sent = min(owed, MAX_SWEPT)
    send_work(times=sent, expires=settings.REALM_SWEEP_SECONDS)
    return sent


def _give_up(now: datetime) -> None:
    """Fails the jobs whose workers never came back, from planning or from the same batch: killed,
    or beyond words."""
    hopeless = Q(attempts__gte=MAX_ATTEMPTS, lease_until__lt=now)
    for job in ReindexJob.objects.filter(hopeless, status=Status.QUEUED):
        with transaction.atomic():
            planning = _held_job(job)
            # It may have been renewed meanwhile.
            if planning is not None and planning.lease_until == job.lease_until:
                error = f"{MAX_ATTEMPTS} workers ended while they planned it"
                _count_failure(planning, planning.attempts, error)
    for batch in ReindexBatch.objects.filter(hopeless, done=False, job__status=Status.RENDERING):
        with transaction.atomic():
            rendering = held_batch(batch)
            if rendering is None or rendering.lease_until != batch.lease_until:
                continue
            locked = _locked(batch.job_id)
            if locked is not None and locked.status == Status.RENDERING:
                error = f"{MAX_ATTEMPTS} workers ended while they rendered the same batch"
                _count_failure(locked, rendering.attempts, error)


def _count_failure(job: ReindexJob, attempts: int, error: object) -> None:
    """Says why a job, which the caller has locked, could not go on; after MAX_ATTEMPTS it ends,
    until it is taken up again."""
    job.error = str(error)
    if attempts >= MAX_ATTEMPTS:
        job.status, job.finished_at = Status.FAILED, timezone.now()
    job.save()
    if job.status == Status.FAILED:
        follow(job)


def _try_again(now: datetime) -> None:
    """Takes up what failed a while ago and is owed still, where it stood."""
    before = now - timedelta(seconds=RETRY_SECONDS)
    failed = ReindexJob.objects.filter(status=Status.FAILED, finished_at__lt=before)
    for job_id in failed.values_list("pk", flat=True):
        # A change elsewhere may be owing the realm another job at this moment: that is next then.
        with suppress(IntegrityError), transaction.atomic():
            _take_up(job_id)


def _take_up(job_id: int) -> None:
    list(ReindexBatch.objects.select_for_update().filter(job=job_id).order_by("pk"))
    job = _locked(job_id)
    if job is None or job.status != Status.FAILED:
        return
    newer = ReindexJob.objects.filter(realm_url=job.realm_url, pk__gt=job.pk)
    if newer.filter(status__in=ReindexJob.LIVE).exists():
        return
    if newer.filter(generation__gte=job.generation).exists():
        job.status = Status.SUPERSEDED
        job.save()
        return
    if newer.exists():
        # It has taken away what this one had rendered.
        job.batches.all().delete()
        job.seen = job.rendered = job.errors = 0
    job.status = Status.RENDERING if job.batches.exists() else Status.QUEUED
    job.attempts, job.sent_at, job.finished_at, job.lease_until = 0, None, None, None
    job.lost_seconds, job.hung = 0, {}
    job.save()
    job.batches.filter(done=False).update(attempts=0, lease_until=None)


def want_definitions(module_urls: Sequence[str], owner: str = "") -> None:
    """Has definitions that the table lacks built before anyone needs them, behind the rendering of
    pages."""
    if not module_urls:
        return
    spelt = {module_url: spellings(module_url) for module_url in module_urls}
    query = DefinitionCacheEntryQuery(tuple(url for urls in spelt.values() for url in urls))
    known = DefinitionLookup().get_cached_definitions_batch(query)
    # Not at once: whoever has waited for the pages comes first.
    due_at = timezone.now() + DEFINITIONS_AFTER
    lacking = [
        WantedDefinitions(module_url=module_url, owner=owner, due_at=due_at)
        for module_url, urls in spelt.items()
        if known.keys().isdisjoint(urls)
    ]
    WantedDefinitions.objects.bulk_create(lacking, ignore_conflicts=True)
    send_work(DEFINITIONS_AFTER.total_seconds(), times=len(lacking))


def send_when_due() -> None:
    """Sends the messages of jobs that were not due when their last message came."""
    now = timezone.now()
    waiting = ReindexJob.objects.filter(
        status=Status.QUEUED, started_at__isnull=True, due_at__gt=now, sent_at__lte=now
    )
    for job in waiting:
        assert job.due_at is not None
        # Of several workers one sends it.
        if waiting.filter(pk=job.pk).update(sent_at=job.due_at):
            send_work((job.due_at - now).total_seconds())


def send_work(delay: float = 0, *, times: int = 1, expires: float | None = None) -> None:
    """Tells workers that a piece of work is owed, now or after some seconds. The message doesn't
    say which: who takes it does the piece whose owner has waited longest for a turn (`turns`)."""
    for _ in range(times):
        send("reindex.tasks.work", delay=delay, expires=expires)


def send(task: str, *, delay: float = 0, expires: float | None = None) -> None:
    """Sends a message."""
    try:
        # By name: the tasks call this module.
        current_app.send_task(
            task,
            retry=False,
            countdown=delay or None,
            expires=expires,
        )
    except (OperationalError, OSError) as error:
        # The row stands: the sweeper sends the message when the broker is back.
        logger.warning("no message was sent: %s", error)
    except Exception:
        # A broker's client may raise anything, and what the message tells of is committed.
        logger.exception("no message was sent")
