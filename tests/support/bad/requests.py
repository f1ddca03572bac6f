"""Makes wrong requests, each with the expected status and words of the expected error message. The
other modules of this folder list the requests."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from django.conf import settings

from tests.support.web import API, ORIGIN, SOURCE

SITE = f"{ORIGIN}/ada/site/"
PRIVATE = f"{ORIGIN}/ada/private/"
DRAFT = f"{ORIGIN}/ada/draft/"
BOBS = f"{ORIGIN}/bob/site/"
ADAS_PAGE = "http://ada.localhost:4201/"
BOBS_PAGE = "http://bob.localhost:4201/"
OWNER = ["read", "realm-owner", "write"]


def signed(**claims: Any) -> str:
    """Returns a token with these claims and a valid signature."""
    return jwt.encode(claims, settings.REALM_SECRET_SEED, algorithm="HS256")


def soon() -> int:
    # Tokens with this time are made when test modules are imported. The tests may run much later,
    # so the time is six hours ahead.
    return int(time.time()) + 6 * 3600


def minted(name: str, realm_url: str | None = None, permissions: list[str] | None = None) -> str:
    """Returns a token that is signed with the server's seed, and that identifies a user only by
    `name`. The server refuses such a token if its time of issue, `iat`, is before the creation of
    the account. So `iat` is in the future, and later than the creation of every test account. With
    `realm_url`, the token is a realm token with these permissions."""
    claims: dict[str, Any] = {"user": f"@{name}:localhost", "iat": soon(), "exp": soon()}
    if realm_url is not None:
        claims |= {"realm": realm_url, "permissions": permissions}
    return signed(**claims)


ADA = minted("ada")
ADA_IN_SITE = minted("ada", SITE, OWNER)


@dataclass(frozen=True)
class Case:
    """A wrong request, and the status and words that its answer must have."""

    name: str
    method: str
    url: str
    status: int
    says: tuple[str, ...] = ()
    body: bytes | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    #: Whether a replica's HTTP server may refuse the request before the application gets it. Then
    #: the answer may have another status and other words.
    edge: bool = False

    @property
    def at_server(self) -> bool:
        """Whether the request is for an endpoint of the server, not of a realm. Each error of
        such an endpoint is a plain string, not an object."""
        path = self.url.removeprefix(f"{ORIGIN}/")
        return path.startswith("_") and not path.startswith("_at/")


def endpoint(
    name: str, endpoint: str, body: Any, status: int, *says: str, token: str | None = ADA,
    method: str = "POST", edge: bool = False, length: str | None = None,
) -> Case:  # fmt: skip
    """Returns a request to a server endpoint. If `body` isn't bytes, it is sent as JSON."""
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
    """Returns a request to a realm. In the names of `headers`, underscores become dashes."""
    sent: dict[str, str | None] = {"Accept": accept, "Authorization": token}
    sent |= {key.replace("_", "-"): value for key, value in headers.items()}
    return Case(f"{method} {name}", method, url, status, says, body, sent, edge)
