"""Records the clients' operations and the answers to their reads, for the judge."""

import itertools
import re
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

_MARK = re.compile(r"mark\d{8}z")
_numbers = itertools.count(1)
#: The most characters of an answer's text that a history keeps.
KEEP_TEXT = 160


def new_mark() -> str:
    """A new unique word, by which a written file is recognized."""
    return f"mark{next(_numbers):08}z"


def marks_of(text: str) -> tuple[str, ...]:
    """The marks in a text, without repetitions, in order."""
    return tuple(dict.fromkeys(_MARK.findall(text)))


class Read(NamedTuple):
    """One answer to one GET. Moments are seconds since the epoch."""

    start: float
    end: float
    replica: str
    worker: str
    realm: str
    path: str
    #: `source`, `module`, `html`, or `where`, which asks a source realm for its published URL.
    variant: str
    #: "" for no pin, `min` for a minimum generation, `at` for an exact generation.
    pin: str
    pinned: int
    status: int
    generation: int | None
    cache: str
    digest: str
    marks: tuple[str, ...]
    #: The generation at which rendering failed, so that the answer is the last good page.
    failed_at: int | None = None
    #: The realm that answered, which may lie within the requested realm, or around it.
    answered: str | None = None
    #: The Location header.
    location: str = ""
    #: The time in the Date header of an answer through the edge.
    dated: float | None = None


@dataclass
class Operation:
    """A change that a client requested, and the answer to it."""

    start: float
    kind: str
    realm: str
    path: str = ""
    mark: str = ""
    end: float = 0.0
    #: The status of the answer; 0 if no answer came, so that the outcome is unknown.
    status: int = 0
    generation: int | None = None
    said: str = ""

    @property
    def acknowledged(self) -> bool:
        return 200 <= self.status < 300


@dataclass
class History:
    """All records of a campaign. Safe for threads, because lists are only appended to."""

    reads: list[Read] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    faults: list[tuple[float, float, str]] = field(default_factory=list)
    #: The number of reads without an answer, by the name of the exception.
    unanswered: dict[str, int] = field(default_factory=dict)
    #: Definitions in the database that contradict the files in the same snapshot.
    contradictions: list[str] = field(default_factory=list)
    #: The number of definitions that were compared with files.
    looks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def no_answer(self, why: str) -> None:
        """Counts a read that got no answer."""
        with self._lock:
            self.unanswered[why] = self.unanswered.get(why, 0) + 1
