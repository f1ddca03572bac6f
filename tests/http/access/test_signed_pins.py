"""Tests signed pins. A pin lets a request read one realm at one generation, as long as the pin's
reader may read that realm. The reader is a user, EVERYONE, or the realm itself (ITSELF)."""

import time
from typing import Any

import jwt
import pytest
from django.core import signing
from pytest_django import Settings

from realms.access import auth, permissions
from realms.access.auth import Caller
from realms.publishing.publish import delete_realm
from reindex.reading import pins
from reindex.reading.pins import EVERYONE, ITSELF, PIN_HEADER, Pin
from tests.support import make
from tests.support.web import Web


def pinned(web: Web, token: str, path: str = "index.json") -> int:
    """Reads a path with a pin, and returns the status of the answer."""
    url = f"http://localhost:4201/_at/{path}"
    return web.request("GET", url, accept="*/*", headers={PIN_HEADER: token}).status


def test_a_signed_pin_opens_one_realm_at_one_generation_for_an_hour(
    web: Web, source: Any, owner: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = "http://localhost:4201/ada/site/private/"
    other = make.source(inner, owner, {"x.json": b"{}"}, public=False)
    source.refresh_from_db()
    pin = Pin(source.url, source.generation)
    good = pins.sign(pin)
    assert pinned(web, good) == 200
    # This path lies in the realm `other`, and the pin is for the realm `source`.
    assert pinned(web, good, "private/x.json") == 421
    assert pinned(web, pins.sign(Pin(other.url, other.generation), ITSELF), "x.json") == 200
    assert pinned(web, pins.sign(Pin(source.url, source.generation + 1))) == 404
    claims = signing.loads(good, salt="realms.pin")
    assert 3000 <= claims["expires"] - time.time() <= 3600
    for wrong in (
        signing.dumps({**claims, "expires": time.time() - 1}, salt="realms.pin"),
        signing.dumps({**claims, "generation": "x"}, salt="realms.pin"),
        signing.dumps({"realm": source.url}, salt="realms.pin"),
        signing.dumps([], salt="realms.pin"),
        signing.dumps(claims, salt="something else"),
        signing.dumps(claims, key="another key", salt="realms.pin"),
        jwt.encode(claims, settings.REALM_SECRET_SEED, algorithm="HS256"),
        make.login("ada")["Authorization"],
        good[:-2] + ("AA" if not good.endswith("AA") else "BB"),
        "x",
        "",
    ):
        assert pinned(web, wrong) == 401, wrong
    later = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    assert pinned(web, good) == 401


def test_a_pin_in_a_url_opens_nothing(web: Web, source: Any) -> None:
    token = pins.sign(Pin(source.url, source.generation))
    for path in (f"_at/{token}/index.json", f"_at/index.json?pin={token}", "_at/index.json"):
        assert web.get(f"http://localhost:4201/{path}", "*/*").status == 401


@pytest.mark.usefixtures("live")
def test_a_pin_ends_when_its_reader_loses_access(web: Web, owner: Any) -> None:
    realm = make.source("http://localhost:4201/ada/site/", owner, {"x.json": b"{}"})
    bob = make.user("bob")
    permissions.change_permissions(realm, {"@bob:localhost": ["read"]})
    pin = Pin(realm.url, realm.generation)
    reader = auth.reader_key(Caller("bob", account_id=bob.pk, realm_id=realm.pk))
    everyones, own, bobs = (pins.sign(pin, each) for each in (EVERYONE, ITSELF, reader))

    def opened(*tokens: str) -> list[int]:
        return [pinned(web, token, "x.json") for token in tokens]

    assert opened(everyones, own, bobs) == [200, 200, 200]
    assert opened(everyones, own, bobs) == [200, 200, 200]
    permissions.change_permissions(realm, {"*": None})
    assert opened(everyones, own, bobs) == [403, 200, 200]
    permissions.change_permissions(realm, {"@bob:localhost": None})
    assert opened(everyones, own, bobs) == [403, 200, 403]
    permissions.change_permissions(realm, {"@bob:localhost": ["read"]})
    assert opened(everyones, own, bobs) == [403, 200, 200]
    bob.delete()
    assert opened(everyones, own, bobs) == [403, 200, 403]
    delete_realm(realm.url, Caller("ada"))
    assert opened(everyones, own, bobs) == [403, 403, 403]
