"""Reads realms over HTTP from the replicas, the web servers that cache realms.

A pinned read is a request for a realm's content at exactly one generation. The request has a pin, a
token that contains the realm, the generation and the reader (`pins.py`). The reader is a user,
everyone, or the realm itself. If a replica responds with the content of another generation, this
module raises WrongGeneration.
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

#: For this many seconds after a replica has failed, this process asks all other replicas first.
SHUN_SECONDS = 10.0
#: A replica answers a pinned read with this status if an inner realm of the pinned realm contains
#: the file.
MISDIRECTED = 421
#: A usable response to a pinned read has one of these statuses: 200 with content, 302 with a
#: redirect to the file, 404 if there is no such file, 406 if the module can't be transpiled, 410 if
#: the realm's history no longer has the generation, or MISDIRECTED.
_EXPECTED = (200, 302, 404, 406, 410, MISDIRECTED)
#: The replicas that have failed, by address. The value is the time until which the replica is asked
#: last, and the reason for the failure.
_unhealthy: dict[str, tuple[float, str]] = {}


class ReplicaUnavailable(Exception):
    """No replica responded, or a replica's response has an unusable status or content."""


class PinEnded(Exception):
    """The pin's reader may no longer read the realm, or the realm's history no longer has the pin's
    generation."""


class WrongGeneration(Exception):
    """A replica responded to a pinned read with a generation other than the pin's."""


@dataclass(frozen=True)
class Response:
    """A complete HTTP response. The names of its headers are in lower case. `replica` is the
    address of the replica that sent it."""

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
    """Returns the addresses of the live replicas. `second` is only the key of the cache, so that
    the database is queried at most once per second."""
    return tuple(Replica.live_addresses())


def unhealthy() -> dict[str, str]:
    """Returns the addresses of the replicas that failed less than SHUN_SECONDS ago, each with the
    reason for the failure."""
    now = time.monotonic()
    return {address: why for address, (until, why) in _unhealthy.items() if until > now}


def _until(address: str) -> float:
    return _unhealthy[address][0] if address in _unhealthy else 0


def mark_unhealthy(address: str, why: object) -> None:
    """Records that a replica failed."""
    logger.warning(
        "replica %s failed; for %d s, it is asked last; reason: %s", address, SHUN_SECONDS, why
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
    """Reads a file of a realm at the pin's generation. `path` is unescaped. If `path` is empty,
    reads the list of the realm's files or, with a `body`, the files that the `body` lists. For a
    missing file, the response has the status 404. `private` says that the realm isn't public.

    Raises ReplicaUnavailable, PinEnded and WrongGeneration.
    """
    token = sign(pin, access.reader_of(pin.realm_url, private=private), access.job)
    headers = {"Accept": accept, PIN_HEADER: token}
    response = _get(f"/_at/{quote(path)}{query}", headers, "GET" if body is None else "POST", body)
    if response.status == 403 and PIN_ENDED.encode() in response.body:
        raise PinEnded(f"{response.replica} answered {response.status} for {pin.realm_url}")
    if response.status == 410 and not query:
        # The realm's history no longer has the generation. With a `query`, 410 can also mean that
        # two generations can't be compared. The caller then handles the response.
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
    """Asks the registry, the table of all realms, which realm contains a public URL. A replica
    answers in the headers of a response to a HEAD request. Because of `noCache`, the replica reads
    the answer from the database."""
    parts = urlsplit(url)
    # This request is for the source of a file and not for a page. The response for a page would
    # have the generation of the realm's index, which may be older than the realm's generation.
    headers = {"Host": parts.netloc, "Accept": SOURCE}
    if authorization is not None:
        headers["Authorization"] = authorization
    return _get(f"{quote(parts.path, safe='/%')}?noCache", headers, method="HEAD", named=True)


def ask_address(realm_url: str) -> str:
    """Asks a replica for the address where visitors find a realm's pages. If published realms show
    this realm, the address is the URL of the oldest of them. Otherwise it is this realm's own URL.
    The realm may be private. Raises ReplicaUnavailable."""
    pin = Pin(realm_url, UNREADABLE_GENERATION)
    response = _get("/_at/?address", {"Accept": ANY, PIN_HEADER: sign(pin, ITSELF)})
    if response.status != 200:
        raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
    return str(json.loads(response.body)["data"]["attributes"]["address"])


def standing_at(url: str, authorization: str | None = None) -> tuple[str, int]:
    """Returns the URL of the realm that contains a public URL, and the realm's current generation.
    If no realm contains the URL, the first value is empty. If the realm is missing or can't be
    read, the generation is UNREADABLE_GENERATION. `authorization` is an Authorization header with
    which a user reads a private realm. Without it, only public realms can be read."""
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
    """Sends a request to one replica after another, and returns the first usable response. A
    response with a status below 500 is usable. With `named`, any response with the realm's URL in
    its headers is usable too. Raises ReplicaUnavailable."""
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
            # A 503 says that the replica can't answer this request now, for example because the
            # database can't be reached. The replica itself hasn't failed.
            if answer.status != 503:
                mark_unhealthy(address, answer.status)
            failures.append(f"{address}: {answer.status}")
            continue
        return Response(answer.status, answer_headers, answer.data, address)
    raise ReplicaUnavailable("; ".join(failures) or "there is no replica")


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
