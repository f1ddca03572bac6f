"""Tests the rows of live workers in the database, and the worker's name in each lease."""

import logging
import os
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.db import OperationalError
from django.utils import timezone

from realms.models import Realm
from reindex.jobs import leases, lifecycle, presence, wanted
from reindex.jobs.presence import Presence, worker_name
from reindex.models import ReindexJob, WantedDefinitions, Worker
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, in_thread

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "w@host"


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes it appear that this process runs a task of the Celery worker `w@host`."""

    class Task:
        class request:
            hostname = NAME

    monkeypatch.setattr(presence, "current_task", Task)


def test_a_worker_reports_until_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "REPORT_SECONDS", 0.01)
    reporting = Presence(NAME, 3)
    reporting.start()
    wait_until(lambda: Worker.objects.exists(), "a row", PATIENCE)
    first = Worker.objects.get()
    assert (first.name, first.pid, first.processes) == (NAME, os.getpid(), 3)
    wait_until(lambda: Worker.objects.get().heard_at > first.heard_at, "another", PATIENCE)
    assert Worker.objects.get().started_at == first.started_at
    reporting.stop(PATIENCE)
    assert not Worker.objects.exists()


def test_a_worker_that_stops_keeps_the_row_of_its_successor() -> None:
    stopping = Presence(NAME, 1)
    stopping.report()
    Worker.objects.update(pid=os.getpid() + 1)
    stopping._leave()
    assert Worker.objects.count() == 1


def test_a_worker_that_is_silent_for_a_day_is_forgotten() -> None:
    now = timezone.now()
    for name, hours in (("killed", 25), ("silent", 23)):
        Worker.objects.create(
            name=name, host="h", pid=1, processes=1, started_at=now,
            heard_at=now - timedelta(hours=hours),
        )  # fmt: skip
    Presence(NAME, 1).report()
    assert set(Worker.objects.values_list("name", flat=True)) == {"silent", NAME}


def test_a_database_that_is_away_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("it is away")

    monkeypatch.setattr(presence, "close_old_connections", away)
    reporting = Presence(NAME, 1)
    with caplog.at_level(logging.WARNING):
        assert [reporting.report() for _ in range(3)] == [False] * 3
        assert caplog.text.count("it is away") == 1
        monkeypatch.setattr(presence, "COMPLAINT_SECONDS", 0)
        reporting.report()
        assert caplog.text.count("it is away") == 2
    monkeypatch.undo()
    assert reporting.report()


def test_a_fork_waits_briefly_for_a_running_report() -> None:
    with presence._talking:
        presence._before_fork()
        presence._after_fork()
        assert presence._talking.locked(), "`_after_fork` must not release the report's lock"
    presence._before_fork()
    assert presence._talking.locked()
    presence._after_fork()
    assert not presence._talking.locked()


@pytest.mark.usefixtures("at_work")
def test_each_lease_names_its_worker(sent: Any, source: Realm) -> None:
    ReindexJob.objects.create(realm_url=source.url, generation=1)
    job = lifecycle.lease_job(ReindexJob.objects.get().pk)
    assert job is not None
    assert ReindexJob.objects.get().worker == NAME
    plan = lifecycle.Plan([f"{number}.json" for number in range(600)], {source.url: 1})
    first, *_ = lifecycle.create_batches(job, plan, lease_first=True)
    assert [each.worker for each in job.batches.order_by("pk")][:2] == [NAME, ""]
    WantedDefinitions.objects.create(module_url="m", due_at=timezone.now())
    wanted.lease_definitions("m")
    assert WantedDefinitions.objects.get().worker == NAME
    leases.postpone(first, "later")
    first.refresh_from_db()
    assert first.lease_until is not None
    assert first.worker == "", "a postponed batch has no worker"


def test_a_row_of_the_previous_release_has_an_empty_worker() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO reindex_wanteddefinitions (module_url, owner, due_at, attempts)"
            " VALUES ('m', '', now(), 0)"
        )
    assert WantedDefinitions.objects.get().worker == ""


def test_a_task_knows_the_name_of_its_worker() -> None:
    told: list[str] = []

    @current_app.task(name="tests.tell", ignore_result=True)
    def tell() -> None:
        told.append(worker_name())

    try:
        assert worker_name() == ""
        tell()
        in_thread(tell.apply).result(PATIENCE)
    finally:
        current_app.tasks.pop("tests.tell")
    assert told[0] == ""
    assert told[1] != "", "a task that Celery runs knows its worker"
