"""Celery messages. A message says that there is work; the rows say which."""

import logging
from typing import LiteralString

from celery import current_app
from django.db import connection
from django.utils import timezone
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)

#: The name of the task that does one piece of work.
WORK_TASK = "reindex.tasks.work"

_MARK_AS_SENT: LiteralString = """
UPDATE reindex_reindexjob SET sent_at = due_at
WHERE status = 'queued' AND started_at IS NULL AND due_at > %(now)s AND sent_at <= %(now)s
RETURNING due_at
"""


def send_when_due() -> None:
    """Sends the messages of jobs that were not due when their last message came."""
    now = timezone.now()
    with connection.cursor() as cursor:
        # Of several workers one sends it.
        cursor.execute(_MARK_AS_SENT, {"now": now})
        due = [due_at for (due_at,) in cursor.fetchall()]
    for due_at in due:
        send_work((due_at - now).total_seconds())


def send_work(delay: float = 0, *, times: int = 1, expires: float | None = None) -> None:
    """Tells workers that a piece of work is owed, now or after some seconds. The message doesn't
    say which: who takes it does the piece whose owner has waited longest for a turn (`turns`)."""
    for _ in range(times):
        send(WORK_TASK, delay=delay, expires=expires)


def send(task: str, *, delay: float = 0, expires: float | None = None) -> None:
    """Sends a message."""
    try:
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
