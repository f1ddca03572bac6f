"""Defines the sweeper, a task that workers run every few seconds. The sweeper sends Celery messages
for work that waits for a worker, and retries failed jobs. If several workers die while they work on
a job, the sweeper marks the job as failed.

Work may wait because a message or a worker was lost. Work also waits after a worker has given it
back, because `batches.release`, `leases.postpone` and `lifecycle.record_failure` send no message.
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

#: The minimum time between a job's failure and the next try. By then the cause of the failure may
#: be gone.
RETRY_SECONDS = 60.0
#: The maximum number of messages that one sweep sends.
MAX_SWEPT = 100


def sweep() -> int:
    """Runs the sweeper once. Returns the number of sent messages, which is at most MAX_SWEPT.

    A piece of work is a job to plan, a batch to render, or a module whose definitions a worker has
    to build. The sweep sends one message for each piece that is due and that no worker has leased.
    The sweep leaves out a job or batch if the job's last message is younger than
    REALM_SWEEP_SECONDS. It leaves out a module that has been due for less than REALM_SWEEP_SECONDS.
    Each message expires after REALM_SWEEP_SECONDS. Otherwise messages would pile up while all
    workers are busy.
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
    """Marks a job as failed after MAX_ATTEMPTS attempts to plan it or to render the same batch, if
    the lease of the last attempt has expired. A lease expires if the worker died or hangs. If the
    last attempt ended with an error instead, `count_failure` has already marked the job."""
    hopeless = Q(attempts__gte=MAX_ATTEMPTS, lease_until__lt=now)
    for job in ReindexJob.objects.filter(hopeless, status=Status.QUEUED):
        with transaction.atomic():
            planning = held_job(job)
            # The worker may have renewed the lease since the query of the loop.
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
    """Resumes the jobs that failed more than RETRY_SECONDS ago, unless newer jobs have replaced
    them."""
    before = now - timedelta(seconds=RETRY_SECONDS)
    failed = ReindexJob.objects.filter(status=Status.FAILED, finished_at__lt=before)
    for job_id in failed.values_list("pk", flat=True):
        # A realm has at most one live job. If another transaction has just created a job for the
        # realm, `_take_up` may raise IntegrityError. The failed job is then no longer needed.
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
        # A newer job may have deleted the cards that this job rendered. So this job starts anew.
        job.batches.all().delete()
        job.seen = job.rendered = job.errors = 0
    job.status = Status.RENDERING if job.batches.exists() else Status.QUEUED
    job.attempts, job.sent_at, job.finished_at, job.lease_until = 0, None, None, None
    job.lost_seconds, job.hung = 0, {}
    job.save()
    job.batches.filter(done=False).update(attempts=0, lease_until=None)
    return True
