"""Fixture: a source realm of notes that is published and rendered."""

from typing import Any

import pytest

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from tests.support import make
from tests.support.data.documents import FILES, Sent, publish
from tests.support.web import ORIGIN, Web


@pytest.fixture
def site(web: Web, owner: Any, sent: Sent) -> Realm:
    """Returns a source realm that is published and rendered."""
    sync_base_realm()
    realm = make.source(f"{ORIGIN}/ada/notes/", owner, FILES)
    publish(realm, sent)
    return realm
