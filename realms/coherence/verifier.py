"""Sends requests to every replica, and compares the answers with the database.

One loop in one thread does two tasks. Other threads send the requests.

- *Checks.* The loop asks every replica for a sample of current and deleted files, as source, module
  and page. After a wrong answer the loop asks the same web worker again until the answer is right
  or the grace period is over.
- *Changes.* The loop polls the generations of realms, and follows each new generation until every
  replica serves it. The loop doesn't use notifications, because it must find a change even if the
  notification is lost. A change's latency is counted from the last poll before the change. So the
  latency is too long by at most the time between two polls.
"""

import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import TypeAlias

from django.conf import settings
from django.utils import timezone

from notifications.models import Replica
from realms.addresses import is_within_reach
from realms.coherence.generations import REMEMBERED
from realms.coherence.questions import (
    Arrival,
    Asking,
    Check,
    WatchedChange,
    changed_path,
    variants_of,
    with_token,
)
from realms.coherence.replica_client import NoAnswer, Question, ReplicaClient
from realms.coherence.report import Outcome, Violation
from realms.coherence.rules import SHARES, Observation, State, Verdict, difference, judge
from realms.models import EVERYONE, FileVersion, Realm, RealmPermission, RealmTombstone
from realms.serving.answers import committed
from realms.serving.contents import Variant
from realms.serving.transpiling import TranspilerFailed

POLL_SECONDS = 0.1
#: The minimum time between the starts of two samples. Unit: seconds.
SAMPLE_SECONDS = 5.0
#: How long the loop waits before it repeats a question that got no answer. Unit: seconds.
AGAIN_SECONDS = 0.1
#: How many times the loop repeats a question within the grace period after a wrong answer.
TIMES_AGAIN = 5
#: How many checks, per replica on average, may wait for their first answer at the same time.
CHECKS_PER_REPLICA = 4
#: The maximum number of deleted realms in a sample.
TOMBSTONES = 3

Progress: TypeAlias = Callable[[float, str], None]


class NothingToVerify(Exception):
    """There is no realm or no replica."""


