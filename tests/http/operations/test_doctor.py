"""Tests that `manage.py doctor` finds each fault of a fleet and says what to do."""

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.core.files.storage import storages
from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone

from notifications.models import Replica
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.models import ReindexJob, Worker
from tests.support import make
from tests.support.web import Web

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


@pytest.fixture
def fleet(web: Web) -> Replica:
    """Installs the card library, and makes the database rows of a worker and of a replica that have
    just reported. The replica's address is that of the test's server. Returns the replica."""
    sync_base_realm()
    now = timezone.now()
    Worker.objects.create(
        name="w@host", host="host", pid=1, processes=2, started_at=now, heard_at=now
    )
    return Replica.objects.create(
        name="web-1", address=f"http://127.0.0.1:{web.port}", state="live", sidecar_pid=1,
        watermark_at=now, reported_at=now,
    )  # fmt: skip


def findings() -> dict[str, list[dict[str, str]]]:
    """Runs `manage.py doctor` and returns its findings by subject."""
    out = StringIO()
    try:
        call_command("doctor", "--json", stdout=out)
    except SystemExit as ended:
        assert ended.code == 1
    found: dict[str, list[dict[str, str]]] = {}
    for each in json.loads(out.getvalue()):
        found.setdefault(each["about"], []).append(each)
    return found


def wrong(about: str) -> str:
    """Returns one text with the problems of a subject, and with what to do about them."""
    return " ".join(
        f"{each['says']} {each['todo']}"
        for each in findings()[about]
        if each["severity"] == "problem"
    )


def test_a_healthy_fleet_has_no_problems(fleet: Replica) -> None:
    found = findings()
    problems = [each for all_ in found.values() for each in all_ if each["severity"] == "problem"]
    assert problems == []
    # The doctor checks the database's clock and the replica's clock.
    assert [each["severity"] for each in found["clocks"]] == ["fine", "fine"]
    assert set(found) == {
        "settings", "board", "renderer", "disk", "broker", "database", "clocks", "migrations",
        "listening", "storage", "replicas", "workers", "work",
    }  # fmt: skip
    out = StringIO()
    call_command("doctor", stdout=out)
    assert out.getvalue().endswith("Nothing is wrong.\n")


def test_a_silent_or_unreachable_replica_is_found(fleet: Replica) -> None:
    fleet.reported_at = timezone.now() - timedelta(minutes=5)
    fleet.address = "http://127.0.0.1:1"
    fleet.save()
    said = wrong("replicas")
    assert "web-1 has not reported for 5 min" in said
    assert "Restart listen_file_changes on web-1" in said
    assert "this host can't reach web-1" in said
    assert "correct REALM_REPLICA_ADDRESS on web-1" in said


def test_a_replica_without_the_card_library_is_not_ready(web: Web, fleet: Replica) -> None:
    Realm.objects.all().delete()
    assert "the card library is not installed run manage.py migrate" in wrong("migrations")
    assert "web-1 is not ready: the card library is not installed" in wrong("replicas")


def test_a_broker_that_is_away_is_found(fleet: Replica) -> None:
    conf: Any = current_app.conf
    before = conf.broker_url, conf.broker_transport_options
    conf.broker_url, conf.broker_transport_options = "amqp://127.0.0.1:1//", {}
    try:
        with override_settings(CELERY_BROKER_URL="amqp://user:secret@127.0.0.1:1//"):
            said = wrong("broker")
    finally:
        conf.broker_url, conf.broker_transport_options = before
    assert "127.0.0.1 does not answer" in said
    assert "secret" not in said


def test_a_storage_that_cannot_be_written_is_found(
    fleet: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(storages["blobs"], "location", str(tmp_path / "file"), raising=False)
    assert "Let this host read and write REALM_BLOB_STORAGE" in wrong("storage")


def test_a_fleet_without_a_running_worker_is_found(fleet: Replica) -> None:
    Worker.objects.update(heard_at=timezone.now() - timedelta(minutes=1))
    assert "no worker is running Start a worker" in wrong("workers")


def test_work_that_waits_for_a_worker_is_found(fleet: Replica, source: Any) -> None:
    make.publish(source, "http://ada.localhost:4201/")
    long_ago = timezone.now() - timedelta(minutes=3)
    ReindexJob.objects.filter(status="queued").update(created_at=long_ago)
    assert "a job has waited for 3 min for a worker Start Celery workers" in wrong("work")


def test_a_wrong_listen_url_is_found(fleet: Replica) -> None:
    with override_settings(LISTEN_DATABASE_URL="postgresql://127.0.0.1:1/nothing"):
        assert "LISTEN does not work" in wrong("listening")
