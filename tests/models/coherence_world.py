"""The world of the model of coherence: a database, connections, replicas, and requests that can
stand still."""

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


# --- The world ---------------------------------------------------------------------------------


@dataclass
class Version:
    """The page from one generation until another, and the moment at which it was superseded."""

    generation: int
    body: bytes | None
    superseded: int | None = None


@dataclass(frozen=True)
class Announced(Notification):
    """A notification on its way, and the generation of the page that it tells of, or 0."""

    generation: int = 0


@dataclass
class Database:
    """What is committed, and who is told of it."""

    generation: int = 1
    versions: list[Version] = field(default_factory=lambda: [Version(1, b"1")])
    lines: list["FakeLine"] = field(default_factory=list)

    def commit(self, what: str, now: int) -> Announced:
        """Changes the page, all of the realm, or another file; answers what is announced."""
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
        """Puts a notification in line for everybody who listens to its channel by now."""
        announced = Announced(told.channel, told.payload, generation)
        for line in self.lines:
            if told.channel in line.channels:
                line.arriving.append(announced)
        return announced

    def at(self, generation: int) -> Version:
        """The page as it stood at a generation."""
        return [each for each in self.versions if each.generation <= generation][-1]

    def resolve(self, url: str, extensions: Any, *, known: str | None = None) -> Resolved:
        """As `realms.resolve.resolve`, of the page."""
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
    """A listener's connection. `meanwhile` happens elsewhere, one thing before each statement."""

    database: Database
    meanwhile: list[Callable[[], None]] = field(default_factory=list)
    channels: set[str] = field(default_factory=set)
    arriving: list[Announced] = field(default_factory=list)
    taken: Announced | None = None

    def execute(self, statement: Any, parameters: tuple[str, str] | None = None) -> None:
        """LISTEN or pg_notify: a listener says nothing else."""
        if self.meanwhile:
            self.meanwhile.pop(0)()
        if parameters is None:
            self.channels.add(statement.as_string().split('"')[1])
        else:
            self.database.announce(Notification(*parameters))

    def notifies(self, *, timeout: float, stop_after: int) -> Iterator[Announced]:
        """What is there; time passes only where the machine says so."""
        self.taken = self.arriving.pop(0) if self.arriving else None
        if self.taken is not None:
            yield self.taken


class WatchedBoard(Board):
    """Knows which change of the page has been applied to it: what stood before is gone for good."""

    database: Database
    floor = 1

    def bump_epoch(self) -> None:
        super().bump_epoch()
        self.floor = self.database.generation

    def apply(self, told: Announced) -> None:
        """What the replica that made a change does at its commit."""
        self.bump(board_keys(told.channel, told.payload) or ())
        self.floor = max(self.floor, told.generation)


@dataclass
class Web:
    """A web process: its caches are all of it that counts."""

    replica: "Replica"
    caches: Any = None

    def restart(self) -> None:
        """Begins with empty caches on the same board."""
        with patch.object(answers, "local_board", lambda: self.replica.board):
            self.caches = _new_caches()


class Replica:
    """A board, two web processes, and a sidecar with or without a connection."""

    def __init__(self, folder: Path, number: int, database: Database) -> None:
        self.board = WatchedBoard(folder / f"board{number}")
        self.board.database = database
        self.webs = [Web(self) for place in PLACES if place[0] == number]
        for web in self.webs:
            web.restart()
        self.line: FakeLine | None = None
        self.start_sidecar()

    def start_sidecar(self) -> None:
        """A new listener. All replicas bear one name: a namesake's pings must prove nothing."""
        self.listener = Listener("twin", self.board, _nobody_connects, BOUND / SECOND)

    def connect(self, line: FakeLine) -> None:
        """Begins to listen on a new connection."""
        self.line = line
        line.database.lines.append(line)
        self.listener.begin(cast(Connection, line), cast(Connection, line))

    def hear(self) -> None:
        """One step of the listener."""
        assert self.line is not None
        self.listener.step(cast(Connection, self.line), cast(Connection, self.line))
        if self.line.taken is not None:
            self.board.floor = max(self.board.floor, self.line.taken.generation)

    def cut(self) -> None:
        """Ends the connection, with all that was under way on it."""
        if self.line is not None:
            self.line.database.lines.remove(self.line)
        self.line = None


def _nobody_connects() -> Connection:
    raise AssertionError("the machine connects")


# --- Requests that can stand still -------------------------------------------------------------

current = threading.local()


class Request:
    """A request, answered in the machine's own thread. `meanwhile` happens elsewhere, before and
    after it reads the database; `others` may be in its way."""

    def __init__(
        self, web: Web, now: int, meanwhile: list[Callable[[], None]],
        others: list["StandingRequest"],
    ) -> None:  # fmt: skip
        self.web, self.begun, self.at_least, self.fresh = web, now, 0, False
        self.floor = web.replica.board.floor
        self.answer: Asked | None = None
        self._meanwhile, self._others = meanwhile, others

    def run(self) -> None:
        """Asks, and keeps the answer."""
        current.request = self
        self.answer = ask(REALM + PAGE, at_least=self.at_least, fresh=self.fresh)

    def pause(self) -> None:
        """Where other things happen."""
        if self._meanwhile:
            self._meanwhile.pop(0)()
            current.request = self

    def wait_for_others(self) -> None:
        """Lets go on whoever may be in the way."""
        for each in self._others:
            if not each.done:
                each.go_on()


class StandingRequest(Request):
    """A request in a thread of its own. It stands still before and after it reads the database, and
    while it waits for another's load, until it is told to go on."""

    def __init__(self, web: Web, now: int, at_least: int, fresh: bool) -> None:
        super().__init__(web, now, [], [])
        self.at_least, self.fresh = at_least, fresh
        self.done = False
        self._error: BaseException | None = None
        self._go, self._stood = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()
        self._wait()

    def go_on(self) -> None:
        """Lets it run until it stands still again or is done."""
        self._go.release()
        self._wait()

    def pause(self) -> None:
        """Stands still. Called in the request's own thread."""
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
    """What a load that is shared is waited for by: nobody waits in a way that stops the machine."""

    def wait(self, timeout: float | None = None) -> bool:
        while not self.is_set():
            current.request.wait_for_others()
        return True


#: The web processes, by replica: two share a board.
PLACES = ((0, 0), (0, 1), (1, 0))
