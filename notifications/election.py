"""Elects one process if several processes, on any hosts, need the result of the same work.

The elected process holds a lease, which is a row of `Election`, and renews the lease during the
work. A lock of Postgres would do the same, but would need an open transaction or a session of its
own during the work, which may take many seconds (docs/decisions/elections-are-leases.md).
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
#: work for itself, and doesn't store the result for other processes.
ELECTION_SECONDS = 30.0
#: How long a lease lasts without renewal. If the elected process dies or freezes, its lease ends
#: after this time.
LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.0
#: The average time after which a waiting process tries again to take the lease.
LOOK_SECONDS = 0.05


def run_elected(key: int, work: Callable[[bool], T]) -> T:
    """Waits until this process is elected for `key`, which identifies the work. Then calls
    `work(True)`, and returns the result. `work` should look for a stored result first, because the
    process that was elected before may have stored one.

    If this process isn't elected within ELECTION_SECONDS, calls `work(False)` instead. This call
    must not store its result, because another process is elected to do that.

    If the elected process dies or freezes, another process is elected after LEASE_SECONDS. A frozen
    process may continue later, so `work` must tolerate that two processes store the same result.

    Raises RuntimeError if the caller is in a transaction, because other processes wouldn't see the
    lease until the transaction commits.
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
    # If the database can't be reached, ignore the error. The lease then ends by itself, after at
    # most LEASE_SECONDS.
    with suppress(DatabaseError):
        _ask(sql.END_LEASE, key, holder)


def wait() -> None:
    """Sleeps for LOOK_SECONDS on average. The time is random, so that waiting processes don't query
    the database all at once."""
    time.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))


def _ask(statement: LiteralString, key: int, holder: int) -> bool:
    """Runs a statement on the lease's row. Returns whether the statement inserted, updated or
    deleted the row."""
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
            # Only stop renewing. If the database keeps failing, `work` raises an error when it uses
            # the database. Otherwise a second process may be elected, which `work` must tolerate.
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
