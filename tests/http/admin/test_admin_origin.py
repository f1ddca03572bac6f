"""Tests an admin with an origin of its own (REALM_ADMIN_ORIGIN): at which hosts it answers, and its
cookies. Also tests from which proxies the server believes the X-Forwarded headers
(REALM_TRUSTED_PROXIES)."""

import io
from collections.abc import Iterator
from http.cookies import Morsel
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIRequest
from django.test import Client, override_settings
from granian.utils.proxies import wrap_wsgi_with_proxy_headers

from realms.models import Realm
from realms.serving import origins
from settings.origins import admin_cookies, admin_origin, trusted_proxies
from tests.support import make
from tests.support.web import ORIGIN, Web, vouch

pytestmark = pytest.mark.django_db(transaction=True)

ADMIN = "http://admin.localhost:4201"
ADMIN_HOST = "admin.localhost:4201"
STYLE = "/_static/admin/css/base.css"
REALM_PATHS = ("/", "/ada/site/", "/ada/site/dot.png", "/ada/site/_info", "/robots.txt", "/_at/x/y")
SERVER_PATHS = ("/_server-session", "/_metrics", "/_publish-realm", "/_nothing")


def _forget() -> None:
    origins.policy.cache_clear()
    origins.is_admin_host.cache_clear()


@pytest.fixture
def apart(web: Web) -> Iterator[None]:
    """Sets REALM_ADMIN_ORIGIN to http://admin.localhost:4201 during a test."""
    with override_settings(REALM_ADMIN_ORIGIN=ADMIN, **admin_cookies(ADMIN)):
        _forget()
        yield
    _forget()


def asked(web: Web, host: str, path: str) -> int:
    return web.request("GET", f"http://x{path}", headers={"Host": host}).status


def other_hosts(web: Web) -> tuple[str, ...]:
    return (
        "localhost:4201", f"127.0.0.1:{web.port}", f"localhost:{web.port}", "ada.localhost:4201",
        f"admin.localhost:{web.port}", "admin.localhost", "admin.localhost.:4201", "127.0.0.1:4201",
        "x.admin.localhost:4201", f"{ADMIN_HOST},localhost:4201", "",
    )  # fmt: skip


def test_the_admin_answers_at_its_own_origin_and_nowhere_else(web: Web, apart: None) -> None:
    for host in (ADMIN_HOST, ADMIN_HOST.upper()):
        assert asked(web, host, "/_admin/login/") == asked(web, host, STYLE) == 200
        assert asked(web, host, "/_admin") == asked(web, host, "/_admin/") == 302
    for host in other_hosts(web):
        for path in ("/_admin", "/_admin/", "/_admin/login/", "/_%61dmin/login/", STYLE):
            assert asked(web, host, path) == 404, (host, path)


def test_only_the_admin_answers_at_its_origin(web: Web, apart: None, source: Realm) -> None:
    make.source(f"{ADMIN}/", source.owner, make.SITE)
    vouch()
    for path in (*REALM_PATHS, *SERVER_PATHS):
        for _ in range(2):
            assert asked(web, ADMIN_HOST, path) == 404, path
    assert asked(web, "localhost:4201", "/ada/site/dot.png") == 200


def test_without_its_own_origin_the_admin_is_at_the_public_one(web: Web) -> None:
    for host in ("localhost:4201", f"127.0.0.1:{web.port}"):
        assert asked(web, host, "/_admin/login/") == asked(web, host, STYLE) == 200
    for host in ("ada.localhost:4201", "localhost:9000", "unknown.localhost:4201", ""):
        for path in ("/_admin", "/_admin/", "/_admin/login/", STYLE):
            assert asked(web, host, path) == 404, (host, path)


def test_nothing_is_published_at_the_host_of_the_admin(
    web: Web, apart: None, source: Realm
) -> None:
    for url in (f"{ADMIN}/", f"{ADMIN}/x/", "http://admin.localhost:9000/"):
        body = {"sourceRealmURL": source.url, "publishedRealmURL": url}
        answer = web.post(f"{ORIGIN}/_publish-realm", body, make.login("ada"))
        assert answer.status == 400 and "at a host of this server itself" in answer.text


def logged_in(origin: str, **more: Any) -> dict[str, Morsel[str]]:
    """Logs a superuser in at an origin. Returns the cookies of the answer."""
    get_user_model().objects.create_superuser("root", password="root")
    scheme, _, host = origin.partition("://")
    sent: dict[str, Any] = {
        "headers": {"host": host, "origin": origin},
        "secure": scheme == "https",
    }
    with override_settings(**admin_cookies(origin), **more):
        _forget()
        browser = Client(enforce_csrf_checks=True)
        page = browser.get("/_admin/login/", **sent)
        form = {"username": "root", "password": "root", "next": "/_admin/",
                "csrfmiddlewaretoken": page.context["csrf_token"]}  # fmt: skip
        assert browser.post("/_admin/login/", form, **sent).status_code == 302
        assert browser.get("/_admin/", **sent).status_code == 200
    _forget()
    return dict(browser.cookies)


