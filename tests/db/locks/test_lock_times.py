"""Tests that the row of a publication records how long the publish waited for its locks, and how
long it held them."""

from time import perf_counter

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from realms.access.auth import Caller
from realms.content.locks import realm_write_lock
from realms.models import Publication, Realm
from realms.publishing import effects
from realms.publishing.publish import rollback_realm
from tests.support import make
from tests.support.clients.admin import PUBLISHED
from tests.support.cluster import wait_until
from tests.support.gates import Gate, in_thread
from tests.support.web import waiting_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


def newest() -> tuple[float, float]:
    """Returns how long the newest publish or rollback waited for its locks, and how long it held
    them. Unit: seconds."""
    last = Publication.objects.latest("pk")
    assert last.lock_waited is not None
    assert last.lock_held is not None
    return last.lock_waited, last.lock_held


def test_the_wait_for_another_writer_is_recorded(source: Realm) -> None:
    with realm_write_lock(PUBLISHED):
        publish = in_thread(make.publish, source, PUBLISHED)
        wait_until(lambda: waiting_for(PUBLISHED) == 1, "the publish waits")
        seen = perf_counter()
        assert waiting_for(PUBLISHED) == 1
        least = perf_counter() - seen
    publish.result(20)
    waited, held = newest()
    assert waited >= least > 0
    assert held > 0


def test_the_locks_are_held_until_the_commit_begins(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(effects, "enqueue_jobs", gate.after(effects.enqueue_jobs))
    began = perf_counter()
    publish = in_thread(make.publish, source, PUBLISHED)
    gate.wait_for_arrival()
    written = perf_counter()
    wait_until(lambda: perf_counter() > written + 0.1, "some time has passed")
    least = perf_counter() - written
    gate.open()
    publish.result(20)
    waited, held = newest()
    assert least <= held
    assert waited + held <= perf_counter() - began


def test_a_publish_needs_no_extra_statement_for_its_lock_times(source: Realm) -> None:
    with CaptureQueriesContext(connection) as captured:
        make.publish(source, PUBLISHED)
    assert not [each["sql"] for each in captured if 'UPDATE "realms_publication"' in each["sql"]]
    assert newest()[1] > 0


def test_a_rollback_records_its_lock_times_too(source: Realm) -> None:
    make.publish(source, PUBLISHED)
    make.write(source, post__tsx=b"export const edition = 2;")
    make.publish(source, PUBLISHED)
    assert source.owner is not None
    rollback_realm(PUBLISHED, Caller.of(source.owner))
    assert Publication.objects.count() == 3
    assert newest()[1] > 0
