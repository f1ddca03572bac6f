"""The life of a job: owed, planned, rendered batch by batch, swapped in, or overtaken.

Every step is a short transaction that begins with a lock on the job's row, so a step finds the job
as it is and not as it was when its message was sent. Nothing here holds a lock while rendering.
"""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

from celery import current_app
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone
from kombu.exceptions import OperationalError

from notifications.channels import index_swapped
from notifications.emit import emit
from reindex.models import IndexedCard, IndexHead, ReindexBatch, ReindexJob

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
#: A job that has failed is tried again after this time: whatever was wrong may have been mended.
RETRY_SECONDS = 60.0
Status = ReindexJob.Status


# --- Owing -------------------------------------------------------------------------------------


def owe(realm_url: str, generation: int) -> ReindexJob:
    """Writes down, in the caller's transaction, that a realm is to be rendered at a generation.

    A live job of an older generation is superseded: it will never land. After the commit a message
    is sent; should that fail, the sweeper sends another.
    """
    _end_live(realm_url, Status.SUPERSEDED)
    job = ReindexJob.objects.create(
        realm_url=realm_url, generation=generation, sent_at=timezone.now()
    )
    transaction.on_commit(lambda: _send_job(job.pk))
    return job


def forget(realm_url: str) -> None:
    """Cancels what is owed to a realm that is being torn down, and takes its pages away.

    Part of the caller's transaction.
    """
    _end_live(realm_url, Status.CANCELLED)
    IndexHead.objects.filter(realm_url=realm_url).delete()
    IndexedCard.objects.filter(job__realm_url=realm_url).delete()
    emit(index_swapped(realm_url))


def _end_live(realm_url: str, status: Status) -> None:
    unfinished = (*ReindexJob.LIVE, Status.FAILED)
    ReindexJob.objects.filter(realm_url=realm_url, status__in=unfinished).update(
        status=status, finished_at=timezone.now()
    )


# --- Planning ----------------------------------------------------------------------------------


def planned(job_id: int, paths: list[str], pins: dict[str, int]) -> list[int]:
    """Cuts a queued job into batches and answers their ids; none if it was planned or ended."""
    size = settings.REALM_BATCH_CARDS
    with transaction.atomic():
        job = _locked(job_id)
        if job is None or job.status != Status.QUEUED:
            return []
        job.status, job.started_at = Status.RENDERING, timezone.now()
        job.total, job.pins = len(paths), pins
        job.save()
        batches = ReindexBatch.objects.bulk_create(
            ReindexBatch(job=job, paths=paths[start : start + size])
            for start in range(0, len(paths), size)
        )
        if not batches:
            _swap(job)
        return [batch.pk for batch in batches]


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


def failed(job_id: int, error: object) -> None:
    """Counts a failed try at planning; after some of them the job has failed."""
    with transaction.atomic():
        job = _locked(job_id)
        if job is None or job.status not in ReindexJob.LIVE:
            return
        job.attempts, job.error = job.attempts + 1, str(error)
        if job.attempts >= MAX_ATTEMPTS:
            job.status, job.finished_at = Status.FAILED, timezone.now()
        job.save()


# --- Batches -----------------------------------------------------------------------------------


def claim(batch_id: int) -> ReindexBatch | None:
    """Takes the lease of a batch; None if another worker has it, it is done, or its job ended."""
    now = timezone.now()
    with transaction.atomic():
        # A lock first: an UPDATE that looks at the job as well would not look at the lease again
        # after it has waited for another claim.
        batch = (
            ReindexBatch.objects.select_for_update(of=("self",))
            .select_related("job")
            .filter(
                Q(lease_until__isnull=True) | Q(lease_until__lt=now),
                pk=batch_id,
                done=False,
                job__status=Status.RENDERING,
            )
            .first()
        )
        if batch is not None:
            batch.lease_until = now + _lease()
            batch.attempts += 1
            batch.save()
    return batch


def renew(batch: ReindexBatch) -> bool:
    """Holds the lease for longer; False tells the worker that its job has ended."""
    return bool(
        ReindexBatch.objects.filter(
            pk=batch.pk, done=False, attempts=batch.attempts, job__status=Status.RENDERING
        ).update(lease_until=timezone.now() + _lease())
    )


def release(batch: ReindexBatch, error: object) -> None:
    """Gives back a batch that could not be rendered; the sweeper has it tried again."""
    with transaction.atomic():
        job = _locked(batch.job_id)
        if job is None or job.status != Status.RENDERING:
            return
        job.error = str(error)
        if batch.attempts >= MAX_ATTEMPTS:
            job.status, job.finished_at = Status.FAILED, timezone.now()
        job.save()
        # Not at once: what failed now will most likely fail in the same second again.
        ReindexBatch.objects.filter(pk=batch.pk, attempts=batch.attempts).update(
            lease_until=timezone.now() + timedelta(seconds=1)
        )