def test_over_https_no_other_site_can_set_the_cookies_of_the_admin(transactional_db: None) -> None:
    origin = "https://admin.example.com"
    cookies = logged_in(origin, REALM_ADMIN_ORIGIN=origin)
    assert cookies.keys() == {"__Host-realm_session", "__Host-realm_csrf"}
    for cookie in cookies.values():
        assert (cookie["path"], cookie["domain"], cookie["samesite"]) == ("/", "", "Lax")
        assert cookie["secure"] and cookie["httponly"]


def test_a_session_in_a_cookie_of_another_name_opens_nothing(transactional_db: None) -> None:
    origin = "https://admin.example.com"
    session = logged_in(origin, REALM_ADMIN_ORIGIN=origin)["__Host-realm_session"].value
    with override_settings(REALM_ADMIN_ORIGIN=origin, **admin_cookies(origin)):
        _forget()
        for name in (
            "sessionid",
            "realm_session",
            "__host-realm_session",
            "__Secure-realm_session",
        ):
            browser = Client(headers={"host": "admin.example.com", "cookie": f"{name}={session}"})
            assert browser.get("/_admin/", secure=True).status_code == 302, name
    _forget()


def test_over_http_the_cookies_have_plain_names(transactional_db: None) -> None:
    cookies = logged_in(ADMIN, REALM_ADMIN_ORIGIN=ADMIN)
    assert cookies.keys() == {"realm_session", "realm_csrf"}
    assert not any(cookie["secure"] for cookie in cookies.values())


@pytest.mark.parametrize(
    "text",
    ["admin.example.com", "ftp://x", "http://", "https://a/b", "https://a?x", "https://u@a", "https://a#x",
     "https://a:b", "https://a b", "https://a:1/:443", "https://:443", "http://localhost:4201:80",
     "http://localhost:4201", "http://LOCALHOST:4201/", "http://127.0.0.1:4201"],
)  # fmt: skip
def test_an_invalid_or_shared_admin_origin_is_refused(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="REALM_ADMIN_ORIGIN"):
        admin_origin(text, ORIGIN, "http://127.0.0.1:4201")
    assert admin_origin("", ORIGIN) == ""
    for written in ("https://Admin.example.com/", "https://admin.example.com:443"):
        assert admin_origin(written, ORIGIN) == "https://admin.example.com"
    with pytest.raises(ImproperlyConfigured, match="served too"):
        admin_origin("https://example.com:443", "https://example.com")


# --- Proxies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["proxy.example.com", "*", "10.0.0.0/33", "10.0.0.1/8", "1.2.3"])
def test_a_proxy_is_an_address_or_a_network(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="REALM_TRUSTED_PROXIES"):
        trusted_proxies(f"127.0.0.1,{text}")
    assert trusted_proxies(" 127.0.0.1, 10.0.0.0/8,,::1") == ["127.0.0.1", "10.0.0.0/8", "::1"]


@pytest.mark.parametrize(
    ("sender", "proxies", "believed"),
    [
        ("127.0.0.1", "", False), ("203.0.113.5", "10.0.0.0/8", False),
        ("10.1.2.3", "10.0.0.0/8", True), ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True), ("", "10.0.0.0/8", False),
    ],
)  # fmt: skip
def test_forwarded_headers_are_believed_from_trusted_proxies_only(
    sender: str, proxies: str, believed: bool
) -> None:
    seen: list[WSGIRequest] = []
    application = wrap_wsgi_with_proxy_headers(
        lambda environ, _: seen.append(WSGIRequest(environ)), trusted_proxies(proxies)
    )
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": sender, "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(), "HTTP_HOST": "x", "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_FOR": "198.51.100.7",
    }  # fmt: skip
    application(environ, None)
    assert seen[0].is_secure() is believed
    assert (seen[0].META["REMOTE_ADDR"] == "198.51.100.7") is believed


@pytest.mark.parametrize("header", ["X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Scheme"])
def test_a_client_cannot_claim_https_by_a_header(
    web: Web, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests' settings contain no trusted proxy, so the server ignores the header."""
    seen: list[bool] = []
    real = origins.OriginMiddleware.__call__

    def look(self: Any, request: Any) -> Any:
        seen.append(request.is_secure())
        return real(self, request)

    monkeypatch.setattr(origins.OriginMiddleware, "__call__", look)
    told = {header: "https", "X-Forwarded-For": "198.51.100.7"}
    web.request("GET", f"{ORIGIN}/_admin/login/", headers=told)
    assert seen == [False]
