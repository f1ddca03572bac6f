"""The clients of a fleet during a campaign: authors who write and publish, and readers who read."""

import contextlib
import hashlib
import http.client
import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import urlsplit

from django.db import DatabaseError, connections

from realms.access.auth import Caller, realm_token, server_token
from realms.errors import RealmError
from realms.publishing.publish import rollback_realm
from reindex.reading import pins
from tests.faults.judge.history import History, Operation, Read, marks_of, new_mark
from tests.support.cluster import Replica
from tests.support.make import card
from tests.support.web import API, ORIGIN, SOURCE

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
#: Every card of a realm, with the card that it links to.
CARDS = {"index": "a", "a": None, "b": None}
#: What is rewritten all the time, and what comes and goes.
WRITTEN = ("label.ts", "index.json", "a.json", "b.json", "text.md")
#: A file of the realm around another one, whose own text.md hides it.
HIDDEN = "deep/text.md"
FLEETING = "extra.md"
TIMEOUT = 20
WRITES_PER_SECOND = 1.2
KINDS = {
    "write": 60, "remove": 6, "publish": 16, "repoint": 4, "nest": 4, "close": 4, "rollback": 4,
    "unpublish": 2, "delete": 1,
}  # fmt: skip
OPERATOR = "realm_server"
#: What stands in a replica's place where readers ask through nginx.
EDGE = "edge"


def file(path: str, mark: str) -> bytes:
    """A file that bears a mark."""
    if path == "label.ts":
        return f'export const label = "{mark}";\n'.encode()
    if path.endswith(".json"):
        following = CARDS[path.removesuffix(".json")]
        links = {"next": f"./{following}"} if following else None
        return card("./note", "Note", links, title=mark)
    return f"# {mark}\n".encode()


@dataclass
class Site:
    """One author's source realms and where they are published: one of them at a time at an origin
    of the author's, and now and then one within that."""

    user: str
    #: Which of them is published.
    shown: int = 0
    #: What has been acknowledged last: (realm url, generation).
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
        """Lies within the published realm."""
        return f"{self.published}deep/"

    @property
    def realms(self) -> tuple[str, ...]:
        return (*self.sources, self.published, self.inner)

    def heard(self, realm: str, generation: int | None) -> None:
        """Remembers a generation that somebody has been told of."""
        if generation is not None:
            self.known[realm] = max(generation, self.known.get(realm, 0))
            self.recent.append((realm, generation))


