"""Runs an operation while it holds the write locks of the realms that it changes. The set of locks
that an operation needs may change while the operation waits for the locks. If the set changes, the
operation starts over with the new set."""

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
#: How many times an operation starts if the set of locks that it needs keeps changing.
TRIES = 5


@dataclass(frozen=True)
class Locks:
    """The names of the locks that an operation needs. `written` are the locks of everything that
    the operation changes. `read` are the locks of realms that the operation reads but doesn't
    change. A name is a realm's URL, or the result of `space_lock` or `address_lock`."""

    written: Set[str]
    read: Set[str] = frozenset()

    def __le__(self, held: "Locks") -> bool:
        """Returns whether `held` includes all locks of this object."""
        return self.written <= held.written and self.read <= held.written | held.read


@dataclass(frozen=True)
class Held:
    """Tells how an operation got its locks. `waited` is the number of seconds from the start of
    `with_locks` until the operation got its locks. `waited` includes the computation of the locks,
    and earlier tries. `since` is the time when the operation got the locks, by `perf_counter`."""

    waited: float
    since: float

    @property
    def since_on_database(self) -> Combinable:
        """An SQL expression for the time when the operation got its locks, by the database's clock.
        The value is the database's current time minus the time for which the operation has held the
        locks. So a difference between the clocks of the hosts has no effect."""
        return ClockTimestamp() - timedelta(seconds=perf_counter() - self.since)


class ClockTimestamp(Func):
    """The database's time when the statement runs, not the time when its transaction began."""

    function = "clock_timestamp"
    arity = 0
    output_field = DateTimeField()


def with_locks(url: str, required: Callable[[], Locks], act: Callable[[Held], R]) -> R:
    """Calls `required` for the locks, and then `act` in a transaction that holds these locks. Calls
    `required` again under the locks, and starts over if the second call returns a lock that the
    transaction doesn't hold. Raises Busy if the locks change TRIES times."""
    began = perf_counter()
    for _ in range(TRIES):
        locks = required()
        # The span ends when the locks are held. The stack keeps the transaction open until `act`
        # has returned.
        with ExitStack() as transaction:
            with spans.span("lock"):
                transaction.enter_context(realm_write_lock(*locks.written, shared=locks.read))
            held = perf_counter()
            if required() <= locks:
                return act(Held(held - began, held))
    raise errors.Busy(what=f"{url} has been changed {TRIES} times during this request")


def with_outer_urls(*urls: str) -> list[str]:
    """Returns the URLs to lock for creating or removing realms at `urls`. Adds the URL of the
    innermost realm around each URL, because the operation also changes which files this outer realm
    serves (see `borders`)."""
    return [each for url in urls for each in (url, *outer_urls(url))]


def address_locks(url: str, *source_urls: str, gone: bool = False) -> list[str]:
    """Returns the address locks of all source realms that the realm at `url` shows, has shown or
    will show (`source_urls`). The operation may change the published URLs of these source realms.

    No lock is needed if the operation keeps the only source realm that the realm at `url` has ever
    shown. The published URL of that source realm stays the same. If the operation removes the realm
    at `url` (`gone`), the locks are always needed.
    """
    with connection.cursor() as cursor:
        cursor.execute(sql.SHOWN_SOURCES, {"url": url})
        shown = {source_url for (source_url,) in cursor.fetchall()}
    stays = not gone and len(shown) == 1 and shown.issuperset(source_urls)
    return [] if stays else [address_lock(each) for each in sorted({*shown, *source_urls})]
