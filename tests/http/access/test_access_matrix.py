"""Requests every route as every kind of caller, in every kind of realm, and compares the statuses
with the tables in `tests/support/clients/every_route.py`.

One test fails if the tables lack a route. Each request's changes are rolled back, so every caller
finds the same realms.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.db import transaction
from django.test import Client, override_settings
from django.urls import URLPattern, URLResolver

from realms.access.auth import OPERATOR, Caller, permissions_of, realm_token, server_token, user_id
from realms.api import card_views, routes
from realms.models import EVERYONE, Realm, RealmPermission
from realms.publishing.bootstrap import sync_base_realm
from realms.serving.responses import VARIANTS
from reindex.reading import pins
from reindex.reading.media_types import CARD
from settings import urls
from tests.support import make
from tests.support.clients.every_route import (
    CALLERS,
    ENDPOINTS,
    FILES,
    KINDS,
    OTHER,
    PLACES,
    PRIVATE,
    PUBLIC,
    PUBLISHED,
    SERVER,
    Route,
)
from tests.support.web import API, ORIGIN, SOURCE

#: Routes that have their own tests below.
ELSEWHERE = {"_admin", "_admin/"}
PATTERNS: list[URLPattern | URLResolver] = urls.urlpatterns  # type: ignore[assignment]
PINNED = {str(each.pattern) for each in PATTERNS if str(each.pattern).startswith("^_at/")}


def sign_pin(realm: Realm) -> str:
    """Signs a pin as a worker does. A pin is a token for reading one realm at one generation."""
    return pins.sign(pins.Pin(realm.url, realm.generation), pins.ITSELF)


def pinned_read(pin: str, path: str) -> tuple[str, dict[str, str]]:
    """Returns the URL and the headers of a read request that carries the pin."""
    return f"{ORIGIN}/_at/{path}", {pins.PIN_HEADER: pin}


@dataclass
class World:
    """Realms of every kind, and each caller's credentials for each realm. `gone` is a caller with a
    deleted account."""

    realms: dict[str, Realm]
    gone: Caller
    client: Client = field(default_factory=lambda: Client(raise_request_exception=True))
    known: dict[tuple[str, str | None], dict[str, str]] = field(default_factory=dict)

    def credentials(self, caller: str, realm: Realm | None) -> dict[str, str]:
        """Returns the headers with a caller's credentials for a realm. If `realm` is None, the
        credentials are for the server's own endpoints."""
        key = caller, realm.url if realm else None
        if key not in self.known:
            self.known[key] = self._credentials(caller, realm)
        return self.known[key]

    def _credentials(self, caller: str, realm: Realm | None) -> dict[str, str]:
        ada, any_realm = Caller.of(make.account("ada")), self.realms["private"]
        match caller:
            case "nobody":
                return {}
            case "stranger" | "reader" | "writer":
                return {"Authorization": _token(Caller.of(make.account(caller)), realm)}
            case "owner":
                return {"Authorization": _token(ada, realm)}
            case "operator" | "assumed":
                told = {"Authorization": _token(Caller(OPERATOR, operator=True), realm)}
                assumed = {"X-Boxel-Assume-User": user_id("stranger")}
                return told | (assumed if caller == "assumed" else {})
            case "other realm":
                other = Realm.objects.get(url=OTHER)
                return {"Authorization": _token(ada, other)}
            case "gone":
                if realm is None:
                    token = server_token("gone", account_id=self.gone.account_id)
                else:
                    claimed = ["read", "write"] if realm.kind == "source" else ["read"]
                    token = realm_token("gone", realm.url, claimed, 60, self.gone.account_id)
                return {"Authorization": token}
            case "pin as token":
                return {"Authorization": sign_pin(realm or any_realm)}
            case "token as pin":
                return {pins.PIN_HEADER: _token(ada, realm or any_realm)}
        raise AssertionError(caller)

    def ask(self, route: Route, url: str, headers: Mapping[str, str]) -> int:
        """Sends one request, rolls back its changes, and returns the status of the answer."""
        scheme_free = url.partition("://")[2]
        host, _, path = scheme_free.partition("/")
        body = route.body if isinstance(route.body, bytes) else json.dumps(route.body or {})
        sent = {"host": host, "accept": route.accept, **route.headers, **headers}
        block: Any = transaction.atomic()
        # The application uses durable transactions, which Django allows only outside a transaction
        # or inside one of a test case. So mark this transaction as one of a test case.
        block._from_testcase = True
        with block:
            if route.method in ("GET", "HEAD"):
                answer = self.client.generic(route.method, f"/{path}", headers=sent)
            else:
                answer = self.client.generic(
                    route.method, f"/{path}", body, content_type=route.content_type, headers=sent
                )
            transaction.set_rollback(True)
        assert answer.status_code < 500 or answer.status_code == 503, answer.content
        return answer.status_code


