"""What hangs: how much time a job may lose to it, and what is known to hang before it is tried.

A card that runs into its time limit costs that time, and the process with it. A job may lose
REALM_LOST_SECONDS in this way. After that, cards of a module that a card has hung with are not
tried again in the job; once it has lost as much again, nothing more is tried.

What hung is remembered by its bytes and those of everything it imports: later jobs give it its
error at once, until these change, or for a day. A process that was stopped or starved makes an
innocent card run into its limit as well, so something is known to hang only if the process was busy
meanwhile, or if it hung in two jobs.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.utils import timezone

from reindex.models import Hang, ReindexJob
from reindex.prerender.renderer import renderer
from reindex.reading.documents import Document, links_of, module_of
from reindex.reading.reader import Reader

#: For how long something is known to hang.
REMEMBERED = timedelta(days=1)
#: So many signs that something hangs are proof: a busy process gives as many at once.
PROOF = 2
#: A process that had a processor for this part of the time was not waiting for something else.
BUSY = 0.5

_LOST = """
UPDATE reindex_reindexjob SET lost_seconds = lost_seconds + %(seconds)s, hung = hung || %(hung)s
WHERE id = %(id)s RETURNING lost_seconds, hung
"""
#: A job gives one sign at the most: its batches may all have met the same slow replica.
_REMEMBER = """
INSERT INTO reindex_hang AS known (key, digest, realm_url, url, error, signs, job_id, seen_at)
VALUES (%(key)s, %(digest)s, %(realm)s, %(url)s, %(error)s, %(signs)s, %(job)s, %(now)s)
ON CONFLICT (key) DO UPDATE SET seen_at = excluded.seen_at, job_id = excluded.job_id,
    signs = CASE WHEN known.job_id = excluded.job_id THEN greatest(known.signs, excluded.signs)
        ELSE known.signs + excluded.signs END
"""


def _processor_clock(pid: int) -> int:
    """The clock of a process's processor time: clock_getcpuclockid(3) of Linux, which Python lacks.
    Reading /proc takes a hundred times as long, and it is read for every card."""
    return (~pid << 3) | 2


@dataclass
class Stopwatch:
    """How long a process has been silent, and how much processor time it has used meanwhile."""

    pid: int = 0
    _from: tuple[float, float] = (0, 0)

    def start(self, pid: int) -> None:
        """From now on, for another process."""
        self.pid = pid
        self._from = self._read()

    def lap(self) -> tuple[float, float]:
        """The seconds since the last time, by the clock and by the processor."""
        now = self._read()
        passed = now[0] - self._from[0], now[1] - self._from[1]
        self._from = now
        return passed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what happens meanwhile."""
        before = self._read()
        yield
        after = self._read()
        self._from = (
            self._from[0] + after[0] - before[0],
            self._from[1] + after[1] - before[1],
        )

    def _read(self) -> tuple[float, float]:
        used = self._from[1]
        # A process that is gone uses no more.
        with suppress(OSError):
            used = time.clock_gettime(_processor_clock(self.pid))
        return time.monotonic(), used


def signs_of(wall: float, busy: float) -> int:
    """How much it proves that something has run into its limit."""
    return PROOF if busy > BUSY * wall else 1


