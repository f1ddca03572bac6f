"""Runs a reindex without a broker. Calls the Celery tasks one after the other in the test's own
process.

The tasks read from the fixture `web`, over HTTP and with pins, and render with Deno.
"""

from dataclasses import dataclass
from typing import Any

from reindex import tasks
from reindex.models import IndexedCard, WantedDefinitions

#: The message that makes a worker look for work.
WORK = (tasks.work.name, 0)


def work_off(sent: list[tuple[str, Any]], *, definitions: bool = False) -> int:
    """Runs a worker's task for every message in `sent`, and for every message that the tasks
    themselves send. Returns the number of pieces of work done. Builds definitions only if
    `definitions` is true."""
    done = 0
    while sent:
        sent.pop(0)
        if not definitions:
            WantedDefinitions.objects.all().delete()
        done += tasks.work()
    return done


@dataclass
class Indexed:
    """A card's row in the index. The row has the card's HTML by format and the card's search
    document, or an error document."""

    html: Any
    search: Any
    error: Any


def index_of(realm_url: str) -> dict[str, Indexed]:
    """Returns the index rows of the cards that visitors of a realm see, by the card's path."""
    cards = IndexedCard.objects.filter(realm_url=realm_url, current=True)
    return {card.path: Indexed(card.html, card.search, card.error) for card in cards}
