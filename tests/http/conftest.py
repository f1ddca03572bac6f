"""Fixtures: a token of the user ada, and a realm that only ada may read."""

from typing import Any

import pytest

from realms.models import Realm
from tests.support import make
from tests.support.web import ORIGIN


@pytest.fixture
def ada(source: Realm) -> dict[str, str]:
    """Returns an Authorization header with ada's token for the realm of the fixture `source`."""
    return make.realm_login(source, "ada")


@pytest.fixture
def private(owner: Any) -> Realm:
    """Returns a realm that only ada may read."""
    return make.source(f"{ORIGIN}/ada/private/", owner, make.SITE, public=False)
