"""Once per fleet: of all processes that want the same work, the database elects one to do it.

Who is elected has a lease, a row of its own, and renews it while the work goes on. No transaction
is open meanwhile, and no session holds anything: the work may take a Deno process many seconds.
"""

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import LiteralString, TypeVar

from django.db import DatabaseError, connection, transaction

T = TypeVar("T")

#: Who has waited for so long does the work alone.
ELECTION_SECONDS = 30.0
#: Who is elected and dies or freezes is replaced after this time.
LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.0
#: Who waits looks again after about this time.
LOOK_SECONDS = 0.05

_TAKE: LiteralString = """
INSERT INTO notifications_election AS held (key, holder, lease_until)
VALUES (%(key)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
    WHERE held.lease_until < clock_timestamp()
"""
_RENEW: LiteralString = """
UPDATE notifications_election
SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE key = %(key)s AND holder = %(holder)s
"""
_END: LiteralString = """
DELETE FROM notifications_election WHERE key = %(key)s AND holder = %(holder)s
"""


def run_elected(key: int, work: Callable[[bool], T]) -> T:
    """Calls `work(True)` while no other process does so for the same `key`: whoever comes later
    finds what it has stored.

    One who is elected and dies, or freezes, loses its lease after a few seconds, and another is
    elected; so storing must stand another's having stored the same. After 30 s of waiting it is
    `work(False)`, outside of any election, which must store nothing. Not for use in a transaction,
    where nobody would see the lease: raises RuntimeError there.
    """
    holder = secrets.randbits(62)
    deadline = time.monotonic() + ELECTION_SECONDS
    while not _ask(_TAKE, key, holder):
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
    # Where the database is away, the lease runs out.
    with suppress(DatabaseError):
        _ask(_END, key, holder)


def wait() -> None:
    """Waits until it is time to look again."""
    time.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))


def _ask(statement: LiteralString, key: int, holder: int) -> bool:
    """Whether the statement has changed the row."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(statement, {"key": key, "holder": holder, "seconds": LEASE_SECONDS})
        return bool(cursor.rowcount == 1)


@contextmanager
def _renewed(key: int, holder: int) -> Iterator[None]:
    """Renews the lease, from a thread, for as long as the work takes."""
    done = threading.Event()

    def renew() -> None:
        try:
            while not done.wait(RENEW_SECONDS):
                if not _ask(_RENEW, key, holder):
                    return
        except DatabaseError:
            # The work finds out for itself.
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
