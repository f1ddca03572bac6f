"""The Celery application. The settings that begin with `CELERY_` configure it.

A Celery message only wakes a worker, which reads its work from the database.
"""

import os
from typing import Any

import kombu.transport
from celery import Celery, beat, bootsteps, signals

# With kombu's own transport for `filesystem://`, a consumer can take a half-written message.
kombu.transport.TRANSPORT_ALIASES["filesystem"] = "settings.filesystem_transport:Transport"

# The command `celery -A settings.celery:app` does not run manage.py, which also sets this variable.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

app = Celery("realms")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["reindex", "realms"])


#: The minimum time between two calls of the scheduler. A scheduled message is late by at most this
#: time, unless the worker's event loop is busy.
TICK_SECONDS = 0.1


class _Scheduler(beat.Scheduler):
    """A Celery scheduler that sends its messages over the pooled connections of `app`, because
    `producer` is None. Celery's scheduler would open a connection of its own. While the broker is
    unreachable, the attempts to open that connection would block the worker's event loop."""

    producer = None  # type: ignore[assignment]


class Beat(bootsteps.StartStopStep):
    """Sends the scheduled messages from the event loop of every worker. It does no harm that
    several workers send the same message, because the message's task may run several times.

    Celery's option `--beat` isn't used, because it sends the messages from a separate process. If
    that process dies, Celery doesn't restart it, and no scheduled messages are sent any more."""

    requires = ("celery.worker.components:Timer",)

    def start(self, worker: Any) -> None:
        """Starts a timer that sends the scheduled messages. The timer runs until the worker
        ends."""
        self._scheduler = _Scheduler(worker.app)
        self._tick(worker.timer)

    def _tick(self, timer: Any) -> None:
        # In the last 10 ms before a message is due, `tick` returns a delay of 0 or less. The event
        # loop would then fire this timer again and again, and after ten timers in a row, the loop
        # waits for up to a second. So the delay is at least TICK_SECONDS.
        timer.call_after(max(self._scheduler.tick(), TICK_SECONDS), self._tick, (timer,))


class Presence(bootsteps.StartStopStep):
    """Reports in the database that the worker is alive. A separate thread writes the reports, so
    the worker's event loop never waits for the database."""

    # This step starts after the pool, so the thread doesn't exist yet when the pool forks the first
    # worker processes. Each later fork waits while the thread writes (`reindex/jobs/presence.py`).
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Starts the thread that reports that the worker is alive. The thread stops after the
        worker has ended its last task."""
        from reindex.jobs.presence import Presence as Reporting  # the import needs the models

        reporting = Reporting(worker.hostname, worker.concurrency)
        signals.worker_shutdown.connect(lambda **_: reporting.stop(), weak=False)
        reporting.start()


@signals.task_prerun.connect
def check_connection(task: Any, **_: object) -> None:
    """Calls `close_old_connections` before a task, as Django does before a request. The call closes
    each database connection that an error has broken. It also makes Django check the other
    connections before their next use. CELERY_DB_REUSE_MAX says for how many tasks a worker process
    keeps a connection."""
    from django.db import close_old_connections  # the import needs the settings

    # An eager task runs in its caller's process and transaction, so the connection must stay open.
    if not task.request.is_eager:
        close_old_connections()


@signals.worker_process_shutdown.connect
def _send_spans(**_: Any) -> None:
    from notifications.tracing import spans  # the import needs the settings

    spans.flush()


app.steps["worker"].add(Beat)
app.steps["worker"].add(Presence)
