"""Records which Celery workers are alive. Each worker's main process regularly updates the worker's
row in the database.

A thread with its own database connection writes the row, because the worker's event loop must never
wait for the database. The rows are only shown to operators; no worker depends on them.
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
#: A worker that hasn't reported for this long counts as gone.
HEARD_LATELY = timedelta(seconds=30)
#: The row of a worker that hasn't reported for this long is deleted.
FORGOTTEN = timedelta(days=1)
#: The minimum time between two warnings while the database is unreachable.
COMPLAINT_SECONDS = 60.0
#: The maximum time that a fork waits until the presence thread has written its report.
FORK_SECONDS = 0.2

#: The presence thread holds this lock while it writes a report to the database.
_talking = threading.Lock()


def worker_name() -> str:
    """Returns the name of the Celery worker that runs the current task. Outside a task, returns an
    empty string."""
    request = getattr(current_task, "request", None)
    return str(getattr(request, "hostname", None) or "")[:200]


class Presence(threading.Thread):
    """Writes a worker's row to the database every REPORT_SECONDS, until `stop` is called."""

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
        """Stops the thread. Before the thread ends, it deletes the worker's row. Waits at most
        `seconds` for the end of the thread."""
        self._stopped.set()
        self.join(seconds)

    def report(self) -> bool:
        """Writes the worker's row to the database, and deletes the rows of workers that haven't
        reported for the time FORGOTTEN. Returns False if the database fails."""
        try:
            with _talking:
                close_old_connections()
                # The time comes from the database, because the clocks of hosts may differ.
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
        """Deletes the worker's row, unless another worker with the same name has replaced the
        row."""
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
            logger.warning("worker %s can't report that it is alive: %s", self._worker.name, error)


# When a process of a worker ends, Celery forks a new one. If the presence thread is running code of
# the database library during the fork, the new process may inherit a lock that nothing releases. So
# each fork first waits, for at most FORK_SECONDS, until the thread releases `_talking`.

#: For each fork under way, whether `_before_fork` got the lock `_talking`.
_held_for_fork: list[bool] = []


def _before_fork() -> None:
    _held_for_fork.append(_talking.acquire(timeout=FORK_SECONDS))


def _after_fork() -> None:
    if _held_for_fork.pop():
        _talking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
