"""Purges changed answers from shared caches, such as a CDN, before the answers expire.

One process of the fleet, `manage.py listen_file_changes --purge-edge`, receives the same
notifications of changes as the replicas. For each shared cache, the process has a `Purger`. The
purger sends its cache the surrogate keys of the realms that a change may affect, and retries until
the cache confirms the purge. A surrogate key is a label in an answer's headers. All answers of a
realm have the realm's key. Answers expire after REALM_EDGE_SECONDS even without a purge, so no
guarantee depends on purges.

The purger sends each purge at once. After this first purge, the cache may still fetch old bytes
from a replica that hasn't received the notification yet. REALM_STALENESS_BOUND limits how long a
replica may serve old bytes, so the purger sends the purge again after this time.
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
#: The longest time that an answer takes from a replica to a cache. Unit: seconds.
WAY_SECONDS = 1.0
#: The first and the longest pause after an unconfirmed purge.
BACKOFF_SECONDS = (0.1, 5.0)
#: The maximum number of keys in one purge. A header with this many keys isn't too long for any
#: known server.
KEYS_PER_REQUEST = 50
_KEY = re.compile(r"[a-z0-9-]+")

#: The type of a function that purges the answers with the given surrogate keys from the cache at an
#: address. The function raises PurgeFailed unless the cache confirms that it no longer serves these
#: answers.
Purge = Callable[[str, Collection[str]], None]


class PurgeFailed(Exception):
    """A cache has not confirmed a purge."""


def purge_function() -> Purge:
    """Imports the function that REALM_EDGE_PURGER names. Raises ImproperlyConfigured if the import
    fails."""
    try:
        purge: Purge = import_string(settings.REALM_EDGE_PURGER)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"REALM_EDGE_PURGER is {settings.REALM_EDGE_PURGER!r}, which can't be imported: {error}"
        ) from error
    return purge


def purge_now(realm_url: str) -> dict[str, str]:
    """Purges a realm from each shared cache, without retries. An empty URL means all realms.
    Returns a dictionary that maps each cache's address to an error text. The text is empty if the
    cache has confirmed the purge."""
    purge, key = purge_function(), surrogate_key(realm_url) if realm_url else EVERY_REALM
    said: dict[str, str] = {}
    for address in settings.REALM_EDGE_PURGE:
        said[address] = _error_of(purge, address, [key])
    return said


def _error_of(purge: Purge, address: str, keys: Collection[str]) -> str:
    """Purges answers from a cache. Returns why the purge failed; an empty text if the cache has
    confirmed the purge."""
    try:
        purge(address, keys)
    except PurgeFailed as error:
        return str(error)
    except Exception as error:
        # The operator's function may raise any exception. It doesn't end the caller's work.
        logger.exception("REALM_EDGE_PURGER fails")
        return f"REALM_EDGE_PURGER raised {type(error).__name__}"
    return ""


def ban(address: str, keys: Collection[str]) -> None:
    """Purges answers with these surrogate keys from a Varnish cache that runs deploy/varnish.vcl.

    A response confirms the purge only if the response repeats the purge request's number. A
    response without this number may be a cached response, or may come from another server.
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
        raise PurgeFailed(f"the cache answered {answer.status} {answer.reason}, without a receipt")


def keys_of(url: str) -> dict[str, str]:
    """Returns a dictionary that maps surrogate keys to realm URLs, for all realms that may contain
    `url`. If `url` ends with a slash, `url` may itself be such a realm's URL, and has an entry."""
    return {surrogate_key(each): each for each in realm_candidates(url)}


@dataclass
class _Owed:
    """The pending purges of a surrogate key. The next purge is sent at the time `due`. When the
    cache confirms a purge that was sent at the time `last` or later, the key needs no more purges.
    `realm` names the key's realm in the log."""

    realm: str
    due: float
    last: float


class Purger:
    """A thread that purges one shared cache. Other threads call `owe` to enqueue keys."""

    def __init__(self, address: str, purge: Purge, bound_seconds: float) -> None:
        self.address = address
        self._purge, self._again = purge, bound_seconds + WAY_SECONDS
        self._owed: dict[str, _Owed] = {}
        self._changed = threading.Condition()
        self._stopped = False
        #: The numbers of confirmed and of failed requests.
        self.confirmed, self.failed = 0, 0
        self._thread = threading.Thread(target=self._run, name=f"purger {address}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its current request. Drops pending purges, because even without
        purges all answers expire."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(RECEIPT_SECONDS + 1)

    def owe(self, keys: dict[str, str]) -> None:
        """Enqueues two purges of each key. The first purge is due at once. The second purge is due
        when the staleness bound and then WAY_SECONDS have passed. `keys` maps each key to the text
        that names the key's realm in the log."""
        now = time.monotonic()
        with self._changed:
            for key, realm in keys.items():
                self._owed[key] = _Owed(realm, now, now + self._again)
            self._changed.notify_all()

    @property
    def owed(self) -> dict[str, str]:
        """The keys of pending purges, with their realms."""
        with self._changed:
            return {key: each.realm for key, each in self._owed.items()}

    def _run(self) -> None:
        delay = BACKOFF_SECONDS[0]
        while due := self._wait_due():
            began = time.monotonic()
            realms = sorted(each.realm for each in due.values())
            why = _error_of(self._purge, self.address, list(due))
            if why:
                self.failed += 1
                logger.warning(
                    "%s has not confirmed a purge of %s: %s; next try in %.1f s",
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
        """Waits until purges are due, and returns them by key. Returns no purges when the purger
        stops."""
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
                    continue  # A newer change has enqueued new purges of this key.
                if began >= each.last:
                    del self._owed[key]
                else:
                    each.due = each.last


class ToPurge:
    """Takes the place of a replica's board in a listener. A listener receives notifications of
    changes, and passes the board keys of each change to its board. A board key names what has
    changed, such as a file or a realm. A replica's board makes the replica's cached answers stale.
    This class instead purges the changed realms from the shared caches."""

    file = None

    def __init__(self, purgers: Collection[Purger]) -> None:
        self._purgers = purgers

    def bump(self, keys: Iterable[str]) -> None:
        """Enqueues purges of the realms that a change with these board keys may affect."""
        owed: dict[str, str] = {}
        for key in keys:
            kind, _, url = key.partition("|")
            if kind in ("realm", "path", "index"):
                owed |= keys_of(url)
        for each in self._purgers:
            each.owe(owed)

    def bump_epoch(self) -> None:
        """Enqueues a purge of all realms. A listener calls this method when it connects, because it
        may have missed any number of changes before."""
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
    """Runs a purger for each cache in REALM_EDGE_PURGE during the `with` block. Yields the object
    that a listener uses as its board. Raises ImproperlyConfigured if REALM_EDGE_PURGE is empty, or
    if the function that REALM_EDGE_PURGER names can't be imported."""
    if not settings.REALM_EDGE_PURGE:
        raise ImproperlyConfigured("REALM_EDGE_PURGE is empty: list the caches, comma-separated")
    purge, bound = purge_function(), settings.REALM_STALENESS_BOUND
    purgers = [Purger(address, purge, bound) for address in settings.REALM_EDGE_PURGE]
    for each in purgers:
        each.start()
    try:
        yield ToPurge(purgers)
    finally:
        for each in purgers:
            each.stop()
