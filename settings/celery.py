"""The Celery application. Its messages only say *look*: what is owed stands in the job rows."""

import os

import kombu.transport
from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

# kombu's own filesystem transport lets a consumer take a message that is still being written.
kombu.transport.TRANSPORT_ALIASES["filesystem"] = "settings.filesystem_transport:Transport"

app = Celery("realms")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    # A broker that is away must not hold up a publish: the sweeper sends later.
    broker_transport_options={
        **app.conf.broker_transport_options,
        "max_retries": 1,
        "interval_start": 0,
        "interval_max": 0.2,
    },
)
app.conf.beat_schedule = {
    "sweep": {
        "task": "reindex.tasks.sweep",
        "schedule": settings.REALM_SWEEP_SECONDS,
        "options": {"expires": settings.REALM_SWEEP_SECONDS},
    }
}
app.autodiscover_tasks(["reindex"])
