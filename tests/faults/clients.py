"""Defines the readers of a campaign, and the base class of all clients. Also defines `Site`, which
has the URLs of one author's realms."""

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
#: The cards of each realm. Maps a card's name to the name of the linked card, or to None.
CARDS = {"index": "a", "a": None, "b": None}
#: The files that authors rewrite.
WRITTEN = ("label.ts", "index.json", "a.json", "b.json", "text.md")
#: A file of the outer realm that the inner realm hides, because the inner realm's text.md has the
#: same URL as this file.
HIDDEN = "deep/text.md"
#: A file that authors delete and create again.
FLEETING = "extra.md"
TIMEOUT = 20
#: Reads through nginx have this name instead of a replica's name.
EDGE = "edge"


def file(path: str, mark: str) -> bytes:
    """Returns the content for the file at `path`, with a mark in it."""
    if path == "label.ts":
        return f'export const label = "{mark}";\n'.encode()
    if path.endswith(".json"):
        following = CARDS[path.removesuffix(".json")]
        links = {"next": f"./{following}"} if following else None
        return card("./note", "Note", links, title=mark)
    return f"# {mark}\n".encode()


@dataclass
class Site:
    """One author's two source realms, and their published realms. One source realm is published at
    the author's host. Sometimes a source realm is also published at `inner`, a URL below the
    author's host."""

    user: str
    #: The index in `sources` of the source realm that is published.
    shown: int = 0
    #: The newest acknowledged generation of each realm, by URL. `recent` has the realms and
    #: generations of the last 8 acknowledgements, in order.
    known: dict[str, int] = field(default_factory=dict)
    recent: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=8))

    @property
    def sources(self) -> tuple[str, str]:
        return f"{ORIGIN}/{self.user}/site/", f"{ORIGIN}/{self.user}/other/"

    @property
    def source(self) -> str:
        """The source realm that is published."""
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
        """Records a generation that the answer to an author's request has named."""
        if generation is not None:
            self.known[realm] = max(generation, self.known.get(realm, 0))
            self.recent.append((realm, generation))


class Client(threading.Thread):
    """A thread that sends requests to replicas, one at a time, until `stop` is set."""

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
        except BaseException as error:  # noqa: BLE001  the campaign raises it in its own thread
            self.broken = error
        finally:
            connections.close_all()
            for each in self._open.values():
                each.close()

    def work(self) -> None:
        """Sends the client's requests until `stop_asked` is set."""
        raise NotImplementedError

    def ask(
        self, replica: Replica, method: str, url: str, accept: str,
        headers: dict[str, str] | None = None, body: bytes | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:  # fmt: skip
        """Sends a request, mostly on a connection that is already open. Raises OSError,
        HTTPException."""
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
    """Reads random files and pages of all sites from one replica. Some reads are pinned to a
    generation."""

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
            # The edge refuses reads at an exact generation.
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
        # `known` is a generation of `realm`. Requests that the inner realm may answer get no
        # minimum generation.
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
        answer."""
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
    """Returns the time in an answer's Date header, in whole seconds since 1970."""
    date = told.get("date")
    return parsedate_to_datetime(date).timestamp() if date else None


def wait_all(clients: Sequence[Client], seconds: float) -> None:
    """Waits until all clients' threads have ended. If an exception ended a thread, raises that
    exception."""
    for each in clients:
        each.join(seconds)
    for each in clients:
        if each.broken is not None:
            raise each.broken
        with contextlib.suppress(RuntimeError):
            assert not each.is_alive(), f"{each.name} does not end"
