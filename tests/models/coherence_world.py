"""Contains the parts of the coherence model, a state machine in `test_coherence_model.py`. The
model tests whether replicas return outdated content.

A replica is one host's web processes, its board and its sidecar. The board is shared memory with
numbered slots. If a slot moves, the cached values that depend on it are stale. The sidecar is the
process that runs a listener. The listener receives notifications of changes, and moves the slots of
the changed files. It also sends pings, which are notifications to itself. When a ping arrives, the
board is live until one staleness bound after the ping was sent. Web processes use cached values
only while the board is live.

The boards, caches and listeners of the model are real. The database and its connections are fake.
The model also decides at which points a request stops and continues.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

from notifications.board import Board
from notifications.channels import (
    Notification,
    all_files_changed,
    board_keys,
    file_change,
)
from notifications.listener import Connection, Listener
from realms.content.resolve import Resolved, ResolvedFile
from realms.serving import answers
from tests.support.clients.asking import Asked, ask
from tests.support.gates import PATIENCE

SECOND = 1_000_000_000
#: The staleness bound: for this long after a change, a replica may still return the replaced
#: content. Unit: ns.
BOUND = 2 * SECOND
REALM = "http://localhost:4201/ada/site/"
PAGE = "page.txt"
DAWN = datetime(2026, 1, 1, tzinfo=UTC)
_new_caches = answers.caches.__wrapped__


# --- Database, connections and replicas --------------------------------------------------------


@dataclass
class Version:
    """A version of the page. `generation` is the realm's first generation with this version. `body`
    is None if the page is deleted. `superseded` is the time when the next version replaced this
    version."""

    generation: int
    body: bytes | None
    superseded: int | None = None


@dataclass(frozen=True)
class Announced(Notification):
    """A notification that was sent. If it announces a new version of the page, `generation` is the
    version's first generation. Otherwise `generation` is 0."""

    generation: int = 0


@dataclass
class Database:
    """A fake database. `versions` has the committed versions of the page; `lines` has the
    connections that listen to notifications."""

    generation: int = 1
    versions: list[Version] = field(default_factory=lambda: [Version(1, b"1")])
    lines: list["FakeLine"] = field(default_factory=list)

    def commit(self, what: str, now: int) -> Announced:
        """Commits a change at the time `now`. If `what` is "another file", the page keeps its
        version. Otherwise the page gets a new version. Returns the notification that the commit
        sends."""
        self.generation += 1
        if what != "another file":
            self.versions[-1].superseded = now
            body = None if what == "delete" else str(self.generation).encode()
            self.versions.append(Version(self.generation, body))
        told = {
            "publish": all_files_changed(REALM),
            "another file": file_change(REALM, "other.txt"),
        }.get(what, file_change(REALM, PAGE))
        return self.announce(told, 0 if what == "another file" else self.generation)

    def announce(self, told: Notification, generation: int = 0) -> Announced:
        """Queues a notification on every connection that listens to the notification's channel."""
        announced = Announced(told.channel, told.payload, generation)
        for line in self.lines:
            if told.channel in line.channels:
                line.arriving.append(announced)
        return announced

    def at(self, generation: int) -> Version:
        """Returns the version of the page at a generation."""
        return [each for each in self.versions if each.generation <= generation][-1]

    def resolve(self, url: str, extensions: Any, *, known: str | None = None) -> Resolved:
        """Returns the page's newest version. The model calls this method in place of
        `realms.content.resolve.resolve`, which reads the real database."""
        assert url == REALM + PAGE
        page, file = self.versions[-1], None
        if page.body is not None:
            digest = sha256(page.body).hexdigest()
            data = None if digest == known else page.body
            file = ResolvedFile(PAGE, digest, len(page.body), DAWN, DAWN, data)
        low = page.generation if file else self.generation
        return Resolved(
            UUID(int=1), REALM, "source", self.generation, True, file, low, self.generation
        )


@dataclass(eq=False)
class FakeLine:
    """A fake connection of a listener. Each function in `meanwhile` acts as another process, which
    makes a change or reads the page. Before each statement, the connection calls the next function
    of `meanwhile`. `arriving` has the queued notifications. `taken` is the notification that the
    last call of `notifies` yielded."""

    database: Database
    meanwhile: list[Callable[[], None]] = field(default_factory=list)
    channels: set[str] = field(default_factory=set)
    arriving: list[Announced] = field(default_factory=list)
    taken: Announced | None = None

    def execute(self, statement: Any, parameters: tuple[str, str] | None = None) -> None:
        """Executes a LISTEN or a pg_notify, the only statements that a listener sends."""
        if self.meanwhile:
            self.meanwhile.pop(0)()
        if parameters is None:
            self.channels.add(statement.as_string().split('"')[1])
        else:
            self.database.announce(Notification(*parameters))

    def notifies(self, *, timeout: float, stop_after: int) -> Iterator[Announced]:
        """Yields the next queued notification, if any. Doesn't wait for one, because the time of
        the model passes only between calls."""
        self.taken = self.arriving.pop(0) if self.arriving else None
        if self.taken is not None:
            yield self.taken


