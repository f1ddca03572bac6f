"""Requests that are wrong, each with the status that the protocol gives it and with words that the
answer's message must have. A table, and no test: `test_bad_input` walks it.
"""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from django.conf import settings
from django.core import signing

from reindex.reading.pins import Pin, sign
from tests.support import make
from tests.support.web import API, ORIGIN, SOURCE

SITE = f"{ORIGIN}/ada/site/"
PRIVATE = f"{ORIGIN}/ada/private/"
DRAFT = f"{ORIGIN}/ada/draft/"
BOBS = f"{ORIGIN}/bob/site/"
ADAS_PAGE = "http://ada.localhost:4201/"
BOBS_PAGE = "http://bob.localhost:4201/"
OWNER = ["read", "realm-owner", "write"]


def signed(**claims: Any) -> str:
    """A token with these claims, rightly signed."""
    return jwt.encode(claims, settings.REALM_SECRET_SEED, algorithm="HS256")


def soon() -> int:
    # The tests may run for long after this is read.
    return int(time.time()) + 6 * 3600


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_header(header: Mapping[str, str]) -> str:
    """An operator's claims under another JOSE header, without a signature that could be right."""
    claims = {"user": "@realm_server:localhost", "exp": soon()}
    return f"{_part(header)}.{_part(claims)}.{'' if header['alg'] == 'none' else _part('x')}"


def minted(name: str, realm_url: str | None = None, permissions: list[str] | None = None) -> str:
    """A token as a client mints it that has the seed: no older than any account of the tests."""
    claims: dict[str, Any] = {"user": f"@{name}:localhost", "iat": soon(), "exp": soon()}
    if realm_url is not None:
        claims |= {"realm": realm_url, "permissions": permissions}
    return signed(**claims)


ADA = minted("ada")
ADA_IN_SITE = minted("ada", SITE, OWNER)


def pin(**claims: Any) -> str:
    """What passes for a pin as far as its signature goes."""
    return signing.dumps(claims, salt="realms.pin")


@dataclass(frozen=True)
class Case:
    """A request that is wrong, and what must be said of it."""

    name: str
    method: str
    url: str
    status: int
    says: tuple[str, ...] = ()
    body: bytes | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    #: Where an HTTP server may already have refused the request, by whatever words it has.
    edge: bool = False

    @property
    def at_server(self) -> bool:
        """Whether it goes to an endpoint of the server, whose errors are bare strings."""
        path = self.url.removeprefix(f"{ORIGIN}/")
        return path.startswith("_") and not path.startswith("_at/")


