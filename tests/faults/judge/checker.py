"""Compares the recorded answers of a fault campaign with the commits, and reports each broken
promise. The README lists the promises P1 to P10.

A read is pinned if it names a minimum or an exact generation. The edge is nginx, a cache in front
of the replicas.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from tests.faults.clients import CARDS, EDGE
from tests.faults.judge.history import History, Read
from tests.faults.judge.truth import FOREVER, Truth, staleness

#: On a busy machine, a commit may become visible up to this many seconds after its timestamp.
CLOCK_SLACK = 0.1


@dataclass(frozen=True)
class Violation:
    """A broken promise. `shown_by` proves the violation. It is a read, an operation, a tuple of
    reads, or None."""

    promise: str
    what: str
    shown_by: object = None


@dataclass
class Verdict:
    """The judge's findings."""

    violations: list[Violation] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    #: The staleness of each unpinned read from a replica: the number of seconds for which the
    #: content had been outdated when the read began. The first list has the reads during faults,
    #: and the second list has all other reads.
    stale_in_faults: list[float] = field(default_factory=list)
    stale_in_peace: list[float] = field(default_factory=list)
    #: The staleness of each unpinned read through the edge.
    stale_at_edge: list[float] = field(default_factory=list)


def judge(history: History, truth: Truth, bound: float, edge: float = 0) -> Verdict:
    """Checks every read and every operation. A replica's answer may have been outdated for `bound`
    seconds when the read began. The edge may cache an answer for `edge` seconds, so an answer
    through the edge may have been outdated for `bound + edge` seconds.

    The Date header of an answer through the edge must not be older than `edge` seconds. This check
    finds an edge that caches answers for too long. The check of the content may miss such an edge,
    because replicas usually serve much newer content than `bound` allows."""
    verdict = Verdict()
    faults = _merged(history.faults)
    for read in history.reads:
        at_edge = read.replica == EDGE
        judged = _Judged(read, truth, bound + edge if at_edge else bound, verdict, faults)
        judged.judge()
        if at_edge:
            judged.kept_for(edge)
    _one_digest(history, truth, verdict)
    for realm in truth.realms():
        for (_, _, before), (_, _, after) in pairwise(truth.index_periods(realm)):
            if before is not None and after is not None and after < before:
                verdict.violations.append(
                    Violation("P5", f"the index of {realm} fell from {before} to {after}")
                )
    for operation in history.operations:
        if operation.kind in ("write", "publish", "rollback") and operation.acknowledged:
            verdict.checked["acknowledged operations"] += 1
            if operation.generation is None:
                verdict.violations.append(
                    Violation("P6", "the answer has no generation", operation)
                )
            elif truth.committed_at(operation.realm, operation.generation) is None:
                verdict.violations.append(
                    Violation("P6", "an acknowledged change was not committed", operation)
                )
            elif operation.mark and operation.mark not in truth.marks(
                truth.content(operation.realm, operation.generation, operation.path)
            ):
                verdict.violations.append(
                    Violation("P6", "an acknowledged write is lost", operation)
                )
    verdict.checked["definitions in the table"] = history.looks
    verdict.violations += [Violation("P4/P5", what) for what in history.contradictions]
    return verdict


