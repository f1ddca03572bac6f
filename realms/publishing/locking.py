"""The locks of an operation on realms: which it needs, taken anew until they are all held."""

from collections.abc import Callable, Set
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from time import perf_counter
from typing import TypeVar

from django.db.models import DateTimeField, Func
from django.db.models.expressions import Combinable

from notifications.locks import address_lock
from notifications.tracing import spans
from realms import errors
from realms.content.borders import outer_urls
from realms.content.locks import realm_write_lock
from realms.models import Publication

R = TypeVar("R")
#: How often an operation is tried when the set of locks that it needs keeps changing.
TRIES = 5


@dataclass(frozen=True)
class Locks:
    """The locks of an operation: the URLs that it changes, and the URLs that it only reads."""

    written: Set[str]
    read: Set[str] = frozenset()

    def __le__(self, held: "Locks") -> bool:
        """Whether the locks in `held` include these."""
        return self.written <= held.written and self.read <= held.written | held.read


@dataclass(frozen=True)
class Held:
    """The locks that an operation holds: how long it waited for them, and since when it holds them.
    Unit: seconds; `since` is on the clock of `perf_counter`."""

    waited: float
    since: float

    @property
    def since_on_database(self) -> Combinable:
        """The moment of `since` on the database's clock, as an expression: two hosts' clocks may
        differ, but not by how much time has passed."""
        return ClockTimestamp() - timedelta(seconds=perf_counter() - self.since)


class ClockTimestamp(Func):
    """The database's time when the statement runs, and not when its transaction began."""

    function = "clock_timestamp"
    arity = 0
    output_field = DateTimeField()


def with_locks(url: str, required: Callable[[], Locks], act: Callable[[Held], R]) -> R:
    """Calls `act` in a transaction that holds the locks that `required` returns. Calls `required`
    again under the locks, and starts over if it returns a lock that is not held. Raises Busy after
    TRIES."""
    began = perf_counter()
    for _ in range(TRIES):
        locks = required()
        with ExitStack() as transaction:
            with spans.span("lock"):
                transaction.enter_context(realm_write_lock(*locks.written, shared=locks.read))
            held = perf_counter()
            if required() <= locks:
                return act(Held(held - began, held))
    raise errors.Busy(what=f"{url} has been changed {TRIES} times meanwhile")


def with_outer_urls(*urls: str) -> list[str]:
    """The URLs to lock for creating or removing realms at `urls`: each URL, and the URL of the
    realm around it, whose content the operation changes (see `borders`)."""
    return [each for url in urls for each in (url, *outer_urls(url))]


def address_locks(url: str, *source_urls: str, gone: bool = False) -> list[str]:
    """The address locks of all source realms that `url` shows, showed, or is to show
    (`source_urls`): an operation may change where these are published. If they are all one realm,
    its address stays and no lock is required, unless the realm at `url` will be `gone`."""
    publications = Publication.objects.filter(realm__url=url).order_by()
    shown = set(publications.values_list("source__url", flat=True).distinct())
    stays = not gone and len(shown) == 1 and shown.issuperset(source_urls)
    return [] if stays else [address_lock(each) for each in sorted({*shown, *source_urls})]
