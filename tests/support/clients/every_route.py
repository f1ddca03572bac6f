"""Lists a request for every route of the server, and the status that each kind of caller must
get."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reindex.reading.media_types import CARD
from tests.support.web import API, ORIGIN, SOURCE

PRIVATE = f"{ORIGIN}/ada/private/"
PUBLIC = f"{ORIGIN}/ada/public/"
PUBLISHED = "http://ada.localhost:4201/"
OTHER = f"{ORIGIN}/ada/other/"
KINDS = {"private": PRIVATE, "public": PUBLIC, "published": PUBLISHED}

#: The kinds of callers, which are the columns of the tables below. These need an explanation:
#: - A `stranger` has an account, but no permission for the realm.
#: - `assumed` is the operator, who acts as the stranger by the header X-Boxel-Assume-User.
#: - `other realm` is the owner, with a token for the realm OTHER.
#: - `gone` has a token of a deleted account.
#: - `pin as token` sends a pin, with which workers read a realm, in the Authorization header.
#: - `token as pin` sends a realm token in the header for pins, and no Authorization header.
CALLERS = (
    "nobody", "stranger", "reader", "writer", "owner", "operator", "assumed", "other realm", "gone",
    "pin as token", "token as pin",
)  # fmt: skip


def row(text: str) -> tuple[str, ...]:
    """Splits a row of a table into the expected statuses for the kinds of callers. `ok` means that
    the caller has the needed permission. Then the expected status is in the `Route`, in the field
    that is named like the kind of realm."""
    cells = tuple(text.split())
    assert len(cells) == len(CALLERS), text
    return cells


#                          nobody stranger reader writer owner operator assumed other gone pin pin
ALL = row("                  ok     ok       ok     ok    ok    ok       ok      ok    ok  ok  ok")
READ = row("                 401    403      ok     ok    ok    ok       403     401   401 401 401")
WRITE = row("                401    403      403    ok    ok    ok       403     401   401 401 401")
OWN = row("                  401    403      403    403   ok    ok       403     401   401 401 401")
#: Every signed-in account may use the route.
ANY_ACCOUNT = row("          401    ok       ok     ok    ok    ok       ok      401   401 401 401")
OPERATORS = row("            401    403      403    403   403   ok       403     401   401 401 401")

#: The row of expected statuses for a route. The outer key is the permission that the route needs.
#: The inner key is the kind of realm.
OUTCOMES = {
    "nothing": {"private": ALL, "public": ALL, "published": ALL},
    "read": {"private": READ, "public": ALL, "published": ALL},
    "write": {"private": WRITE, "public": WRITE, "published": OWN},
    "realm-owner": {"private": OWN, "public": OWN, "published": OWN},
}


@dataclass(frozen=True)
class Route:
    """A request to a route. `needs` is the permission that a caller needs. `private` is the status
    of the answer that a caller with this permission gets from a private realm. `public` and
    `published` are the statuses from a public source realm and from a published realm."""

    method: str
    path: str
    needs: str
    private: int
    public: int
    published: int
    accept: str = "*/*"
    body: Any = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The expected statuses that differ from OUTCOMES. The key is the kind of realm and the kind of
    #: caller.
    but: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def expected(self, kind: str, caller: str) -> int:
        if (kind, caller) in self.but:
            return self.but[kind, caller]
        cell = OUTCOMES[self.needs][kind][CALLERS.index(caller)]
        return int(getattr(self, kind)) if cell == "ok" else int(cell)


QUERY = {"X-HTTP-Method-Override": "QUERY"}
FORM: dict[str, Any] = {"data": {"type": "permissions", "attributes": {"permissions": {}}}}
CREATE = {"data": {"type": "card", "meta": {"adoptsFrom": {"module": "./post", "name": "Post"}}}}
CHANGE = {"data": {"type": "card", "attributes": {"title": "changed"}}}
ATOMIC = {
    "atomic:operations": [
        {"op": "add", "href": "new.md", "data": {"type": "source", "attributes": {"content": ""}}}
    ]
}

#: The endpoints of realms, by name and method as in `routes.ENDPOINTS`.
ENDPOINTS = {
    ("_readiness-check", "GET"): Route("GET", "_readiness-check", "nothing", 200, 200, 503, API),
    # Without an Authorization header, the body needs a password. With this header, the endpoint
    # refuses realm tokens, except the operator's.
    ("_session", "POST"): Route(
        "POST", "_session", "nothing", 400, 400, 400, body={},
        but={(kind, caller): 201 if caller == "operator" else 401 for kind in KINDS
             for caller in CALLERS if caller not in ("nobody", "token as pin", "assumed")}
        | {(kind, "assumed"): 201 for kind in KINDS},
    ),
    ("_info", "GET"): Route("GET", "_info", "read", 200, 200, 200, API),
    ("_info", "QUERY"): Route("POST", "_info", "read", 200, 200, 200, API, {}, headers=QUERY),
    ("_mtimes", "GET"): Route("GET", "_mtimes", "read", 200, 200, 200, API),
    ("_publishability", "GET"): Route("GET", "_publishability", "read", 200, 200, 200, API),
    ("_permissions", "GET"): Route("GET", "_permissions", "realm-owner", 200, 200, 200, API),
    ("_permissions", "PATCH"): Route(
        "PATCH", "_permissions", "realm-owner", 200, 200, 200, API, FORM
    ),
    ("_atomic", "POST"): Route("POST", "_atomic", "write", 201, 201, 405, API, ATOMIC),
    ("_definition", "GET"): Route("GET", "_definition?module=none", "read", 404, 404, 404, API),
    ("_search", "GET"): Route("GET", "_search", "read", 503, 503, 503),
    ("_search", "QUERY"): Route("POST", "_search", "read", 503, 503, 503, body={}, headers=QUERY),
    ("_reindex", "POST"): Route("POST", "_reindex", "write", 204, 204, 204, body={}),
    ("_full-reindex", "POST"): Route("POST", "_full-reindex", "write", 204, 204, 204, body={}),
    ("_cancel-indexing-job", "POST"): Route(
        "POST", "_cancel-indexing-job", "write", 204, 204, 204, body={}
    ),
}  # fmt: skip

DRAFT = {(kind, caller): 503 for kind in ("private", "public") for caller in ("owner", "operator")}
#: The routes of files and cards, by Accept header and method.
FILES = {
    (SOURCE, "GET"): Route("GET", "ada.json", "read", 200, 200, 200, SOURCE),
    (SOURCE, "HEAD"): Route("HEAD", "ada.json", "read", 200, 200, 200, SOURCE),
    ("*/*", "GET"): Route("GET", "plain.js", "read", 200, 200, 200),
    ("*/*", "HEAD"): Route("HEAD", "plain.js", "read", 200, 200, 200),
    ("application/json", "GET"): Route(
        "GET", "ada.json", "read", 200, 200, 200, "application/json"
    ),
    # Only owners and operators see a source realm's pages, as drafts. All other readers of the
    # source realm are redirected to the published realm, if there is one.
    ("text/html", "GET"): Route("GET", "", "read", 200, 302, 503, "text/html", but=DRAFT),
    (API, "GET"): Route("GET", "folder/", "read", 200, 200, 200, API),
    (SOURCE, "POST"): Route("POST", "new.md", "write", 204, 204, 405, SOURCE, b"new"),
    (SOURCE, "DELETE"): Route("DELETE", "ada.json", "write", 204, 204, 405, SOURCE),
    (CARD, "GET"): Route("GET", "ada", "read", 200, 200, 200, CARD),
    (CARD, "HEAD"): Route("HEAD", "ada", "read", 200, 200, 200, CARD),
    (CARD, "POST"): Route("POST", "folder/", "write", 201, 201, 405, CARD, CREATE, CARD),
    (CARD, "PATCH"): Route("PATCH", "ada", "write", 200, 200, 405, CARD, CHANGE, CARD),
    (CARD, "DELETE"): Route("DELETE", "ada", "write", 204, 204, 405, CARD),
}
#: More requests to the routes of FILES, mostly for missing files and new files.
PLACES = (
    Route("GET", "none.json", "read", 404, 404, 404, SOURCE),
    Route("GET", "none", "read", 404, 404, 404),
    Route("GET", "none/", "read", 404, 404, 404, API),
    Route("GET", "none", "read", 404, 404, 404, CARD),
    Route("GET", "none", "read", 404, 404, 404, "application/x-unknown, application/json;q=0"),
    Route("GET", "ada", "read", 302, 302, 302, SOURCE),
    Route("GET", "robots.txt", "read", 200, 200, 200),
    Route("GET", "folder/robots.txt", "read", 200, 200, 200),
    Route("GET", "sitemap.xml", "read", 404, 404, 200),
    Route("POST", "x.bin", "write", 204, 204, 405, "*/*", b"x", "application/octet-stream"),
    Route("POST", "ada.json", "write", 204, 204, 405, SOURCE, b"{}"),
    Route("DELETE", "none.json", "write", 404, 404, 405, SOURCE),
    Route("DELETE", "none", "write", 404, 404, 405, CARD),
)

#: The server's endpoints, by name. Each value contains a request to the endpoint, and the expected
#: statuses for each kind of realm. In the request, `{realm}` stands for the realm's URL.
SERVER: dict[str, tuple[Route, dict[str, tuple[str, ...]]]] = {
    "_server-session": (
        Route("POST", "_server-session", "", 400, 400, 400, body={}),
        dict.fromkeys(KINDS, ALL),
    ),
    "_realm-auth": (
        Route("POST", "_realm-auth", "", 200, 200, 200, body={}),
        dict.fromkeys(KINDS, ANY_ACCOUNT),
    ),
    "_create-realm": (
        Route("POST", "_create-realm", "", 202, 202, 202,
              body={"data": {"type": "realm", "attributes": {"endpoint": "new", "name": "New"}}}),
        # A new realm belongs to the account that creates it. The operator has no account, so the
        # operator must assume a user.
        {kind: row("401 ok ok ok ok 403 ok 401 401 401 401") for kind in KINDS},
    ),
    "_publish-realm": (
        Route("POST", "_publish-realm", "", 202, 202, 400,
              body={"sourceRealmURL": "{realm}", "publishedRealmURL": PUBLISHED}),
        {"private": OWN, "public": OWN, "published": ANY_ACCOUNT},
    ),
    "_unpublish-realm": (
        Route("POST", "_unpublish-realm", "", 422, 422, 200,
              body={"publishedRealmURL": "{realm}"}),
        {"private": ANY_ACCOUNT, "public": ANY_ACCOUNT, "published": OWN},
    ),
    "_delete-realm": (
        Route("DELETE", "_delete-realm", "", 204, 204, 422,
              body={"data": {"type": "realm", "id": "{realm}"}}),
        {"private": OWN, "public": OWN, "published": ANY_ACCOUNT},
    ),
    "_metrics": (
        Route("GET", "_metrics", "", 200, 200, 200), dict.fromkeys(KINDS, OPERATORS)
    ),
    "_liveness": (
        Route("GET", "_liveness", "", 200, 200, 200), dict.fromkeys(KINDS, ALL)
    ),
    "_readiness": (
        Route("GET", "_readiness", "", 200, 200, 200), dict.fromkeys(KINDS, ALL)
    ),
    "_publish-progress": (
        Route("GET", "_publish-progress?published_realm_url={realm}", "", 403, 403, 200),
        {"private": ANY_ACCOUNT, "public": ANY_ACCOUNT, "published": OWN},
    ),
    "^_": (
        Route("GET", "_nothing", "", 404, 404, 404), dict.fromkeys(KINDS, ALL)
    ),
}  # fmt: skip