def _token(caller: Caller, realm: Realm | None) -> str:
    if realm is None:
        return server_token(caller.username, account_id=caller.account_id)
    allowed = sorted(permissions_of(realm, caller))
    return realm_token(caller.username, realm.url, allowed, 60, caller.account_id)


@pytest.fixture
def world(transactional_db: None, sent: Any) -> Iterator[World]:
    ada, reader, writer, _, gone = map(make.user, ("ada", "reader", "writer", "stranger", "gone"))
    files = {**make.SITE, "plain.js": b"export const one = 1;\n", "folder/a.md": b"a"}
    private = make.source(PRIVATE, ada, files, public=False)
    public = make.source(PUBLIC, ada, files)
    make.source(OTHER, ada, files, public=False)
    for realm in (private, public):
        for account, write in ((reader, False), (writer, True), (gone, True)):
            RealmPermission.objects.create(realm=realm, account=account, read=True, write=write)
    make.publish(public, PUBLISHED)
    was = Caller.of(gone)
    gone.delete()
    # A new account gets the deleted account's name. The deleted account's token must not become a
    # token of the new account.
    again = make.user("gone")
    assert again.pk != was.account_id
    published = Realm.objects.get(url=PUBLISHED)
    with override_settings(REALM_REPLICA_ADDRESS="http://127.0.0.1:1"):
        yield World({"private": private, "public": public, "published": published}, was)


def every_route() -> list[Route]:
    return [*ENDPOINTS.values(), *FILES.values(), *PLACES]


