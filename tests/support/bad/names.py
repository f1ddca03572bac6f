"""Lists requests that the server's endpoints refuse, mostly because of a realm's name, URL or
owner."""

from collections.abc import Iterator
from typing import Any

from tests.support.bad.bodies import RIGHT, created, realm_document
from tests.support.bad.requests import (
    ADAS_PAGE,
    BOBS,
    BOBS_PAGE,
    DRAFT,
    PRIVATE,
    SITE,
    Case,
    endpoint,
)
from tests.support.web import ORIGIN


def published_at(name: str, url: Any, status: int, *says: str, source: Any = SITE) -> Case:
    """Returns Ada's request to publish `source`, by default her site, at `url`. The server must
    refuse the request."""
    body = {"sourceRealmURL": source, "publishedRealmURL": url}
    return endpoint(f"onto {name}", "_publish-realm", body, status, *says)


def server_cases() -> Iterator[Case]:
    """Yields requests to the server's endpoints with a wrong realm name, URL, owner, method, length
    or login."""
    for name in ("", "Über", "a/b", "..", "a b", "A", "_x", "a.b", "x" * 300, "a\nb", "new\n"):
        yield created(f"endpoint {name[:9]!r}", realm_document(endpoint=name, name="N"), "endpoint")
    yield created("without a name", realm_document(endpoint="new", name=""), "data.attributes.name")
    yield created("that stands already", realm_document(endpoint="site", name="N"),
                  "already exists", f"'{SITE}'")  # fmt: skip
    for method in ("GET", "PUT", "PATCH", "DELETE", "HEAD", "BREW"):
        yield endpoint(f"by {method}", "_publish-realm", b"", 405, "POST", method=method)
    yield endpoint("by POST", "_delete-realm", RIGHT["_delete-realm"], 405, "DELETE")
    for unknown in (
        "_unknown-endpoint",
        "_",
        "_publish-realm/",
        "_publish-realm/x",
        "_at",
    ):
        yield endpoint("is not there", unknown, {}, 404, unknown)
    yield endpoint("of a length that is no number", "_publish-realm", b"", 400, "Content-Length",
                   edge=True, length="many")  # fmt: skip
    yield endpoint("of negative length", "_publish-realm", b"", 400, "Content-Length",
                   edge=True, length="-5")  # fmt: skip
    yield endpoint("that says it is huge", "_publish-realm", b"", 413, "exceeds maximum",
                   length="99999999999")  # fmt: skip

    not_urls = {
        "nothing": "",
        "a word": "ada",
        "a path": "/ada/",
        "another scheme": "ftp://ada.localhost/",
        "a script": "javascript:alert(1)",
        "no host": "http:///x/",
        "half a host": "http://[/x/",
        "an address in brackets": "http://[::1]/x/",
        "a port that is none": "http://ada.localhost:99999/",
        "a port of letters": "http://ada.localhost:http/",
        "a user": "http://ada@ada.localhost:4201/",
        "a password": "http://ada:x@ada.localhost:4201/",
        "a unicode host": "http://ädä.localhost:4201/",
        "a host with a space": "http://a da.localhost/",
        "a host with _": "http://a_b.localhost/",
        "a host that starts with a dot": "http://.localhost/",
        "a host that ends with a dash": "http://a-.localhost/",
        "an empty segment": "http://ada.localhost:4201//x/",
        "an escape": "http://ada.localhost:4201/%2e%2e/",
        "a traversal": "http://ada.localhost:4201/../",
        "a dot": "http://ada.localhost:4201/./",
        "a space": "http://ada.localhost:4201/a b/",
        "a star": "http://ada.localhost:4201/*/",
        "a colon": "http://ada.localhost:4201/:x/",
        "a segment that starts with _": "http://ada.localhost:4201/_x/",
        "_at": "http://ada.localhost:4201/_at/",
        "_admin": f"{ORIGIN}/_admin/",
        "a hidden segment": "http://ada.localhost:4201/.git/",
        "a backslash": "http://ada.localhost:4201\\x/",
        "an unescaped letter": "http://ada.localhost:4201/ä/",
        "2,000 segments": "http://ada.localhost:4201/" + "a/" * 2000,
        "a segment of 2,000 letters": f"http://ada.localhost:4201/{'a' * 2000}/",
    }
    for name, url in not_urls.items():
        yield published_at(name, url, 400, "Invalid realm URL supplied")
        yield published_at(f"its page from {name}", ADAS_PAGE, 400, "Invalid realm URL supplied",
                           source=url)  # fmt: skip
        yield endpoint(f"of {name}", "_unpublish-realm", {"publishedRealmURL": url}, 400,
                       "Invalid realm URL supplied")  # fmt: skip
        yield endpoint(f"of {name}", "_delete-realm", {"data": {"type": "realm", "id": url}}, 400,
                       "Invalid realm URL supplied", method="DELETE")  # fmt: skip

    for host in ("ada.example.com", "evillocalhost", "localhost.evil.com", "ada.localhost.evil.com",
                 "localhost-", "127.0.0.1", "xn--localhost"):  # fmt: skip
        says = "valid host" if host.endswith("-") else "not below a domain"
        yield published_at(f"the host {host}", f"http://{host}:4201/", 400, says)
    yield published_at("her own source", SITE, 400, SITE, "source realm")
    yield published_at("another source of hers", PRIVATE, 400, PRIVATE, "source realm")
    yield published_at("a source of Bob's", BOBS, 400, BOBS, "source realm")
    yield published_at("the card library", f"{ORIGIN}/base/", 400, "base/", "bootstrap realm")
    yield published_at("the public origin itself", f"{ORIGIN}/", 403, "publish to", f"{ORIGIN}/")
    yield published_at("Bob's name", f"{ORIGIN}/bob/new/", 403, "publish to", "/bob/new/")
    yield published_at("a name that is nobody's", f"{ORIGIN}/new/", 403, "publish to", "/new/")
    yield published_at("below Bob's source", f"{BOBS}new/", 403, "publish to", "/bob/site/new/")
    yield published_at("below the card library", f"{ORIGIN}/base/x/", 403, "publish to")
    yield published_at("Bob's page", BOBS_PAGE, 403, "publish to", BOBS_PAGE)
    for spelling in (
        "HTTP://BOB.LOCALHOST:4201",
        f"{BOBS_PAGE}?a=b#c",
        "https://bob.localhost:4201/",
    ):
        yield published_at(f"Bob's page, spelt {spelling}", spelling, 403, "publish to", BOBS_PAGE)
    yield published_at("below Bob's page", f"{BOBS_PAGE}new/", 403, "publish to", "new/")
    yield published_at("her page from Bob's site", ADAS_PAGE, 403, BOBS, source=BOBS)
    yield published_at("her page from nowhere", ADAS_PAGE, 400, f"{SITE}no/", source=f"{SITE}no/")
    yield published_at("her page from a page", ADAS_PAGE, 400, BOBS_PAGE, source=BOBS_PAGE)
    yield published_at("her page from a draft", ADAS_PAGE, 422, f"Realm {DRAFT} is not publishable",
                       source=DRAFT)  # fmt: skip

    for url, status, says in ((BOBS_PAGE, 403, "not allowed"), (SITE, 422, "not found"),
                              ("http://new.localhost:4201/", 422, "not found")):  # fmt: skip
        yield endpoint(f"of {url}", "_unpublish-realm", {"publishedRealmURL": url}, status, says)
    for url, status, says in ((BOBS, 403, "not allowed to delete"), (ADAS_PAGE, 422, "published"),
                              (f"{ORIGIN}/base/", 422, "bootstrap"), (f"{SITE}no/", 404, "no/"),
                              (f"{ORIGIN}/bob/adas/", 403, "not allowed")):  # fmt: skip
        body = {"data": {"type": "realm", "id": url}}
        yield endpoint(f"of {url}", "_delete-realm", body, status, says, method="DELETE")
    for login in ({"username": "ada", "password": "wrong"}, {"username": "eve", "password": "eve"},
                 {"username": "", "password": ""},
                 {"username": "ada", "password": "x" * 9000}):  # fmt: skip
        yield endpoint(f"of {login['username']!r}", "_server-session", login, 401, "username",
                       "password", token=None)  # fmt: skip
    yield endpoint("for ever", "_server-session",
                   {"username": "ada", "password": "ada", "lifetime": "for ever"}, 400, "lifetime",
                   "'extended'")  # fmt: skip