class Verification:
    """One run of the verifier. A wrong answer is a violation only if the answer is still wrong when
    the grace period of `grace` seconds is over. `samples` is the number of files in a sample."""

    def __init__(
        self,
        *,
        grace: float,
        samples: int,
        realms: list[str] | None = None,
        progress: Progress = lambda done, text: None,
    ) -> None:
        """Raises NothingToVerify if there is no replica or no realm."""
        self._grace = grace
        self._samples = samples
        self._only = realms
        self._progress = progress
        rows = list(Replica.objects.filter(reported_at__gt=timezone.now() - REMEMBERED))
        if not rows:
            raise NothingToVerify(
                "no replica has reported within a day; is listen_file_changes running next to each "
                "web service?"
            )
        self.outcome = Outcome(
            grace=grace,
            replicas=sorted(row.name for row in rows),
            stopped={row.name for row in rows if row.state == "stopped" and not row.fresh},
        )
        if not self._realms():
            wanted = f"none of {', '.join(realms)} is a realm" if realms else "there is no realm"
            raise NothingToVerify(wanted)
        self._addresses = {row.name: row.address for row in rows}
        self._fleet: dict[str, ReplicaClient] = {}
        self._open: list[Check | Arrival] = []
        self._queue: deque[Question] = deque()
        self._changes: list[WatchedChange] = []
        self._generations: dict[str, int] = {}
        self._polled_at = 0.0
        self._poll_seconds = POLL_SECONDS
        #: The replicas that give no answers. Each sample sends one request to each of them.
        self._down: set[str] = set()
        #: The replicas that were in `_down` when the sample began, and have got no request since.
        self._retried: set[str] = set()
        self._drawn_at = 0.0
        self._canaries: dict[str, str] = {}

    def run(self, seconds: float) -> Outcome:
        """Checks samples and follows changes for `seconds`. Then waits for the results of requests
        that were already sent. If `seconds` is 0, checks one sample and follows no changes."""
        self._fleet = {name: ReplicaClient(name, at) for name, at in self._addresses.items()}
        began = time.monotonic()
        try:
            self._loop(began, began + seconds)
        finally:
            for client in self._fleet.values():
                client.close()
            for asking in self._open:
                asking.line.close()
        outcome = self.outcome
        outcome.seconds = time.monotonic() - began
        followed = [change for change in self._changes if change.replicas]
        outcome.changes = len(followed)
        outcome.within = {
            limit: sum(not c.missed and c.latency <= limit for c in followed) for limit in SHARES
        }
        outcome.slowest = max((c.latency for c in followed if not c.missed), default=None)
        return outcome

    def _loop(self, began: float, end: float) -> None:
        self._draw()
        total = len(self._queue)
        while True:
            now = time.monotonic()
            watching = now < end
            if watching:
                self._watch()
                if not self._queue and now - self._drawn_at >= SAMPLE_SECONDS:
                    self._draw()
            elif end > began:
                self._queue.clear()
            self._start_checks()
            for asking in self._open:
                if asking.future is None and asking.due <= now:
                    asking.ask()
            self._collect()
            if not watching and not self._queue and not self._open:
                return
            done = (now - began) / (end - began) if end > began else 1 - len(self._queue) / total
            self._progress(min(done, 1.0), self._text(watching))

    def _text(self, watching: bool) -> str:
        outcome = self.outcome
        doing = "watching" if watching else "waiting for the last answers"
        if not self._generations:
            doing = "checking"
        return (
            f"{doing}: {outcome.samples} answers, {len(self._changes)} changes, "
            f"{len(outcome.violations)} violations, {len(outcome.silent)} silent replicas"
        )

    # --- Questions ---

    def _realms(self) -> list[Realm]:
        """Returns the realms to check. No replica serves a realm with another scheme or port than
        the server's public origin. Such a realm is left out and reported as not checked."""
        realms = Realm.objects.all()
        selected = list(realms.filter(url__in=self._only) if self._only else realms)
        for realm in selected:
            if not is_within_reach(realm.url):
                self.outcome.unchecked[realm.url] = (
                    "no replica serves the realm, because its scheme or port differs from that of "
                    f"{settings.REALM_PUBLIC_ORIGIN}"
                )
        return [realm for realm in selected if is_within_reach(realm.url)]

    def _draw(self) -> None:
        """Queues a sample: requests for current and deleted files of random realms, and for deleted
        realms."""
        self._drawn_at = time.monotonic()
        self._retried = set(self._down)
        realms = self._realms()
        random.shuffle(realms)
        realms = realms[: self._samples]
        readable = RealmPermission.objects.filter(audience=EVERYONE, read=True, realm__in=realms)
        public = set(readable.values_list("realm", flat=True))
        questions: list[Question] = []
        for place, realm in enumerate(realms):
            # Each realm gets an equal share of the sample. If the division leaves a remainder, each
            # of the first realms gets one file more.
            share = self._samples // len(realms) + (place < self._samples % len(realms))
            content = FileVersion.objects.filter(realm=realm.source_id or realm.pk)
            paths = list(content.order_by("?").values_list("path", flat=True)[:share])
            for path in dict.fromkeys(paths or [""]):
                questions += variants_of(realm, path, private=realm.pk not in public)
                self._canaries[realm.url] = path
        if not self._only:
            newest = RealmTombstone.objects.order_by("-at").values_list("url", flat=True)
            deleted = filter(is_within_reach, newest.iterator())
            questions += [Question(url, "", Variant.SOURCE) for url in islice(deleted, TOMBSTONES)]
        random.shuffle(questions)
        self._queue.extend(questions)

    def _start_checks(self) -> None:
        room = CHECKS_PER_REPLICA * len(self._fleet) - sum(
            isinstance(each, Check) and each.first is None for each in self._open
        )
        while self._queue and room > 0:
            question = self._queue.popleft()
            for name, client in self._fleet.items():
                if name in self._down and name not in self._retried:
                    continue
                self._retried.discard(name)
                check = Check(client, question)
                check.ask()
                self._open.append(check)
                room -= 1

    def _read(self, question: Question) -> State | None:
        try:
            return State.of(committed(question.variant, question.url))
        except TranspilerFailed as error:
            self.outcome.unchecked[question.url] = str(error)
            return None

    # --- Changes ---

    def _watch(self) -> None:
        """Polls the generations of realms, and follows each change since the previous poll."""
        now = time.monotonic()
        if now - self._polled_at < self._poll_seconds:
            return
        wanted = Realm.objects.filter(url__in=self._only) if self._only else Realm.objects.all()
        rows = wanted.values_list("url", "generation")
        current = {url: generation for url, generation in rows if is_within_reach(url)}
        noticed_at = time.monotonic()
        # A poll of many realms is slow. The time between polls grows with a poll's duration, so
        # polls take at most a fifth of the run's time.
        self._poll_seconds = max(POLL_SECONDS, 5 * (noticed_at - now))
        if self._polled_at:
            for url in current.keys() | self._generations.keys():
                generation, before = current.get(url), self._generations.get(url, 0)
                if generation != self._generations.get(url):
                    self._follow(
                        url, WatchedChange(self._polled_at, noticed_at, generation, before)
                    )
        self._generations, self._polled_at = current, now

    def _follow(self, url: str, change: WatchedChange) -> None:
        path = self._canaries.get(url, "")
        realm = Realm.objects.filter(url=url).first()
        if realm is not None and realm.kind != Realm.Kind.PUBLISHED and change.generation:
            path = changed_path(realm, change.generation) or path
        question = Question(url, path, Variant.SOURCE)
        state = self._read(question)
        if state is None:
            return
        self._changes.append(change)
        for client in self._fleet.values():
            if client.name not in self._down:
                arrival = Arrival(client, with_token(question, state), change=change)
                arrival.ask()
                self._open.append(arrival)

    # --- Answers ---

    def _collect(self) -> None:
        """Waits a moment for answers and handles the answers that have arrived."""
        futures = [asking.future for asking in self._open if asking.future is not None]
        if futures:
            wait(futures, timeout=POLL_SECONDS / 2, return_when=FIRST_COMPLETED)
        else:
            time.sleep(POLL_SECONDS / 10)
        still: list[Check | Arrival] = []
        for asking in self._open:
            if asking.future is None or not asking.future.done():
                still.append(asking)
            elif self._is_over(asking, asking.future):
                asking.line.close()
            else:
                asking.future = None
                still.append(asking)
        self._open = still

    def _is_over(self, asking: "Check | Arrival", future: "Future[Observation]") -> bool:
        try:
            found = future.result()
        except NoAnswer as error:
            return self._silence_over(asking, str(error))
        asking.silent_since = None
        self._down.discard(asking.client.name)
        if isinstance(asking, Check):
            return self._check_over(asking, found)
        return self._arrival_over(asking, found)

    def _silence_over(self, asking: Asking, why: str) -> bool:
        """Returns whether the loop gives up a question that a replica didn't answer. The loop
        repeats the question for `grace` seconds. If the replica is already in `_down`, the loop
        gives up at once."""
        now, name = time.monotonic(), asking.client.name
        if asking.silent_since is None:
            asking.silent_since = now
        asking.due = now + AGAIN_SECONDS
        if name not in self._down and now - asking.silent_since < self._grace:
            return False
        self._down.add(name)
        self.outcome.silent.setdefault(name, why)
        return True

    def _check_over(self, check: Check, found: Observation) -> bool:
        """Returns whether a check is done. A right answer or a violation ends the check."""
        if check.first is not None and found.worker != check.suspect:
            return self._other_worker_over(check)
        state = self._read(check.question)
        if state is None:
            return True
        why = difference(state, found)
        if why is None:
            return self._count_sample()
        check.question = with_token(check.question, state)
        check.due = time.monotonic() + self._grace / TIMES_AGAIN
        if check.first is None:
            check.first, check.suspect, check.suspected_at = state, found.worker, found.at
        verdict = judge(found, state, check.first, check.suspected_at, self._grace)
        if verdict is Verdict.RESTART:
            check.first, check.suspected_at = state, found.at
        if verdict is Verdict.VIOLATION:
            self._record_violation(check, found, state.high, why)
            return self._count_sample()
        return False

    def _other_worker_over(self, check: Check) -> bool:
        """Handles an answer from a web worker that isn't the suspect, and returns whether the check
        is done. The suspect is the worker that gave the wrong answer. If the connection to the
        suspect is lost, the next connection may lead to another worker. So the check opens new
        connections until the suspect answers. If `2 * grace + 1` seconds have passed since
        `suspected_at`, the suspect has probably ended, so the check is done."""
        check.line.close()
        check.line = check.client.line()
        check.due = time.monotonic() + AGAIN_SECONDS / 10
        if time.monotonic() - check.suspected_at > 2 * self._grace + 1:
            return self._count_sample()
        return False

    def _count_sample(self) -> bool:
        self.outcome.samples += 1
        return True

    def _arrival_over(self, arrival: Arrival, found: Observation) -> bool:
        """Returns whether to stop asking: the replica serves the change, or has taken too long."""
        change = arrival.change
        served = found.generation if found.realm_url == arrival.question.realm_url else None
        if change.generation is None:
            arrived = served is None or served > change.before
        else:
            arrived = served is not None and served >= change.generation
        if not arrived and served is None:
            # The realm may have been deleted or made private since the change.
            state = self._read(arrival.question)
            if state is None or state.realm_url != arrival.question.realm_url:
                arrived = True
            else:
                arrival.question = with_token(arrival.question, state)
        if arrived:
            return self._count_change(change, found.at - change.since)
        if found.sent_at - change.noticed_at > self._grace and not arrival.late:
            arrival.late = True
            self._record_violation(
                arrival, found, change.generation, "the expected generation is not served"
            )
        age = found.at - change.since
        arrival.due = time.monotonic() + min(max(age / 10, POLL_SECONDS / 10), POLL_SECONDS * 3)
        if age > SHARES[-1]:
            change.missed = True
            return self._count_change(change, age)
        return False

    def _count_change(self, change: WatchedChange, latency: float) -> bool:
        change.replicas += 1
        change.latency = max(change.latency, latency)
        return True

    def _record_violation(
        self, asking: Asking, found: Observation, expected: int | None, why: str
    ) -> None:
        question = asking.question
        self.outcome.violation(
            Violation(
                replica=asking.client.name,
                worker=found.worker,
                realm=question.realm_url,
                path=question.path,
                variant=question.variant.value,
                expected_generation=expected,
                found_generation=found.generation,
                why=why,
            )
        )
