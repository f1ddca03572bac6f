"""Limits the time that a job loses to hanging cards and modules. Decides which cards the job skips.

A card that exceeds its time limit costs the job this time, and the card's process has to be killed.
After a job has lost REALM_LOST_SECONDS, it skips the remaining cards of each module that has hung
or has a card that exceeded its limit. After 2 * REALM_LOST_SECONDS, it skips all remaining cards.

A card or module that exceeds its limit is stored with its error and a hash of everything that it is
made from. If it is proven that the card or module hangs, later jobs report the stored error and
don't run the code. They do so for at most a day, and only while the hash is unchanged.

A harmless card, too, exceeds its limit if its process is stopped or gets no processor time. So the
job also measures the processor time of the process. If the process used a processor for more than
half of the real time, a single exceeded limit proves that the card or module hangs. Otherwise the
limit must be exceeded in two jobs.
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

from reindex import sql
from reindex.models import Hang, ReindexJob
from reindex.prerender.renderer import renderer
from reindex.reading.documents import Document, links_of, module_of
from reindex.reading.reader import Reader

#: For how long jobs skip a hanging card or module after it last exceeded its limit.
REMEMBERED = timedelta(days=1)
#: The number of signs that prove that a card or module hangs. If a card or module exceeds its time
#: limit in a busy process, this counts as PROOF signs. In any other process, it counts as one sign.
PROOF = 2
#: A process is busy if it used a processor for more than this fraction of the real time.
BUSY = 0.5


def _processor_clock(pid: int) -> int:
    """Returns the id of the clock that measures a process's processor time. Does the same as
    Linux's clock_getcpuclockid(3), which Python lacks. The clock is read for every card, and
    reading /proc would take a hundred times as long."""
    return (~pid << 3) | 2


@dataclass
class Stopwatch:
    """Measures the real time and the processor time from one answer of a process to the next. The
    time between two answers is a lap."""

    pid: int = 0
    _from: tuple[float, float] = (0, 0)

    def start(self, pid: int) -> None:
        """Starts to measure the process `pid`."""
        self.pid = pid
        self._from = self._read()

    def lap(self) -> tuple[float, float]:
        """Ends a lap. Returns its real time and its processor time in seconds."""
        now = self._read()
        passed = now[0] - self._from[0], now[1] - self._from[1]
        self._from = now
        return passed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time of the `with` block out of the lap."""
        before = self._read()
        yield
        after = self._read()
        self._from = (
            self._from[0] + after[0] - before[0],
            self._from[1] + after[1] - before[1],
        )

    def _read(self) -> tuple[float, float]:
        used = self._from[1]
        # The clock of a process that has ended can't be read. The lap then has no processor time.
        with suppress(OSError):
            used = time.clock_gettime(_processor_clock(self.pid))
        return time.monotonic(), used


def signs_of(wall: float, busy: float) -> int:
    """Returns how many signs of a hang an exceeded time limit counts as. `wall` is the real time of
    the lap in which the limit was exceeded, and `busy` is the processor time of this lap."""
    return PROOF if busy > BUSY * wall else 1


