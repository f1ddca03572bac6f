"""Lists requests with tokens or pins that the server refuses. A pin is a signed text with which a
worker reads one realm at exactly one generation."""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jwt
from django.conf import settings
from django.core import signing

from reindex.reading.pins import Pin, sign
from tests.support.bad.bodies import RIGHT
from tests.support.bad.requests import (
    ADA,
    ADA_IN_SITE,
    BOBS,
    OWNER,
    PRIVATE,
    SITE,
    Case,
    endpoint,
    file,
    minted,
    signed,
    soon,
)
from tests.support.web import ORIGIN


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_header(header: Mapping[str, str]) -> str:
    """Returns a JSON Web Token with this header and the operator's claims, but without a valid
    signature."""
    claims = {"user": "@realm_server:localhost", "exp": soon()}
    return f"{_part(header)}.{_part(claims)}.{'' if header['alg'] == 'none' else _part('x')}"


def pin(**claims: Any) -> str:
    """Returns a pin with these claims and a valid signature."""
    return signing.dumps(claims, salt="realms.pin")


def tokens() -> Iterator[Case]:
    """Yields requests with tokens and pins that are invalid or that are for another realm or
    user."""
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
        "no user": (signed(exp=soon()), "it identifies no user"),
        "a number as user": (signed(user=7, exp=soon()), "it identifies no user"),
        "a list as user": (signed(user=["@ada:localhost"], exp=soon()), "it identifies no user"),
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
                       "no longer has access", X_Realm_Pin=gone)  # fmt: skip
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
