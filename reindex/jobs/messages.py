"""Sends Celery messages. A message only wakes a worker. The worker reads its work from the
database. A piece of work is to plan a job, to render a batch of a job, or to build a module's
definitions."""

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
    """Sends further messages for delayed jobs. If a write to a realm delays a job after the job's
    message was sent, the message is delivered before the job is due. For each such job, this
    function sends another message, to be delivered when the job is due."""
    now = timezone.now()
    with connection.cursor() as cursor:
        # If several workers run this update at the same time, only one of them gets a job's row. So
        # the job's message is sent only once.
        cursor.execute(sql.MARK_AS_SENT, {"now": now})
        due = [due_at for (due_at,) in cursor.fetchall()]
    for due_at in due:
        send_work((due_at - now).total_seconds())


def send_work(delay: float = 0, *, times: int = 1, expires: float | None = None) -> None:
    """Sends `times` messages, to be delivered after `delay` seconds. Each message makes a worker do
    one piece of work, which the module `turns` chooses. For `expires` see `send`."""
    for _ in range(times):
        send(WORK_TASK, delay=delay, expires=expires)


def send(task: str, *, delay: float = 0, expires: float | None = None) -> None:
    """Sends a message, to be delivered after `delay` seconds. Workers ignore the message when
    `expires` seconds have passed."""
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
        # The work is still in the database. The sweeper, a periodic task, sends a new message when
        # the broker is back.
        logger.warning("no message was sent: %s", error)
    except Exception:
        # A broker's client may raise any exception. The caller must not fail, because its change is
        # already committed.
        logger.exception("no message was sent")
