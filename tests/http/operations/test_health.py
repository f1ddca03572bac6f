"""Tests `/_liveness` and `/_readiness`, which supervisors and load balancers request."""

import json

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from realms.housekeeping import readiness
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.reading.references import BASE_REALM
from tests.support.web import Web

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Makes this process forget whether the migrations are applied, as a restart does. Installs the
    card library."""
    readiness._migrations = readiness._Migrations()
    sync_base_realm()


def url(web: Web, name: str) -> str:
    return f"http://127.0.0.1:{web.port}/{name}"


def test_a_replica_with_database_and_library_is_ready(web: Web) -> None:
    answer = web.get(url(web, "_readiness"))
    assert answer.status == 200
    assert json.loads(answer.text) == {"ready": True, "missing": []}
    assert answer.headers["cache-control"] == "no-store"


def test_a_replica_is_not_ready_while_a_migration_is_missing(web: Web) -> None:
    recorder = MigrationRecorder(connection)
    last = recorder.migration_qs.filter(app="realms").order_by("-id").first()
    assert last is not None
    recorder.record_unapplied(last.app, last.name)
    try:
        answer = web.get(url(web, "_readiness"))
    finally:
        recorder.record_applied(last.app, last.name)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.text)["missing"] == [
        "1 migration is not applied: run manage.py migrate"
    ]
    assert web.get(url(web, "_readiness")).status == 200


def test_a_replica_is_not_ready_without_the_card_library(web: Web) -> None:
    Realm.objects.filter(url=BASE_REALM).delete()
    answer = web.get(url(web, "_readiness"))
    assert answer.status == 503
    assert "card library" in json.loads(answer.text)["missing"][0]


def test_health_endpoints_accept_only_reads(web: Web) -> None:
    for name in ("_liveness", "_readiness"):
        answer = web.request("POST", url(web, name), body=b"")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
