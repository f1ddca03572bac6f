"""The write lock of realms: one transaction that holds an advisory lock for each URL."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pglock
from django.db import OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable

from notifications.locks import lock_key as lock_key
from realms.content.changes import carried_out
from realms.errors import Busy

LOCK_WAIT_SECONDS = 30


@contextmanager
def realm_write_lock(
    *urls: str, shared: Iterable[str] = (), durable: bool = True
) -> Iterator[None]:
    """A transaction that holds the locks of `urls`, and those of `shared` for reading. At its end
    what follows from the changes that were raised in it is seen to.

    Locks are taken in sorted order, so that no two callers wait for each other, and end with the
    transaction, so that no crash leaves one behind. What the caller knew of the realms before may
    have changed while it waited: it looks again inside. Within another transaction it ends with
    that one, if it need not be `durable`. Raises Busy after 30 s.
    """
    with transaction.atomic(durable=durable), carried_out():
        lock_realms(urls, shared)
        yield


def lock_realms(urls: Iterable[str], shared: Iterable[str] = ()) -> None:
    """As `realm_write_lock`, in the caller's transaction."""
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
                raise Busy(what=f"{url} has been written to for {LOCK_WAIT_SECONDS} s") from error
            raise
