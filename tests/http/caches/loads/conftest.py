"""Fixtures: empty caches, a live board, and a list of the transpiler's runs."""

from collections.abc import Iterator

import pytest

from notifications.board import now_ns
from notifications.emit import local_board
from realms.models import Realm
from realms.serving import answers, transpiling
from tests.support.clients.loads import HOUR, DenoRuns


@pytest.fixture(autouse=True)
def empty_caches() -> None:
    """Empties the caches, as if the process had just started."""
    answers.caches.cache_clear()


@pytest.fixture
def live() -> Iterator[None]:
    """Makes this process's board live. The process updates the board itself at each commit."""
    local_board().go_live(now_ns() + HOUR)
    yield
    local_board().go_live(0)


@pytest.fixture
def site(source: Realm, live: None) -> Realm:
    """Returns the source realm at SITE. The board is live, so the realm's answers can be cached."""
    return source


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> DenoRuns:
    counted = DenoRuns([])
    really = transpiling._run_deno

    def run(source: bytes, path: str) -> str:
        counted.paths.append(path)
        return really(source, path)

    monkeypatch.setattr(transpiling, "_run_deno", run)
    return counted
