"""Defines the readers of a fault campaign, and `Client`, the base class of readers and authors.
`Site` has the URLs of one author's realms.

A realm's generation is a number that rises with each change of the realm's content. A read is
pinned if it names a minimum or an exact generation.
"""

import contextlib
import hashlib
import http.client
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from django.db import connections

from reindex.reading import pins
from tests.faults.judge.history import History, Read, marks_of
from tests.support.cluster import Replica
from tests.support.make import card
from tests.support.web import ORIGIN, SOURCE

NOTE = """\
import { Card, linksTo, string } from "@realm/base";
import { label } from "./label.ts";
export class Note extends Card {
  static displayName = label;
  static fields = { title: string(), next: linksTo(() => Note) };
  static isolated = ({ card }) => (
    <p>{label} {card.title} {card.next ? card.next.title : "alone"}</p>
  );
}
"""
#: The cards of each realm. Maps a card's name to the name of the card that it links to, or to None.
CARDS = {"index": "a", "a": None, "b": None}
#: The files that authors write again and again.
WRITTEN = ("label.ts", "index.json", "a.json", "b.json", "text.md")
#: A file of each source realm. The realm at `Site.published` doesn't show this file while there is
#: an inner realm at `Site.inner`, because the inner realm's text.md has the same URL.
HIDDEN = "deep/text.md"
#: A file that authors delete and create again.
FLEETING = "extra.md"
TIMEOUT = 20
#: Records of reads through nginx, the edge, have this name instead of a replica's name.
EDGE = "edge"


def file(path: str, mark: str) -> bytes:
    """Returns the content that a client writes to the file at `path`. `mark` is a unique word in
    the content."""
    if path == "label.ts":
        return f'export const label = "{mark}";\n'.encode()
    if path.endswith(".json"):
        following = CARDS[path.removesuffix(".json")]
        links = {"next": f"./{following}"} if following else None
        return card("./note", "Note", links, title=mark)
    return f"# {mark}\n".encode()


@dataclass
class Site:
    """The realms of one author. The author has two source realms, and publishes one of them at the
    URL `published`. At times, a source realm is also published at the URL `inner`, which is below
    `published`."""

    user: str
    #: The position in `sources` of the source realm that is published at `published`.
    shown: int = 0
    #: The newest generation of each realm that an answer to the author has named, by the realm's
    #: URL.
    known: dict[str, int] = field(default_factory=dict)
    #: The realms and generations that the last eight answers to the author have named.
    recent: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=8))

    @property
    def sources(self) -> tuple[str, str]:
        return f"{ORIGIN}/{self.user}/site/", f"{ORIGIN}/{self.user}/other/"

    @property
    def source(self) -> str:
        """The source realm that is published at `published`."""
        return self.sources[self.shown]

    @property
    def published(self) -> str:
        return f"http://{self.user}.localhost:4201/"

    @property
    def inner(self) -> str:
        """The URL of the inner realm, below `published`. Authors publish and unpublish the inner
        realm during a campaign."""
        return f"{self.published}deep/"

    @property
    def realms(self) -> tuple[str, ...]:
        return (*self.sources, self.published, self.inner)

    def heard(self, realm: str, generation: int | None) -> None:
        """Records the generation of a realm that the answer to an author's request has named, if
        any."""
        if generation is not None:
            self.known[realm] = max(generation, self.known.get(realm, 0))
            self.recent.append((realm, generation))


