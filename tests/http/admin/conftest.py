"""Fixtures: a superuser's browser, a published realm, and a connection that listens to
notifications."""

from collections.abc import Iterator

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from notifications.channels import DEFINITION_CACHE_INVALIDATED, REALM_FILE_CHANGES, REALM_REGISTRY
from notifications.listener import listen_connection
from realms.models import Realm
from tests.support import make
from tests.support.clients.admin import PUBLISHED, Heard, browser_of


@pytest.fixture
def root() -> Client:
    """Returns a client that is logged in as a superuser."""
    return browser_of(get_user_model().objects.create_superuser("root", password="root"))


@pytest.fixture
def published(source: Realm) -> Realm:
    """Returns a realm that was published at its source's generations 2 and 3."""
    make.publish(source, PUBLISHED)
    make.write(source, post__tsx=b"export const edition = 2;")
    make.publish(source, PUBLISHED)
    return Realm.objects.get(url=PUBLISHED)


@pytest.fixture
def ear(transactional_db: None) -> Iterator[Heard]:
    """Yields a database connection that listens on three of the channels on which replicas receive
    notifications of changes."""
    with listen_connection() as listening:
        for channel in (REALM_FILE_CHANGES, DEFINITION_CACHE_INVALIDATED, REALM_REGISTRY):
            listening.execute(f"LISTEN {channel}".encode())
        yield listening
