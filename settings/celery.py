"""The Celery application; its configuration is the `CELERY_*` part of the settings.

Messages only say *look*: what is owed stands in the job rows.
"""

import kombu.transport
from celery import Celery

# kombu's own filesystem transport lets a consumer take a message that is still being written.
kombu.transport.TRANSPORT_ALIASES["filesystem"] = "settings.filesystem_transport:Transport"

app = Celery("realms")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["reindex", "realms"])
