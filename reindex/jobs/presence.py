"""Which workers there are: the main process of each says every few seconds that it lives.

A thread with a database connection of its own does so, since the worker's loop may never wait for
the database. Nothing depends on the rows but what people see.
"""

import logging
import os
import socket
import threading
import time
from datetime import timedelta

from celery import current_task
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection
from django.db.models.functions import Now
from django.utils import timezone

from reindex.models import Worker

logger = logging.getLogger(__name__)

REPORT_SECONDS = 5.0
#: A worker that hasn't been heard of for this long counts as gone.
HEARD_LATELY = timedelta(seconds=30)
#: The row of a worker that hasn't been heard of for this long is deleted.
FORGOTTEN = timedelta(days=1)
#: While the database is away, the log says so this often.
COMPLAINT_SECONDS = 60.0
#: How long a fork waits at most for a report under way.
FORK_SECONDS = 0.2

#: Held while the thread talks to the database.
_talking = threading.Lock()


def worker_name() -> str:
    """The name of the worker whose task this process runs; empty outside a task."""
    request = getattr(current_task, "request", None)
    return str(getattr(request, "hostname", None) or "")[:200]


class Presence(threading.Thread):
    """Keeps the row of one worker, until `stop`."""

    def __init__(self, name: str, processes: int) -> None:
        super().__init__(name="presence", daemon=True)
        self._worker = Worker(
            name=name[:200],
            host=socket.gethostname(),
            pid=os.getpid(),
            processes=processes,
            started_at=timezone.now(),
        )
        self._stopped = threading.Event()
        self._complained: float | None = None

    def run(self) -> None:
        self.report()
        while not self._stopped.wait(REPORT_SECONDS):
            self.report()
        self._leave()

    def stop(self, seconds: float = 3) -> None:
        """Deletes the row and ends the thread; doesn't wait longer than so many seconds."""
        self._stopped.set()
        self.join(seconds)

    def report(self) -> bool:
        """Writes the row. An error is logged, and returns False."""
        try:
            with _talking:
                close_old_connections()
                # The database's clock: hosts may differ.
                self._worker.heard_at = Now()
                Worker.objects.bulk_create(
                    [self._worker],
                    update_conflicts=True,
                    unique_fields=["name"],
                    update_fields=["host", "pid", "processes", "started_at", "heard_at"],
                )
                Worker.objects.filter(heard_at__lt=Now() - FORGOTTEN).delete()
        except DatabaseError as error:
            self._complain(error)
            return False
        return True

    def _leave(self) -> None:
        """Deletes the row, unless another worker of this name has replaced it."""
        try:
            Worker.objects.filter(
                name=self._worker.name, host=self._worker.host, pid=self._worker.pid
            ).delete()
        except DatabaseError as error:
            self._complain(error)
        finally:
            connection.close()

    def _complain(self, error: Exception) -> None:
        now = time.monotonic()
        if self._complained is None or now - self._complained >= COMPLAINT_SECONDS:
            self._complained = now
            logger.warning("worker %s can't say that it lives: %s", self._worker.name, error)


# The worker replaces a process that ends by a fork. One made while the thread is in the database's
# library could inherit a lock there that nobody opens, so a fork waits a moment for its end.
_held_for_fork: list[bool] = []


def _before_fork() -> None:
    _held_for_fork.append(_talking.acquire(timeout=FORK_SECONDS))


def _after_fork() -> None:
    if _held_for_fork.pop():
        _talking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
