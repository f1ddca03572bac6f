"""Elects one process if several processes of the fleet need the same work.

The elected process holds a lease, which is a row, and renews the lease during the work. The work
may take many seconds, so it doesn't run in a transaction or under a session lock.
"""

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import LiteralString, TypeVar

from django.db import DatabaseError, connection, transaction

from notifications import sql

T = TypeVar("T")

#: How long a process waits to be elected. A process that isn't elected within this time does the
#: work anyway, but stores no result.
ELECTION_SECONDS = 30.0
#: How long a lease lasts without renewal. If the elected process dies or freezes, its lease ends
#: after this time.
LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.0
#: The average time after which a waiting process tries again to take the lease.
LOOK_SECONDS = 0.05


def run_elected(key: int, work: Callable[[bool], T]) -> T:
    """Waits until this process is elected for `key`, then calls `work(True)`. `work` should look
    for a stored result first, because an earlier elected process may have stored it.

    If an elected process dies or freezes, another process is elected after LEASE_SECONDS. So `work`
    must tolerate that two processes store the same result. If this process isn't elected within
    ELECTION_SECONDS, it calls `work(False)`. When `work` gets False, it must not store its result.
    Raises RuntimeError in a transaction, because other processes wouldn't see the lease.
    """
    holder = secrets.randbits(62)
    deadline = time.monotonic() + ELECTION_SECONDS
    while not _ask(sql.TAKE_LEASE, key, holder):
        if time.monotonic() > deadline:
            return work(False)
        wait()
    try:
        with _renewed(key, holder):
            return work(True)
    finally:
        _end(key, holder)


def _end(key: int, holder: int) -> None:
    connection.close_if_unusable_or_obsolete()
    # If the database can't be reached, the lease expires.
    with suppress(DatabaseError):
        _ask(sql.END_LEASE, key, holder)


def wait() -> None:
    """Sleeps for about LOOK_SECONDS, with jitter."""
    time.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))


def _ask(statement: LiteralString, key: int, holder: int) -> bool:
    """Runs a statement on the lease's row. Returns whether the statement changed the row."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(statement, {"key": key, "holder": holder, "seconds": LEASE_SECONDS})
        return bool(cursor.rowcount == 1)


@contextmanager
def _renewed(key: int, holder: int) -> Iterator[None]:
    """Renews the lease in a thread during the `with` block."""
    done = threading.Event()

    def renew() -> None:
        try:
            while not done.wait(RENEW_SECONDS):
                if not _ask(sql.RENEW_LEASE, key, holder):
                    return
        except DatabaseError:
            # Ignore the error in this thread. The elected work uses the same database, so it raises
            # an error if the database still fails.
            return
        finally:
            connection.close()

    thread = threading.Thread(target=renew, name="election-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
