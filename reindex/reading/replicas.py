"""Reads realms over HTTP from the replicas, like any other client.

If a response to a pinned read succeeds but names another generation, that is an error. For a while
after a replica has failed, it is asked only after all other replicas.
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
from reindex.reading.media_types import ANY, SOURCE
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
#: The status of a pinned read if the file belongs to a realm within the pinned realm.
MISDIRECTED = 421
#: A usable response to a pinned read has one of these statuses: 200 with content, 302 with a
#: redirect to the file, 404 if there is no such file, 406 if the module can't be transpiled, 410 if
#: the generation is gone from history, or 421 if the file belongs to another realm.
_EXPECTED = (200, 302, 404, 406, 410, MISDIRECTED)
#: The replicas that failed lately. Each address has a time and the reason of the failure. Until
#: that time, this process asks the replica only after all other replicas.
_unhealthy: dict[str, tuple[float, str]] = {}


class ReplicaUnavailable(Exception):
    """No replica answered, or a replica's answer has an unusable status or content."""


class PinEnded(Exception):
    """The pin's reader may no longer read the realm, or the realm's history no longer has the pin's
    generation."""


class WrongGeneration(Exception):
    """A replica answered a pinned read with another generation."""


@dataclass(frozen=True)
class Response:
    """A complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    replica: str


@lru_cache(maxsize=1)
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        maxsize=4, timeout=urllib3.Timeout(connect=2, read=10), retries=False
    )


def replica_addresses() -> list[str]:
    """Returns the addresses of the replicas in random order. Replicas that failed lately come
    last."""
    known = settings.REALM_RENDER_REPLICAS or list(_live(int(time.monotonic())))
    known = known or [settings.REALM_REPLICA_ADDRESS]
    random.shuffle(known)
    now = time.monotonic()
    return sorted(known, key=lambda address: _until(address) > now)


@lru_cache(maxsize=1)
def _live(second: int) -> tuple[str, ...]:
    """Returns the live replicas. The cache queries the database at most once per second, because
    `second` is its key."""
    return tuple(Replica.live_addresses())


def unhealthy() -> dict[str, str]:
    """Returns the replicas that failed lately, each with the reason. Until SHUN_SECONDS have
    passed, this process asks all other replicas first."""
    now = time.monotonic()
    return {address: why for address, (until, why) in _unhealthy.items() if until > now}


def _until(address: str) -> float:
    return _unhealthy[address][0] if address in _unhealthy else 0


def mark_unhealthy(address: str, why: object) -> None:
    """Records that a replica failed. Until SHUN_SECONDS have passed, this process asks all other
    replicas first."""
    logger.warning(
        "replica %s failed; other replicas are asked first for %d s: %s", address, SHUN_SECONDS, why
    )
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
    """Reads a file of a realm at exactly one generation. `path` is unescaped. For a missing file,
    the response has the status 404. `private` says that the realm isn't public.

    With a body the request is a POST. Raises ReplicaUnavailable, PinEnded and WrongGeneration.
    """
    token = sign(pin, access.reader_of(pin.realm_url, private=private), access.job)
    headers = {"Accept": accept, PIN_HEADER: token}
    response = _get(f"/_at/{quote(path)}{query}", headers, "GET" if body is None else "POST", body)
    if response.status == 403 and PIN_ENDED.encode() in response.body:
        raise PinEnded(f"{response.replica} answered {response.status} for {pin.realm_url}")
    if response.status == 410 and not query:
        # The generation is gone from history. The replica can't tell whether the generation
        # contained the file.
        raise PinEnded(f"{response.replica} has no generation {pin.generation} of {pin.realm_url}")
    if response.status not in _EXPECTED:
        raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
    generation = response.headers.get("x-realm-generation")
    if response.status < 400 and generation != str(pin.generation):
        raise WrongGeneration(
            f"{response.replica} answered {pin.realm_url}{path} at generation {generation}, "
            f"asked for {pin.generation}"
        )
    return response


def ask_registry(url: str, authorization: str | None = None) -> Response:
    """Asks the registry about the realm that contains a public URL. The answer is in the headers of
    the response to an uncached HEAD request."""
    parts = urlsplit(url)
    # The response to a request for a page would have the generation of the realm's index. Before
    # the realm's first index, that generation is 0.
    headers = {"Host": parts.netloc, "Accept": SOURCE}
    if authorization is not None:
        headers["Authorization"] = authorization
    return _get(f"{quote(parts.path, safe='/%')}?noCache", headers, method="HEAD", named=True)


def ask_address(realm_url: str) -> str:
    """Asks a replica for the address where visitors find a realm's pages. For a published source
    realm, even a private one, this is the address at which the realm is published. For any other
    realm, this is the realm's URL. Raises ReplicaUnavailable."""
    pin = Pin(realm_url, UNREADABLE_GENERATION)
    response = _get("/_at/?address", {"Accept": ANY, PIN_HEADER: sign(pin, ITSELF)})
    if response.status != 200:
        raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
    return str(json.loads(response.body)["data"]["attributes"]["address"])


def standing_at(url: str, authorization: str | None = None) -> tuple[str, int]:
    """Returns the URL of the realm that contains a public URL, and the realm's generation in the
    registry. The realm's URL is empty if there is no realm. The generation is UNREADABLE_GENERATION
    if the realm can't be read. Without `authorization`, only public realms can be read.
    `authorization` is a user's Authorization header, which gives access to all realms that the user
    may read."""
    headers = ask_registry(url, authorization).headers
    realm_url = headers.get("x-boxel-realm-url", "")
    public = headers.get("x-boxel-realm-public-readable") == "true"
    if not realm_url or "x-realm-generation" not in headers or not (public or authorization):
        return realm_url, UNREADABLE_GENERATION
    return realm_url, int(headers["x-realm-generation"])


def _get(
    target: str,
    headers: Mapping[str, str],
    method: str = "GET",
    body: bytes | None = None,
    *,
    named: bool = False,
) -> Response:
    """Sends a request to one replica after another, and returns the first usable response. With
    `named`, an error response is usable too if its headers contain the realm's URL. Raises
    ReplicaUnavailable."""
    failures: list[str] = []
    for address in replica_addresses():
        try:
            answer = _pool().request(
                method, address + target, headers=dict(headers), body=body, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            mark_unhealthy(address, error)
            failures.append(f"{address}: {error}")
            continue
        answer_headers = _lower(answer.headers)
        if answer.status >= 500 and not (named and "x-boxel-realm-url" in answer_headers):
            # A 503 is about the requested resource, not about the replica.
            if answer.status != 503:
                mark_unhealthy(address, answer.status)
            failures.append(f"{address}: {answer.status}")
            continue
        return Response(answer.status, answer_headers, answer.data, address)
    raise ReplicaUnavailable("; ".join(failures) or "there is no replica")


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
