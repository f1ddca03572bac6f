"""Runs a reindex, the rendering of a realm's cards, without a broker. Calls the Celery tasks one
after the other in the test's own process.

The tasks read files over HTTP from the server of the fixture `web`. Each such request has a pin, a
token that names the generation to read. Deno renders the cards.
"""

from dataclasses import dataclass
from typing import Any

from reindex import tasks
from reindex.models import IndexedCard, WantedDefinitions

#: The message that makes a worker look for work: the task's name and the delay in seconds.
WORK = (tasks.work.name, 0)


def work_off(sent: list[tuple[str, Any]], *, definitions: bool = False) -> int:
    """Runs the task `work` once for every message in `sent`, and for every message that the tasks
    add to `sent`. Returns how many of these runs did a piece of work. Builds definitions, which
    describe what modules export, only if `definitions` is true."""
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
    """Returns the rows of the index that visitors of a realm see, by the card's path."""
    cards = IndexedCard.objects.filter(realm_url=realm_url, current=True)
    return {card.path: Indexed(card.html, card.search, card.error) for card in cards}
