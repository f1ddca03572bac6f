"""Records the clients' operations and reads, each with the answer, for the judge."""

import itertools
import re
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

_MARK = re.compile(r"mark\d{8}z")
_numbers = itertools.count(1)


def new_mark() -> str:
    """Returns a new unique word. Clients write such marks into files, so that the judge recognizes
    a file's content."""
    return f"mark{next(_numbers):08}z"


def marks_of(text: str) -> tuple[str, ...]:
    """Returns the unique marks in a text, in order."""
    return tuple(dict.fromkeys(_MARK.findall(text)))


class Read(NamedTuple):
    """One GET request and its answer. Times are in seconds since 1970."""

    start: float
    end: float
    replica: str
    worker: str
    realm: str
    path: str
    #: `source`, `module`, `html` or `where`. A `where` read requests a source realm's page. The
    #: answer redirects to the published realm, if there is one.
    variant: str
    #: "" for a read without a pin, `min` for a minimum generation, `at` for an exact generation.
    pin: str
    pinned: int
    status: int
    generation: int | None
    cache: str
    digest: str
    marks: tuple[str, ...]
    #: The generation that couldn't be rendered, if any. After a failure, the answer contains the
    #: last page that was rendered without an error.
    failed_at: int | None = None
    #: The URL of the realm that answered. An inner or outer realm may answer instead of the
    #: requested realm.
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
    #: The status of the answer. 0 means that there was no answer, so the outcome is unknown.
    status: int = 0
    generation: int | None = None
    said: str = ""

    @property
    def acknowledged(self) -> bool:
        return 200 <= self.status < 300


@dataclass
class History:
    """All records of a campaign. Threads can share a history, because they only append to its
    lists."""

    reads: list[Read] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    faults: list[tuple[float, float, str]] = field(default_factory=list)
    #: The number of reads without an answer, by the name of the exception.
    unanswered: dict[str, int] = field(default_factory=dict)
    #: A text for each definition in the database that contradicted the realm's files.
    contradictions: list[str] = field(default_factory=list)
    #: The number of definitions that were compared with a realm's files.
    looks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def no_answer(self, why: str) -> None:
        """Counts a read that got no answer."""
        with self._lock:
            self.unanswered[why] = self.unanswered.get(why, 0) + 1
