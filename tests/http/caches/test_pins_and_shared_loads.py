"""Tests the promise P2 of README.md for loads that several requests share. A request that names a
generation never gets the result of a load that began before that generation was committed."""

import threading
from typing import Any

import pytest
from django.db import connection

from notifications.board import now_ns
from notifications.emit import local_board
from realms.content.resolve import resolve
from realms.models import Realm
from realms.serving import answers
from realms.serving.contents import Variant
from tests.support import make

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Yields the events `read` and `release`. The first load sets `read` when it has read the
    database, and then waits until the test sets `release`."""
    answers.caches.cache_clear()
    real, read, release = resolve, threading.Event(), threading.Event()

    def hold_first(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        if not read.is_set():
            read.set()
            assert release.wait(20)
        return found

    monkeypatch.setattr(answers, "resolve", hold_first)
    yield read, release
    release.set()


@pytest.mark.parametrize("header", ["pinned", "noCache"])
def test_a_read_that_must_be_current_does_not_join_an_older_load(
    source: Realm, client: Any, held: Any, header: str
) -> None:
    read, release = held
    board = local_board()
    board.go_live(now_ns() + 60_000_000_000)
    url = "/ada/site/ada.json"

    def ask_early() -> None:
        try:
            answers.load(Variant.SOURCE, f"http://localhost:4201{url}")
        finally:
            connection.close()

    early = threading.Thread(target=ask_early)
    early.start()
    assert read.wait(20)
    generation = _commit_unheard(source)

    def ask() -> Any:
        headers = {"accept": "application/vnd.card+source"}
        if header == "pinned":
            return client.get(url, headers={**headers, "x-realm-min-generation": str(generation)})
        return client.get(f"{url}?noCache", headers=headers)

    # If the request joined the old load, it would wait for this timer and then get the old file.
    timer = threading.Timer(0.2, release.set)
    timer.start()
    answer = ask()
    early.join(20)
    assert b"Grace" in answer.content
    assert int(answer["x-realm-generation"]) >= generation


def _commit_unheard(source: Realm) -> int:
    """Writes a file but leaves this replica's board unchanged, as if another replica had just
    written the file and the notification had not arrived yet. Returns the new generation."""
    board = local_board()
    real = board.bump
    board.bump = lambda keys: None  # type: ignore[method-assign]
    try:
        return make.write(source, ada__json=make.card("./person", "Person", name="Grace"))
    finally:
        board.bump = real  # type: ignore[method-assign]
