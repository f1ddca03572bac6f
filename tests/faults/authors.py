"""Defines the authors of a fault campaign. Each author has a site, which is two source realms and
the realms that are published from them. The author writes the site's files and publishes the
site."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from functools import partial

from django.db import DatabaseError, connections

from realms.access.auth import Caller, realm_token, server_token
from realms.errors import RealmError
from realms.publishing.publish import rollback_realm
from tests.faults.clients import FLEETING, HIDDEN, NOTE, WRITTEN, Client, Site, file
from tests.faults.judge.history import History, Operation, new_mark
from tests.support.cluster import Replica
from tests.support.web import API, ORIGIN, SOURCE

WRITES_PER_SECOND = 1.2
KINDS = {
    "write": 60, "remove": 6, "publish": 16, "repoint": 4, "nest": 4, "close": 4, "rollback": 4,
    "unpublish": 2, "delete": 1,
}  # fmt: skip
OPERATOR = "realm_server"


class Author(Client):
    """A client that sends the requests of one author. Each request goes to a random replica."""

    def __init__(
        self, site: Site, replicas: list[Replica], seed: str, history: History,
        stop: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(f"author {site.user}", seed, history, stop)
        self.site = site
        self._replicas = replicas
        self._token = server_token(site.user)
        #: Whether the source realms have all files that the judge needs to compute the expected
        #: pages.
        self._filled = False

    def work(self) -> None:
        self.create()
        while not self.stop_asked.wait(self.random.expovariate(WRITES_PER_SECOND)):
            (kind,) = self.random.choices(list(KINDS), list(KINDS.values()))
            getattr(self, kind)()

    def create(self) -> None:
        """Creates the site's two source realms, writes their files and publishes one of the realms.
        Repeats each step until the step succeeds or the author is asked to stop. After 60 seconds
        without success, raises AssertionError."""
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
        # If the author was asked to stop during the loop, files may be missing.
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
        """Writes a file that contains a new mark, which is a unique word. If `source` is None,
        mostly chooses the source realm that is published."""
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
        """Deletes the file `FLEETING`. A later `write` may create the file again."""
        source = self.site.source
        operation = Operation(time.time(), "remove", source, FLEETING)
        return self._do(operation, "DELETE", source + FLEETING, SOURCE, self._in(source))

    def publish(self) -> Operation:
        """Publishes the source realm `site.source` at the URL `site.published`."""
        return self._publish("publish", self.site.source, self.site.published)

    def _publish(self, kind: str, source: str, url: str) -> Operation:
        document = {"sourceRealmURL": source, "publishedRealmURL": url}
        return self._server(kind, url, "_publish-realm", document)

    def repoint(self) -> None:
        """Publishes the site's other source realm at the URL `site.published`."""
        self.site.shown = 1 - self.site.shown
        self._publish("repoint", self.site.source, self.site.published)

    def nest(self) -> None:
        """Publishes a random source realm at `site.inner`, a URL below `site.published`. Sometimes
        unpublishes the realm at `site.inner` instead."""
        if self.random.random() < 0.4:
            self._unpublish(self.site.inner)
        else:
            self._publish("nest", self.random.choice(self.site.sources), self.site.inner)

    def close(self) -> None:
        """Makes a random realm of the site private. After up to 4 seconds, tries to make the realm
        public again."""
        realm = self.random.choice(self.site.realms)
        self._permit(realm, opened=False)
        self.stop_asked.wait(self.random.uniform(0, 4))
        self._permit(realm, opened=True)

    def open_all(self) -> None:
        """Publishes the site and makes all its realms public. If the source realms may lack files,
        first calls `create`."""
        self.stop_asked.clear()
        if not self._filled:
            self.create()
        self._insist("publish", self.publish)
        for realm in self.site.realms:
            # If there is no realm at the inner URL, the status of the answer is 404.
            self._insist("open", partial(self._permit, realm, opened=True), 404)

    def _permit(self, realm: str, *, opened: bool) -> Operation:
        attributes = {"permissions": {"*": ["read"] if opened else None}}
        document = {"data": {"type": "permissions", "attributes": attributes}}
        return self._do(
            Operation(time.time(), "open" if opened else "close", realm),
            "PATCH", f"{realm}_permissions", API, self._in(realm), json.dumps(document).encode(),
        )  # fmt: skip

    def unpublish(self) -> Operation:
        """Unpublishes the site, and then publishes it again."""
        done = self._unpublish(self.site.published)
        self._insist("publish", self.publish)
        return done

    def _unpublish(self, url: str) -> Operation:
        return self._server("unpublish", url, "_unpublish-realm", {"publishedRealmURL": url})

    def delete(self) -> None:
        """Deletes the source realm that is published, and creates it again. With a source realm,
        the server also deletes every realm that is published from it."""
        source = self.site.source
        document = {"data": {"type": "realm", "id": source}}
        self._server("delete", source, "_delete-realm", document)
        self.create()

    def rollback(self) -> None:
        """Rolls the published realm back to an earlier publication. The rollback runs in the
        campaign's process, without a replica. An operator's `manage.py rollback_realm` needs no
        replica either."""
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