def endpoint(
    name: str, endpoint: str, body: Any, status: int, *says: str, token: str | None = ADA,
    method: str = "POST", edge: bool = False, length: str | None = None,
) -> Case:  # fmt: skip
    """A request to a server endpoint; a body that isn't bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Accept": API, "Authorization": token, "Content-Length": length or str(len(data))}
    return Case(
        f"{endpoint} {name}", method, f"{ORIGIN}/{endpoint}", status, says, data, sent, edge
    )


def file(
    name: str, method: str, url: str, status: int, *says: str, body: bytes | None = None,
    token: str | None = ADA_IN_SITE, accept: str | None = SOURCE, edge: bool = False,
    **headers: str | None,
) -> Case:  # fmt: skip
    """A request to a realm. Underscores in header names stand for dashes."""
    sent: dict[str, str | None] = {"Accept": accept, "Authorization": token}
    sent |= {key.replace("_", "-"): value for key, value in headers.items()}
    return Case(f"{method} {name}", method, url, status, says, body, sent, edge)


def published_at(name: str, url: Any, status: int, *says: str, source: Any = SITE) -> Case:
    """Ada publishes her site at a URL that is wrong."""
    body = {"sourceRealmURL": source, "publishedRealmURL": url}
    return endpoint(f"onto {name}", "_publish-realm", body, status, *says)


def created(name: str, body: Any, *says: str) -> Case:
    return endpoint(name, "_create-realm", body, 400, *says)


def realm_document(**attributes: Any) -> Any:
    return {"data": {"type": "realm", "attributes": attributes}}


ENDPOINTS = {
    "_create-realm": "POST",
    "_publish-realm": "POST",
    "_unpublish-realm": "POST",
    "_delete-realm": "DELETE",
    "_server-session": "POST",
}

#: Bodies that no endpoint takes.
BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not valid JSON"),
    "half a document": (b'{"data": {"type": "re', "not valid JSON"),
    "single quotes": (b"{'data': 1}", "not valid JSON"),
    "a trailing comma": (b'{"data": 1,}', "not valid JSON"),
    "text after the document": (b"{} {}", "not valid JSON"),
    "invalid UTF-8": (b'{"data": "\xff\xfe"}', "not valid JSON"),
    "a number of 100,000 digits": (b'{"data": ' + b"9" * 60_000 + b"}", "not valid JSON"),
    "a number beyond all floats": (b'{"data": 1e999}', "1e999"),
    "NaN": (b'{"data": NaN}', "NaN"),
    "nesting without end": (b"[" * 60_000, "not valid JSON"),
    "nesting that closes": (b'{"data":' * 8_000, "not valid JSON"),
    "an array": (b"[]", "must be a JSON object, not an array"),
    "a string": (b'"data"', "must be a JSON object, not a string"),
    "null": (b"null", "must be a JSON object, not null"),
    "true": (b"true", "must be a JSON object, not a boolean"),
    "a number": (b"12", "must be a JSON object, not a number"),
    "more than 64 KiB": (b'{"data": "' + b"x" * 65_536 + b'"}', "exceeds maximum allowed size"),
}

WRONG_STRINGS: dict[str, tuple[Any, str]] = {
    "null": (None, "valid string"),
    "a number": (7, "valid string"),
    "true": (True, "valid string"),
    "an array": ([], "valid string"),
    "an object": ({}, "valid string"),
    "a lone surrogate": ("http://ada.localhost:4201/\ud800", ""),
    "a NUL": ("http://ada.localhost:4201/\x00", "NUL"),
}

#: The string fields of each body: where they are, and a body in which they are right.
FIELDS: dict[str, tuple[str, ...]] = {
    "_publish-realm": ("sourceRealmURL", "publishedRealmURL"),
    "_unpublish-realm": ("publishedRealmURL",),
    "_create-realm": (
        "data.type",
        "data.attributes.endpoint",
        "data.attributes.name",
        "data.attributes.iconURL",
        "data.attributes.backgroundURL",
    ),
    "_delete-realm": ("data.type", "data.id"),
    "_server-session": ("username", "password"),
}

RIGHT: dict[str, Any] = {
    "_publish-realm": {"sourceRealmURL": SITE, "publishedRealmURL": ADAS_PAGE},
    "_unpublish-realm": {"publishedRealmURL": ADAS_PAGE},
    "_create-realm": realm_document(endpoint="new", name="New", iconURL="/i", backgroundURL="/b"),
    "_delete-realm": {"data": {"type": "realm", "id": SITE}},
    "_server-session": {"username": "ada", "password": "ada"},
}


def replaced(document: Any, place: str, value: Any) -> Any:
    """The document with another value at a dotted place; `...` takes the field out."""
    first, _, rest = place.partition(".")
    inner = replaced(document[first], rest, value) if rest else value
    return {key: inner if key == first else each for key, each in document.items()
            if not (key == first and inner is ...)}  # fmt: skip


def bodies() -> Iterator[Case]:
    """Every endpoint with every body that is no document, every field with every wrong value."""
    for name, method in ENDPOINTS.items():
        for kind, (body, says) in BODIES.items():
            status = 413 if len(body) > 64 * 1024 else 400
            yield endpoint(f"with {kind}", name, body, status, says, method=method)
        yield endpoint("with {}", name, {}, 400, FIELDS[name][0].split(".")[0], method=method)
        for place in FIELDS[name]:
            if not place.endswith(("iconURL", "backgroundURL")):
                without = replaced(RIGHT[name], place, ...)
                yield endpoint(f"without {place}", name, without, 400, place, method=method)
            for kind, (value, says) in WRONG_STRINGS.items():
                if value is None and place.endswith(("iconURL", "backgroundURL")):
                    continue
                if place == "data.type":
                    says = "Input should be"
                if place.endswith("endpoint") and isinstance(value, str):
                    says = ""
                body = replaced(RIGHT[name], place, value)
                yield endpoint(f"with {kind} for {place}", name, body, 400, place, says,
                               method=method)  # fmt: skip
    for place in ("data", "data.attributes"):
        for value in (None, [], "x", 3):
            body = replaced(RIGHT["_create-realm"], place, value)
            yield created(f"with {value!r} for {place}", body, place)
    twice = b'{"publishedRealmURL": "' + ADAS_PAGE.encode() + b'", "publishedRealmURL": 3}'
    yield endpoint("with a key twice", "_unpublish-realm", twice, 400, "publishedRealmURL")


def server_cases() -> Iterator[Case]:
    """Names, URLs, owners."""
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


def tokens() -> Iterator[Case]:
    """What isn't a token for the place where it is shown."""
    user = "@ada:localhost"
    wrong: dict[str, tuple[str | None, str]] = {
        "no token": (None, "Missing Authorization header"),
        "an empty one": ("", "Missing Authorization header"),
        "a bare Bearer": ("Bearer ", ""),
        "a word": ("hello", "Token invalid"),
        "Basic": ("Basic YWRhOmFkYQ==", "Token invalid"),
        "letters beyond ASCII": ("tökén", ""),
        "three empty parts": ("..", "Token invalid"),
        "alg none": (with_header({"alg": "none", "typ": "JWT"}), "Token invalid"),
        "alg None": (with_header({"alg": "None", "typ": "JWT"}), "Token invalid"),
        "RS256": (with_header({"alg": "RS256", "typ": "JWT"}), "Token invalid"),
        "HS512": (
            jwt.encode(
                {"user": user, "exp": soon()}, settings.REALM_SECRET_SEED * 2, algorithm="HS512"
            ),
            "Token invalid",
        ),
        "another seed": (
            jwt.encode(
                {"user": user, "exp": soon()},
                "another seed, but long enough for this algorithm",
                algorithm="HS256",
            ),
            "Token invalid",
        ),
        "a changed claim": (
            f"{ADA.split('.')[0]}.{_part({'user': '@bob:localhost', 'exp': soon()})}"
            f".{ADA.split('.')[2]}",
            "Token invalid",
        ),
        "an expired one": (signed(user=user, exp=int(time.time()) - 1), "Token expired"),
        "one without exp": (signed(user=user), "Token invalid"),
        "an exp of letters": (signed(user=user, exp="soon"), "Token invalid"),
        "one that begins later": (signed(user=user, exp=soon(), nbf=soon()), "Token invalid"),
        "no user": (signed(exp=soon()), "it names no user"),
        "a number as user": (signed(user=7, exp=soon()), "it names no user"),
        "a list as user": (signed(user=["@ada:localhost"], exp=soon()), "it names no user"),
        "a user of elsewhere": (signed(user="@ada:example.com", exp=soon()), "not a user"),
        "an operator of elsewhere": (signed(user="@realm_server:example.com", exp=soon()), "not a"),
        "a pin": (sign(Pin(SITE, 2)), "Token invalid"),
    }
    for name, (token, says) in wrong.items():
        body = RIGHT["_unpublish-realm"]
        yield endpoint(f"with {name}", "_unpublish-realm", body, 401, says, token=token)
        yield file(f"with {name}", "GET", f"{PRIVATE}index.json", 401, says, token=token)
        yield file(f"with {name}", "POST", f"{SITE}new.md", 401, says, token=token, body=b"x")
    yield endpoint("with a realm's token", "_unpublish-realm", RIGHT["_unpublish-realm"], 401,
                   "a realm token does not open", token=ADA_IN_SITE)  # fmt: skip
    strangers = {
        "a server token": (ADA, 401, "a server token does not open a realm"),
        "a token for another realm": (ADA_IN_SITE, 401, f"it is for {SITE}"),
        "a token for its parent": (minted("ada", f"{ORIGIN}/ada/", OWNER), 401, "is for"),
        "more than is granted": (minted("bob", PRIVATE, OWNER), 401, "permissions"),
        "less than is granted": (minted("ada", PRIVATE, ["read"]), 401, "permissions"),
        "nothing granted": (minted("bob", PRIVATE, []), 403, "not allowed to read"),
        "no list of permissions": (
            signed(user=user, realm=PRIVATE, iat=soon(), exp=soon()),
            401,
            "permissions",
        ),
        "a word as permissions": (
            signed(user=user, realm=PRIVATE, iat=soon(), exp=soon(), permissions="read"),
            401,
            "permissions",
        ),
        "a list as realm": (
            signed(user=user, realm=[PRIVATE], exp=soon(), permissions=OWNER),
            401,
            "it is for",
        ),
    }
    for name, (token, status, says) in strangers.items():
        for method in ("GET", "POST", "DELETE"):
            changed = says.replace("to read", {"GET": "to read"}.get(method, "to write"))
            yield file(f"with {name}", method, f"{PRIVATE}index.json", status, changed, token=token)
    yield file("into Bob's realm", "POST", f"{BOBS}x.md", 401, f"it is for {SITE}", body=b"x")
    yield file("with read only", "POST", f"{BOBS}x.md", 403, "not allowed to write", body=b"x",
               token=minted("ada", BOBS, ["read"]))  # fmt: skip

    claims = {"realm": SITE, "generation": 2, "job": 0, "reader": "*", "expires": soon()}
    tokens: dict[str, str] = {
        "a word": "hello",
        "nothing": "",
        "a server token": ADA,
        "a realm token": ADA_IN_SITE,
        "an expired pin": pin(**claims | {"expires": int(time.time()) - 1}),
        "a pin without expiry": pin(realm=SITE, generation=2, job=0, reader="*"),
        "a pin without generation": pin(realm=SITE, job=0, reader="*", expires=soon()),
        "a pin of letters": pin(**claims | {"generation": "two"}),
        "a pin of the wrong salt": signing.dumps(claims, salt="realms.other"),
        "a forged pin": signing.dumps(claims, key="nobody's key", salt="realms.pin"),
        "a pin as a token": signed(**claims),
        "a star": "*",
    }
    for name, token in tokens.items():
        for path in ("index.json", ""):
            yield file(f"pinned by {name}", "GET", f"{ORIGIN}/_at/{path}", 401,
                       "the pin is not valid", token=None, X_Realm_Pin=token)  # fmt: skip
    yield file("pinned by an address", "GET", f"{ORIGIN}/_at/{sign(Pin(SITE, 2))}/index.json", 401,
               "the pin is not valid", token=None)  # fmt: skip
    for realm in (f"{SITE}gone/", "http://gone.localhost:4201/"):
        gone = sign(Pin(realm, 2))
        for path in ("index.json", ""):
            yield file(f"pinned to {realm}{path}", "GET", f"{ORIGIN}/_at/{path}", 403, realm,
                       "has ended", X_Realm_Pin=gone)  # fmt: skip
    pinned, ours = f"{ORIGIN}/_at/", sign(Pin(SITE, 2))
    yield file("pinned, a NUL", "GET", f"{pinned}%00", 400, "NUL", X_Realm_Pin=ours)
    yield file("pinned, a line break", "GET", f"{pinned}a%0Ab", 404, "not found", X_Realm_Pin=ours)
    yield file("pinned, no file", "GET", f"{pinned}none.md", 404, "none.md", X_Realm_Pin=ours)
    yield file(
        "pinned, a parent's file",
        "GET",
        f"{pinned}../private/index.json",
        404,
        "not found",
        X_Realm_Pin=ours,
    )
    yield file(
        "pinned", "POST", f"{pinned}index.json", 405, "GET or HEAD", body=b"x", X_Realm_Pin=ours
    )
    yield file("pinned", "DELETE", f"{pinned}index.json", 405, "GET or HEAD", X_Realm_Pin=ours)


