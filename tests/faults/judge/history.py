"""Defines the history of a fault campaign. It has the clients' reads and operations, each with its
answer. The judge checks the history after the campaign."""

import itertools
import re
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

_MARK = re.compile(r"mark\d{8}z")
_numbers = itertools.count(1)


def new_mark() -> str:
    """Returns a new mark, a unique word. Clients write marks into files, so that the judge
    recognizes the content of a file in an answer."""
    return f"mark{next(_numbers):08}z"


def marks_of(text: str) -> tuple[str, ...]:
    """Returns the marks in a text in order, each only once."""
    return tuple(dict.fromkeys(_MARK.findall(text)))


class Read(NamedTuple):
    """One GET request and its answer. Times are in seconds since 1970."""

    start: float
    end: float
    replica: str
    worker: str
    realm: str
    path: str
    #: `source` for a file, `module` for a module's JavaScript, `html` for a published realm's page,
    #: or `where` for a source realm's page. The answer to a `where` read redirects to the published
    #: realm, if there is one.
    variant: str
    #: `min` if the request named a minimum generation, or `at` if it named an exact generation.
    #: `pinned` is this generation. If the request named none, `pin` is empty and `pinned` is 0.
    pin: str
    pinned: int
    status: int
    generation: int | None
    cache: str
    digest: str
    marks: tuple[str, ...]
    #: The generation at which the page couldn't be rendered, if any. In this case, the answer has
    #: the page as it was last rendered without an error.
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
    lists, and `no_answer` uses a lock."""

    reads: list[Read] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    faults: list[tuple[float, float, str]] = field(default_factory=list)
    #: The number of reads without an answer, by the name of the exception.
    unanswered: dict[str, int] = field(default_factory=dict)
    #: A text for each contradiction between a definition in the database and the realm's files. A
    #: definition describes what a module exports.
    contradictions: list[str] = field(default_factory=list)
    #: The number of comparisons of a definition with a realm's files.
    looks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def no_answer(self, why: str) -> None:
        """Counts a read that got no answer. `why` is the name of the exception."""
        with self._lock:
            self.unanswered[why] = self.unanswered.get(why, 0) + 1
