"""Decides, in pure functions, whether the answers of replicas agree with the database.

`difference` decides whether an answer is right, and `judge` decides whether a wrong answer is a
violation. `nines` counts the nines of a percentage. For example, 99.9 % has three nines.

A `State` is the right answer at a URL, made from the database. An `Observation` is a replica's
answer. An observation is right if it has the bytes of the state, and a generation at which the URL
had these bytes. So an older generation of the realm is also right if the newer generations changed
only other URLs.
"""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from hashlib import sha256

from realms.serving.compact import Answer

#: The time limits of the report. For each limit, the report says how many changes every replica
#: served within the limit. Unit: seconds.
SHARES = (1, 10, 60)
_WORDS = ("no nines", "one nine", "two nines", "three nines", "four nines", "five nines")


@dataclass(frozen=True)
class State:
    """The right answer at a URL. `digest` is the digest of the answer's bytes. The URL has these
    bytes at all generations from `low` to `high`."""

    realm_url: str | None
    status: int
    digest: str
    location: str | None
    public: bool
    low: int
    high: int

    @classmethod
    def of(cls, answer: Answer) -> "State":
        """Returns the state that an answer describes. The answer must have been made from the
        database, without caches."""
        content = answer.content
        # The database doesn't say since which generation the path has had no file. So a 404 counts
        # as right at every generation up to `high`.
        missing = content.status == 404 and content.generation is None
        return cls(
            realm_url=answer.realm_url,
            status=content.status,
            digest=sha256(content.body).hexdigest(),
            location=dict(content.headers).get("location"),
            public=answer.public,
            low=0 if missing else answer.low,
            high=answer.high,
        )


@dataclass(frozen=True)
class Observation:
    """A replica's answer. `sent_at` is the time when the request was sent. `at` is the time when
    the last byte of the answer arrived. Both times are in seconds of the monotonic clock. `worker`
    identifies the replica and the process that answered."""

    sent_at: float
    at: float
    worker: str
    realm_url: str | None
    generation: int | None
    status: int
    digest: str
    location: str | None
    public: bool


def difference(state: State, found: Observation) -> str | None:
    """Returns what is wrong with an answer, in a few words; None if the answer is right."""
    if state.realm_url != found.realm_url:
        return f"an answer of {found.realm_url or 'no realm'}, expected {state.realm_url or 'none'}"
    if state.realm_url is None:
        return None if found.status == 404 else f"status {found.status}, expected 404"
    if state.public != found.public:
        words = {True: "public", False: "private"}
        return f"served as {words[found.public]}, expected {words[state.public]}"
    generation = found.generation or 0
    if generation > state.high:
        return f"generation {generation}, but only {state.high} is committed"
    if state.status != found.status:
        return f"status {found.status}, expected {state.status}"
    if (state.digest, state.location) != (found.digest, found.location):
        return f"other bytes ({found.digest[:12]}…), expected {state.digest[:12]}…"
    if generation < state.low:
        return f"generation {generation}, expected {state.low} or newer"
    return None


class Verdict(Enum):
    """Says what to do after a wrong answer: ask again, restart the grace period, or record a
    violation."""

    AGAIN = "again"
    RESTART = "restart"
    VIOLATION = "violation"


def judge(
    found: Observation, current: State, first: State, suspected_at: float, grace: float
) -> Verdict:
    """Decides whether a wrong answer is a violation. `found` is the answer. `current` is the state
    that was read after the answer arrived. The caller has checked that `found` differs from
    `current`. `first` is the state at `suspected_at`, the start of the grace period.

    An answer that was requested during the grace period is never a violation. A wrong answer that
    was requested later is a violation, with one exception: the state has changed since
    `suspected_at`, and the answer matches `first` or is newer than `first`. The replica has then
    caught up with `first`, and a new grace period gives it time to catch up with `current`.
    """
    if found.sent_at - suspected_at < grace:
        return Verdict.AGAIN
    if _same(current, first):
        return Verdict.VIOLATION
    if difference(first, found) is None:
        return Verdict.RESTART
    newer = first.realm_url is None or (found.generation or 0) > first.high
    return Verdict.RESTART if newer else Verdict.VIOLATION


def _same(one: State, other: State) -> bool:
    """Returns whether two states are equal, apart from `high`. Changes of other files in the realm
    raise `high`, but don't change the right answer."""
    return (one.realm_url, one.status, one.digest, one.location, one.public, one.low) == (
        other.realm_url, other.status, other.digest, other.location, other.public, other.low,
    )  # fmt: skip


# --- Nines -------------------------------------------------------------------------------------


def nines(seen: int, total: int) -> int:
    """Returns how many nines the share `seen / total` has. A share has k nines if at most one
    change in 10^k was missed. Counts at least one change as missed, so k nines need at least 10^k
    changes."""
    missed, count = max(total - seen, 1), 0
    while missed * 10 ** (count + 1) <= total:
        count += 1
    return count


def share_text(seen: int, total: int) -> str:
    """Returns the share `seen / total` as text, for example `99.95 %, three nines`. The percentage
    is rounded down, so it is 100 % only if no change was missed."""
    if total == 0:
        return "no changes seen"
    count = nines(seen, total)
    digits = max(count, 2)
    floor = Fraction(100 * seen, total) * 10**digits // 1
    percent = f"{floor // 10**digits}.{floor % 10**digits:0{digits}d}".rstrip("0").rstrip(".")
    words = _WORDS[count] if count < len(_WORDS) else f"{count} nines"
    if seen == total:
        words += f" (the maximum for {total} {'change' if total == 1 else 'changes'})"
    return f"{percent} %, {words}"