@dataclass
class LostTime:
    """The time that a batch's job has lost to hangs, and the cards and modules that hang."""

    job: ReindexJob
    reader: Reader
    cards: Mapping[str, Document]
    watch: Stopwatch = field(default_factory=Stopwatch)
    #: The errors of the modules that hang, by URL.
    modules: dict[str, Document] = field(default_factory=dict)
    _known_cards: dict[str, Document] = field(default_factory=dict)
    #: The URL of the card with the latest result, and the real and the processor time of the lap
    #: that this result ended. The URL is None if a hang ended a process and no card got the error.
    _last: tuple[str | None, float, float] = (None, 0, 0)
    #: When a process dies, its unrendered cards are divided into numbered parts, which are rendered
    #: separately. `_parts` maps each card's URL to the number of the card's part.
    _parts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.modules |= {url: error for url, error in self.job.hung.items() if error is not None}

    # --- hangs that earlier jobs found ---

    def recall(self, modules: Iterable[str]) -> None:
        """Looks up which of the given modules and of the batch's cards are known to hang. Does
        nothing for a full job, which renders every card, even a card that is known to hang."""
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
        """Returns the error of a card that the job skips; None if the job renders the card."""
        if url in self._known_cards:
            return self._known_cards[url]
        lost, most = self.job.lost_seconds, settings.REALM_LOST_SECONDS
        module = module_of(url, self.cards[url])
        if lost < most or (lost < 2 * most and module not in self.job.hung):
            return None
        because = f", among them other cards of {module}" if module in self.job.hung else ""
        message = (
            f"Not rendered: this job has lost {lost:.0f} s to cards that exceeded their limits"
            f"{because}. Fix these cards and publish again."
        )
        error = {"status": 504, "title": "Time limit exceeded", "message": message, "causes": []}
        return {**error, "card": url, **({"module": module} if module else {})}

    # --- hangs that this job finds ---

    def heard(self, url: str | None = None) -> None:
        """Records that a process has sent a card's result, or that it has ended because of a
        hang."""
        wall, busy = self.watch.lap()
        # If a card hangs, the process sends the card's error and, right after it, a last message
        # without a URL. That short lap must not replace the card's lap in `_last`.
        if url is not None or wall > settings.REALM_RENDER_SECONDS / 2:
            self._last = (url, wall, busy)

    def stopped(self, modules: Mapping[str, Document]) -> None:
        """Records the hang that ended a process, and adds the lost time to the job's row. `modules`
        has the errors of all modules that are known to hang. If a module in `modules` is new, that
        module hung. Otherwise a card hung. The process's main program runs outside the sandbox, so
        it could still send the card's error as the last result. If it couldn't tell which card
        hung, it sent no error. Does nothing if the process ended for a reason other than a hang."""
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
        """Records that a process died before it returned results for the cards `urls`, and adds the
        lost time to the job's row. Divides these cards into two parts, which the caller renders
        separately."""
        half, number = len(urls) // 2, max(self._parts.values(), default=0)
        self._parts |= dict.fromkeys(urls[:half], number + 1)
        self._parts |= dict.fromkeys(urls[half:], number + 2)
        self._lose(self.watch.lap()[0], self._suspect(urls[0]) if len(urls) == 1 else {})

    def parts(self, urls: list[str], *, halved: bool) -> list[list[str]]:
        """When a worker stops early, divides the cards that have no result yet into lists. Each
        list becomes a new batch. If a process has died, each part in `_parts` becomes a batch, and
        all other cards become one more. If none has died, all cards become one batch or, if
        `halved` is true, two batches. `halved` is true if the worker had no result yet, because it
        spent its time reading documents."""
        if halved and not self._parts:
            half = (len(urls) + 1) // 2
            return [part for part in (urls[:half], urls[half:]) if part]
        parts: dict[int, list[str]] = {}
        for url in urls:
            parts.setdefault(self._parts.get(url, -1), []).append(url)
        return list(parts.values())

    @property
    def seconds(self) -> float:
        """The seconds that the job has lost to hangs so far."""
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
            cursor.execute(sql.LOSE_TIME, named)
            row = cursor.fetchone()
        if row is not None:
            lost, all_hung = row
            self.job.lost_seconds = lost
            self.job.hung = json.loads(all_hung) if isinstance(all_hung, str) else all_hung

    def _card_key(self, url: str) -> str:
        """Returns the hash of everything that a card shows, including its directly linked cards."""
        document = self.cards[url]
        shown: list[Any] = [self.job.realm_url, url, self.reader.card(f"{self.job.realm_url}realm")]
        for each in [url, *links_of(url, document)]:
            linked = self.reader.known(each)
            module = None if linked is None else module_of(each, linked)
            shown += [linked, module and _module_key(self.reader, module)]
        return _hash(shown)


def known_modules(reader: Reader, urls: Iterable[str]) -> dict[str, Document]:
    """Returns the stored errors of those modules in `urls` that are known to hang. The keys are the
    modules' URLs."""
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
    """Stores that a module hung. `job_id` is the id of the job. A build of definitions has no job
    and passes a unique negative number."""
    _remember(_module_key(reader, url), _digest(reader, url), realm_url, url, error, signs, job_id)


def _known(which: Q) -> dict[str, Hang]:
    since = timezone.now() - REMEMBERED
    hangs = Hang.objects.filter(which, signs__gte=PROOF, seen_at__gt=since)
    return {hang.key: hang for hang in hangs}


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
        cursor.execute(sql.REMEMBER_HANG, named)


def _as_known(hang: Hang) -> Document:
    error: Document = dict(hang.error)
    when = f"{hang.seen_at:%Y-%m-%d %H:%M} UTC"
    error["message"] += (
        f" at {when}. The server tries again in a full reindex, or after a change of a file that "
        "the card or module depends on"
    )
    return error


def _module_key(reader: Reader, url: str) -> str:
    """Returns the hash of a module and of all its imports. The hash doesn't depend on the URL of
    the module's realm, so an unchanged module keeps its hash when its realm is published at another
    URL."""
    # The last URL that `modules` returns is the module's canonical URL.
    *_, url = [url, *reader.modules([url])]
    reached, complete = reader.reached(url)
    pin = reader.locate(url)
    own = "" if pin is None else pin.realm_url
    parts: list[Any] = [[each.removeprefix(own), _digest(reader, each)] for each in sorted(reached)]
    # If some imports are unknown, any change of the pinned realms may change the module's
    # behaviour.
    return _hash([parts, None if complete else sorted(reader.pins.items())])


def _digest(reader: Reader, url: str) -> str:
    """Returns the hash of the source that a sandbox gets for a module, after redirects. Returns ""
    if there is no source."""
    source = reader.source(url)
    source = reader.source(source["redirect"]) if "redirect" in source else source
    text = source.get("code", source.get("data", ""))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() if text else ""


def _hash(value: Any) -> str:
    text = json.dumps([value, renderer(), settings.REALM_RENDER_SECONDS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