class Client(threading.Thread):
    """Asks one replica or several, one request at a time, until it is told to stop."""

    def __init__(self, name: str, seed: str, history: History, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.random = random.Random(f"{seed} {name}")
        self.history = history
        self.stop_asked = stop
        self._open: dict[int, http.client.HTTPConnection] = {}
        #: What ended the thread, other than the wish that it stop.
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
        """What the client does."""
        raise NotImplementedError

    def ask(
        self, replica: Replica, method: str, url: str, accept: str,
        headers: dict[str, str] | None = None, body: bytes | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:  # fmt: skip
        """One request on a connection that is kept for a while. Raises OSError, HTTPException."""
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


class Author(Client):
    """Writes into a site of their own, and publishes it, through any replica."""

    def __init__(
        self, site: Site, replicas: list[Replica], seed: str, history: History,
        stop: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(f"author {site.user}", seed, history, stop)
        self.site = site
        self._replicas = replicas
        self._token = server_token(site.user)
        #: Whether the source realms hold every file that the judge expects of a page.
        self._filled = False

    def work(self) -> None:
        self.create()
        while not self.stop_asked.wait(self.random.expovariate(WRITES_PER_SECOND)):
            (kind,) = self.random.choices(list(KINDS), list(KINDS.values()))
            getattr(self, kind)()

    def create(self) -> None:
        """Makes the source realms, fills them and publishes one; again and again until they are
        there."""
        self._filled = False
        for source in self.site.sources:
            endpoint = source.rstrip("/").rpartition("/")[2]
            attributes = {"endpoint": endpoint, "name": self.site.user}
            document = {"data": {"type": "realm", "attributes": attributes}}
            self._insist(
                "create", partial(self._server, "create", source, "_create-realm", document), 400
            )
            self._insist("open", partial(self._permit, source, opened=True))
            self._insist("fill", partial(self._put, source, "note.tsx", NOTE.encode(), ""))
            for path in (*WRITTEN, HIDDEN, FLEETING):
                self._insist("fill", partial(self.write, path, source))
        # Asked to stop, the author gives up in the middle.
        self._filled = not self.stop_asked.is_set()
        self._insist("publish", self.publish)

    def _insist(self, what: str, attempt: Callable[[], Operation], *others: int) -> None:
        deadline = time.monotonic() + 60
        while not self.stop_asked.is_set():
            done = attempt()
            if done.acknowledged or done.status in others:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} could not {what}: {done}")
            self.stop_asked.wait(0.2)

    def write(self, path: str | None = None, source: str | None = None) -> Operation:
        """Writes a file with a new mark, most likely into the realm that is published."""
        if source is None:
            source = self.site.source
            if self.random.random() < 0.2:
                source = self.random.choice(self.site.sources)
        path = path or self.random.choice((*WRITTEN, HIDDEN, FLEETING))
        mark = new_mark()
        return self._put(source, path, file(path, mark), mark)

    def _put(self, source: str, path: str, body: bytes, mark: str) -> Operation:
        operation = Operation(time.time(), "write", source, path, mark)
        return self._do(operation, "POST", source + path, SOURCE, self._in(source), body)

    def remove(self) -> Operation:
        """Deletes the file that comes and goes."""
        source = self.site.source
        operation = Operation(time.time(), "remove", source, FLEETING)
        return self._do(operation, "DELETE", source + FLEETING, SOURCE, self._in(source))

    def publish(self) -> Operation:
        """Publishes the site as it stands."""
        return self._publish("publish", self.site.source, self.site.published)

    def _publish(self, kind: str, source: str, url: str) -> Operation:
        document = {"sourceRealmURL": source, "publishedRealmURL": url}
        return self._server(kind, url, "_publish-realm", document)

    def repoint(self) -> None:
        """Publishes the other source realm where this one was."""
        self.site.shown = 1 - self.site.shown
        self._publish("repoint", self.site.source, self.site.published)

    def nest(self) -> None:
        """Publishes a realm within the published one, or takes it down again."""
        if self.random.random() < 0.4:
            self._unpublish(self.site.inner)
        else:
            self._publish("nest", self.random.choice(self.site.sources), self.site.inner)

    def close(self) -> None:
        """Makes a realm private for a while; or for good, if nobody opens it any more."""
        realm = self.random.choice(self.site.realms)
        self._permit(realm, opened=False)
        self.stop_asked.wait(self.random.uniform(0, 4))
        self._permit(realm, opened=True)

    def open_all(self) -> None:
        """Has everything be everyone's to read, and published."""
        self.stop_asked.clear()
        if not self._filled:
            self.create()
        self._insist("publish", self.publish)
        for realm in self.site.realms:
            # There may be nothing at the inner URL.
            self._insist("open", partial(self._permit, realm, opened=True), 404)

    def _permit(self, realm: str, *, opened: bool) -> Operation:
        attributes = {"permissions": {"*": ["read"] if opened else None}}
        document = {"data": {"type": "permissions", "attributes": attributes}}
        return self._do(
            Operation(time.time(), "open" if opened else "close", realm),
            "PATCH", f"{realm}_permissions", API, self._in(realm), json.dumps(document).encode(),
        )  # fmt: skip

    def unpublish(self) -> Operation:
        """Takes the pages down; somebody soon publishes again."""
        done = self._unpublish(self.site.published)
        self._insist("publish", self.publish)
        return done

    def _unpublish(self, url: str) -> Operation:
        return self._server("unpublish", url, "_unpublish-realm", {"publishedRealmURL": url})

    def delete(self) -> None:
        """Deletes a source realm with all that is published from it, and makes it anew."""
        source = self.site.source
        document = {"data": {"type": "realm", "id": source}}
        self._server("delete", source, "_delete-realm", document)
        self.create()

    def rollback(self) -> None:
        """Goes back to an earlier publication, from a host that has no replica."""
        operation = Operation(time.time(), "rollback", self.site.published)
        try:
            done = rollback_realm(self.site.published, Caller(self.site.user))
        except RealmError as error:
            operation.status, operation.said = error.status, str(error)
        except DatabaseError as error:
            operation.said = str(error)
            connections.close_all()
        else:
            operation.status, operation.generation = 202, done.generation
            self.site.heard(self.site.published, done.generation)
        operation.end = time.time()
        self.history.operations.append(operation)

    def _in(self, realm: str) -> dict[str, str]:
        rights = ["read", "realm-owner", "write"]
        return {
            "Authorization": realm_token(self.site.user, realm, rights, 600),
            "Content-Type": "application/octet-stream",
        }

    def _server(self, kind: str, realm: str, endpoint: str, document: object) -> Operation:
        return self._do(
            Operation(time.time(), kind, realm),
            "DELETE" if kind == "delete" else "POST",
            f"{ORIGIN}/{endpoint}",
            API,
            {"Authorization": self._token},
            json.dumps(document).encode(),
        )

    def _do(
        self, operation: Operation, method: str, url: str, accept: str, headers: dict[str, str],
        body: bytes | None = None,
    ) -> Operation:  # fmt: skip
        replica = self.random.choice(self._replicas)
        try:
            status, told, text = self.ask(replica, method, url, accept, headers, body)
        except (OSError, http.client.HTTPException) as error:
            operation.said = f"{type(error).__name__}: {error}"
        else:
            operation.status = status
            generation = told.get("x-realm-generation")
            operation.generation = int(generation) if generation else None
            operation.said = text.decode(errors="replace")[:160] if status >= 400 else ""
            if operation.acknowledged:
                self.site.heard(operation.realm, operation.generation)
        operation.end = time.time()
        self.history.operations.append(operation)
        return operation


class Reader(Client):
    """Reads from one replica, everything in every way."""

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
            # Nobody reads at an exact generation through the edge.
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
        # The generation of a realm within another says nothing to that.
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
        """One read, which goes into the history; None if there was no answer."""
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
    """When an answer was made, in whole seconds since the epoch."""
    date = told.get("date")
    return parsedate_to_datetime(date).timestamp() if date else None


def wait_all(clients: Sequence[Client], seconds: float) -> None:
    """Waits for the threads' end. Raises what broke one of them."""
    for each in clients:
        each.join(seconds)
    for each in clients:
        if each.broken is not None:
            raise each.broken
        with contextlib.suppress(RuntimeError):
            assert not each.is_alive(), f"{each.name} does not end"
