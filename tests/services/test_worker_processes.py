"""Tests that a Celery worker still renders after it has lost child processes or connections."""

import subprocess
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit

import psutil
import pytest
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from realms.models import Realm
from reindex.models import ReindexJob, WantedDefinitions
from tests.services.test_services import PUBLISHED, SOURCE, fleet_behind, rabbitmq, redis
from tests.support.cluster import Cluster, wait_until
from tests.support.minutes import takes_minutes
from tests.support.servers.proxy import proxy

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]

#: The application name of the worker's database connections, set by PGAPPNAME.
WORKER = "a worker under test"


def files(prefix: str) -> Any:
    """Returns a context manager that yields an empty broker URL. With this URL, messages are kept
    in files."""
    return nullcontext("")


@pytest.mark.parametrize(
    "broker",
    [
        files,
        pytest.param(rabbitmq, marks=[pytest.mark.services, takes_minutes]),
        pytest.param(redis, marks=pytest.mark.services),
    ],
)
def test_a_worker_with_killed_idle_processes_renders_the_next_publish(
    broker: Any, source: Realm, tmp_path: Path
) -> None:
    """One of the worker's idle child processes holds the lock of the worker's task queue. If this
    process is killed, the lock may stay locked."""
    # The sweeper, a task that sends lost messages again, doesn't run during the test.
    with fleet_behind(broker, tmp_path, REALM_SWEEP_SECONDS="3600") as running:
        worker = running.start_worker()
        _publish(running)
        for process in _two_processes(worker):
            process.kill()
            psutil.wait_procs([process], 30)
        _publish(running)


def test_a_worker_keeps_its_connections_until_they_are_cut(source: Realm, tmp_path: Path) -> None:
    """If the worker opened a new connection for each job, the job's first queries would be slow."""
    with fleet_behind(files, tmp_path, REALM_SWEEP_SECONDS="3600") as running:
        running.start_worker(PGAPPNAME=WORKER)
        _publish(running)
        wait_until(lambda: not WantedDefinitions.objects.exists(), "all definitions built")
        between = timezone.now()
        _publish(running)
        # A thread that reports the worker to the database has one of these connections. So at least
        # one other connection was kept from the first publish.
        assert _connections("count(*)", before=between) >= 2
        assert _connections("count(pg_terminate_backend(pid))", before=timezone.now()) >= 2
        # The publish sends only one message, and a failed task isn't retried. So this publish is
        # rendered only if the worker replaces its cut connections during the first attempt.
        _publish(running)


@pytest.mark.services
@pytest.mark.parametrize(
    ("broker", "port"), [pytest.param(rabbitmq, 5672, marks=takes_minutes), (redis, 6379)]
)
def test_a_worker_that_lost_its_broker_later_enqueues_unfinished_jobs(
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
            # This publish sends no message for its job, because no broker is at the given URL.
            _owe(running, CELERY_BROKER_URL="amqp://127.0.0.1:1//")
            way.up()

            def done() -> bool:
                # If a worker loses Redis during a task, Celery's library kombu makes the worker
                # exit. Restart the worker, as a supervisor such as systemd does.
                if workers[-1].poll() is not None:
                    workers.append(running.start_worker(CELERY_BROKER_URL=through))
                return not _live().exists()

            wait_until(done, "no live job")


def _owe(running: Cluster, **environment: str) -> None:
    process = running.manage("publish_realm", SOURCE, PUBLISHED, "--no-wait", **environment)
    assert process.wait(60) == 0


def _publish(running: Cluster) -> None:
    _owe(running)
    wait_until(lambda: not _live().exists(), "no live job")


def _connections(what: LiteralString, *, before: datetime) -> int:
    """Evaluates the SQL aggregate `what` over the worker's database connections that are older than
    `before`."""
    statement = f"SELECT {what} FROM pg_stat_activity WHERE application_name = %s"
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} AND backend_start < %s", [WORKER, before])
        return int(cursor.fetchone()[0])


def _live() -> "QuerySet[ReindexJob]":
    return ReindexJob.objects.live().filter(realm_url=PUBLISHED)


def _two_processes(worker: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    started = psutil.Process(worker.pid)
    wait_until(lambda: len(started.children()) == 2, "exactly two child processes")
    return started.children()
