"""The Celery broker: the URL that was given, or files under the data folder."""

from pathlib import Path
from typing import Any

from kombu import Exchange, Queue

#: One queue: a message only wakes a worker, and the rows say what it does: see
#: `reindex/jobs/turns.py`.
QUEUE = "celery"


def celery_queues(prefix: str) -> dict[str, Any]:
    """The settings by which everything on the broker bears a prefix: two installations on one
    broker would take each other's messages."""
    name = prefix + QUEUE
    return {
        "CELERY_TASK_QUEUES": [Queue(name, Exchange(name, type="direct"), routing_key=name)],
        "CELERY_TASK_DEFAULT_QUEUE": name,
        "CELERY_CONTROL_EXCHANGE": f"{prefix}celery",
        "CELERY_EVENT_EXCHANGE": f"{prefix}celeryev",
        "CELERY_EVENT_QUEUE_PREFIX": f"{prefix}celeryev",
    }


def celery_broker(url: str, folder: Path, prefix: str) -> tuple[str, dict[str, Any]]:
    """The broker URL and its transport options. Source: kombu's `transport.filesystem`.

    A lost message costs a delay and nothing else, whatever the broker: the sweeper sends again
    what the job rows say is owed.
    """
    if url:
        # A broker that is away is tried twice and not for seconds: whoever publishes is waiting.
        options = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}
        if prefix and url.startswith(("redis", "sentinel")):
            # What Redis holds besides queues: messages that are not acknowledged yet.
            return url, {**options, "global_keyprefix": prefix}
        return url, options
    messages, control, processed = folder / "messages", folder / "control", folder / "taken"
    for each in (messages, control, processed):
        each.mkdir(parents=True, exist_ok=True)
    return "filesystem://", {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(control),
        # A message is taken by renaming it, which two consumers can't both do; the rename stays
        # within one file system.
        "processed_folder": str(processed),
        "store_processed": False,
        # A look into a folder that is empty most of the time; somebody waits for what it finds.
        "polling_interval": 0.01,
    }
