"""Runs the sweeper, which sends messages for waiting work and retries failed jobs. If workers keep
dying while they work on a job, the sweeper fails the job.

Work may wait because a message or a worker was lost. Work also waits after a worker has given it
back by `release`, `postpone` or `record_failure`, because these functions send no message.
"""

from contextlib import suppress
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from reindex.jobs.leases import MAX_ATTEMPTS, count_failure, held_batch, held_job, locked_job
from reindex.jobs.messages import send_work
from reindex.jobs.queue import Status
from reindex.models import (
    ReindexBatch,
    ReindexJob,
    WantedDefinitions,
)

#: The sweeper retries a failed job after this time, because its cause may be gone.
RETRY_SECONDS = 60.0
#: The maximum number of messages of one sweep.
MAX_SWEPT = 100


def sweep() -> int:
    """Sends a message for each piece of work that no worker has leased, if its last message is
    older than one sweep interval. Returns the number of messages.

    One sweep sends at most MAX_SWEPT messages, which expire with the next sweep. Otherwise messages
    would pile up while all workers are busy.
    """
    now = timezone.now()
    _give_up(now)
    _try_again(now)
    before = now - timedelta(seconds=settings.REALM_SWEEP_SECONDS)
    overdue = Q(sent_at__isnull=True) | Q(sent_at__lt=before)
    due = Q(due_at__isnull=True) | Q(due_at__lte=now)
    queued = ReindexJob.objects.free(now).filter(overdue, due, status=Status.QUEUED)
    rendering = ReindexJob.objects.filter(overdue, status=Status.RENDERING)
    batches = ReindexBatch.objects.free(now).filter(done=False, job__in=rendering)
    definitions = WantedDefinitions.objects.free(now).filter(due_at__lt=before)
    waiting = queued.count() + batches.count() + definitions.count()
    queued.update(sent_at=now)
    rendering.update(sent_at=now)
    sent = min(waiting, MAX_SWEPT)
    send_work(times=sent, expires=settings.REALM_SWEEP_SECONDS)
    return sent


def _give_up(now: datetime) -> None:
    """Fails a job if MAX_ATTEMPTS workers have died while they planned it, or while they rendered
    the same batch. A worker has died if it was killed, or ended without reporting an error."""
    hopeless = Q(attempts__gte=MAX_ATTEMPTS, lease_until__lt=now)
    for job in ReindexJob.objects.filter(hopeless, status=Status.QUEUED):
        with transaction.atomic():
            planning = held_job(job)
            # The worker may have renewed the lease since the query.
            if planning is not None and planning.lease_until == job.lease_until:
                error = f"{MAX_ATTEMPTS} workers ended while they planned the job"
                count_failure(planning, planning.attempts, error)
    for batch in ReindexBatch.objects.filter(hopeless, done=False, job__status=Status.RENDERING):
        with transaction.atomic():
            rendering = held_batch(batch)
            if rendering is None or rendering.lease_until != batch.lease_until:
                continue
            locked = locked_job(batch.job_id)
            if locked is not None and locked.status == Status.RENDERING:
                error = f"{MAX_ATTEMPTS} workers ended while they rendered the same batch"
                count_failure(locked, rendering.attempts, error)


def _try_again(now: datetime) -> None:
    """Resumes the jobs that failed RETRY_SECONDS ago and are still needed."""
    before = now - timedelta(seconds=RETRY_SECONDS)
    failed = ReindexJob.objects.filter(status=Status.FAILED, finished_at__lt=before)
    for job_id in failed.values_list("pk", flat=True):
        # If a change creates another job for the realm concurrently, that job replaces this one.
        with suppress(IntegrityError), transaction.atomic():
            _take_up(job_id)


def retry(job_id: int) -> bool:
    """Resumes a failed job at once. Returns False if the job hasn't failed, or if a newer job has
    replaced it."""
    with transaction.atomic():
        resumed = _take_up(job_id)
    if resumed:
        send_work()
    return resumed


def _take_up(job_id: int) -> bool:
    list(ReindexBatch.objects.select_for_update().filter(job=job_id).order_by("pk"))
    job = locked_job(job_id)
    if job is None or job.status != Status.FAILED:
        return False
    newer = ReindexJob.objects.filter(realm_url=job.realm_url, pk__gt=job.pk)
    if newer.live().exists():
        return False
    if newer.filter(generation__gte=job.generation).exists():
        job.status = Status.SUPERSEDED
        job.save()
        return False
    if newer.exists():
        # The newer job has deleted the rows that this job rendered.
        job.batches.all().delete()
        job.seen = job.rendered = job.errors = 0
    job.status = Status.RENDERING if job.batches.exists() else Status.QUEUED
    job.attempts, job.sent_at, job.finished_at, job.lease_until = 0, None, None, None
    job.lost_seconds, job.hung = 0, {}
    job.save()
    job.batches.filter(done=False).update(attempts=0, lease_until=None)
    return True
