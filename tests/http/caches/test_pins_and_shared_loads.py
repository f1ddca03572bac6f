"""P2: a request for a generation never gets the result of a load that began before that
generation's commit."""

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
    """Delays the first load after its database read, until `release` is set."""
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

    # A request that joined the old load would wait for this timer.
    timer = threading.Timer(0.2, release.set)
    timer.start()
    answer = ask()
    early.join(20)
    assert b"Grace" in answer.content
    assert int(answer["x-realm-generation"]) >= generation


def _commit_unheard(source: Realm) -> int:
    """Writes a file without notifying this replica, as if another replica had just written it.
    Returns the new generation."""
    board = local_board()
    real = board.bump
    board.bump = lambda keys: None  # type: ignore[method-assign]
    try:
        return make.write(source, ada__json=make.card("./person", "Person", name="Grace"))
    finally:
        board.bump = real  # type: ignore[method-assign]
