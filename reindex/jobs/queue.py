"""Queues the jobs that render pages again after a transaction has changed realms.

A job renders the pages of one realm at one generation. The results that visitors see are the
realm's index. A job is live while it is queued or rendering. Live jobs are unfinished. Failed jobs
are unfinished too, because the sweeper, a periodic task, retries them.

`cancel` opens a transaction. The other functions run in the caller's transaction. `enqueue` and
`cancel` first lock all jobs that they may change, in the order of the jobs' keys. So two
transactions don't deadlock.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from notifications.channels import index_swapped
from notifications.emit import emit
from notifications.tracing import spans
from reindex.jobs.messages import send_work
from reindex.models import (
    IndexedCard,
    IndexHead,
    ReindexJob,
)
from reindex.reading.pins import UNREADABLE_GENERATION

logger = logging.getLogger(__name__)
#: A job for a source realm is due when QUIET has passed since the realm's last write, but at the
#: latest when AT_MOST has passed since the write that queued the job.
QUIET = timedelta(milliseconds=300)
AT_MOST = timedelta(seconds=2)
Status = ReindexJob.Status


@dataclass(frozen=True)
class Work:
    """A job to queue. The job renders a realm's pages at a generation.

    A `full` job renders every card. Any other job renders only the cards that changes affect, and
    keeps the last index's results of the other cards. A `draft` job renders a source realm. A
    `debounced` job starts only after a delay (QUIET), because further changes may follow. The
    worker time of every job is counted for `owner`, because the module `turns` shares workers
    fairly among owners.
    """

    realm_url: str
    generation: int
    owner: str = ""
    full: bool = False
    draft: bool = False
    debounced: bool = False


# --- Queueing ----------------------------------------------------------------------------------


def enqueue_job(
    realm_url: str, generation: int, *, full: bool = False, draft: bool = False, owner: str = ""
) -> ReindexJob:
    """Queues a job for a realm at a generation, in the caller's transaction. The new job supersedes
    every unfinished job of the realm, even a failed job and a job of the same generation. Visitors
    never see the results of a superseded job."""
    enqueue([Work(realm_url, generation, owner, full=full, draft=draft)])
    return ReindexJob.objects.live().get(realm_url=realm_url)


def enqueue(
    works: Iterable[Work] = (),
    *,
    changed: Iterable[str] = (),
    appeared: Iterable[str] = (),
    moved: Iterable[str] = (),
    gone: Iterable[str] = (),
) -> None:
    """Queues the jobs in `works`, and those that the caller's changes make necessary. Each other
    realm gets a job if one of its cards was made from files of a realm in `changed`, looked for a
    realm in `appeared`, or links to a realm in `moved`. A realm in `moved` is a source realm that
    may now be published at another URL. Cancels the jobs and removes the pages of the realms in
    `gone`. Sends messages to workers after the commit.

    The caller holds the locks of the realms that it changes. When a job begins to depend on a
    realm, a worker first stores the realm in the job's row. The worker then waits until nobody
    holds the realm's locks, and asks for the realm's generation and address. So either the worker
    sees the change, or `enqueue` sees the realm in the job's row.

    Call `enqueue` only once per transaction. A call locks jobs in the order of their keys, and then
    creates jobs in the order of the realms' URLs. With a second call, transactions could deadlock.
    """
    wanted = {work.realm_url: work for work in works}
    reading = _Reading(frozenset(changed), frozenset(appeared), frozenset(moved))
    ended = sorted(gone)
    own = {*wanted, *ended}
    if not own and not reading:
        return
    heads = reading.heads().exclude(realm_url__in=own) if reading else IndexHead.objects.none()
    theirs = Q(realm_url__in=[*own, *heads.values_list("realm_url", flat=True)])
    unfinished = _lock_jobs((theirs | reading.jobs()) if reading else theirs)
    for realm_url in ended:
        _forget(realm_url)
    others = [job for job in unfinished if job.realm_url not in own]
    dependents, fresh = _dependents(reading, heads, others)
    for realm_url in sorted({*wanted, *dependents, *fresh}):
        if realm_url in wanted:
            # If a superseded job had to render every card, the new job must render every card too.
            full = any(job.full for job in unfinished if job.realm_url == realm_url)
            _enqueue(replace(wanted[realm_url], full=wanted[realm_url].full or full))
        elif realm_url in dependents:
            _enqueue_dependent(dependents[realm_url])
        else:
            head = fresh[realm_url]
            create_unless_live(realm_url, head.generation, head.job)


def _dependents(
    reading: "_Reading", heads: QuerySet[IndexHead], unfinished: Iterable[ReindexJob]
) -> tuple[dict[str, ReindexJob], dict[str, IndexHead]]:
    """Finds the realms that have an unfinished job or an index that depends on a changed realm.
    Returns two dictionaries, keyed by realm URL. The first dictionary maps a realm to its
    unfinished job, if this job depends on a changed realm or has failed. The second dictionary maps
    each remaining realm to its index. The caller has locked the jobs in `unfinished`."""
    others = list(unfinished)
    dependents = {job.realm_url: job for job in others if reading.by(job)}
    failed = {job.realm_url: job for job in others if job.status == Status.FAILED}
    fresh: dict[str, IndexHead] = {}
    # The indexes are read only now, because `enqueue` had to wait for the locks of the jobs. During
    # that time, another transaction may have replaced an index.
    for head in heads.exclude(realm_url__in=dependents).select_related("job"):
        if not reading.by(head.job):
            continue
        if head.realm_url in failed:
            # The failed job may have a later generation than the shown index. The next job must
            # have this later generation too.
            dependents[head.realm_url] = failed[head.realm_url]
        else:
            fresh[head.realm_url] = head
    return dependents, fresh


@dataclass(frozen=True)
class _Reading:
    """Finds the jobs that depend on changed realms. A job depends on a realm if the job has read
    the realm, has looked for the realm when the realm was missing or private, or has asked for the
    realm's published address. `enqueue` explains the fields."""

    changed: frozenset[str]
    appeared: frozenset[str]
    moved: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.changed or self.appeared or self.moved)

    def by(self, job: ReindexJob) -> bool:
        """Returns whether a job depends on one of the changed realms."""
        others = job.pins.keys() - {job.realm_url}
        if any(job.pins[each] != UNREADABLE_GENERATION for each in others & self.changed):
            return True
        return not (self.appeared.isdisjoint(others) and self.moved.isdisjoint(job.addresses))

    def jobs(self, job: str = "") -> Q:
        """Returns a query condition for the jobs that may depend on the changed realms. `by` then
        checks each of these jobs. `job` is a prefix for lookups across a relation, such as
        `job__`."""
        named = Q(**{f"{job}pins__has_any_keys": sorted(self.changed | self.appeared)})
        if not self.moved:
            return named
        return named | Q(**{f"{job}addresses__has_any_keys": sorted(self.moved)})

    def heads(self) -> QuerySet[IndexHead]:
        """Returns the shown indexes that may depend on the changed realms."""
        return IndexHead.objects.filter(self.jobs("job__"))