def finish(batch: ReindexBatch, results: Iterable[dict[str, Any]]) -> bool:
    """Stores a batch's results, and with the last batch swaps the index. False if the job ended.

    All of it is one transaction: a batch that is rendered twice is stored once.
    """
    with transaction.atomic():
        job = _locked(batch.job_id)
        if job is None or job.status != Status.RENDERING:
            return False
        if not ReindexBatch.objects.filter(pk=batch.pk, done=False).update(
            done=True, replica=batch.replica
        ):
            return False
        cards = IndexedCard.objects.bulk_create(
            [
                IndexedCard(
                    job=job,
                    path=unquote(result["url"].removeprefix(job.realm_url)),
                    html=result.get("html"),
                    search=result.get("search"),
                    error=result.get("error"),
                    render_ms=int(result.get("ms", 0)),
                )
                for result in results
            ]
        )
        job.rendered += len(cards)
        job.errors += sum(card.error is not None for card in cards)
        job.save()
        if not job.batches.filter(done=False).exists():
            _swap(job)
    return True


def _swap(job: ReindexJob) -> None:
    """Shows visitors this job's cards. The caller has the job's row locked, and it is live: a job
    that was superseded in the meantime never gets here."""
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO reindex_indexhead (realm_url, job_id, generation, swapped_at)
            VALUES (%(url)s, %(job)s, %(generation)s, %(now)s)
            ON CONFLICT (realm_url) DO UPDATE SET job_id = excluded.job_id,
                generation = excluded.generation, swapped_at = excluded.swapped_at
            WHERE reindex_indexhead.generation <= excluded.generation
            """,
            {"url": job.realm_url, "job": job.pk, "generation": job.generation, "now": now},
        )
        landed = cursor.rowcount == 1
    job.status = Status.DONE if landed else Status.SUPERSEDED
    job.finished_at, job.error = now, ""
    job.save()
    if landed:
        IndexedCard.objects.filter(job__realm_url=job.realm_url).exclude(job=job).delete()
        emit(index_swapped(job.realm_url))


def _locked(job_id: int) -> ReindexJob | None:
    return ReindexJob.objects.select_for_update().filter(pk=job_id).first()


def _lease() -> timedelta:
    return timedelta(seconds=settings.REALM_BATCH_LEASE_SECONDS)


# --- Messages ----------------------------------------------------------------------------------


def sweep() -> int:
    """Sends again what is owed and has no worker: lost messages, lost workers, a broker that was
    away. Answers how many messages it sent."""
    now = timezone.now()
    _give_up(now)
    _try_again(now)
    overdue = Q(sent_at__isnull=True) | Q(
        sent_at__lt=now - timedelta(seconds=settings.REALM_SWEEP_SECONDS)
    )
    jobs = list(
        ReindexJob.objects.filter(overdue, status=Status.QUEUED).values_list("pk", flat=True)
    )
    ReindexJob.objects.filter(pk__in=jobs).update(sent_at=now)
    rendering = ReindexJob.objects.filter(overdue, status=Status.RENDERING)
    batches = list(
        ReindexBatch.objects.filter(
            Q(lease_until__isnull=True) | Q(lease_until__lt=now),
            done=False,
            job__in=rendering,
        ).values_list("pk", flat=True)
    )
    rendering.update(sent_at=now)
    for job_id in jobs:
        _send_job(job_id)
    send_batches(batches)
    return len(jobs) + len(batches)


def _give_up(now: datetime) -> None:
    """Fails the jobs that have a batch whose workers never came back: killed, or beyond words."""
    hopeless = Q(done=False, attempts__gte=MAX_ATTEMPTS, lease_until__lt=now)
    for job_id in (
        ReindexBatch.objects.filter(hopeless, job__status=Status.RENDERING)
        .values_list("job", flat=True)
        .distinct()
    ):
        with transaction.atomic():
            job = _locked(job_id)
            if job is None or job.status != Status.RENDERING:
                continue
            if job.batches.filter(hopeless).exists():
                job.status, job.finished_at = Status.FAILED, now
                job.error = f"{MAX_ATTEMPTS} workers ended while they rendered the same batch"
                job.save()


def _try_again(now: datetime) -> None:
    """Takes up what failed a while ago and is owed still, where it stood."""
    before = now - timedelta(seconds=RETRY_SECONDS)
    for job_id in ReindexJob.objects.filter(
        status=Status.FAILED, finished_at__lt=before
    ).values_list("pk", flat=True):
        with transaction.atomic():
            job = _locked(job_id)
            if job is None or job.status != Status.FAILED:
                continue
            job.status = Status.RENDERING if job.started_at else Status.QUEUED
            job.attempts, job.sent_at, job.finished_at = 0, None, None
            job.save()
            job.batches.filter(done=False).update(attempts=0, lease_until=None)


def _send_job(job_id: int) -> None:
    _send("reindex.tasks.plan_job", job_id)


def send_batches(batch_ids: Iterable[int]) -> None:
    """Sends a message for each batch."""
    for batch_id in batch_ids:
        _send("reindex.tasks.render_batch", batch_id)


def ask_for_definitions(module_urls: Iterable[str]) -> None:
    """Asks for definitions to be built before anyone needs them, behind the rendering of pages: on
    a queue of their own, which workers serve in turn with the other."""
    for module_url in module_urls:
        _send("reindex.tasks.build_definitions", module_url, queue="definitions")


def _send(task: str, key: int | str, queue: str = "celery") -> None:
    # By name: the tasks call this module.
    try:
        current_app.send_task(task, (key,), retry=False, queue=settings.REALM_QUEUE_PREFIX + queue)
    except (OperationalError, OSError) as error:
        # The row stands: the sweeper sends the message when the broker is back.
        logger.warning("no message was sent for %s(%s): %s", task, key, error)
