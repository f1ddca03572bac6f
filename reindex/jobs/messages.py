"""Celery messages. A message says that there is work; the rows say which."""

import logging

from celery import current_app
from django.utils import timezone
from kombu.exceptions import OperationalError

from reindex.models import (
    ReindexJob,
)

logger = logging.getLogger(__name__)
Status = ReindexJob.Status


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
