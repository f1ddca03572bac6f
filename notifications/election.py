"""Once per fleet: of all processes that want the same work, the database elects one to do it."""

from collections.abc import Callable
from typing import TypeVar

import pglock
from django.db import OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable

T = TypeVar("T")

ELECTION_SECONDS = 30


def once(key: int, work: Callable[[bool], T]) -> T:
    """Calls `work(True)` in a transaction that holds the advisory lock of `key`: whoever comes
    later finds what it has stored.

    One who is elected and dies gives the lock back with its connection. One who freezes doesn't:
    after 30 s of waiting it is `work(False)`, outside of any election, which must store nothing.
    """
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{ELECTION_SECONDS}s'")
            pglock.advisory(key, xact=True, side_effect=pglock.Raise).acquire()
            return work(True)
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
    return work(False)