HOSTS = {
    "": 400,
    "localhost:4201/ada": 400,
    "a b": 400,
    "ada@localhost:4201": 400,
    "localhost:4201?": 400,
    "localhost:4201#": 400,
    "lo\tcal": 400,
    "[::1": 400,
    "löcal": 400,
    "[::1]:4201": 404,
    "evil.example": 404,
    "x" * 300: 400,
    "x" * 250: 404,
}

NOWHERE = (
    "none.md",
    "none",
    "ada",
    "%2e%2e/private/index.json",
    "%2e%2e%2fprivate%2findex.json",
    "../private/index.json",
    "index.json/",
    "%252e%252e/",
    "*",
    ":x",
    "a//b",
    "index.json%20",
    "INDEX.JSON",
    "a%0Ab",
    "post.tsx/..",
    "post.tsx%3F",
)


def paths() -> Iterator[Case]:
    """Paths that no file may have, requests that realms don't know, bodies that don't fit."""
    odd = {
        "a star": ("*", "has a *"),
        "a star inside": ("a*b.md", "has a *"),
        "an escaped star": ("%2A", "has a *"),
        "a colon in front": (":x", "starts with :"),
        "a colon in front, deeper": ("a/:x", "starts with :"),
        "an escaped colon": ("a/%3Ax", "starts with :"),
        "an empty segment": ("a//b.md", "empty segment"),
        "two slashes": ("/b.md", "starts with /"),
        "a slash at the end": ("a/", "empty segment"),
        "a dot": ("./b.md", ". or .."),
        "dots": ("a/../b.md", ". or .."),
        "escaped dots": ("%2e%2e/b.md", ". or .."),
        "escaped slashes": ("..%2Fb.md", ". or .."),
        "a line break": ("a%0Ab", "control character"),
        "a tab": ("a%09b", "control character"),
        "DEL": ("a%7Fb", "control character"),
        "1,025 bytes": ("a" * 1025, "longer than 1024"),
        "1,025 bytes of 513 letters": ("%C3%A4" * 513, "longer than 1024"),
        "nothing": ("", "empty"),
    }
    for name, (path, says) in odd.items():
        yield file(f"at {name}", "POST", SITE + path, 400, says, body=b"x")
        yield file(f"at {name}", "DELETE", SITE + path, 400, says)
    for method in ("GET", "POST", "DELETE", "HEAD"):
        body = b"x" if method == "POST" else None
        yield file("at a NUL", method, f"{SITE}a%00b", 400, "NUL", body=body)
        yield file("at invalid UTF-8", method, f"{SITE}a%ff", 404, "UTF-8", body=body)
        yield file("at half an escape's bytes", method, f"{SITE}a%e2%82", 404, "UTF-8", body=body)
        yield file("at an encoded surrogate", method, f"{SITE}%ED%A0%80", 404, "UTF-8", body=body)
        yield file("at 5,000 bytes", method, SITE + "a" * 5000, 414, "4096", body=body)
        yield file("at 20,000 slashes", method, SITE + "a/" * 20_000, 414, "4096", body=body)
        yield file(
            "where no realm is", method, f"{ORIGIN}/nobody/site/a.md", 404, "/nobody/", body=body
        )
        yield file("above all realms", method, f"{ORIGIN}/", 404, f"{ORIGIN}/", body=body)
        elsewhere = "http://x.localhost:4201/"
        yield file("of a host without realms", method, elsewhere, 404, elsewhere, body=body)
        for host, status in HOSTS.items():
            says = "Host" if status == 400 else "not found"
            yield file(f"of the host {host[:20]!r}", method, f"{SITE}index.json", status, says,
                       body=body, Host=host, edge=True)  # fmt: skip
        yield file("of half a path as host", method, f"{ORIGIN}/site/index.json", 400, "Host",
                   body=body, Host="localhost:4201/ada", edge=True)  # fmt: skip
        yield file("of no host", method, f"{SITE}index.json", 400, "Host", body=body, Host=None,
                   edge=True)  # fmt: skip
    for path in NOWHERE:
        if path != "ada":
            yield file(path, "GET", SITE + path, 404, "not found")
        yield file(f"{path} as a module", "GET", SITE + path, 404, "not found", accept="*/*")
    yield file("none.md", "DELETE", f"{SITE}none.md", 404, "none.md")
    yield file("a folder", "DELETE", f"{SITE}a", 404, "/a")
    for generation in ("soon", "-1", "", "1.5", "+1", "1e3", "9" * 19, "٣", "0x2", "2, 3"):
        sent = generation.encode().decode("latin-1")
        yield file(f"at generation {generation[:5]!r}", "GET", f"{SITE}index.json", 400,
                   "X-Realm-Min-Generation", X_Realm_Min_Generation=sent)  # fmt: skip
    for generation in ("3", "9" * 18):
        yield file(f"at generation {generation}", "GET", f"{SITE}index.json", 409, "generation 2",
                   generation, X_Realm_Min_Generation=generation)  # fmt: skip
    for method in ("PUT", "PATCH", "TRACE", "PROPFIND", "BREW"):
        yield file("", method, f"{SITE}index.json", 405, method, "expected GET", body=b"x")
    yield file(
        "as nothing known", "POST", f"{SITE}x.md", 405, "POST", SOURCE, accept="*/*", body=b"x"
    )
    yield file("as a form", "POST", f"{SITE}x.md", 405, "POST", accept="text/html", body=b"a=b",
               Content_Type="application/x-www-form-urlencoded")  # fmt: skip
    yield file("with 1,001 parameters", "GET", f"{SITE}index.json?{'a&' * 1001}", 400, "exceeded")
    yield file("into a page", "POST", f"{ADAS_PAGE}x.md", 405, "published realm", body=b"x",
               token=minted("ada", ADAS_PAGE, OWNER))  # fmt: skip
    yield file("from a page", "DELETE", f"{ADAS_PAGE}index.json", 405, "published realm",
               token=minted("ada", ADAS_PAGE, OWNER))  # fmt: skip
    yield file(
        "the readiness of nothing", "GET", f"{SITE}no/_readiness-check", 404, "/no/", accept=API
    )

    card = make.card("./post", "Post", body="x" * settings.CARD_SIZE_LIMIT_BYTES)
    yield file("a card that is too large", "POST", f"{SITE}x.json", 413, "exceeds maximum",
               str(settings.CARD_SIZE_LIMIT_BYTES), body=card)  # fmt: skip
    yield file("that says it is too large", "POST", f"{SITE}x.md", 413, "exceeds maximum",
               Content_Length="5242881")  # fmt: skip
    yield file("that says it is endless", "POST", f"{SITE}x.md", 413, "exceeds maximum",
               Content_Length="9" * 17)  # fmt: skip
    for length in ("many", "-1", "1.5", "0x10", "+3"):
        yield file(f"of length {length!r}", "POST", f"{SITE}x.md", 400, "Content-Length", edge=True,
                   Content_Length=length)  # fmt: skip


