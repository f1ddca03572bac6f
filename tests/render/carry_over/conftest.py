"""Fixtures: a realm of modules, a published site that imports from this realm, and a function that
lists newly rendered cards."""

from collections.abc import Callable
from typing import Any

import pytest

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from tests.support import make
from tests.support.data.notes import FILES, LIBRARY, SITE, rows
from tests.support.rendering import index_of, work_off
from tests.support.web import Web

URL = "http://ada.localhost:4201/"
Sent = list[tuple[str, Any]]


@pytest.fixture
def library(web: Web, owner: Any) -> Realm:
    sync_base_realm()
    return make.source(
        LIBRARY,
        owner,
        {"label.ts": b'export const label = "one";', "other.ts": b"export const other = 1;"},
    )


@pytest.fixture
def site(library: Realm, owner: Any, sent: Sent) -> Realm:
    """Returns a source realm that is published and rendered."""
    realm = make.source(SITE, owner, FILES)
    make.publish(realm, URL)
    work_off(sent)
    assert len(index_of(URL)) == 6
    return realm


@pytest.fixture
def rendered(sent: Sent) -> Callable[[], set[str]]:
    """Returns a function that does all queued work, and returns the paths of the site's cards that
    this work rendered or removed."""

    def work() -> set[str]:
        before = rows()
        work_off(sent)
        after = rows()
        return {path for path in before.keys() | after if before.get(path) != after.get(path)}

    return work