@dataclass
class LostTime:
    """What a batch knows of its job's lost time. It changes as cards hang."""

    job: ReindexJob
    reader: Reader
    cards: Mapping[str, Document]
    watch: Stopwatch = field(default_factory=Stopwatch)
    #: Errors of the modules that don't end, by URL.
    modules: dict[str, Document] = field(default_factory=dict)
    _known_cards: dict[str, Document] = field(default_factory=dict)
    #: The card that was answered last, how long that took, and how much of it on a processor.
    _last: tuple[str | None, float, float] = (None, 0, 0)
    #: To which part of the batch a card belongs since a process has died with all of them.
    _parts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.modules |= {url: error for url, error in self.job.hung.items() if error is not None}

    # --- what is known ---

    def recall(self, modules: Iterable[str]) -> None:
        """Looks up what is known of these modules and of the cards. A full job tries everything."""
        if self.job.full:
            return
        digests = _digests(self.reader, modules)
        of_cards = Q(digest="", realm_url=self.job.realm_url)
        by_key = _known(Q(digest__in=set(digests.values())) | of_cards)
        self.modules |= _hung(self.reader, digests, by_key)
        for url in {hang.url for hang in by_key.values() if not hang.digest} & self.cards.keys():
            if hang := by_key.get(self._card_key(url)):
                self._known_cards[url] = {**_as_known(hang), "card": url}

    def error_of(self, url: str) -> Document | None:
        """The error of a card that is not tried; None if it is."""
        if url in self._known_cards:
            return self._known_cards[url]
        lost, most = self.job.lost_seconds, settings.REALM_LOST_SECONDS
        module = module_of(url, self.cards[url])
        if lost < most or (lost < 2 * most and module not in self.job.hung):
            return None
        because = f"other cards of {module}" if module in self.job.hung else "other cards"
        message = (
            f"Not rendered: this job has lost {lost:.0f} s to cards that ran into their limits, "
            f"among them {because}. Mend those and publish again."
        )
        error = {"status": 504, "title": "Time limit exceeded", "message": message, "causes": []}
        return {**error, "card": url, **({"module": module} if module else {})}

    # --- what happens ---

    def heard(self, url: str | None = None) -> None:
        """Notes that a card was answered, or that the process has ended itself for what hung."""
        wall, busy = self.watch.lap()
        # A card that hung is answered right before the process ends itself.
        if url is not None or wall > settings.REALM_RENDER_SECONDS / 2:
            self._last = (url, wall, busy)

    def stopped(self, modules: Mapping[str, Document]) -> None:
        """Counts the time of what has hung: the modules, or else the card that was answered last.
        A process that has ended itself for another reason has lost none."""
        url, wall, busy = self._last
        if wall < settings.REALM_RENDER_SECONDS / 2:
            return
        new = {module: error for module, error in modules.items() if module not in self.modules}
        self.modules |= new
        signs = signs_of(wall, busy)
        for module, error in new.items():
            remember_module(self.reader, module, error, signs, self.job.pk, self.job.realm_url)
        if not new and url is not None:
            error = {"status": 504, "title": "Time limit exceeded", "causes": []}
            error["message"] = f"Rendering took longer than {settings.REALM_RENDER_SECONDS:g} s"
            key, realm_url = self._card_key(url), self.job.realm_url
            _remember(key, "", realm_url, url, error, signs, self.job.pk)
        self._lose(wall, {**new, **({} if new or url is None else self._suspect(url))})

    def died(self, urls: list[str]) -> None:
        """Counts the time of a process that has ended with these cards unanswered. They are to be
        tried again in halves."""
        half, number = len(urls) // 2, max(self._parts.values(), default=0)
        self._parts |= dict.fromkeys(urls[:half], number + 1)
        self._parts |= dict.fromkeys(urls[half:], number + 2)
        self._lose(self.watch.lap()[0], self._suspect(urls[0]) if len(urls) == 1 else {})

    def parts(self, urls: list[str], *, halved: bool) -> list[list[str]]:
        """Cards that are left, as they are to be tried: apart, where a process has died of them;
        halved, where reading what they are made from has taken a whole turn."""
        if halved and not self._parts:
            half = (len(urls) + 1) // 2
            return [part for part in (urls[:half], urls[half:]) if part]
        found: dict[int, list[str]] = {}
        for url in urls:
            found.setdefault(self._parts.get(url, -1), []).append(url)
        return list(found.values())

    @property
    def seconds(self) -> float:
        """What the job has lost so far."""
        return self.job.lost_seconds

    def _suspect(self, url: str) -> dict[str, None]:
        module = module_of(url, self.cards[url])
        return {} if module is None else {module: None}

    def _lose(self, seconds: float, hung: Mapping[str, Document | None]) -> None:
        with connection.cursor() as cursor:
            named: dict[str, Any] = {
                "id": self.job.pk,
                "seconds": seconds,
                "hung": json.dumps(hung),
            }
            cursor.execute(_LOST, named)
            row = cursor.fetchone()
        if row is not None:
            lost, told = row
            self.job.lost_seconds = lost
            self.job.hung = json.loads(told) if isinstance(told, str) else told

    def _card_key(self, url: str) -> str:
        """The hash of everything that a card shows, as far as its direct links."""
        document = self.cards[url]
        shown: list[Any] = [self.job.realm_url, url, self.reader.card(f"{self.job.realm_url}realm")]
        for each in [url, *links_of(url, document)]:
            found = self.reader.known(each)
            module = None if found is None else module_of(each, found)
            shown += [found, module and _module_key(self.reader, module)]
        return _hash(shown)


