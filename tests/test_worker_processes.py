"""Processes of a Celery worker may be killed, whatever they are doing; the worker goes on."""

import subprocess
import uuid
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from django.db.models import QuerySet

from realms.bootstrap import sync_base_realm
from realms.models import Realm
from reindex.models import ReindexJob
from tests.cluster import Cluster, cluster, wait_until
from tests.proxy import proxy
from tests.test_services import rabbitmq, redis

SOURCE = "http://localhost:4201/ada/site/"
PUBLISHED = "http://ada.localhost:4201/"

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
def test_a_worker_whose_idle_processes_were_killed_renders_what_is_published_next(
    broker: Any, source: Realm, tmp_path: Path
) -> None:
    """One of them was waiting for a task with a hand on what they are given tasks by."""
    prefix = f"realm_test_{uuid.uuid4().hex[:12]}."
    with broker(prefix) as url:
        sync_base_realm()
        environment = {
            "CELERY_BROKER_URL": url,
            "REALM_QUEUE_PREFIX": prefix,
            # Nothing comes meanwhile, and nothing is sent again.
            "REALM_SWEEP_SECONDS": "3600",
        }
        with cluster(tmp_path, 1, **environment) as running:
            running.wait_reported()
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
    prefix = f"realm_test_{uuid.uuid4().hex[:12]}."
    with broker(prefix) as url:
        there = urlsplit(url)
        assert there.hostname is not None
        with proxy((there.hostname, there.port or port)) as way:
            host = f"{way.host}:{way.port}"
            account = there.netloc.rpartition("@")[0]
            through = there._replace(netloc=f"{account}@{host}" if account else host).geturl()
            sync_base_realm()
            environment = {"CELERY_BROKER_URL": url, "REALM_QUEUE_PREFIX": prefix}
            with cluster(tmp_path, 1, **environment) as running:
                running.wait_reported()
                workers = [running.start_worker(CELERY_BROKER_URL=through)]
                _publish(running)
                way.down()
                _owe(running)
                way.up()

                def done() -> bool:
                    # As a supervisor does: kombu has a worker end that loses Redis over a task.
                    if workers[-1].poll() is not None:
                        workers.append(running.start_worker(CELERY_BROKER_URL=through))
                    return not _live().exists()

                wait_until(done, "its pages")


def _owe(running: Cluster) -> None:
    """A job of which no message tells."""
    # The broker is told where nobody listens.
    elsewhere = {"CELERY_BROKER_URL": "amqp://127.0.0.1:1//"}
    process = running.manage("publish_realm", SOURCE, PUBLISHED, "--no-wait", **elsewhere)
    assert process.wait(60) == 0


def _publish(running: Cluster) -> None:
    process = running.manage("publish_realm", SOURCE, PUBLISHED, "--no-wait")
    assert process.wait(60) == 0
    wait_until(lambda: not _live().exists(), "its pages")


def _live() -> "QuerySet[ReindexJob]":
    return ReindexJob.objects.filter(realm_url=PUBLISHED, status__in=ReindexJob.LIVE)


def _two_processes(worker: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    started = psutil.Process(worker.pid)
    wait_until(lambda: len(started.children()) == 2, "two processes, and no other")
    return started.children()
