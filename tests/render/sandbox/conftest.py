"""Fixture: a function that makes a source realm from a test's files. The fixture also sets a short
time limit for rendering a card."""

from typing import Any

import pytest
from pytest_django import Settings

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from tests.support import make
from tests.support.web import Web


@pytest.fixture
def site(web: Web, owner: Any, settings: Settings) -> Any:
    """Returns a function that makes a source realm from the given files."""
    settings.REALM_RENDER_SECONDS = 1.5
    sync_base_realm()

    def make_source(files: dict[str, bytes]) -> Realm:
        return make.source("http://localhost:4201/ada/site/", owner, files)

    return make_source
