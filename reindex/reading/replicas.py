"""Reading realms over HTTP, from all replicas in turn, as any client would.

Whatever replica answers, a pinned read gets the pinned bytes; an answer that names another
generation is refused here all the same. A replica that fails is left out for a while.
"""

import json
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
from django.conf import settings

from notifications.models import Replica
from reindex.reading.pins import (
    ITSELF,
    PIN_ENDED,
    PIN_HEADER,
    UNREADABLE_GENERATION,
    Access,
    Pin,
    sign,
)

logger = logging.getLogger(__name__)

SHUN_SECONDS = 10.0
SOURCE = "application/vnd.card+source"
#: The status of a pinned read of what lies in another realm, which stands within the pinned one.
MISDIRECTED = 421
#: What a pinned read may come to: content, the way to the file, nothing there, no JavaScript.
_TOLD = (200, 302, 404, 406, 410, MISDIRECTED)
#: Until when a replica is left out, and why.
_unhealthy: dict[str, tuple[float, str]] = {}


class ReplicaUnavailable(Exception):
    """No replica answered."""


class PinEnded(Exception):
    """A realm is no longer open to whom a pin of it stands for."""


class WrongGeneration(Exception):
    """A replica answered a pinned read with another generation."""


@dataclass(frozen=True)
class Response:
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    replica: str


@lru_cache(maxsize=1)
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        maxsize=4, timeout=urllib3.Timeout(connect=2, read=10), retries=False
    )


def addresses() -> list[str]:
    """The replicas to read from, in a random order, those that failed lately last."""
    known = settings.REALM_RENDER_REPLICAS or list(_live(int(time.monotonic())))
    known = known or [settings.REALM_REPLICA_ADDRESS]
    random.shuffle(known)
    now = time.monotonic()
    return sorted(known, key=lambda address: _until(address) > now)


@lru_cache(maxsize=1)
def _live(second: int) -> tuple[str, ...]:
    """The replicas that report; asked once in a second, and not at every read."""
    return tuple(Replica.live_addresses())


def unhealthy() -> dict[str, str]:
    """The replicas that are left out at present, and why."""
    now = time.monotonic()
    return {address: why for address, (until, why) in _unhealthy.items() if until > now}


def _until(address: str) -> float:
    return _unhealthy[address][0] if address in _unhealthy else 0


def mark_unhealthy(address: str, why: object) -> None:
    """Leaves a replica out for a while."""
    logger.warning("replica %s is left out for %d s: %s", address, SHUN_SECONDS, why)
    _unhealthy[address] = time.monotonic() + SHUN_SECONDS, str(why)


def get_pinned(
    pin: Pin,
    path: str,
    accept: str,
    access: Access,
    *,
    private: bool = False,
    query: str = "",
    body: bytes | None = None,
) -> Response:
    """A file of a realm at exactly a generation. `path` is unescaped; a missing file is a 404.
    `private` if everyone's access doesn't suffice.

    With a body it is a POST. Raises ReplicaUnavailable, PinEnded and WrongGeneration.
    """
    token = sign(pin, access.reader_of(pin.realm_url, private=private), access.job)
    headers = {"Accept": accept, PIN_HEADER: token}
    response = _get(f"/_at/{quote(path)}{query}", headers, "GET" if body is None else "POST", body)
    if response.status == 403 and PIN_ENDED.encode() in response.body:
        raise PinEnded(f"{response.replica} answered {response.status} for {pin.realm_url}")
    if response.status not in _TOLD:
        raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
    told = response.headers.get("x-realm-generation")
    if response.status < 400 and told != str(pin.generation):
        raise WrongGeneration(
            f"{response.replica} answered {pin.realm_url}{path} at generation {told}, "
            f"asked for {pin.generation}"
        )
    return response


def ask_registry(url: str, authorization: str | None = None) -> Response:
    """What the registry says of the realm at a public URL: the headers of an uncached HEAD, asked
    for as everyone, or as the user of an Authorization header."""
    parts = urlsplit(url)
    # Not of a page: that has the generation of its index, which is 0 before there is one.
    headers = {"Host": parts.netloc, "Accept": SOURCE}
    if authorization is not None:
        headers["Authorization"] = authorization
    return _get(f"{quote(parts.path, safe='/%')}?noCache", headers, method="HEAD", named=True)


def ask_address(realm_url: str) -> str:
    """Where visitors find a realm's pages: where a source realm is published, also a private one,
    else at its URL. Raises ReplicaUnavailable."""
    pin = Pin(realm_url, UNREADABLE_GENERATION)
    told = _get("/_at/?address", {"Accept": "*/*", PIN_HEADER: sign(pin, ITSELF)})
    if told.status != 200:
        raise ReplicaUnavailable(f"{told.replica} answered {told.status}")
    return str(json.loads(told.body)["data"]["attributes"]["address"])


def standing_at(url: str, authorization: str | None = None) -> tuple[str, int]:
    """The realm that a public URL lies in and its generation, by the registry: `CLOSED` where not
    everyone may read it, or with an Authorization header, where that user may not. No URL, and
    `CLOSED`, where there is no realm."""
    told = ask_registry(url, authorization).headers
    realm_url = told.get("x-boxel-realm-url", "")
    public = told.get("x-boxel-realm-public-readable") == "true"
    if not realm_url or "x-realm-generation" not in told or not (public or authorization):
        return realm_url, UNREADABLE_GENERATION
    return realm_url, int(told["x-realm-generation"])


def _get(
    target: str,
    headers: Mapping[str, str],
    method: str = "GET",
    body: bytes | None = None,
    *,
    named: bool = False,
) -> Response:
    """The first replica's answer that is one. Where it is only to be `named` which realm answers,
    a page that is broken or in preparation is an answer too. Raises ReplicaUnavailable."""
    failures: list[str] = []
    for address in addresses():
        try:
            answer = _pool().request(
                method, address + target, headers=dict(headers), body=body, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            mark_unhealthy(address, error)
            failures.append(f"{address}: {error}")
            continue
        told = _lower(answer.headers)
        if answer.status >= 500 and not (named and "x-boxel-realm-url" in told):
            # 503 is said of what was asked for, not of the replica.
            if answer.status != 503:
                mark_unhealthy(address, answer.status)
            failures.append(f"{address}: {answer.status}")
            continue
        return Response(answer.status, told, answer.data, address)
    raise ReplicaUnavailable("; ".join(failures) or "there is none")


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
