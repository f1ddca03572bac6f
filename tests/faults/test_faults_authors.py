"""Tests how the authors of a fault campaign complete and publish their realms at its end."""

import threading
from typing import Any

from tests.faults.authors import Author
from tests.faults.clients import WRITTEN, Site
from tests.faults.judge.history import History, Operation


class Alone(Author):
    """An author that sends no requests. The author only records the name of each request, such as
    `write label.ts`, and treats the request as successful. After the request with the name
    `stops_at`, the author sets `stop_asked`, as a campaign does at its end."""

    def __init__(self, stops_at: str) -> None:
        self.asked: list[str] = []
        self._stops_at = stops_at
        super().__init__(Site("ada"), [], "seed", History(), threading.Event())

    def _do(self, operation: Operation, *request: Any) -> Operation:
        self.asked.append(f"{operation.kind} {operation.path}".strip())
        if self.asked[-1] == self._stops_at:
            self.stop_asked.set()
        operation.status = 200
        return operation


def test_an_author_completes_a_half_filled_realm_before_publishing_it() -> None:
    author = Alone("write label.ts")
    author.create()
    assert "publish" not in author.asked
    author._stops_at = ""
    author.asked.clear()
    author.open_all()
    before = author.asked[: author.asked.index("publish")]
    assert all(before.count(f"write {path}") == 2 for path in WRITTEN)


def test_an_author_of_a_complete_site_only_publishes_it_at_the_end() -> None:
    author = Alone("")
    author.create()
    author.asked.clear()
    author.open_all()
    assert not [each for each in author.asked if each.startswith("write")]
