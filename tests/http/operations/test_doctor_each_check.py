"""Tests that each check of `manage.py doctor` finds a fault and gives it the right severity."""

import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core import checks
from django.core.checks import Error, Warning
from django.core.files.base import File
from django.core.files.storage import storages
from django.db import OperationalError, connection
from django.test import override_settings
from django.utils import timezone

from notifications.models import Replica
from realms.coherence import doctor
from realms.coherence.conditions import WAITS_FOR_WORKER, Severity
from realms.coherence.doctor import Finding
from realms.models import Blob, Realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.web import Web, vouch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

FINE, WARNING, PROBLEM = Severity.FINE, Severity.WARNING, Severity.PROBLEM


def only(check: Callable[[], Iterator[Finding]]) -> Finding:
    """Returns the single finding of a check."""
    (found,) = check()
    return found


def test_unsafe_settings_are_warnings_and_wrong_settings_are_problems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = [
        Warning("unsafe", hint="change it", id="realms.001"),
        Error("wrong", id="realms.004"),
        Error("somebody else's", id="security.W001"),
    ]
    monkeypatch.setattr(checks, "run_checks", lambda **_: told)
    assert list(doctor._settings()) == [
        Finding("settings", WARNING, "unsafe", "change it"),
        Finding("settings", PROBLEM, "wrong", ""),
    ]
    monkeypatch.setattr(checks, "run_checks", lambda **_: told[2:])
    assert only(doctor._settings).severity is FINE


def test_a_stale_board_is_a_warning_and_an_unusable_board_a_problem(
    web: Web, tmp_path: Path
) -> None:
    with override_settings(REALM_BOARD=tmp_path / "board"):
        found = only(doctor._board)
        assert (found.severity, "is not live" in found.says) == (WARNING, True)
    vouch()
    assert only(doctor._board).severity is FINE
    (tmp_path / "file").write_text("")
    with override_settings(REALM_BOARD=tmp_path / "file" / "board"):
        found = only(doctor._board)
        assert (found.severity, found.about) == (PROBLEM, "board")
        assert "REALM_BOARD" in found.todo


def test_missing_npm_packages_are_a_problem(tmp_path: Path) -> None:
    assert only(doctor._deno).severity is FINE
    code = tmp_path / "reindex" / "deno"
    code.mkdir(parents=True)
    shutil.copy(Path(settings.TYPESCRIPT_DIR) / "reindex/deno/import_map.json", code)
    with override_settings(TYPESCRIPT_DIR=tmp_path):
        found = only(doctor._deno)
    assert (found.severity, found.about) == (PROBLEM, "renderer")
    assert "preact" in found.says


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    for free, severity in ((1024**3, FINE), (1024**3 - 1, PROBLEM)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(free))
        assert only(doctor._disk).severity is severity


def test_a_clock_may_differ_by_two_seconds() -> None:
    (near,), (far,) = doctor._clock("it", 2.0), doctor._clock("it", 2.1)
    assert (near.severity, far.severity) == (FINE, WARNING)
    assert "by 2.1 s" in far.says


def test_without_a_database_checks_that_need_it_are_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away() -> Any:
        raise OperationalError("connection refused\nmore")

    monkeypatch.setattr(connection, "cursor", away)
    found = [each for each in doctor.examine() if each.about != "settings"]
    assert {each.about for each in found} == {"board", "renderer", "disk", "broker", "database"}
    (database,) = [each for each in found if each.about == "database"]
    assert database.severity is PROBLEM
    assert database.says == "no answer: connection refused"


def test_a_check_that_raises_an_error_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Iterator[Finding]:
        if settings.REALM_BOARD:
            raise RuntimeError("a bug\nsecond line")
        yield from ()

    monkeypatch.setattr(doctor, "_disk", broken)
    found = {each.about: each for each in doctor.examine()}
    assert found["disk"].severity is PROBLEM
    assert found["disk"].says == "could not be checked: RuntimeError: a bug"
    assert "work" in found


def test_a_standby_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Standby:
        def __enter__(self) -> "Standby":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def execute(self, _: str) -> None:
            pass

        def fetchone(self) -> tuple[str, bool, Any]:
            return "17", True, timezone.now() - timedelta(seconds=60)

    monkeypatch.setattr(connection, "cursor", Standby)
    standby, answers, clock = doctor._database()
    assert (standby.severity, answers.severity, clock.severity) == (PROBLEM, FINE, WARNING)
    assert "a standby server" in standby.says


def test_content_that_this_hosts_storage_lacks_is_a_problem(tmp_path: Path) -> None:
    assert only(doctor._storage).severity is FINE
    Blob.objects.create(sha256="0" * 64, size=70_000, data=None)
    found = only(doctor._storage)
    assert found.severity is PROBLEM
    assert found.says == "this host does not find content that another host wrote"


def test_a_storage_that_returns_other_bytes_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    storage: Any = storages["blobs"]
    first = storage.save("first", File(BytesIO(b"other")))
    monkeypatch.setattr(storage, "save", lambda *_: first)
    assert only(doctor._storage).severity is PROBLEM
    assert not storage.exists(first), "the check has left its file behind"


def test_no_replica_or_an_unexpected_answer_is_a_problem(web: Web) -> None:
    found = only(doctor._replicas)
    assert (found.severity, found.says) == (PROBLEM, "no sidecar has reported for a day")
    now = timezone.now()
    address = f"http://127.0.0.1:{web.port}/_nothing"
    replica = Replica(name="web-1", address=address, reported_at=now, state="live", sidecar_pid=1)
    told = list(doctor._reachable(replica))
    assert (told[0].severity, told[0].says) == (PROBLEM, f"{address} answered 404")
    assert "REALM_REPLICA_ADDRESS on web-1" in told[0].todo
    replica.reported_at = now - timedelta(days=1, seconds=5)
    replica.save()
    assert only(doctor._replicas).says == "no sidecar has reported for a day"


def test_failed_work_is_a_warning_beside_waiting_work(source: Realm) -> None:
    assert only(doctor._work).severity is FINE
    make.publish(source, "http://ada.localhost:4201/")
    jobs = ReindexJob.objects.filter(status="queued")
    jobs.update(created_at=timezone.now() - WAITS_FOR_WORKER + timedelta(seconds=15))
    assert only(doctor._work).severity is FINE
    jobs.update(created_at=timezone.now() - WAITS_FOR_WORKER - timedelta(seconds=1))
    ReindexJob.objects.create(realm_url="http://b.localhost/", generation=1, status="failed")
    failed, waits = doctor._work()
    assert (failed.severity, failed.says) == (WARNING, "1 job has failed")
    assert (waits.severity, "has waited for 31 s" in waits.says) == (PROBLEM, True)
    jobs.update(started_at=timezone.now())
    ReindexJob.objects.create(realm_url="http://c.localhost/", generation=1, status="failed")
    assert only(doctor._work).says == "2 jobs have failed"
