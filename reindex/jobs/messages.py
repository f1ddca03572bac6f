"""Celery messages. A message wakes a worker; the database rows say what the work is."""

import logging
from math import ceil

from celery import current_app
from django.conf import settings
from django.db import connection
from django.utils import timezone
from kombu.exceptions import OperationalError

from reindex import sql

logger = logging.getLogger(__name__)

#: The name of the task that does one piece of work.
WORK_TASK = "reindex.tasks.work"


def send_when_due() -> None:
    """Sends delayed messages for the jobs whose last message came before they were due."""
    now = timezone.now()
    with connection.cursor() as cursor:
        # The update makes sure that only one of several workers sends each message.
        cursor.execute(sql.MARK_AS_SENT, {"now": now})
        due = [due_at for (due_at,) in cursor.fetchall()]
    for due_at in due:
        send_work((due_at - now).total_seconds())


def send_work(delay: float = 0, *, times: int = 1, expires: float | None = None) -> None:
    """Sends `times` messages, each asking a worker to do one piece of work, after `delay` seconds.
    The message names no piece of work: the worker does the one that `turns` puts first."""
    for _ in range(times):
        send(WORK_TASK, delay=delay, expires=expires)


def send(task: str, *, delay: float = 0, expires: float | None = None) -> None:
    """Sends a message, to be delivered after `delay` seconds."""
    if settings.REALM_QUEUE_KIND == "quorum":
        # RabbitMQ delays it by whole seconds; Celery refuses less than one.
        delay = ceil(delay)
    try:
        current_app.send_task(
            task,
            retry=False,
            countdown=delay or None,
            expires=expires,
        )
    except (OperationalError, OSError) as error:
        # The row is still queued: the sweeper sends the message when the broker is back.
        logger.warning("no message was sent: %s", error)
    except Exception:
        # A broker's client may raise anything, but the caller's change is already committed.
        logger.exception("no message was sent")
