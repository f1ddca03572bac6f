"""Stores a site's index (its pages and search documents) without rendering any cards. Also makes
the Cookie header of a logged-in user's browser."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from notifications.channels import index_key
from notifications.emit import local_board
from realms.models import Realm
from tests.support.data.indexed import put_index
from tests.support.web import ORIGIN

SITE = "http://ada.localhost:4201/"
DRAFT = f"{ORIGIN}/ada/site/"
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"
SESSION = settings.SESSION_COOKIE_NAME
NAMESPACE = "{http://www.sitemaps.org/schemas/sitemap/0.9}"


def swapped(realm: Realm, documents: dict[str, Any]) -> None:
    """Replaces a realm's index, as the end of a job does. Also moves the index's slot on the
    board (`notifications/board.py`), which makes the realm's cached pages stale."""
    put_index(realm.url, realm.generation, documents)
    local_board().bump([index_key(realm.url)])


def session_of(name: str) -> dict[str, str]:
    """Returns the Cookie header of a logged-in user's browser."""
    client = Client()
    client.force_login(get_user_model().objects.get(username=name))
    return {"Cookie": f"theme=dark; {SESSION}={client.cookies[SESSION].value}"}
