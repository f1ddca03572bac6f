"""Fixture: a published realm with an index."""

from typing import Any

import pytest

from realms.models import Realm
from tests.support import make
from tests.support.data.indexed import put_index
from tests.support.data.site import SITE


@pytest.fixture
def shown(source: Realm, sent: Any) -> Realm:
    """Returns a published realm with an index of two pages and one error."""
    published = make.publish(source, SITE)
    put_index(SITE, published.generation, {"index": {}, "a b/ada": {}}, {"bad": {"message": "no"}})
    return Realm.objects.get(url=SITE)
