"""Processes of a Celery worker may be killed, whatever they are doing; the worker goes on."""

import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from django.db.models import QuerySet

from realms.models import Realm
from reindex.models import ReindexJob
from tests.services.test_services import PUBLISHED, SOURCE, fleet_behind, rabbitmq, redis
from tests.support.cluster import Cluster, wait_until
from tests.support.proxy import proxy

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


def files(prefix: str) -> Any:
    """The broker that needs nothing."""
    return nullcontext("")


@pytest.mark.parametrize(
    "broker",
    [
        files,
        pytest.param(rabbitmq, marks=pytest.mark.services),
        pytest.param(redis, marks=pytest.mark.services),
    ],
)
def test_a_worker_with_killed_idle_processes_renders_the_next_publish(
    broker: Any, source: Realm, tmp_path: Path
) -> None:
    """One of them was waiting for a task with a hand on what they are given tasks by."""
    # Nothing comes meanwhile, and nothing is sent again.
    with fleet_behind(broker, tmp_path, REALM_SWEEP_SECONDS="3600") as running:
        worker = running.start_worker()
        _publish(running)
        for process in _two_processes(worker):
            process.kill()
            psutil.wait_procs([process], 30)
        _publish(running)


@pytest.mark.services
@pytest.mark.parametrize(("broker", "port"), [(rabbitmq, 5672), (redis, 6379)])
def test_a_worker_that_had_lost_its_broker_sends_again_what_is_owed(
    broker: Any, port: int, source: Realm, tmp_path: Path
) -> None:
    with fleet_behind(broker, tmp_path) as running:
        there = urlsplit(running.environment["CELERY_BROKER_URL"])
        assert there.hostname is not None
        with proxy((there.hostname, there.port or port)) as way:
            account, at, _ = there.netloc.rpartition("@")
            through = there._replace(netloc=f"{account}{at}{way.host}:{way.port}").geturl()
            workers = [running.start_worker(CELERY_BROKER_URL=through)]
            _publish(running)
            way.down()
            # No message tells of this one: its broker is where nobody listens.
            _owe(running, CELERY_BROKER_URL="amqp://127.0.0.1:1//")
            way.up()

            def done() -> bool:
                # As a supervisor does: kombu has a worker end that loses Redis over a task.
                if workers[-1].poll() is not None:
                    workers.append(running.start_worker(CELERY_BROKER_URL=through))
                return not _live().exists()

            wait_until(done, "its pages")


def _owe(running: Cluster, **environment: str) -> None:
    process = running.manage("publish_realm", SOURCE, PUBLISHED, "--no-wait", **environment)
    assert process.wait(60) == 0


def _publish(running: Cluster) -> None:
    _owe(running)
    wait_until(lambda: not _live().exists(), "its pages")


def _live() -> "QuerySet[ReindexJob]":
    return ReindexJob.objects.live().filter(realm_url=PUBLISHED)


def _two_processes(worker: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    started = psutil.Process(worker.pid)
    wait_until(lambda: len(started.children()) == 2, "two processes, and no other")
    return started.children()
