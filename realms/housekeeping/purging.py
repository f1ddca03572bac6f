"""Purges shared caches of what has changed, sooner than it would run out.

A purger hears the notifications that replicas hear. It tells each cache the surrogate keys of the
realms that a change could concern, until the cache confirms it. No promise depends on it: an answer
that nobody purges runs out after REALM_EDGE_SECONDS.

Each purge is made twice: at once, and after the staleness bound. Until then a replica that hasn't
heard of the change may answer with the old bytes, and a shared cache may fetch them again.
"""

import heapq
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import urllib3
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from notifications.channels import EVERY_REALM, surrogate_key
from realms.addresses import realm_candidates

logger = logging.getLogger(__name__)

#: How long a cache may take to confirm a purge. Unit: seconds.
RECEIPT_SECONDS = 2.0
#: For how long an answer may be on its way to a cache after a replica has made it. Unit: seconds.
WAY_SECONDS = 1.0
BACKOFF_SECONDS = (0.1, 5.0)
#: So many keys fit into a header of any server.
KEYS_PER_REQUEST = 50
_KEY = re.compile(r"[a-z0-9-]+")

#: Purges the surrogate keys at an address. Raises PurgeFailed unless the cache confirms that it
#: shows none of the answers that it has kept under them.
Purge = Callable[[str, Collection[str]], None]


class PurgeFailed(Exception):
    """A cache has not confirmed a purge."""


def purge_function() -> Purge:
    """The function that REALM_EDGE_PURGER names. Raises ImproperlyConfigured."""
    try:
        purge: Purge = import_string(settings.REALM_EDGE_PURGER)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"REALM_EDGE_PURGER is {settings.REALM_EDGE_PURGER!r}, which can't be imported: {error}"
        ) from error
    return purge


def purge_now(realm_url: str) -> dict[str, str]:
    """Purges a realm, or with an empty URL all realms, once. Answers for each cache why it has not
    confirmed that; empty where it has."""
    purge, key = purge_function(), surrogate_key(realm_url) if realm_url else EVERY_REALM
    said: dict[str, str] = {}
    for address in settings.REALM_EDGE_PURGE:
        try:
            purge(address, [key])
            said[address] = ""
        except PurgeFailed as error:
            said[address] = str(error)
    return said


def ban(address: str, keys: Collection[str]) -> None:
    """Purges at a Varnish that has deploy/varnish.vcl.

    The answer must repeat the number of this request: an answer of anybody else, or one that was
    kept somewhere, is no receipt.
    """
    assert all(map(_KEY.fullmatch, keys))
    number = secrets.token_hex(8)
    sent = {"Surrogate-Key": " ".join(keys), "X-Purge-Number": number}
    try:
        answer = urllib3.request(
            "BAN", address, headers=sent, timeout=RECEIPT_SECONDS, retries=False, redirect=False
        )
    except urllib3.exceptions.HTTPError as error:
        raise PurgeFailed(f"no answer: {error}") from error
    if answer.status != 200 or answer.headers.get("X-Purged") != number:
        raise PurgeFailed(f"it answers {answer.status} {answer.reason}, without a receipt")


def keys_of(url: str) -> dict[str, str]:
    """The surrogate keys of every realm that could lie at a URL or around it, with its URL."""
    return {surrogate_key(each): each for each in realm_candidates(url)}


@dataclass
class _Owed:
    """A key that must be purged at `due`, and for the last time not before `last`."""

    realm: str
    due: float
    last: float