class _Judged:
    """Checks one read, and adds the results to a verdict."""

    def __init__(
        self, read: Read, truth: Truth, bound: float, verdict: Verdict,
        faults: list[tuple[float, float]],
    ) -> None:  # fmt: skip
        self._read, self._truth, self._bound = read, truth, bound
        self._verdict, self._faults = verdict, faults

    def judge(self) -> None:
        read = self._read
        self._verdict.statuses[read.status] += 1
        # A read of an exact generation has a pin, a token that opens even a private realm. So this
        # read needs no permissions.
        if read.pin != "at" and read.status in (200, 401, 403):
            self._walls()
        if read.variant == "where":
            if read.status in (200, 302):
                self._count("where pages are")
                self._where()
        elif read.variant == "html":
            if read.status in (200, 404) or (read.status == 503 and read.generation == 0):
                self._count(f"html {read.pin}".strip())
                self._page()
        elif read.status in (200, 404):
            self._count(f"{read.variant} {read.pin or 'unpinned'}")
            self._file()
        elif read.status == 410 and read.pin == "at":
            self._count(f"{read.variant} gone from history")
            if not self._superseded():
                self._broken("P2", f"generation {read.pinned} is the newest, but gets a 410")
        elif read.status == 409 and not self._was_gone():
            self._broken("P2", f"generation {read.pinned} is committed, but gets a 409")

    def kept_for(self, most: float) -> None:
        """Checks that an answer's Date header was at most `most` seconds old when the read began. A
        Date header is rounded down to a whole second, so the check allows at least one second."""
        read = self._read
        if read.dated is not None:
            self._count("dates at the edge")
            if read.start - read.dated > max(most, 1) + CLOCK_SLACK:
                age = read.start - read.dated
                self._broken("P3", f"the Date of an answer through the edge is {age:.3f} s old")

    def _count(self, what: str) -> None:
        self._verdict.checked[what] += 1

    def _broken(self, promise: str, what: str) -> None:
        self._verdict.violations.append(Violation(promise, what, self._read))

    def _was_gone(self) -> bool:
        """Returns true if the pinned realm was missing at some moment from the commit of the pinned
        generation to the end of the read."""
        read = self._read
        since = self._truth.committed_at(read.realm, read.pinned) or 0.0
        return self._truth.gone_between(read.realm, since, read.end)

    def _superseded(self) -> bool:
        """Returns true if, before the end of the read, a newer generation was committed or the
        pinned realm was missing."""
        read = self._read
        following = self._truth.committed_at(read.realm, read.pinned + 1)
        return (following is not None and following <= read.end) or self._was_gone()

    @property
    def _since(self) -> float:
        """The earliest moment at which the content of the answer may last have been current."""
        return self._read.start - self._bound - CLOCK_SLACK

    def _walls(self) -> None:
        """Checks that an anonymous reader gets files of public realms, and no files of private
        realms. For `bound` seconds after a change of access, both results are correct."""
        read, truth = self._read, self._truth
        self._count("access of anonymous readers")
        if read.status != 200:
            realms = truth.around(read.realm + read.path)
            if not any(
                truth.readable_between(each, self._since, read.end, by_all=False) for each in realms
            ):
                self._broken("P3", "everyone may read the file, but the answer refuses it")
        elif read.answered:
            readable = {
                by_all: truth.readable_between(read.answered, self._since, read.end, by_all=by_all)
                for by_all in (True, False)
            }
            if readable[False] and not readable[True]:
                self._broken("P8", "the answer has bytes of a private realm")

    def _where(self) -> None:
        """Checks the answer to a request for a source realm's page. If a published realm shows the
        source realm, the answer must redirect to such a published realm."""
        read, truth = self._read, self._truth
        if read.answered is None:
            if not truth.gone_between(read.realm, self._since, read.end):
                self._broken("P3", "a realm that stood is said not to exist")
        elif read.status == 302:
            if read.location not in truth.showing(read.realm, self._since, read.end):
                self._broken("P3", f"the redirect to {read.location} does not lead to its pages")
        elif not truth.unshown_between(read.realm, self._since, read.end):
            self._broken("P3", "the realm is published, but is said not to be")

    def _by_which(self) -> Read:
        """Returns the read with `realm` set to the realm that answered, and `path` set to the path
        within that realm. Reports a violation if an inner realm should have answered instead.

        The realm that answered can differ from the requested realm. An inner realm, at a URL below
        the outer realm's URL, answers for all paths below its URL. If the inner realm is missing,
        the outer realm answers."""
        read, truth = self._read, self._truth
        if read.pin == "at" or read.answered is None:
            return read
        url = read.realm + read.path
        for realm in truth.around(url):
            if len(realm) > len(read.answered) and not truth.gone_between(
                realm, self._since, read.end
            ):
                self._broken("P3", f"{read.answered} answered instead of {realm}, which existed")
        path = url.removeprefix(read.answered)
        return read._replace(realm=read.answered, path=path)

    def _file(self) -> None:
        self._read = self._by_which()
        read, truth = self._read, self._truth
        if read.generation is None:
            # The replica answered that the realm doesn't exist.
            if read.pin:
                if not self._was_gone():
                    self._broken("P2", "a pinned realm is said not to exist")
                return
            if not truth.gone_between(read.realm, self._since, read.end):
                self._broken("P3", "a realm that stood is said not to exist")
            return
        if read.pin == "min" and read.generation < read.pinned:
            self._broken("P2", f"generation {read.generation} for a minimum of {read.pinned}")
        if read.pin == "at" and read.generation != read.pinned:
            self._broken("P2", f"generation {read.generation} instead of exactly {read.pinned}")
        committed = truth.committed_at(read.realm, read.generation)
        if read.pin == "at" and read.status == 404 and self._was_gone():
            return
        if committed is None or committed > read.end:
            self._broken("P1", f"generation {read.generation} was not committed yet")
            return
        held = truth.content(read.realm, read.generation, read.path)
        if not self._matches(held):
            self._broken(
                "P2" if read.pin else "P4",
                f"generation {read.generation} has other content: {truth.marks(held) or held}",
            )
        elif read.pin != "at":
            self._age(
                [(p.start, p.end) for p in truth.periods(read.realm, read.path) if p.sha256 == held]
            )

    def _matches(self, sha256: str | None) -> bool:
        read = self._read
        if read.status == 404 or sha256 is None:
            return read.status == 404 and sha256 is None
        if read.variant == "source":
            return read.digest == sha256
        return read.marks == self._truth.marks(sha256)

    def _age(self, periods: list[tuple[float, float]]) -> None:
        read = self._read
        age = staleness(periods, read.start, read.end)
        if age is None:
            self._broken("P1", "the content was served before it was committed")
            return
        if read.pin:
            return
        kept = self._verdict
        during = any(start <= read.end and read.start <= end for start, end in self._faults)
        if read.replica == EDGE:
            kept.stale_at_edge.append(age)
        else:
            (kept.stale_in_faults if during else kept.stale_in_peace).append(age)
        if age > self._bound + CLOCK_SLACK:
            self._broken("P3", f"the content was superseded {age:.3f} s before the read")

    def _page(self) -> None:
        read, truth = self._read, self._truth
        if read.generation is None:
            if not truth.gone_between(read.realm, self._since, read.end):
                self._broken("P3", "a realm that stood is said not to exist")
            return
        shown = None if read.status == 503 else read.generation
        held = shown if read.failed_at is None else read.failed_at
        self._age([(at, end) for at, end, g in truth.index_periods(read.realm) if g == held])
        if read.status != 200 or shown is None:
            return
        name = read.path or "index"
        expected: set[str] = set()
        for path in ("label.ts", f"{name}.json", f"{CARDS[name]}.json"):
            expected |= set(truth.marks(truth.content(read.realm, shown, path)))
        if set(read.marks) != expected:
            marks = sorted(read.marks)
            self._broken(
                "P5", f"the page of generation {shown} shows {marks}, not {sorted(expected)}"
            )


def _one_digest(history: History, truth: Truth, verdict: Verdict) -> None:
    """Checks that all answers for the same content of a module have the same JavaScript."""
    seen: dict[tuple[str, ...], dict[str, Read]] = defaultdict(dict)
    for read in history.reads:
        if read.status == 200 and read.variant == "module":
            seen[read.realm, read.path, *read.marks].setdefault(read.digest, read)
    for digests in seen.values():
        if len(digests) > 1:
            verdict.violations.append(
                Violation("P2", "one source has two transpiled modules", tuple(digests.values()))
            )


def _merged(faults: list[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """Returns the periods when at least one fault was under way."""
    merged: list[tuple[float, float]] = []
    for start, end, _ in sorted(faults):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, min(end, FOREVER)))
    return merged