class Client(threading.Thread):
    """A thread that acts as one client of the fleet until the event `stop` is set."""

    def __init__(self, name: str, seed: str, history: History, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.random = random.Random(f"{seed} {name}")
        self.history = history
        self.stop_asked = stop
        self._open: dict[int, http.client.HTTPConnection] = {}
        #: The exception that ended the thread, if any.
        self.broken: BaseException | None = None

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001  `wait_all` raises this error again
            self.broken = error
        finally:
            connections.close_all()
            for each in self._open.values():
                each.close()

    def work(self) -> None:
        """Does the client's work until `stop_asked` is set."""
        raise NotImplementedError

    def ask(
        self, replica: Replica, method: str, url: str, accept: str,
        headers: dict[str, str] | None = None, body: bytes | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:  # fmt: skip
        """Sends a request to a replica, and returns the status, headers and body of the answer.
        Keeps the connection open for later requests, but replaces it for about one request in 50.
        Raises OSError, HTTPException."""
        parts = urlsplit(url)
        kept = self._open.get(replica.port)
        if kept is None or self.random.random() < 0.02:
            if kept is not None:
                kept.close()
            kept = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=TIMEOUT)
            self._open[replica.port] = kept
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            kept.request(
                method, target, body, {"Host": parts.netloc, "Accept": accept, **(headers or {})}
            )
            answer = kept.getresponse()
            return answer.status, answer.msg, answer.read()
        except (OSError, http.client.HTTPException):
            kept.close()
            del self._open[replica.port]
            raise


class Reader(Client):
    """Reads random files and pages of all sites from one replica or through nginx. Some reads are
    pinned."""

    def __init__(
        self, replica: Replica, number: int, sites: list[Site], per_second: float, seed: str,
        history: History, stop: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(f"reader {number} of {replica.name}", seed, history, stop)
        self._replica = replica
        self._sites = sites
        self._pause = 1 / per_second

    def work(self) -> None:
        due = time.monotonic()
        while not self.stop_asked.is_set():
            site = self.random.choice(self._sites)
            # nginx refuses reads at an exact generation.
            if self.random.random() < 0.15 and site.recent and self._replica.name != EDGE:
                self._read_at(site)
            else:
                self._read(site)
            due = max(due + self._pause, time.monotonic() - 1)
            self.stop_asked.wait(max(0.0, due - time.monotonic()))

    def _read(self, site: Site) -> None:
        realm = self.random.choice((*site.sources, site.published, site.published, site.inner))
        variant = self.random.choice(("source", "source", "module", "html", "where"))
        if variant == "html":
            realm, path = site.published, self.random.choice(list(CARDS)).replace("index", "")
        elif variant == "where":
            realm, path = self.random.choice(site.sources), ""
        elif variant == "module":
            path = "label.ts"
        else:
            path = self.random.choice((*WRITTEN, HIDDEN, FLEETING))
        pinned, known = "", site.known.get(realm, 0)
        # Only `realm` has the generation `known`. But the outer realm answers for a missing inner
        # realm, and an inner realm answers for HIDDEN. Such requests name no minimum generation.
        apart = realm != site.inner and path != HIDDEN
        if variant in ("source", "module") and apart and known and self.random.random() < 0.3:
            pinned = "min"
        self.read(realm, path, variant, pinned, known if pinned else 0)

    def _read_at(self, site: Site) -> None:
        realm, generation = self.random.choice(list(site.recent))
        variant = self.random.choice(("source", "module"))
        path = "label.ts" if variant == "module" else self.random.choice((*WRITTEN, FLEETING))
        self.read(realm, path, variant, "at", generation)

    def read(self, realm: str, path: str, variant: str, pin: str, pinned: int) -> Read | None:
        """Sends a GET request and records the answer in the history. Returns None if there was no
        answer. The parameters have the meanings of the fields of `Read`."""
        url, headers = realm + path, {}
        if pin == "min":
            headers["X-Realm-Min-Generation"] = str(pinned)
        elif pin == "at":
            url = f"{self._replica.address}/_at/{path}"
            headers[pins.PIN_HEADER] = pins.sign(pins.Pin(realm, pinned), pins.ITSELF)
        accept = {"source": SOURCE, "module": "*/*"}.get(variant, "text/html")
        start = time.time()
        try:
            status, told, body = self.ask(self._replica, "GET", url, accept, headers)
        except (OSError, http.client.HTTPException) as error:
            self.history.no_answer(type(error).__name__)
            self.stop_asked.wait(0.05)
            return None
        generation = told.get("x-realm-generation")
        made = Read(
            start, time.time(), self._replica.name, told.get("x-realm-replica", ""), realm, path,
            variant, pin, pinned, status, int(generation) if generation else None,
            told.get("x-edge", told.get("x-boxel-cache", "")), hashlib.sha256(body).hexdigest(),
            marks_of(body.decode(errors="replace")) if status == 200 else (),
            int(told["x-realm-render-failed"]) if "x-realm-render-failed" in told else None,
            told.get("x-boxel-realm-url"), told.get("location", ""),
            _dated(told) if self._replica.name == EDGE else None,
        )  # fmt: skip
        self.history.reads.append(made)
        return made


def _dated(told: http.client.HTTPMessage) -> float | None:
    """Returns the time in an answer's Date header, in whole seconds since 1970. Returns None if the
    answer has no Date header."""
    date = told.get("date")
    return parsedate_to_datetime(date).timestamp() if date else None


def wait_all(clients: Sequence[Client], seconds: float) -> None:
    """Waits until the threads of all clients have ended, for at most `seconds` per thread. If an
    exception ended a thread, raises that exception."""
    for each in clients:
        each.join(seconds)
    for each in clients:
        if each.broken is not None:
            raise each.broken
        with contextlib.suppress(RuntimeError):
            assert not each.is_alive(), f"the thread of {each.name} does not end"
