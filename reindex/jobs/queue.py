"""The queue: which jobs the changes of a transaction make necessary.

Every step is a short transaction that begins with a lock on the job's row, so a step finds the job
as it is and not as it was when its message was sent. Nothing here holds a lock while rendering.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from notifications.channels import index_swapped
from notifications.emit import emit
from reindex.jobs.messages import send_work
from reindex.models import (
    IndexedCard,
    IndexHead,
    ReindexJob,
)
from reindex.reading.pins import UNREADABLE_GENERATION

logger = logging.getLogger(__name__)
#: A source realm is indexed when its last write is this old, or its first unindexed one that.
QUIET = timedelta(milliseconds=300)
AT_MOST = timedelta(seconds=2)
Status = ReindexJob.Status


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


def enqueue_job(
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
            _enqueue_dependent(dependents[realm_url])
        else:
            head = fresh[realm_url]
            create_unless_live(realm_url, head.generation, head.job)


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
        if any(job.pins[each] != UNREADABLE_GENERATION for each in others & self.changed):
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


def _enqueue_dependent(job: ReindexJob) -> None:
    """Has a job followed by another, one that has failed at once."""
    job.next_generation = max(job.generation, job.next_generation or 0)
    job.save(update_fields=["next_generation"])
    if job.status == Status.FAILED:
        enqueue_successor(job)


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


def create_unless_live(realm_url: str, generation: int, last: ReindexJob, **more: Any) -> None:
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


def enqueue_successor(job: ReindexJob) -> None:
    """Owes the job that is to follow this one, which has ended and is locked by the caller."""
    if job.next_generation is None:
        return
    _end_live(job.realm_url, Status.SUPERSEDED)
    create_unless_live(job.realm_url, max(job.next_generation, job.generation), job)


def _end_live(realm_url: str, status: Status) -> int:
    unfinished = (*ReindexJob.LIVE, Status.FAILED)
    return ReindexJob.objects.filter(realm_url=realm_url, status__in=unfinished).update(
        status=status, finished_at=timezone.now()
    )
