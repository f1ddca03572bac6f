"""Tests the realm write lock. A realm has one writer at a time, several readers can share the lock,
and every lock is released."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connection, transaction

from realms.content import locks
from realms.content.locks import lock_key, locked_realm, realm_write_lock
from realms.errors import Busy, NotFound
from realms.models import Realm
from tests.support.cluster import wait_until
from tests.support.gates import Gate, in_thread
from tests.support.web import waiting_for

pytestmark = pytest.mark.django_db(transaction=True)

A, B, C = (f"http://localhost:4201/luke/{name}/" for name in "abc")


def take(*urls: str, shared: tuple[str, ...] = (), value: int = 7) -> int:
    """Acquires and releases the realms' write locks. Returns `value`."""
    with realm_write_lock(*urls, shared=shared):
        return value


@contextmanager
def held(*urls: str, shared: tuple[str, ...] = ()) -> Iterator[None]:
    """Holds the realms' write locks on another connection during the `with` block."""
    gate = Gate()

    def hold() -> None:
        with realm_write_lock(*urls, shared=shared):
            gate.hold()

    holder = in_thread(hold)
    try:
        gate.wait_for_arrival()
        yield
    finally:
        gate.open()
        holder.result(20)


def test_the_key_is_the_first_eight_bytes_of_the_urls_hash() -> None:
    assert lock_key("http://localhost:4201/luke/my-realm/") == 77324559412694263


def test_keys_are_signed_64_bit_numbers_that_differ_by_url() -> None:
    """A URL always has the same key."""
    urls = [f"http://localhost:4201/luke/{number}/" for number in range(2000)]
    keys = [lock_key(url) for url in urls]
    assert keys == [lock_key(url) for url in urls]
    assert len(set(keys)) == len(urls)
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert any(key < 0 for key in keys)


def test_the_realm_lock_is_the_advisory_lock_of_its_key() -> None:
    """A program other than this server can take the same lock if it computes the same key."""
    with connection.cursor() as cursor, realm_write_lock(A):
        cursor.execute(
            "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks "
            "WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid = pg_backend_pid()"
        )
        assert cursor.fetchall() == [(lock_key(A),)]


def test_one_writer_at_a_time_writes_to_a_realm() -> None:
    """The second writer gets the lock when the first releases it."""
    with held(A):
        second = in_thread(take, A)
        wait_until(lambda: waiting_for(A) == 1, "the second writer waiting")
        assert not second.done()
    assert second.result(20) == 7


def test_different_realms_can_be_written_to_at_the_same_time() -> None:
    with held(A):
        assert take(B, C) == 7


def test_readers_share_a_lock_and_a_writer_waits_for_them() -> None:
    with held(B, shared=(A,)):
        assert take(C, shared=(A,)) == 7
        writer = in_thread(take, A)
        wait_until(lambda: waiting_for(A) == 1, "the writer waiting for the reader")
    assert writer.result(20) == 7


def test_a_reader_waits_for_the_writer() -> None:
    with held(A):
        reader = in_thread(take, B, shared=(A,))
        wait_until(lambda: waiting_for(A) == 1, "the reader waiting for the writer")
    assert reader.result(20) == 7


def test_a_lock_asked_for_as_shared_and_exclusive_is_exclusive() -> None:
    with held(C, shared=(A,)):
        both = in_thread(take, A, shared=(A,))
        wait_until(lambda: waiting_for(A) == 1, "the writer waiting for the reader")
    assert both.result(20) == 7


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_releases_the_lock(
    error: type[BaseException],
) -> None:
    with pytest.raises(error):
        with realm_write_lock(A):
            raise error
    assert in_thread(take, A).result(20) == 7


def test_a_lost_connection_releases_the_lock() -> None:
    gate, cut = Gate(), threading.Event()

    def hold() -> None:
        with realm_write_lock(A):
            gate.hold()
            connection.connection.close()
            cut.set()

    holder = in_thread(hold)
    gate.wait_for_arrival()
    second = in_thread(take, A)
    wait_until(lambda: waiting_for(A) == 1, "the second writer waiting")
    gate.open()
    assert second.result(20) == 7
    assert cut.is_set()
    with pytest.raises(Exception, match="closed"):
        holder.result(20)


def test_locks_are_taken_in_sorted_order_without_deadlocks() -> None:
    rounds = [
        in_thread(take, *urls) for urls in ((A, B, C), (C, B, A), (B, A, C)) for _ in range(8)
    ]
    assert [each.result(20) for each in rounds] == [7] * 24


def test_a_writer_that_waits_too_long_gets_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, "LOCK_WAIT_SECONDS", 0.1)
    with held(A):
        with pytest.raises(Busy, match=A):
            take(A)
    assert take(A) == 7


def test_a_lock_is_never_taken_inside_another_transaction() -> None:
    """An outer transaction would hold the lock and delay the notifications to replicas until the
    outer transaction commits."""
    with transaction.atomic():
        with pytest.raises(RuntimeError, match="durable"):
            take(A)


def test_a_lost_database_connection_is_not_reported_as_busy() -> None:
    with pytest.raises(Exception) as raised:
        with realm_write_lock(A):
            connection.connection.close()
            take_nothing = connection.cursor()
            take_nothing.execute("SELECT 1")
    assert not isinstance(raised.value, Busy)
    assert isinstance(raised.value.__cause__, psycopg.Error)


def test_a_locked_realm_is_read_after_the_lock_is_taken() -> None:
    stale = Realm.objects.create(url=A, kind=Realm.Kind.SOURCE)
    Realm.objects.filter(pk=stale.pk).update(generation=5)
    with locked_realm(stale) as current:
        assert (current.pk, current.generation) == (stale.pk, 5)
        second = in_thread(take, A)
        wait_until(lambda: waiting_for(A) == 1, "the second writer waiting")
    assert second.result(20) == 7


def test_locking_a_deleted_realm_does_not_lock_its_successor() -> None:
    gone = Realm.objects.create(url=A, kind=Realm.Kind.SOURCE)
    Realm.objects.filter(pk=gone.pk).delete()
    Realm.objects.create(url=A, kind=Realm.Kind.SOURCE)
    with pytest.raises(NotFound):
        with locked_realm(gone):
            pytest.fail("the new realm at the URL was locked")
    assert in_thread(take, A).result(20) == 7
