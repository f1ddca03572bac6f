"""Those who use the fleet while it suffers: authors who write and publish, readers who read."""

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
from urllib.parse import urlsplit

from django.db import DatabaseError, connections

from realms.auth import Caller, realm_token, server_token
from realms.errors import RealmError
from realms.models import EVERYONE, Realm, RealmPermission
from realms.publishing import rollback_realm
from reindex import pins
from tests.cluster import Replica
from tests.faults.history import History, Operation, Read, marks_of, new_mark
from tests.make import card
from tests.web import API, ORIGIN, SOURCE

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
FLEETING = "extra.md"
TIMEOUT = 20
WRITES_PER_SECOND = 1.2
KINDS = {"write": 60, "remove": 6, "publish": 16, "rollback": 4, "unpublish": 2, "delete": 1}
OPERATOR = "realm_server"


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
    """One author's source realm and where it is published."""

    user: str
    #: What has been acknowledged last: (realm url, generation).
    known: dict[str, int] = field(default_factory=dict)
    recent: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=8))

    @property
    def source(self) -> str:
        return f"{ORIGIN}/{self.user}/site/"

    @property
    def published(self) -> str:
        return f"http://{self.user}.localhost:4201/"

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

    def work(self) -> None:
        self.create()
        while not self.stop_asked.wait(self.random.expovariate(WRITES_PER_SECOND)):
            (kind,) = self.random.choices(list(KINDS), list(KINDS.values()))
            getattr(self, kind)()

    def create(self) -> None:
        """Makes the source realm, fills it and publishes it; again and again until it is there."""
        document = {
            "data": {"type": "realm", "attributes": {"endpoint": "site", "name": self.site.user}}
        }
        self._insist("create", lambda: self._server("create", "_create-realm", document), 400)
        self._insist("open", self._open_to_all)
        self._insist("fill", lambda: self._put("note.tsx", NOTE.encode(), ""))
        for path in (*WRITTEN, FLEETING):
            self._insist("fill", lambda path=path: self.write(path))  # type: ignore[misc]
        self._insist("publish", self.publish)

    def _open_to_all(self) -> Operation:
        """Lets everybody read the source realm, so that it is served from caches."""
        operation = Operation(time.time(), "open", self.site.source)
        try:
            realm = Realm.objects.get(url=self.site.source)
            RealmPermission.objects.get_or_create(realm=realm, audience=EVERYONE, read=True)
            operation.status = 200
        except (DatabaseError, Realm.DoesNotExist) as error:
            operation.said = str(error)
            connections.close_all()
        operation.end = time.time()
        return operation

    def _insist(self, what: str, attempt: Callable[[], Operation], *others: int) -> None:
        deadline = time.monotonic() + 60
        while not self.stop_asked.is_set():
            done = attempt()
            if done.acknowledged or done.status in others:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} could not {what}: {done}")
            self.stop_asked.wait(0.2)

    def write(self, path: str | None = None) -> Operation:
        """Writes a file with a new mark."""
        path, mark = path or self.random.choice((*WRITTEN, FLEETING)), new_mark()
        return self._put(path, file(path, mark), mark)

    def _put(self, path: str, body: bytes, mark: str) -> Operation:
        operation = Operation(time.time(), "write", self.site.source, path, mark)
        return self._do(operation, "POST", self.site.source + path, SOURCE, self._here(), body)

    def remove(self) -> Operation:
        """Deletes the file that comes and goes."""
        operation = Operation(time.time(), "remove", self.site.source, FLEETING)
        return self._do(operation, "DELETE", self.site.source + FLEETING, SOURCE, self._here())

    def publish(self) -> Operation:
        """Publishes the site as it stands."""
        return self._server(
            "publish",
            "_publish-realm",
            {"sourceRealmURL": self.site.source, "publishedRealmURL": self.site.published},
        )

    def unpublish(self) -> Operation:
        """Takes the pages down; somebody soon publishes again."""
        done = self._server(
            "unpublish", "_unpublish-realm", {"publishedRealmURL": self.site.published}
        )
        self._insist("publish", self.publish)
        return done

    def delete(self) -> None:
        """Deletes the site and makes it anew."""
        self._server("delete", "_delete-realm", {"data": {"type": "realm", "id": self.site.source}})
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

    def _here(self) -> dict[str, str]:
        return {
            "Authorization": realm_token(
                self.site.user, self.site.source, ["read", "realm-owner", "write"], 600
            ),
            "Content-Type": "application/octet-stream",
        }

    def _server(self, kind: str, endpoint: str, document: object) -> Operation:
        realm = self.site.source if kind in ("create", "delete") else self.site.published
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
            if self.random.random() < 0.15 and site.recent:
                self._read_at(site)
            else:
                self._read(site)
            due = max(due + self._pause, time.monotonic() - 1)
            self.stop_asked.wait(max(0.0, due - time.monotonic()))

    def _read(self, site: Site) -> None:
        realm = self.random.choice((site.source, site.published, site.published))
        variant = self.random.choice(("source", "source", "module", "html"))
        if variant == "html":
            realm, path = site.published, self.random.choice(list(CARDS)).replace("index", "")
        elif variant == "module":
            path = "label.ts"
        else:
            path = self.random.choice((*WRITTEN, FLEETING))
        pinned, known = "", site.known.get(realm, 0)
        if variant != "html" and known and self.random.random() < 0.3:
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
        accept = {"source": SOURCE, "module": "*/*", "html": "text/html"}[variant]
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
            told.get("x-boxel-cache", ""), hashlib.sha256(body).hexdigest(),
            marks_of(body.decode(errors="replace")) if status == 200 else (),
            int(told["x-realm-render-failed"]) if "x-realm-render-failed" in told else None,
        )  # fmt: skip
        self.history.reads.append(made)
        return made


def wait_all(clients: Sequence[Client], seconds: float) -> None:
    """Waits for the threads' end. Raises what broke one of them."""
    for each in clients:
        each.join(seconds)
    for each in clients:
        if each.broken is not None:
            raise each.broken
        with contextlib.suppress(RuntimeError):
            assert not each.is_alive(), f"{each.name} does not end"
