"""The write lock of realms: one transaction that holds an advisory lock for each URL."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

import pglock
from django.db import OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable

from notifications.locks import lock_key as lock_key
from realms.content.changes import dispatch_at_end
from realms.errors import Busy, NotFound
from realms.figures.counting import counts
from realms.models import Realm

LOCK_WAIT_SECONDS = 30


@contextmanager
def realm_write_lock(
    *urls: str, shared: Iterable[str] = (), durable: bool = True
) -> Iterator[None]:
    """A transaction that holds exclusive locks of `urls`, and shared ones of `shared`. At its end
    it dispatches the changes that were raised in it.

    Locks are taken in sorted order, so that two callers can't deadlock, and end with the
    transaction, so that a crash leaves none behind. Realms may change while the caller waits for
    the locks, so it must read them again inside. If it isn't `durable`, this may be nested in
    another transaction, and the locks end with the outer transaction. Raises Busy if one of the
    locks isn't free within 30 s.
    """
    asked, held = perf_counter(), 0.0
    try:
        with transaction.atomic(durable=durable), dispatch_at_end():
            lock_realms(urls, shared)
            held = perf_counter()
            yield
    finally:
        # Nested locks end with the outer transaction, whose end isn't known here.
        if durable:
            ended = perf_counter()
            counts.lock_waits.note((held or ended) - asked)
            counts.locks_held.note(ended - (held or ended))


@contextmanager
def locked_realm(realm: Realm) -> Iterator[Realm]:
    """Holds the write lock of a realm, and yields the realm as read under it.

    While the caller waited, the realm may have been deleted and another user's created at its URL.
    Raises NotFound then.
    """
    with realm_write_lock(realm.url):
        current = Realm.objects.filter(pk=realm.pk).first()
        if current is None:
            raise NotFound(url=realm.url)
        yield current


def lock_realms(urls: Iterable[str], shared: Iterable[str] = ()) -> None:
    """Takes the locks of `realm_write_lock` in the caller's transaction."""
    writers = set(urls)
    readers = set(shared) - writers
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s'")
    for url in sorted(writers | readers):
        lock = pglock.advisory(
            lock_key(url), xact=True, shared=url in readers, side_effect=pglock.Raise
        )
        try:
            lock.acquire()
        except OperationalError as error:
            if isinstance(error.__cause__, LockNotAvailable):
                raise Busy(what=f"{url} has been locked for {LOCK_WAIT_SECONDS} s") from error
            raise
