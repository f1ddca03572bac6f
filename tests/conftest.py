"""Fixtures. The database is a real Postgres: the embedded one, or what DATABASE_URL names."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from tests import make
from tests.web import Web, served, vouch


@pytest.fixture
def owner(transactional_db: None) -> Any:
    """The user ada, who owns what `realm` makes."""
    return make.user("ada")


@pytest.fixture
def source(owner: Any) -> Any:
    """The source realm http://localhost:4201/ada/site/ with a module, two cards and an image."""
    return make.source("http://localhost:4201/ada/site/", owner, make.SITE)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | str]]:
    """What would have gone to the broker, as (task name, id); nothing goes there."""
    from reindex import jobs

    messages: list[tuple[str, int | str]] = []

    def keep(task: str, key: int | str, queue: str = "celery") -> None:
        messages.append((task, key))

    monkeypatch.setattr(jobs, "_send", keep)
    return messages


@pytest.fixture
def web(transactional_db: None, sent: Any) -> Iterator[Web]:
    """The application behind a socket, on the test's own database, with empty caches."""
    with served() as running:
        yield running


@pytest.fixture
def live(web: Web) -> None:
    """Makes the caches of `web` answer, as they do beside a live sidecar."""
    vouch()


@pytest.fixture
def client() -> Client:
    """Django's test client, asking the public origin: the admin is nowhere else."""
    return Client(headers={"host": "localhost:4201"})
