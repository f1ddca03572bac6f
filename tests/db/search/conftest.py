"""Contains the fixture `world`, a server with a published realm and the index of the realm's
cards."""

from collections.abc import Iterator
from typing import Any

import pytest

from reindex.jobs import messages
from tests.support import make
from tests.support.data.indexed import put_index
from tests.support.data.searched import CARDS, SITE, files
from tests.support.web import ORIGIN, Web


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[Web]:
    """Yields a server with an index. All tests of a module share the server and the index, because
    a search changes neither."""
    from django.core.management import call_command

    from tests.support.web import served

    with django_db_blocker.unblock(), pytest.MonkeyPatch.context() as patch, served() as web:
        patch.setattr(messages, "send", lambda *_, **__: None)
        ada = make.user("ada")
        realm = make.source(f"{ORIGIN}/ada/site/", ada, files())
        published = make.publish(realm, SITE)
        put_index(SITE, published.generation, CARDS, {"broken": {"status": 500, "message": "no"}})
        try:
            yield web
        finally:
            call_command("flush", interactive=False, verbosity=0)
