"""Tests the names of an installation's queues, exchanges and routing keys on the message broker."""

from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from pytest_django import Settings

from reindex.jobs import messages
from settings.broker import celery_broker, celery_queues


def test_every_name_on_the_broker_has_the_prefix(tmp_path: Path) -> None:
    """Without the prefix, two installations on one broker would consume each other's messages."""
    told = celery_queues("north.")
    queues = told.pop("CELERY_TASK_QUEUES")
    names = {queue.name for queue in queues} | {queue.exchange.name for queue in queues}
    names |= {queue.routing_key for queue in queues}
    assert names == {"north.celery"}
    assert all(name.startswith("north.") for name in told.values())
    _, options = celery_broker("redis://127.0.0.1/", tmp_path, "north.")
    assert options["global_keyprefix"] == "north."
    assert "global_keyprefix" not in celery_broker("amqp://127.0.0.1/", tmp_path, "north.")[1]


def test_without_a_prefix_the_queue_has_celerys_default_name() -> None:
    assert [queue.name for queue in celery_queues("")["CELERY_TASK_QUEUES"]] == ["celery"]


def test_a_quorum_queue_has_its_own_name_and_takes_delayed_messages() -> None:
    told = celery_queues("north.", "quorum")
    (queue,) = told["CELERY_TASK_QUEUES"]
    assert queue.name == told["CELERY_TASK_DEFAULT_QUEUE"] == "north.celery.quorum"
    assert queue.queue_arguments == {"x-queue-type": "quorum"}
    # RabbitMQ can't hold back a delayed message if the exchange is a direct exchange.
    assert queue.exchange.type == "topic"


def test_a_delay_on_a_quorum_queue_is_rounded_up_to_a_whole_second(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a quorum queue, Celery raises ValueError for a delay below one second."""
    sent: list[Any] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, **told: sent.append(told))
    messages.send_work(0.3)
    settings.REALM_QUEUE_KIND = "quorum"
    messages.send_work(0.3)
    messages.send_work()
    assert [each["countdown"] for each in sent] == [0.3, 1, None]