def known_modules(reader: Reader, urls: Iterable[str]) -> dict[str, Document]:
    """The errors of those of these modules that are known to hang, by URL."""
    digests = _digests(reader, urls)
    return _hung(reader, digests, _known(Q(digest__in=set(digests.values()))))


def _digests(reader: Reader, urls: Iterable[str]) -> dict[str, str]:
    return {url: digest for url in urls if (digest := _digest(reader, url))}


def _hung(
    reader: Reader, digests: Mapping[str, str], by_key: Mapping[str, Hang]
) -> dict[str, Document]:
    known_digests = {hang.digest for hang in by_key.values()}
    return {
        url: {**_as_known(hang), "module": url}
        for url, digest in digests.items()
        if digest in known_digests and (hang := by_key.get(_module_key(reader, url)))
    }


def remember_module(
    reader: Reader, url: str, error: Document, signs: int, job_id: int, realm_url: str = ""
) -> None:
    """Takes note that a module has hung in a job."""
    _remember(_module_key(reader, url), _digest(reader, url), realm_url, url, error, signs, job_id)


def _known(which: Q) -> dict[str, Hang]:
    since = timezone.now() - REMEMBERED
    found = Hang.objects.filter(which, signs__gte=PROOF, seen_at__gt=since)
    return {hang.key: hang for hang in found}


def _remember(
    key: str, digest: str, realm_url: str, url: str, error: Document, signs: int, job_id: int
) -> None:
    now = timezone.now()
    Hang.objects.filter(seen_at__lt=now - REMEMBERED).delete()
    named: dict[str, Any] = {
        "key": key,
        "digest": digest,
        "realm": realm_url,
        "url": url,
        "error": json.dumps(error),
        "signs": signs,
        "job": job_id,
        "now": now,
    }
    with connection.cursor() as cursor:
        cursor.execute(_REMEMBER, named)


def _as_known(hang: Hang) -> Document:
    error: Document = dict(hang.error)
    when = f"{hang.seen_at:%Y-%m-%d %H:%M} UTC"
    error["message"] += (
        f" at {when}. It is tried again when it changes, or something that it is made from, "
        "or in a full reindex"
    )
    return error


def _module_key(reader: Reader, url: str) -> str:
    """The hash of a module and of all that it imports, wherever their realm is published."""
    # However it is spelt.
    *_, url = [url, *reader.modules([url])]
    asked, complete = reader.reached(url)
    pin = reader.locate(url)
    own = "" if pin is None else pin.realm_url
    parts: list[Any] = [[each.removeprefix(own), _digest(reader, each)] for each in sorted(asked)]
    # What it imports besides isn't known: that may change with any change of a realm.
    return _hash([parts, None if complete else sorted(reader.pins.items())])


def _digest(reader: Reader, url: str) -> str:
    """The hash of what a sandbox gets for a module, however its URL is spelt."""
    source = reader.source(url)
    source = reader.source(source["redirect"]) if "redirect" in source else source
    text = source.get("code", source.get("data", ""))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() if text else ""


def _hash(value: Any) -> str:
    told = json.dumps([value, renderer(), settings.REALM_RENDER_SECONDS], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