class Purger:
    """Purges one cache, in a thread of its own. Other threads say what has changed."""

    def __init__(self, address: str, purge: Purge, bound_seconds: float) -> None:
        self.address = address
        self._purge, self._again = purge, bound_seconds + WAY_SECONDS
        self._owed: dict[str, _Owed] = {}
        self._changed = threading.Condition()
        self._stopped = False
        #: Confirmed and unconfirmed requests.
        self.confirmed, self.failed = 0, 0
        self._thread = threading.Thread(target=self._run, name=f"purger {address}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the request under way. What is still owed runs out by itself."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(RECEIPT_SECONDS + 1)

    def owe(self, keys: dict[str, str]) -> None:
        """Has keys purged, at once and after the bound. The values are their realms, for the
        log."""
        now = time.monotonic()
        with self._changed:
            for key, realm in keys.items():
                self._owed[key] = _Owed(realm, now, now + self._again)
            self._changed.notify_all()

    @property
    def owed(self) -> dict[str, str]:
        """The keys that are still to be purged, with their realms."""
        with self._changed:
            return {key: each.realm for key, each in self._owed.items()}

    def _run(self) -> None:
        delay = BACKOFF_SECONDS[0]
        while due := self._wait_due():
            began = time.monotonic()
            realms = sorted(each.realm for each in due.values())
            try:
                self._purge(self.address, list(due))
                why = ""
            except PurgeFailed as error:
                why = str(error)
            except Exception:
                # A hook of the operator's may raise anything; the purge is owed all the same.
                logger.exception("REALM_EDGE_PURGER fails")
                why = "REALM_EDGE_PURGER fails"
            if why:
                self.failed += 1
                logger.warning(
                    "%s has not confirmed a purge of %s: %s; tried again in %.1f s",
                    self.address, ", ".join(realms), why, delay,
                )  # fmt: skip
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, delay)
                delay = min(delay * 2, BACKOFF_SECONDS[1])
                continue
            self.confirmed, delay = self.confirmed + 1, BACKOFF_SECONDS[0]
            logger.info("%s has purged %s", self.address, ", ".join(realms))
            self._done(due, began)

    def _wait_due(self) -> dict[str, _Owed]:
        """The keys that are due, once there are any; none when the purger stops."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                ready = [(each.due, key) for key, each in self._owed.items() if each.due <= now]
                if ready:
                    first = heapq.nsmallest(KEYS_PER_REQUEST, ready)
                    return {key: self._owed[key] for _, key in first}
                soonest = min((each.due for each in self._owed.values()), default=None)
                self._changed.wait(None if soonest is None else max(0.0, soonest - now))
        return {}

    def _done(self, purged: dict[str, _Owed], began: float) -> None:
        with self._changed:
            for key, each in purged.items():
                if self._owed.get(key) is not each:
                    continue  # It has changed again meanwhile.
                if began >= each.last:
                    del self._owed[key]
                else:
                    each.due = each.last


class ToPurge:
    """Stands in a board's place before a listener: what would move there is purged at caches."""

    file = None

    def __init__(self, purgers: Collection[Purger]) -> None:
        self._purgers = purgers

    def bump(self, keys: Iterable[str]) -> None:
        """Has the realms purged that these keys of a board could concern."""
        owed: dict[str, str] = {}
        for key in keys:
            kind, _, url = key.partition("|")
            if kind in ("realm", "path", "index"):
                owed |= keys_of(url)
        for each in self._purgers:
            each.owe(owed)

    def bump_epoch(self) -> None:
        """Has everything purged: a listener that connects may have missed any change."""
        for each in self._purgers:
            each.owe({EVERY_REALM: "every realm"})

    def follow(self) -> bool:
        return False

    def go_live(self, until: int) -> None:
        pass

    def set_sidecar(self, pid: int) -> None:
        pass


@contextmanager
def purging() -> Iterator[ToPurge]:
    """Purgers of all caches at REALM_EDGE_PURGE, for a listener to tell. Raises
    ImproperlyConfigured."""
    if not settings.REALM_EDGE_PURGE:
        raise ImproperlyConfigured("REALM_EDGE_PURGE is empty: name the caches, comma-separated")
    purge, bound = purge_function(), settings.REALM_STALENESS_BOUND
    purgers = [Purger(address, purge, bound) for address in settings.REALM_EDGE_PURGE]
    for each in purgers:
        each.start()
    try:
        yield ToPurge(purgers)
    finally:
        for each in purgers:
            each.stop()
