"""The Celery broker: the URL that was given, or files under the data folder."""

from pathlib import Path
from typing import Any


def celery_broker(url: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """The broker URL and its transport options. Source: kombu's `transport.filesystem`.

    A lost message costs a delay and nothing else, whatever the broker: the sweeper sends again
    what the job rows say is owed.
    """
    if url:
        # A broker that is away is tried twice and not for seconds: whoever publishes is waiting.
        return url, {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}
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
        "polling_interval": 0.05,
    }
