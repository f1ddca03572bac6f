"""The Celery application; its configuration is the `CELERY_*` part of the settings.

Messages only say *look*: what is owed stands in the job rows.
"""

import os
from typing import Any

import kombu.transport
from celery import Celery, beat, bootsteps

# kombu's own filesystem transport lets a consumer take a message that is still being written.
kombu.transport.TRANSPORT_ALIASES["filesystem"] = "settings.filesystem_transport:Transport"

# `celery -A settings.celery:app` is not `manage.py`: nothing else names the settings.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

app = Celery("realms")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["reindex", "realms"])


#: What is due is sent by so much too late at most.
TICK_SECONDS = 0.1


class _Scheduler(beat.Scheduler):
    """Celery's own, sending over the worker's connections: one of its own would be waited for."""

    producer = None  # type: ignore[assignment]


class Beat(bootsteps.StartStopStep):
    """What is due at a time is sent by every worker, in its own loop. `--beat` is a process beside
    it, and Celery starts no other when that has ended: then nothing that was lost is sent again."""

    requires = ("celery.worker.components:Timer",)

    def start(self, worker: Any) -> None:
        """Begins to send; ends with the worker."""
        self._scheduler = _Scheduler(worker.app)
        self._tick(worker.timer)

    def _tick(self, timer: Any) -> None:
        # The scheduler wants to be asked again at once; ten timers that are due in a row make the
        # loop sleep for a second.
        timer.call_after(max(self._scheduler.tick(), TICK_SECONDS), self._tick, (timer,))


app.steps["worker"].add(Beat)
