"""This process as a web service with empty caches, and what its transpiler is asked for."""

from collections.abc import Iterator

import pytest

from notifications.board import now_ns
from notifications.emit import local_board
from realms.models import Realm
from realms.serving import answers, transpiling
from tests.support.clients.loads import HOUR, DenoRuns


@pytest.fixture(autouse=True)
def empty_caches() -> None:
    """This process serves as if it had just started."""
    answers.caches.cache_clear()


@pytest.fixture
def live() -> Iterator[None]:
    """A board that is vouched for. What changes in this process moves it at commit."""
    local_board().go_live(now_ns() + HOUR)
    yield
    local_board().go_live(0)


@pytest.fixture
def site(source: Realm, live: None) -> Realm:
    """The source realm at SITE, served from caches."""
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
