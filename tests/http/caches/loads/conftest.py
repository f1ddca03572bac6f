"""Fixtures: empty caches, a live board, and a list of the transpiler's runs. The board is a file
that shows which cached answers are stale. Caches are used only while the board is live."""

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
    """Makes this process's board live for an hour. No sidecar receives notifications here, but the
    process updates the board itself at each of its commits."""
    local_board().go_live(now_ns() + HOUR)
    yield
    local_board().go_live(0)


@pytest.fixture
def site(source: Realm, live: None) -> Realm:
    """Returns the realm of the fixture `source`. The board is live, so the realm's answers can come
    from the cache."""
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
