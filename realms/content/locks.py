"""Takes write locks, which are advisory locks of Postgres. Each lock has a name. The name of a
realm's lock is the URL of the realm. `space_lock` names the lock of a space, which is all URLs
below one username or all URLs at one host. `address_lock` names the lock that protects the URL at
which a source realm is published."""

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

#: How long a transaction waits for each of its locks.
LOCK_WAIT_SECONDS = 30


@contextmanager
def realm_write_lock(
    *urls: str, shared: Iterable[str] = (), durable: bool = True
) -> Iterator[None]:
    """Opens a transaction that holds exclusive locks named `urls` and shared locks named `shared`.
    At the end of the block, passes the changes that were raised in the block to their receivers
    (`dispatch_at_end`). Raises Busy if the transaction has waited LOCK_WAIT_SECONDS for one lock.

    Locks are taken in sorted order, so that two callers don't deadlock. Only `move_border` may take
    another lock later, out of order. This lock can cause a deadlock of two transactions. Postgres
    then stops one of them with an error, and its caller can retry.

    Locks end with the transaction, so that a crash leaves no lock behind. A realm may change while
    the caller waits for the realm's lock, so the caller must read the realm again inside the block.
    With `durable=False`, the block may lie in another transaction. In this case the locks end with
    the outermost transaction.
    """
    asked, held = perf_counter(), 0.0
    try:
        with transaction.atomic(durable=durable), dispatch_at_end():
            lock_realms(urls, shared)
            held = perf_counter()
            yield
    finally:
        # With `durable=False`, it isn't known here how long the locks are held, so nothing is
        # counted.
        if durable:
            ended = perf_counter()
            counts.lock_waits.note((held or ended) - asked)
            counts.locks_held.note(ended - (held or ended))


@contextmanager
def locked_realm(realm: Realm) -> Iterator[Realm]:
    """Opens a transaction that holds the write lock of a realm. Yields the realm, read again from
    the database after the lock was taken.

    Raises NotFound if the realm was deleted while the caller waited for the lock, even if a new
    realm has been created at the same URL.
    """
    with realm_write_lock(realm.url):
        current = Realm.objects.filter(pk=realm.pk).first()
        if current is None:
            raise NotFound(url=realm.url)
        yield current


def lock_realms(urls: Iterable[str], shared: Iterable[str] = ()) -> None:
    """Takes exclusive locks of `urls` and shared locks of `shared` in the caller's transaction."""
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