@pytest.mark.parametrize("kind", KINDS)
def test_each_caller_gets_the_expected_status_from_each_realm_route(
    world: World, kind: str
) -> None:
    realm, wrong = world.realms[kind], []
    for route in every_route():
        for caller in CALLERS:
            status = world.ask(route, realm.url + route.path, world.credentials(caller, realm))
            if status != route.expected(kind, caller):
                told = f"{route.method} {route.path} as {route.accept} by {caller}: {status}"
                wrong.append(f"{told}, not {route.expected(kind, caller)}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_each_caller_gets_the_expected_status_from_each_server_endpoint(
    world: World, kind: str
) -> None:
    sync_base_realm()
    wrong = []
    for route, lots in SERVER.values():
        target = json.loads(json.dumps(route.body).replace("{realm}", KINDS[kind]))
        path = route.path.replace("{realm}", KINDS[kind])
        asked = Route(route.method, path, "", 0, 0, 0, API, target)
        for caller, cell in zip(CALLERS, lots[kind], strict=True):
            realm = Realm.objects.get(url=OTHER) if caller == "other realm" else None
            status = world.ask(asked, f"{ORIGIN}/{path}", world.credentials(caller, realm))
            expected = int(getattr(route, kind)) if cell == "ok" else int(cell)
            if status != expected:
                wrong.append(f"{route.method} {path} by {caller}: {status}, not {expected}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_pin_opens_pinned_reads(world: World, kind: str) -> None:
    """A pinned read depends only on the pin. The caller's other credentials don't matter."""
    realm = world.realms[kind]
    reads = (
        Route("GET", "plain.js", "", 0, 0, 0), Route("HEAD", "plain.js", "", 0, 0, 0),
        Route("GET", "ada.json", "", 0, 0, 0, SOURCE), Route("GET", "", "", 0, 0, 0, API),
        Route("POST", "", "", 0, 0, 0, body={"paths": ["ada.json"]}),
    )  # fmt: skip
    for read in reads:
        for caller in CALLERS:
            headers = world.credentials(caller, realm)
            token = headers.get("Authorization", headers.get(pins.PIN_HEADER, "none"))
            opened = caller == "pin as token"
            url, by_pin = pinned_read(token, read.path)
            assert world.ask(read, url, by_pin) == (200 if opened else 401), (read, caller)
            url, by_pin = pinned_read("none", read.path)
            assert world.ask(read, url, {**headers, **by_pin}) == 401, (read, caller)


def test_no_token_opens_the_admin(world: World) -> None:
    """The admin refuses all tokens, and the session of a user without staff status. The hosts of
    published realms have no admin."""
    addresses = sorted(set(_addresses(admin.site.urls[0], "_admin/")))
    assert len(addresses) > 60
    session = Client()
    session.force_login(make.account("stranger"))
    cookie = session.cookies[settings.SESSION_COOKIE_NAME].value
    for path in ("_admin", *addresses):
        route = Route("GET", path, "", 0, 0, 0, "text/html")
        callers = {caller: world.credentials(caller, None) for caller in CALLERS
                   if caller != "other realm"}  # fmt: skip
        for caller, headers in (
            *callers.items(),
            ("session", {"cookie": f"{settings.SESSION_COOKIE_NAME}={cookie}"}),
        ):
            status = world.ask(route, f"{ORIGIN}/{path}", headers)
            open_to_all = {"_admin": 302, "_admin/login/": 200}
            assert status == open_to_all.get(path, 302), (path, caller)
            assert world.ask(route, f"{PUBLISHED}{path}", headers) in (302, 404), (path, caller)


def _addresses(patterns: list[Any], prefix: str) -> Iterator[str]:
    for each in patterns:
        route = prefix + re.sub(r"\(\?P<\w+>[^)]*\)|[\^$]|\\Z", "x", str(each.pattern))
        route = re.sub(r"<uuid:\w+>", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", route)
        route = re.sub(r"<[^>]*>", "1", route).replace("x/x", "x/")
        if isinstance(each, URLResolver):
            yield from _addresses(each.url_patterns, route)
        else:
            yield route


def test_every_route_is_in_the_tables() -> None:
    """A new route needs a row in `every_route.py`."""
    listed = {*SERVER, *ELSEWHERE, *PINNED}
    realm = {
        str(each.pattern)
        for each in PATTERNS
        if isinstance(each, URLPattern) and each.callback is routes.realm
    }
    assert {str(each.pattern) for each in PATTERNS} == listed | realm
    assert len(realm) == 1 and len(PINNED) == 1
    answered = {(name, each) for name, views in routes.ENDPOINTS.items() for each in views}
    assert answered == set(ENDPOINTS)
    for (name, method), route in ENDPOINTS.items():
        action = routes.ENDPOINTS[name][method][0]
        assert (action or "nothing") == route.needs
    reading = {(accept, "GET") for accept in (*VARIANTS, API, CARD)}
    cards = {(CARD, method) for method in (*card_views.READING, *card_views._WRITERS)}
    writing = {(SOURCE, method) for method in routes.FILE_METHODS}
    assert reading | cards | writing | {("*/*", "HEAD")} == set(FILES)


def test_a_route_refuses_methods_that_are_not_in_the_tables(world: World) -> None:
    """The requests are sent as the operator, who has all permissions. So no refusal is due to a
    missing permission."""
    for kind, realm in world.realms.items():
        paths = {route.path.partition("?")[0] for route in every_route()}
        known = {(route.method, route.path.partition("?")[0]) for route in every_route()}
        operator = world.credentials("operator", realm)
        for path in paths:
            for method in ("PUT", "PATCH", "TRACE", "QUERY", "LINK"):
                if (method, path) in known or (method == "QUERY" and ("POST", path) in known):
                    continue
                route = Route(method, path, "", 0, 0, 0)
                assert world.ask(route, realm.url + path, operator) in (401, 404, 405), (
                    kind, method, path
                )  # fmt: skip


def test_only_public_realms_have_a_permission_for_everyone(world: World) -> None:
    """The expected statuses in `every_route.py` are correct only with these permissions."""
    rows = RealmPermission.objects.filter(audience=EVERYONE)
    assert set(rows.values_list("realm__url", flat=True)) == {PUBLIC, PUBLISHED}
