"""A reindex without a broker: its tasks are called one after another, in the test's own process.

The replica is `web`, so what is rendered has come over HTTP, through pins and Deno.
"""

from dataclasses import dataclass
from typing import Any

from reindex import tasks
from reindex.models import IndexedCard

_TASKS: dict[str, Any] = {
    task.name: task for task in (tasks.plan_job, tasks.render_batch, tasks.build_definitions)
}


def work_off(sent: list[tuple[str, Any]], *, definitions: bool = False) -> list[tuple[str, Any]]:
    """Runs every task that was sent, and those that these send; answers them in order. Definitions
    are built only if asked for."""
    ran = []
    while sent:
        name, key = sent.pop(0)
        if definitions or name != tasks.build_definitions.name:
            _TASKS[name](key)
            ran.append((name, key))
    return ran


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