def _forget(realm_url: str) -> None:
    """Cancels the jobs of a deleted realm, and removes the realm's pages."""
    _end_live(realm_url, Status.CANCELLED)
    IndexHead.objects.filter(realm_url=realm_url).delete()
    IndexedCard.objects.filter(realm_url=realm_url).delete()
    emit(index_swapped(realm_url))


def _enqueue(work: Work) -> None:
    """Queues a job for `work`. If the work is debounced and the realm has a live job that hasn't
    started, changes only the generation and the due time of the live job. If the work is debounced
    and the live job has started, makes another job follow the live job."""
    kind = {"full": work.full, "draft": work.draft, "owner": work.owner}
    if not work.debounced:
        _create(work.realm_url, work.generation, **kind)
        transaction.on_commit(send_work)
        return
    now = timezone.now()
    live = ReindexJob.objects.live().filter(realm_url=work.realm_url).first()
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
    """Arranges for another job to run after `job`. If `job` has failed, queues the next job at
    once."""
    job.next_generation = max(job.generation, job.next_generation or 0)
    job.save(update_fields=["next_generation"])
    if job.status == Status.FAILED:
        enqueue_successor(job)


def cancel(realm_url: str) -> int:
    """Cancels a realm's unfinished jobs. Visitors keep seeing the realm's last index. Returns the
    number of cancelled jobs."""
    with transaction.atomic():
        _lock_jobs(Q(realm_url=realm_url))
        return _end_live(realm_url, Status.CANCELLED)


def _lock_jobs(which: Q) -> list[ReindexJob]:
    unfinished = ReindexJob.objects.unfinished().select_for_update()
    return list(unfinished.filter(which).order_by("pk"))


def _create(realm_url: str, generation: int, **more: Any) -> ReindexJob:
    """Creates a job that supersedes the realm's unfinished jobs. If a concurrent transaction has
    created another job for the realm, the first try fails, and the second try also supersedes that
    other job."""
    for last in (False, True):
        _end_live(realm_url, Status.SUPERSEDED)
        try:
            with transaction.atomic():
                return ReindexJob.objects.create(
                    realm_url=realm_url,
                    generation=generation,
                    trace=spans.current(),
                    **{"sent_at": timezone.now(), **more},
                )
        except IntegrityError:
            if last:
                raise
    raise AssertionError("unreachable")


def create_unless_live(realm_url: str, generation: int, last: ReindexJob, **more: Any) -> None:
    """Creates a job for a realm, unless the realm has a live job. The new job has the owner of the
    job `last`, and is a draft if `last` is one."""
    job = ReindexJob(
        realm_url=realm_url,
        generation=generation,
        draft=last.draft,
        owner=last.owner,
        # If the caller has no trace of its own, and `last` has the same generation as the new job,
        # the new job continues the trace of `last`.
        trace=spans.current() or (last.trace if generation == last.generation else ""),
        sent_at=timezone.now(),
        **more,
    )
    ReindexJob.objects.bulk_create([job], ignore_conflicts=True)
    transaction.on_commit(send_work)


def enqueue_successor(job: ReindexJob) -> None:
    """Queues another job after a job has ended, if the ended job's `next_generation` is set. The
    caller has locked the ended job. If the ended job had to render every card and its status isn't
    DONE, the next job renders every card too."""
    if job.next_generation is None:
        return
    _end_live(job.realm_url, Status.SUPERSEDED)
    generation = max(job.next_generation, job.generation)
    full = job.full and job.status != Status.DONE
    create_unless_live(job.realm_url, generation, job, full=full)


def _end_live(realm_url: str, status: Status) -> int:
    unfinished = ReindexJob.objects.unfinished().filter(realm_url=realm_url)
    return unfinished.update(status=status, finished_at=timezone.now())
