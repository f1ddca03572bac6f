"""A reindex without a broker: its tasks are called one after another, in the test's own process.

The replica is `web`, so what is rendered has come over HTTP, through pins and Deno.
"""

from dataclasses import dataclass
from typing import Any

from reindex import tasks
from reindex.models import IndexedCard, WantedDefinitions

#: A message that tells a worker that something is owed.
WORK = (tasks.work.name, 0)


def work_off(sent: list[tuple[str, Any]], *, definitions: bool = False) -> int:
    """Does a piece of work for every message that was sent, and for those that these send; answers
    how many there were. Definitions are built only if asked for."""
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
