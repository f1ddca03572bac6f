"""Sends Celery messages. A message only wakes a worker; the worker reads its work from the
database."""

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
    """Sends a delayed message for each job that isn't due yet, if the job's last message has
    already been delivered."""
    now = timezone.now()
    with connection.cursor() as cursor:
        # The update makes sure that only one of several workers sends each message.
        cursor.execute(sql.MARK_AS_SENT, {"now": now})
        due = [due_at for (due_at,) in cursor.fetchall()]
    for due_at in due:
        send_work((due_at - now).total_seconds())


def send_work(delay: float = 0, *, times: int = 1, expires: float | None = None) -> None:
    """Sends `times` messages, to be delivered after `delay` seconds. Each message makes a worker do
    one piece of work, which `turns` chooses."""
    for _ in range(times):
        send(WORK_TASK, delay=delay, expires=expires)


def send(task: str, *, delay: float = 0, expires: float | None = None) -> None:
    """Sends a message, to be delivered after `delay` seconds."""
    if settings.REALM_QUEUE_KIND == "quorum":
        # RabbitMQ delays messages by whole seconds, and Celery refuses a delay of less than one
        # second.
        delay = ceil(delay)
    try:
        current_app.send_task(
            task,
            retry=False,
            countdown=delay or None,
            expires=expires,
        )
    except (OperationalError, OSError) as error:
        # The work is still in the database. The sweeper sends a message when the broker is back.
        logger.warning("no message was sent: %s", error)
    except Exception:
        # A broker's client may raise any exception, but the caller's change is already committed.
        logger.exception("no message was sent")
