"""Takes write locks, which are advisory locks of Postgres. The name of a realm's lock is the URL of
the realm. Spaces and the addresses of source realms have locks too (`space_lock` and
`address_lock`)."""

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

#: How long a transaction waits for each lock.
LOCK_WAIT_SECONDS = 30


@contextmanager
def realm_write_lock(
    *urls: str, shared: Iterable[str] = (), durable: bool = True
) -> Iterator[None]:
    """Opens a transaction that holds exclusive locks of `urls` and shared locks of `shared`. The
    receivers of changes get all changes of the block at the end of the block (`dispatch_at_end`).

    Locks are taken in sorted order, so that two callers don't deadlock. Only `move_border` may take
    a further lock later, out of order. The further lock can cause a deadlock of two transactions.
    Postgres ends a deadlock by stopping one of the transactions with an error, and the caller of
    the stopped transaction can retry.

    Locks end with the transaction, so that a crash leaves no lock behind. A realm may change while
    the caller waits for the realm's lock, so the caller must read the realm again inside the block.
    With `durable=False`, the block may lie in another transaction, and the locks end with the outer
    transaction. Raises Busy if the transaction has waited LOCK_WAIT_SECONDS for one lock.
    """
    asked, held = perf_counter(), 0.0
    try:
        with transaction.atomic(durable=durable), dispatch_at_end():
            lock_realms(urls, shared)
            held = perf_counter()
            yield
    finally:
        # The locks of a nested block end with the outer transaction, so it isn't known here how
        # long they are held.
        if durable:
            ended = perf_counter()
            counts.lock_waits.note((held or ended) - asked)
            counts.locks_held.note(ended - (held or ended))


@contextmanager
def locked_realm(realm: Realm) -> Iterator[Realm]:
    """Holds the write lock of a realm, and yields the realm as read after the lock was taken.

    Raises NotFound if the realm was deleted while the caller waited, even if another realm has been
    created at its URL.
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