class WatchedBoard(Board):
    """A board that records which changes of the page have been applied to it. `floor` is the
    generation of the newest of these changes. A later read through the board's replica must not
    return content that this change replaced."""

    database: Database
    floor = 1

    def bump_epoch(self) -> None:
        """Makes all cached values stale, which counts as applying all committed changes."""
        super().bump_epoch()
        self.floor = self.database.generation

    def apply(self, told: Announced) -> None:
        """Moves the slots of a change, as a web process does when it has committed the change."""
        self.bump(board_keys(told.channel, told.payload) or ())
        self.floor = max(self.floor, told.generation)


@dataclass
class Web:
    """A web process of a replica. The model needs only the process's caches."""

    replica: "Replica"
    caches: Any = None

    def restart(self) -> None:
        """Restarts the process. The new process has empty caches, and uses the same board."""
        with patch.object(answers, "local_board", lambda: self.replica.board):
            self.caches = _new_caches()


class Replica:
    """A replica has a board, web processes, and a sidecar that may have lost its connection."""

    def __init__(self, folder: Path, number: int, database: Database) -> None:
        self.board = WatchedBoard(folder / f"board{number}")
        self.board.database = database
        self.webs = [Web(self) for place in PLACES if place[0] == number]
        for web in self.webs:
            web.restart()
        self.line: FakeLine | None = None
        self.start_sidecar()

    def start_sidecar(self) -> None:
        """Starts a new listener. Every listener receives the pings of all listeners. All replicas
        have the same name, so the name in a ping doesn't say which listener sent the ping. Pings of
        another listener must not make this listener's board live."""
        self.listener = Listener("twin", self.board, _nobody_connects, BOUND / SECOND)

    def connect(self, line: FakeLine) -> None:
        """Makes the listener listen on a new connection."""
        self.line = line
        line.database.lines.append(line)
        self.listener.begin(cast(Connection, line), cast(Connection, line))

    def hear(self) -> None:
        """Runs one step of the listener, which reads at most one notification."""
        assert self.line is not None
        self.listener.step(cast(Connection, self.line), cast(Connection, self.line))
        if self.line.taken is not None:
            self.board.floor = max(self.board.floor, self.line.taken.generation)

    def cut(self) -> None:
        """Ends the listener's connection, and drops the notifications that are queued on the
        connection."""
        if self.line is not None:
            self.line.database.lines.remove(self.line)
        self.line = None


def _nobody_connects() -> Connection:
    raise AssertionError("a listener must not connect; only the model makes connections")


# --- Requests that can be stopped --------------------------------------------------------------

current = threading.local()


class Request:
    """A request that runs in the model's own thread. Before and after the request reads the
    database, it runs the next action of `meanwhile`. The request may have to wait for content that
    requests in `others` are loading. `floor` is the `floor` of the replica's board when the request
    began."""

    def __init__(
        self, web: Web, now: int, meanwhile: list[Callable[[], None]],
        others: list["StandingRequest"],
    ) -> None:  # fmt: skip
        self.web, self.begun, self.at_least, self.fresh = web, now, 0, False
        self.floor = web.replica.board.floor
        self.answer: Asked | None = None
        self._meanwhile, self._others = meanwhile, others

    def run(self) -> None:
        """Sends the request and stores its answer."""
        current.request = self
        self.answer = ask(REALM + PAGE, at_least=self.at_least, fresh=self.fresh)

    def pause(self) -> None:
        """Runs the next action of `meanwhile`."""
        if self._meanwhile:
            self._meanwhile.pop(0)()
            current.request = self

    def wait_for_others(self) -> None:
        """Lets each unfinished request in `others` continue until that request stops again or ends.
        Called while this request waits for content that one of the others is loading."""
        for each in self._others:
            if not each.done:
                each.go_on()


class StandingRequest(Request):
    """A request that runs in a separate thread. The request stops before and after it reads the
    database, and whenever it waits for content that another request is loading. `go_on` lets the
    stopped request continue."""

    def __init__(self, web: Web, now: int, at_least: int, fresh: bool) -> None:
        super().__init__(web, now, [], [])
        self.at_least, self.fresh = at_least, fresh
        self.done = False
        self._error: BaseException | None = None
        self._go, self._stood = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()
        self._wait()

    def go_on(self) -> None:
        """Lets the request continue, and returns when it has stopped again or ended."""
        self._go.release()
        self._wait()

    def pause(self) -> None:
        """Stops the request's thread until `go_on` is called. Only the request's own thread may
        call `pause`."""
        self._stood.release()
        assert self._go.acquire(timeout=PATIENCE), "nobody called `go_on` for the stopped request"

    wait_for_others = pause

    def _wait(self) -> None:
        assert self._stood.acquire(timeout=PATIENCE), "the request neither stopped nor ended"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001  `_wait` raises the error
            self._error = error
        self.done = True
        self._stood.release()


class Landing(threading.Event):
    """Replaces `threading.Event` in `single_flight`, where a request waits for a load that another
    request has begun. Until that load has ended, `wait` lets the model continue other requests."""

    def wait(self, timeout: float | None = None) -> bool:
        while not self.is_set():
            current.request.wait_for_others()
        return True


#: The web processes as (number of the replica, number of the process). The first two processes
#: share a board.
PLACES = ((0, 0), (0, 1), (1, 0))
