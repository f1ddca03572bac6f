"""Records what clients did and saw, for the judge."""

import itertools
import re
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

_MARK = re.compile(r"mark\d{8}z")
_numbers = itertools.count(1)
#: All of it, for the part of a history that is shown.
KEEP_TEXT = 160


def new_mark() -> str:
    """A word that has never been written before."""
    return f"mark{next(_numbers):08}z"


def marks_of(text: str) -> tuple[str, ...]:
    """The marks in a text, each once, in their order."""
    return tuple(dict.fromkeys(_MARK.findall(text)))


class Read(NamedTuple):
    """One answer to one GET. Moments are seconds since the epoch."""

    start: float
    end: float
    replica: str
    worker: str
    realm: str
    path: str
    #: `source`, `module`, `html`, or `where`: where the pages of a source realm are.
    variant: str
    #: "" for none, `min` for at least, `at` for exactly that generation.
    pin: str
    pinned: int
    status: int
    generation: int | None
    cache: str
    digest: str
    marks: tuple[str, ...]
    #: The generation at which this page could not be rendered; it is its last good one then.
    failed_at: int | None = None
    #: The realm that answered, which may lie within the one that was asked, or around it.
    answered: str | None = None
    #: Where the answer leads.
    location: str = ""
    #: What the answer says of when it was made, where it came through the edge.
    dated: float | None = None


@dataclass
class Operation:
    """One thing that a client asked for, and whether it was told that it was done."""

    start: float
    kind: str
    realm: str
    path: str = ""
    mark: str = ""
    end: float = 0.0
    #: The status of the answer; 0 where none came, and nobody knows.
    status: int = 0
    generation: int | None = None
    said: str = ""

    @property
    def acknowledged(self) -> bool:
        return 200 <= self.status < 300


@dataclass
class History:
    """Everything in one place. Safe for threads: each list is only ever appended to."""

    reads: list[Read] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    faults: list[tuple[float, float, str]] = field(default_factory=list)
    #: Reads that had no answer at all, by what went wrong.
    unanswered: dict[str, int] = field(default_factory=dict)
    #: Contradictions found in the database: rows that no recorded commit explains.
    contradictions: list[str] = field(default_factory=list)
    #: How many definitions these looks into the database have compared.
    looks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def no_answer(self, why: str) -> None:
        """Counts a read that came to nothing."""
        with self._lock:
            self.unanswered[why] = self.unanswered.get(why, 0) + 1
