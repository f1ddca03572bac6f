"""The parts of the coherence model: a fake database and connections, replicas with real boards and
caches, and requests that the model can stop."""

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
BOUND = 2 * SECOND
REALM = "http://localhost:4201/ada/site/"
PAGE = "page.txt"
DAWN = datetime(2026, 1, 1, tzinfo=UTC)
_new_caches = answers.caches.__wrapped__


# --- Database, connections and replicas --------------------------------------------------------


@dataclass
class Version:
    """A content of the page: its first generation, and the moment at which it was superseded."""

    generation: int
    body: bytes | None
    superseded: int | None = None


@dataclass(frozen=True)
class Announced(Notification):
    """A sent notification, and the generation of the page that it announces, or 0."""

    generation: int = 0


@dataclass
class Database:
    """A fake database: the committed versions of the page, and the connections that listen."""

    generation: int = 1
    versions: list[Version] = field(default_factory=lambda: [Version(1, b"1")])
    lines: list["FakeLine"] = field(default_factory=list)

    def commit(self, what: str, now: int) -> Announced:
        """Changes the page, the whole realm, or another file; returns the notification."""
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
        """Queues a notification for every connection that listens to its channel."""
        announced = Announced(told.channel, told.payload, generation)
        for line in self.lines:
            if told.channel in line.channels:
                line.arriving.append(announced)
        return announced

    def at(self, generation: int) -> Version:
        """The version of the page at a generation."""
        return [each for each in self.versions if each.generation <= generation][-1]

    def resolve(self, url: str, extensions: Any, *, known: str | None = None) -> Resolved:
        """Replaces `realms.content.resolve.resolve` for the page."""
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
    """A fake connection of a listener. Before each statement it runs an action of `meanwhile`,
    which stands for what other processes do."""

    database: Database
    meanwhile: list[Callable[[], None]] = field(default_factory=list)
    channels: set[str] = field(default_factory=set)
    arriving: list[Announced] = field(default_factory=list)
    taken: Announced | None = None

    def execute(self, statement: Any, parameters: tuple[str, str] | None = None) -> None:
        """Executes a LISTEN or a pg_notify, the only statements of a listener."""
        if self.meanwhile:
            self.meanwhile.pop(0)()
        if parameters is None:
            self.channels.add(statement.as_string().split('"')[1])
        else:
            self.database.announce(Notification(*parameters))

    def notifies(self, *, timeout: float, stop_after: int) -> Iterator[Announced]:
        """Yields the next queued notification, if any. Never waits, because the model sets the
        time."""
        self.taken = self.arriving.pop(0) if self.arriving else None
        if self.taken is not None:
            yield self.taken


class WatchedBoard(Board):
    """A board that records `floor`, the newest generation of the page that was applied to it. Reads
    must not return older content."""

    database: Database
    floor = 1

    def bump_epoch(self) -> None:
        super().bump_epoch()
        self.floor = self.database.generation

    def apply(self, told: Announced) -> None:
        """Moves the board as the replica that made a change does at its commit."""
        self.bump(board_keys(told.channel, told.payload) or ())
        self.floor = max(self.floor, told.generation)


@dataclass
class Web:
    """A web process, of which the model needs only the caches."""

    replica: "Replica"
    caches: Any = None

    def restart(self) -> None:
        """Restarts the process: empty caches on the same board."""
        with patch.object(answers, "local_board", lambda: self.replica.board):
            self.caches = _new_caches()


class Replica:
    """A board, its web processes, and a sidecar with or without a connection."""

    def __init__(self, folder: Path, number: int, database: Database) -> None:
        self.board = WatchedBoard(folder / f"board{number}")
        self.board.database = database
        self.webs = [Web(self) for place in PLACES if place[0] == number]
        for web in self.webs:
            web.restart()
        self.line: FakeLine | None = None
        self.start_sidecar()

    def start_sidecar(self) -> None:
        """Starts a new listener. All replicas have the same name, so that a listener also receives
        pings of another replica, which must not make its board live."""
        self.listener = Listener("twin", self.board, _nobody_connects, BOUND / SECOND)

    def connect(self, line: FakeLine) -> None:
        """Makes the listener listen on a new connection."""
        self.line = line
        line.database.lines.append(line)
        self.listener.begin(cast(Connection, line), cast(Connection, line))

    def hear(self) -> None:
        """Runs one step of the listener."""
        assert self.line is not None
        self.listener.step(cast(Connection, self.line), cast(Connection, self.line))
        if self.line.taken is not None:
            self.board.floor = max(self.board.floor, self.line.taken.generation)

    def cut(self) -> None:
        """Ends the connection, and drops the notifications queued on it."""
        if self.line is not None:
            self.line.database.lines.remove(self.line)
        self.line = None


def _nobody_connects() -> Connection:
    raise AssertionError("the machine connects")


# --- Requests that can be stopped --------------------------------------------------------------

current = threading.local()


class Request:
    """A request that runs in the model's own thread. Before and after it reads the database it runs
    an action of `meanwhile`. It may have to wait for the loads of `others`."""

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
        """Continues the other requests, one of which runs the load that this one waits for."""
        for each in self._others:
            if not each.done:
                each.go_on()


class StandingRequest(Request):
    """A request in a thread of its own. It stops before and after it reads the database, and while
    it waits for another request's load, until `go_on` is called."""

    def __init__(self, web: Web, now: int, at_least: int, fresh: bool) -> None:
        super().__init__(web, now, [], [])
        self.at_least, self.fresh = at_least, fresh
        self.done = False
        self._error: BaseException | None = None
        self._go, self._stood = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()
        self._wait()

    def go_on(self) -> None:
        """Continues the request until it stops again or ends."""
        self._go.release()
        self._wait()

    def pause(self) -> None:
        """Stops until `go_on`. Called in the request's own thread."""
        self._stood.release()
        assert self._go.acquire(timeout=PATIENCE), "nobody told it to go on"

    wait_for_others = pause

    def _wait(self) -> None:
        assert self._stood.acquire(timeout=PATIENCE), "it neither stood still nor ended"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001  whoever lets it go on gets it
            self._error = error
        self.done = True
        self._stood.release()


class Landing(threading.Event):
    """The event of a shared load. Its `wait` never blocks the model: it continues other
    requests."""

    def wait(self, timeout: float | None = None) -> bool:
        while not self.is_set():
            current.request.wait_for_others()
        return True


#: The web processes as (replica, number). The first two share a board.
PLACES = ((0, 0), (0, 1), (1, 0))
