"""The Celery application; its configuration is the `CELERY_*` part of the settings.

Messages only wake workers: the job rows have the pending work.
"""

import os
from typing import Any

import kombu.transport
from celery import Celery, beat, bootsteps, signals

# With kombu's own filesystem transport a consumer can take a half-written message.
kombu.transport.TRANSPORT_ALIASES["filesystem"] = "settings.filesystem_transport:Transport"

# The command `celery -A settings.celery:app` does not run manage.py, which also sets this variable.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

app = Celery("realms")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["reindex", "realms"])


#: A scheduled message is sent late by at most this time, unless the worker is busy.
TICK_SECONDS = 0.1


class _Scheduler(beat.Scheduler):
    """Celery's scheduler, but it sends over the worker's connections, because opening a connection
    would block the worker's loop."""

    producer = None  # type: ignore[assignment]


class Beat(bootsteps.StartStopStep):
    """Sends the scheduled messages from the worker's own loop, in every worker. With `--beat`, a
    separate process would send them. Celery does not restart this process, so after its end lost
    messages would never be sent again."""

    requires = ("celery.worker.components:Timer",)

    def start(self, worker: Any) -> None:
        """Starts sending scheduled messages until the worker ends."""
        self._scheduler = _Scheduler(worker.app)
        self._tick(worker.timer)

    def _tick(self, timer: Any) -> None:
        # tick() may return 0, but this timer must never be due at once: after ten such timers, the
        # loop sleeps for a second.
        timer.call_after(max(self._scheduler.tick(), TICK_SECONDS), self._tick, (timer,))


class Presence(bootsteps.StartStopStep):
    """Reports in the database that the worker is alive, from a thread beside the worker's loop."""

    # The pool forks the first worker processes before the thread starts.
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Starts the reports, which go on until the worker has ended its last task."""
        from reindex.jobs.presence import Presence as Reporting  # needs the models

        reporting = Reporting(worker.hostname, worker.concurrency)
        signals.worker_shutdown.connect(lambda **_: reporting.stop(), weak=False)
        reporting.start()


@signals.task_prerun.connect
def check_connection(task: Any, **_: object) -> None:
    """Before a task, closes broken database connections, and makes the next query check the others,
    as Django does before a request. CELERY_DB_REUSE_MAX says for how many tasks a connection is
    kept."""
    from django.db import close_old_connections  # needs the settings

    # An eager task runs in its caller's transaction, so the connection must stay open.
    if not task.request.is_eager:
        close_old_connections()


@signals.worker_process_shutdown.connect
def _send_spans(**_: Any) -> None:
    from notifications.tracing import spans  # needs the settings

    spans.flush()


app.steps["worker"].add(Beat)
app.steps["worker"].add(Presence)
