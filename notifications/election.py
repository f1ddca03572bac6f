"""Elections: of all processes of the fleet that want the same work, the database elects one.

The elected process holds a lease, a row of its own, and renews it while it works. Meanwhile it
keeps no transaction open and no session lock, because the work may take many seconds.
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

#: A process that has waited for this long does the work without being elected.
ELECTION_SECONDS = 30.0
#: An elected process that dies or freezes is replaced after this time.
LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.0
#: A waiting process tries again after about this time.
LOOK_SECONDS = 0.05


def run_elected(key: int, work: Callable[[bool], T]) -> T:
    """Calls `work(True)` while no other process does so for the same `key`. `work` should look for
    a stored result first: the process elected before may have stored it.

    An elected process that dies or freezes loses its lease after LEASE_SECONDS, and another is
    elected, so `work` must tolerate that two processes store the same result. A process that has
    waited for ELECTION_SECONDS calls `work(False)` without being elected, which must store nothing.
    Raises RuntimeError in a transaction, where other processes wouldn't see the lease.
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
    """Waits until it is time to try again."""
    time.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))


def _ask(statement: LiteralString, key: int, holder: int) -> bool:
    """Runs a statement, and returns whether it has changed the row."""
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
            # The work uses the database too and fails by itself.
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
