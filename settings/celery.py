"""The Celery application; its configuration is the `CELERY_*` part of the settings.

Messages only wake workers: the job rows have the pending work.
"""

import os
from typing import Any

import kombu.transport
from celery import Celery, beat, bootsteps, signals

# With kombu's own filesystem transport a consumer can take a half-written message.
kombu.transport.TRANSPORT_ALIASES["filesystem"] = "settings.filesystem_transport:Transport"

# `celery -A settings.celery:app` does not go through manage.py, which sets this.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

app = Celery("realms")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["reindex", "realms"])


#: A scheduled message is sent late by at most this time, unless the worker is busy.
TICK_SECONDS = 0.1


class _Scheduler(beat.Scheduler):
    """Celery's scheduler, but it uses the worker's connections: opening its own would block."""

    producer = None  # type: ignore[assignment]


class Beat(bootsteps.StartStopStep):
    """Every worker sends the scheduled messages from its own loop. `--beat` would be one separate
    process that Celery does not restart: after its end, lost messages would never be sent again."""

    requires = ("celery.worker.components:Timer",)

    def start(self, worker: Any) -> None:
        """Starts sending scheduled messages until the worker ends."""
        self._scheduler = _Scheduler(worker.app)
        self._tick(worker.timer)

    def _tick(self, timer: Any) -> None:
        # tick() may return 0. Never pass that on: after ten timers that are due at once the loop
        # sleeps for a second.
        timer.call_after(max(self._scheduler.tick(), TICK_SECONDS), self._tick, (timer,))


class Presence(bootsteps.StartStopStep):
    """The worker says in the database that it lives, from a thread beside the loop."""

    # The first processes are forked before the thread starts.
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Starts saying so, until the worker has ended its last task."""
        from reindex.jobs.presence import Presence as Reporting  # needs the models

        reporting = Reporting(worker.hostname, worker.concurrency)
        signals.worker_shutdown.connect(lambda **_: reporting.stop(), weak=False)
        reporting.start()


@signals.task_prerun.connect
def check_connection(task: Any, **_: object) -> None:
    """Closes a kept database connection that is broken, and has the next query check the others, as
    Django does before a request. For how long a connection is kept: CELERY_DB_REUSE_MAX."""
    from django.db import close_old_connections  # needs the settings

    # A task that is called and not sent runs in its caller's transaction.
    if not task.request.is_eager:
        close_old_connections()


@signals.worker_process_shutdown.connect
def _send_spans(**_: Any) -> None:
    from notifications.tracing import spans  # needs the settings

    spans.flush()


app.steps["worker"].add(Beat)
app.steps["worker"].add(Presence)
