"""What the authors of a campaign leave behind when its time is over."""

import threading
from typing import Any

from tests.faults.authors import Author
from tests.faults.clients import WRITTEN, Site
from tests.faults.judge.history import History, Operation


class Alone(Author):
    """An author whose every request succeeds, and who is told to stop at one of them."""

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


def test_a_realm_that_was_being_filled_at_the_end_is_filled_before_it_is_published() -> None:
    author = Alone("write label.ts")
    author.create()
    assert "publish" not in author.asked
    author._stops_at = ""
    author.asked.clear()
    author.open_all()
    before = author.asked[: author.asked.index("publish")]
    assert all(before.count(f"write {path}") == 2 for path in WRITTEN)


def test_a_site_that_was_complete_is_only_published_at_the_end() -> None:
    author = Alone("")
    author.create()
    author.asked.clear()
    author.open_all()
    assert not [each for each in author.asked if each.startswith("write")]
