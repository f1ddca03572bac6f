"""Runs an operation while it holds the write locks of the realms that it changes. The set of locks
that an operation needs may change while the operation waits for the locks. If the operation then
lacks a lock, it starts over with the new set."""

from collections.abc import Callable, Set
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from time import perf_counter
from typing import TypeVar

from django.db import connection
from django.db.models import DateTimeField, Func
from django.db.models.expressions import Combinable

from notifications.locks import address_lock
from notifications.tracing import spans
from realms import errors, sql
from realms.content.borders import outer_urls
from realms.content.locks import realm_write_lock

R = TypeVar("R")
#: An operation tries at most this many times to get its locks.
TRIES = 5


@dataclass(frozen=True)
class Locks:
    """The names of the locks that an operation needs. `written` names the exclusive locks, which
    protect what the operation changes. `read` names the shared locks of the realms that the
    operation reads but doesn't change. `content/locks.py` says what the names mean."""

    written: Set[str]
    read: Set[str] = frozenset()

    def __le__(self, held: "Locks") -> bool:
        """Returns whether a transaction with the locks `held` has all locks of this object."""
        return self.written <= held.written and self.read <= held.written | held.read


@dataclass(frozen=True)
class Held:
    """Says when an operation got its locks. `waited` is the number of seconds from the start of
    `with_locks`, over all tries, until the operation got the locks. `since` is the time when the
    operation got the locks, by `perf_counter`."""

    waited: float
    since: float

    @property
    def since_on_database(self) -> Combinable:
        """An SQL expression for the time when the operation got its locks, by the database's clock.
        The value is the database's current time minus the time for which the operation has held the
        locks. So it doesn't matter whether this machine's clock differs from the database's."""
        return ClockTimestamp() - timedelta(seconds=perf_counter() - self.since)


class ClockTimestamp(Func):
    """An SQL expression for the database's current time. (Postgres' `now()` is the time when the
    transaction began.)"""

    function = "clock_timestamp"
    arity = 0
    output_field = DateTimeField()


def with_locks(url: str, required: Callable[[], Locks], act: Callable[[Held], R]) -> R:
    """Performs an operation in a transaction that holds the locks that the operation needs.
    `required` returns these locks, and `act` performs the operation.

    Calls `required` before it opens the transaction, and again in the transaction. If the
    transaction holds all locks of the second result, calls `act` and returns the result of `act`.
    Otherwise, ends the transaction and starts over. After TRIES tries, raises Busy with `url` in
    the message."""
    began = perf_counter()
    for _ in range(TRIES):
        locks = required()
        # The trace's span `lock` must end as soon as the locks are held, but the transaction must
        # stay open until `act` has returned. So the ExitStack ends the transaction, not a `with`
        # block inside the span's block.
        with ExitStack() as transaction:
            with spans.span("lock"):
                transaction.enter_context(realm_write_lock(*locks.written, shared=locks.read))
            held = perf_counter()
            if required() <= locks:
                return act(Held(held - began, held))
    raise errors.Busy(what=f"other requests keep changing {url} or a related realm")


def with_outer_urls(*urls: str) -> list[str]:
    """Returns the URLs that an operation must lock if it creates or removes realms at `urls`. The
    result has `urls`, and for each of them the URL of the innermost realm around it. This outer
    realm must be locked because the operation changes which files it serves
    (`content/borders.py`)."""
    return [each for url in urls for each in (url, *outer_urls(url))]


def address_locks(url: str, *source_urls: str, gone: bool = False) -> list[str]:
    """Returns the names of the address locks that an operation on the published realm at `url`
    needs. An address lock protects the URL at which one source realm is published. `source_urls`
    has the source realm that a publish is about to show at `url`. `gone` says whether the operation
    removes the realm at `url`.

    The operation may change the published URL of each source realm that the realm at `url` has
    shown until now or will show. So it needs the address locks of all these source realms. But if
    there is only one, which the realm has shown already and still shows after the operation, the
    published URL can't change, and no address lock is needed.
    """
    with connection.cursor() as cursor:
        cursor.execute(sql.SHOWN_SOURCES, {"url": url})
        shown = {source_url for (source_url,) in cursor.fetchall()}
    stays = not gone and len(shown) == 1 and shown.issuperset(source_urls)
    return [] if stays else [address_lock(each) for each in sorted({*shown, *source_urls})]
