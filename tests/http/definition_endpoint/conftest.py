"""Fixtures for the endpoint `_definition`: Ada's realm, Bob's private realm, and a list of builds.
A build makes the definitions of a module, which describe the card types that the module exports."""

from collections.abc import Iterator
from typing import Any

import pytest

from realms.api import definition_views
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.prerender.module_builder import ModuleBuilder
from tests.support import make
from tests.support.clients.definitions_told import ON_SECRET, PRIVATE, SECRET, SITE, THING
from tests.support.web import Web


@pytest.fixture
def site(web: Web, owner: Any) -> Realm:
    """Installs the card library, and returns Ada's public realm."""
    sync_base_realm()
    return make.source(SITE, owner, {**make.SITE, "thing.tsx": THING, "mine.tsx": ON_SECRET})


@pytest.fixture
def bob() -> Any:
    return make.user("bob")


@pytest.fixture
def private(site: Realm, bob: Any) -> Realm:
    """Returns Bob's realm, which only he may read."""
    return make.source(PRIVATE, bob, {"secret.tsx": SECRET}, public=False)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that collects the URL of each module when its definitions are built."""
    built: list[str] = []
    build = ModuleBuilder.build

    def counted(builder: ModuleBuilder, located: Any) -> Any:
        built.append(located.module_url)
        return build(builder, located)

    monkeypatch.setattr(ModuleBuilder, "build", counted)
    return built


@pytest.fixture(autouse=True)
def no_shared_lookups() -> Iterator[None]:
    """Drops the definition lookups that this process caches, so that each test makes its own."""
    definition_views._lookup.cache_clear()
    yield
