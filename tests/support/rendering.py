"""Runs a reindex without a broker: calls its tasks in turn, in the test's own process.

The replica is the fixture `web`. The tasks read from it over HTTP with pins, and render with Deno.
"""

from dataclasses import dataclass
from typing import Any

from reindex import tasks
from reindex.models import IndexedCard, WantedDefinitions

#: The message that makes a worker look for work.
WORK = (tasks.work.name, 0)


def work_off(sent: list[tuple[str, Any]], *, definitions: bool = False) -> int:
    """Runs a worker's task for every message in `sent`, including those that the tasks send.
    Returns the number of pieces of work done. Builds definitions only if `definitions` is true."""
    done = 0
    while sent:
        sent.pop(0)
        if not definitions:
            WantedDefinitions.objects.all().delete()
        done += tasks.work()
    return done


@dataclass
class Indexed:
    """A row of the index: HTML by format and a search document, or an error document."""

    html: Any
    search: Any
    error: Any


def index_of(realm_url: str) -> dict[str, Indexed]:
    """The cards that visitors of a realm see, by path."""
    cards = IndexedCard.objects.filter(realm_url=realm_url, current=True)
    return {card.path: Indexed(card.html, card.search, card.error) for card in cards}
