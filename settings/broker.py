"""Makes the settings of the Celery broker, which brings messages to workers. If CELERY_BROKER_URL
is empty, the broker is a folder of files."""

from pathlib import Path
from typing import Any

from kombu import Exchange, Queue

#: The name of the only queue, without prefix. A message only wakes a worker. The worker then gets
#: its work from the database (`reindex/jobs/turns.py`).
QUEUE = "celery"


def celery_queues(prefix: str, kind: str = "classic") -> dict[str, Any]:
    """Returns Celery settings that make every name on the broker begin with `prefix`. Without
    different prefixes, two installations on one broker would take each other's messages.

    If `kind` is "quorum", the queue is a quorum queue of RabbitMQ. The quorum queue has another
    name than the classic queue, because the kind of an existing queue can't change.
    """
    name, exchange_type, arguments = prefix + QUEUE, "direct", None
    if kind == "quorum":
        # With a topic exchange, RabbitMQ holds a delayed message until the message is due. With a
        # direct exchange, a worker would hold the message and take no other message meanwhile.
        name, exchange_type = f"{name}.quorum", "topic"
        arguments = {"x-queue-type": "quorum"}
    queue = Queue(
        name, Exchange(name, type=exchange_type), routing_key=name, queue_arguments=arguments
    )
    return {
        "CELERY_TASK_QUEUES": [queue],
        "CELERY_TASK_DEFAULT_QUEUE": name,
        "CELERY_CONTROL_EXCHANGE": f"{prefix}celery",
        "CELERY_EVENT_EXCHANGE": f"{prefix}celeryev",
        "CELERY_EVENT_QUEUE_PREFIX": f"{prefix}celeryev",
    }


def celery_broker(url: str, folder: Path, prefix: str) -> tuple[str, dict[str, Any]]:
    """Returns the broker's URL and its transport options. If `url` is empty, the broker is in
    `folder`, and the options are those of the module `kombu.transport.filesystem`.

    With any broker, a lost message costs only a delay. The sweeper, a task that workers run every
    REALM_SWEEP_SECONDS, sends new messages for work that still waits in the database.
    """
    if url:
        # If the broker is unreachable, Celery retries only once and soon, because the request that
        # publishes a realm waits until Celery has sent the message or given up.
        options = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}
        if prefix and url.startswith(("redis", "sentinel")):
            # On Redis, unacknowledged messages are stored outside the queue. Their keys need the
            # prefix, too.
            return url, {**options, "global_keyprefix": prefix}
        return url, options
    messages, control, processed = folder / "messages", folder / "control", folder / "taken"
    # The transport creates these folders when it is first used.
    return "filesystem://", {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(control),
        # A worker takes a message by moving its file to this folder. If two workers try to take the
        # same message, only one succeeds, because a move within one file system is atomic.
        "processed_folder": str(processed),
        "store_processed": False,
        # A worker looks for messages every 0.01 s. The interval is short, because authors wait for
        # the work. Listing a mostly empty folder is cheap.
        "polling_interval": 0.01,
    }