def asked(
    name: str,
    method: str,
    endpoint: str,
    body: Any,
    status: int,
    *says: str,
    token: str | None = ADA_IN_SITE,
    realm: str = SITE,
    length: str | None = None,
) -> Case:
    """A request to an endpoint of a realm; a body that isn't bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return file(
        f"{endpoint} {name}", method, realm + endpoint, status, *says, body=data, token=token,
        accept=API, Content_Length=length or str(len(data)),
    )  # fmt: skip


def operations(*each: Any) -> Any:
    return {"atomic:operations": list(each)}


def operation(**changed: Any) -> Any:
    """An operation that is right but for what is changed; `...` takes a member out."""
    right = {"op": "add", "href": "new.md",
             "data": {"type": "source", "attributes": {"content": "x"}}}  # fmt: skip
    return {key: value for key, value in {**right, **changed}.items() if value is not ...}


def card_resource(**changed: Any) -> Any:
    meta = {"adoptsFrom": {"module": "./post", "name": "Post"}}
    right = {"type": "card", "attributes": {}, "meta": meta}
    return {key: value for key, value in {**right, **changed}.items() if value is not ...}


def realm_endpoints() -> Iterator[Case]:
    """The endpoints of realms: bodies that are no document, and members that are wrong."""
    for query, status, says in (
        ("", 400, "module: expected it once"),
        ("?module", 400, "module: expected 1 to"),
        ("?module=%2500", 400, "module: it has a control character"),
        ("?module=%ff", 404, "was not found"),
        ("?module=%ED%A0%80", 404, "was not found"),
        ("?module=http%3A%2F%2F%5B", 400, "is not a module"),
        ("?module=@lodash", 400, "is not a module"),
        ("?module=../private/index.json", 404, "was not found"),
        ("?module=post&name", 400, "name: expected 1 to"),
        (f"?module={'a' * 3000}", 400, "module: expected 1 to"),
    ):
        yield file(f"_definition{query[:30]}", "GET", f"{SITE}_definition{query}", status, says,
                   token=None, accept=API)  # fmt: skip
    bodied = {"_atomic": "POST", "_permissions": "PATCH", "_session": "POST"}
    for name, method in bodied.items():
        token = None if name == "_session" else ADA_IN_SITE
        for kind, (body, says) in BODIES.items():
            large = len(body) > 64 * 1024
            status = 413 if large and name != "_atomic" else 400
            said = "atomic:operations" if large and name == "_atomic" else says
            yield asked(f"with {kind}", method, name, body, status, said, token=token)
        first = {"_atomic": "atomic:operations", "_permissions": "data", "_session": "username"}
        yield asked("with {}", method, name, {}, 400, first[name], token=token)
        yield asked("that says it is huge", method, name, b"", 413, "exceeds maximum", token=token,
                    length="99999999999")  # fmt: skip
    value: Any
    for value in (None, {}, "x", 3, True):
        yield asked(f"of {value!r}", "POST", "_atomic", {"atomic:operations": value}, 400,
                    "atomic:operations", "valid list")  # fmt: skip
        yield asked(f"with {value!r} as operation", "POST", "_atomic", operations(value), 400,
                    "atomic:operations.0")  # fmt: skip
        yield asked(f"with {value!r} as data", "POST", "_atomic", operations(operation(data=value)),
                    400, "atomic:operations.0.data")  # fmt: skip
        yield asked(f"with {value!r} as card", "POST", "_atomic", operations(operation(
            href="new.json", data=card_resource(attributes=value, meta=value))), 400,
            "data.card.meta")  # fmt: skip
    wrong: dict[str, tuple[Any, str]] = {
        "no op": (operation(op=...), "0.op"),
        "another op": (operation(op="remove"), "'add' or 'update'"),
        "no href": (operation(href=...), "0.href"),
        "an empty href": (operation(href=""), "0.href"),
        "a number as href": (operation(href=7), "0.href"),
        "a NUL in its href": (operation(href="a\x00b"), "NUL"),
        "no data": (operation(data=...), "0.data"),
        "an unknown type": (operation(data={"type": "file"}), "'source', 'card'"),
        "no type": (operation(data={}), "type"),
        "no content": (operation(data={"type": "source", "attributes": {}}), "content"),
        "a number as content": (
            operation(data={"type": "source", "attributes": {"content": 7}}), "valid string"),
        "half a character": (
            operation(data={"type": "source", "attributes": {"content": "\ud800"}}), "surrogate"),
        "half a character in a card": (
            operation(href="a.json", data=card_resource(attributes={"a": "\ud800"})), "surrogate"),
        "a card without a type": (operation(href="a.json", data=card_resource(meta={})), "adopts"),
        "a card that is no .json": (operation(data=card_resource()), "ends in .json"),
        "an escaped byte": (operation(href="a%ff"), "UTF-8"),
        **{f"the path {path[:9]}": (operation(href=path), says) for path, says in {
            "a*b": "has a *", "a//b": "empty segment", "../b": ". or ..", "%2e%2e/b": ". or ..",
            "a/": "empty segment", ":a": "starts with :", "a%0Ab": "control character",
            "a" * 1025: "longer than 1024", SITE: "it is empty",
        }.items()},
    }  # fmt: skip
    for name, (each, says) in wrong.items():
        yield asked(f"with {name}", "POST", "_atomic", operations(each), 400, says)
    yield asked("with two that are wrong", "POST", "_atomic",
                operations(operation(op="x"), operation(), operation(href=3)), 400,
                "operations.0.op", "operations.2.href")  # fmt: skip
    for href in ("/bob/site/x.md", PRIVATE + "x.md", "http://x.localhost/x.md", "/x.md"):
        yield asked(f"at {href}", "POST", "_atomic", operations(operation(href=href)), 404,
                    f"Resource {href} does not exist")  # fmt: skip
    yield asked("of what is there", "POST", "_atomic", operations(operation(href="index.json")),
                409, "Resource index.json already exists")  # fmt: skip
    yield asked("of what is not there", "POST", "_atomic", operations(operation(op="update")), 404,
                "Resource new.md does not exist")  # fmt: skip
    yield asked("without a token", "POST", "_atomic", operations(operation()), 401, "Missing",
                token=None)  # fmt: skip
    yield asked("into a page", "POST", "_atomic", operations(operation()), 405, "published realm",
                token=minted("ada", ADAS_PAGE, OWNER), realm=ADAS_PAGE)  # fmt: skip

    def document(permissions: Any) -> Any:
        return {"data": {"type": "permissions", "attributes": {"permissions": permissions}}}

    refused: dict[str, tuple[Any, str]] = {
        "an array": (document([]), "permissions"),
        "a word for a user": (document({"@bob:localhost": "read"}), "@bob:localhost"),
        "an unknown action": (document({"@bob:localhost": ["fly"]}), "'read'"),
        "a new owner": (document({"@bob:localhost": ["realm-owner"]}), "can't be granted"),
        "everyone as owner": (document({"*": ["realm-owner"]}), "can't be granted"),
        "less for an owner": (document({"@ada:localhost": ["read"]}), "an owner's"),
        "nothing for an owner": (document({"@ada:localhost": None}), "an owner's"),
        "one that is right": (
            document({"*": ["read", "write"], "@ada:localhost": []}), "an owner's"),
        "nobody": (document({"@eve:localhost": ["read"]}), "no such user"),
        "a user of elsewhere": (document({"@bob:example.com": ["read"]}), "expected *"),
        "no user": (document({"": ["read"]}), "expected *"),
        "a NUL": (document({"@b\x00:localhost": ["read"]}), "NUL"),
        "a long name": (document({"b" * 151: ["read"]}), "expected *"),
        "another type": ({"data": {"type": "x", "attributes": {"permissions": {}}}}, "data.type"),
        "no attributes": ({"data": {"type": "permissions"}}, "data.attributes"),
    }  # fmt: skip
    for name, (body, says) in refused.items():
        yield asked(f"with {name}", "PATCH", "_permissions", body, 400, says)
    for name in ("_info", "_mtimes", "_publishability", "_permissions"):
        yield asked("of nowhere", "GET", name, b"", 404, "/no/", realm=f"{SITE}no/")
        yield asked("of a private realm", "GET", name, b"", 401, "Missing", realm=PRIVATE,
                    token=None)  # fmt: skip
    yield asked("by a reader", "GET", "_permissions", b"", 401, "permissions",
                token=minted("ada", SITE, ["read"]))  # fmt: skip
    for login in ({"username": "ada", "password": "wrong"}, {"username": "eve", "password": "eve"}):
        yield asked(f"of {login['username']}", "POST", "_session", login, 401, "password",
                    token=None)  # fmt: skip
    yield asked("with a realm's token", "POST", "_session", {}, 401, "a realm token does not open")
    yield endpoint("without a token", "_realm-auth", {}, 401, "Missing", token=None)
    yield endpoint("with a realm's token", "_realm-auth", {}, 401, "a realm token does not open",
                   token=ADA_IN_SITE)  # fmt: skip
    yield endpoint("of nobody", "_realm-auth", {}, 422, "@eve:localhost", token=minted("eve"))
    for user in ("@ada:example.com", "@", ""):
        yield file(f"as {user!r}", "GET", f"{PRIVATE}index.json", 400, "X-Boxel-Assume-User",
                   token=minted("realm_server"), X_Boxel_Assume_User=user)  # fmt: skip
    yield file("a folder that is not there", "GET", f"{SITE}none/", 404, "none/", accept=API)
    yield file("a folder without its slash", "GET", f"{SITE}none", 404, "none", accept=API)
    yield file("behind the end", "GET", f"{SITE}dot.png", 416, "264 bytes", Range="bytes=264-")


CASES = [*bodies(), *server_cases(), *tokens(), *paths(), *realm_endpoints()]
