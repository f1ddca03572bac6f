"""P2, P3 and P4 under random faults of networks, kernels and clocks, as a state machine.

Three web processes, two of them on one board, read one page through the views, with real caches,
boards and listeners. The machine moves everything else, one step at a time: what commits, what a
connection brings and when, who is restarted, how far the clock goes, and where each request stands
still.

What Postgres promises is kept, as it is what the design stands on: on one connection no ping
overtakes what was committed before it, and what is lost is lost with everything after it, by a
connection that ends. `Deafness` breaks that as well; then P2 and P4 must hold all the same.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from notifications import board as board_module
from notifications import listener as listener_module
from notifications import single_flight
from notifications.board import Board
from notifications.channels import (
    REALM_HEARTBEAT,
    Notification,
    all_files_changed,
    board_keys,
    file_change,
)
from notifications.listener import Connection, Listener
from realms.api import routes
from realms.content.resolve import Resolved, ResolvedFile
from realms.serving import answers
from realms.serving.contents import Variant
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

_here = threading.local()


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
        _here.request = self
        self.answer = ask(REALM + PAGE, at_least=self.at_least, fresh=self.fresh)

    def pause(self) -> None:
        """Where other things happen."""
        if self._meanwhile:
            self._meanwhile.pop(0)()
            _here.request = self

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
            _here.request.wait_for_others()
        return True


# --- The machine -------------------------------------------------------------------------------

CHANGES = ("write", "write", "publish", "delete", "another file")
DISTURBANCES = ("twice", "later", "never")
#: The web processes, by replica: two share a board.
PLACES = ((0, 0), (0, 1), (1, 0))
BACK = st.sampled_from((None, None, 0, 1, 3))
WHILE_CONNECTING = st.sampled_from(("nothing", "write", "read", "read and write"))
WHILE_READING = st.sampled_from(("nothing", "write", "write here", "hear"))


class Coherence(RuleBasedStateMachine):
    """Everything that may happen to two replicas while they are read."""

    #: Whether what is read may be held against the staleness bound.
    bounded = True
    hits = 0

    def __init__(self) -> None:
        super().__init__()
        self.now = 100 * SECOND
        self.database = Database()
        self.requests: list[StandingRequest] = []
        self.end = ExitStack()
        folder = Path(self.end.enter_context(TemporaryDirectory()))
        events = SimpleNamespace(Event=Landing, Lock=threading.Lock)
        for where, name, instead in (
            *((each, "now_ns", lambda: self.now) for each in
              (board_module, listener_module, single_flight)),
            (single_flight, "threading", events),
            (answers, "resolve", self._resolve),
            # No realm of the game lies in another.
            (answers, "_lacks_its_slash", lambda *_: False),
            # And all of them are everyone's to read.
            (routes, "_admit", lambda request, url: None),
        ):  # fmt: skip
            self.end.enter_context(patch.object(where, name, instead))
        self.replicas = [Replica(folder, number, self.database) for number in range(2)]
        caches = patch.object(answers, "caches", lambda: _here.request.web.caches)
        self.end.enter_context(caches)
        for at in range(2):
            self.connect(at, [])
        self.undisturbed(1)

    def _resolve(self, *args: Any, **kwargs: Any) -> Resolved:
        _here.request.pause()
        found = self.database.resolve(*args, **kwargs)
        _here.request.pause()
        return found

    def teardown(self) -> None:
        try:
            while self.requests:
                for each in self.requests:
                    each.go_on()
                self._check_done()
        finally:
            self.end.close()

    # --- changes ---

    @rule(what=st.sampled_from(CHANGES), by=st.sampled_from((None, 0, 1)))
    def commit(self, what: str, by: int | None) -> None:
        """Made by a replica, which moves its own board; or by a process killed before it could."""
        told = self.database.commit(what, self.now)
        if by is not None:
            self.replicas[by].board.apply(told)

    # --- connections and sidecars ---

    @rule(at=st.integers(0, 1), meanwhile=st.lists(WHILE_CONNECTING, max_size=8))
    def connect(self, at: int, meanwhile: list[str]) -> None:
        """Connects anew; other things happen while it says what it listens to."""
        replica = self.replicas[at]
        replica.cut()
        replica.connect(FakeLine(self.database, self._does(at, meanwhile)))

    def _does(self, at: int, meanwhile: list[str]) -> list[Callable[[], None]]:
        does: dict[str, Callable[[], Any]] = {
            "nothing": lambda: None,
            "write": lambda: self.commit("write", None),
            "write here": lambda: self.commit("write", at),
            "hear": lambda: self.hear(at, 5),
            "read": lambda: self._read(self._web((at, 0)), []),
            "read and write": lambda: (does["read"](), does["write"]()),
        }
        return [does[each] for each in meanwhile]

    @rule(at=st.integers(0, 1))
    def cut(self, at: int) -> None:
        self.replicas[at].cut()

    @rule(what=st.sampled_from((*PLACES, "sidecar", "killed sidecar")), at=st.integers(0, 1))
    def restart(self, what: str | tuple[int, int], at: int) -> None:
        """Of a web process, or of a sidecar, which takes its vouching back if it has the time."""
        if not isinstance(what, str):
            self._web(what).restart()
            return
        self.replicas[at].cut()
        if what == "sidecar":
            self.replicas[at].board.go_live(0)
        self.replicas[at].start_sidecar()

    # --- what a connection brings (that a listener doesn't step is a stall) ---

    @rule(at=st.integers(0, 1), steps=st.integers(1, 5))
    def hear(self, at: int, steps: int) -> None:
        for _ in range(steps if self.replicas[at].line else 0):
            self.replicas[at].hear()

    @rule(at=st.integers(0, 1), how=st.sampled_from(DISTURBANCES), which=st.integers(0, 5))
    def disturb(self, at: int, how: str, which: int) -> None:
        """What is under way comes twice, or in another order, or a ping doesn't come at all."""
        line = self.replicas[at].line
        if line is None or not line.arriving:
            return
        arriving, which = line.arriving, which % len(line.arriving)
        ping = arriving[which].channel == REALM_HEARTBEAT
        if how == "twice":
            arriving.append(arriving[which])
        elif how == "later" and (ping or not _pings_after(arriving, which)):
            arriving.append(arriving.pop(which))
        elif how == "never" and (ping or not self.bounded):
            arriving.pop(which)

    # --- time ---

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0, 1.9, 2.0, 5.0)))
    def wait(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

    @rule(seconds=st.integers(1, 4))
    def undisturbed(self, seconds: int) -> None:
        """Time passes, and every connection brings all that is on its way."""
        for _ in range(2 * seconds):
            self.wait(0.5)
            for replica in self.replicas:
                while replica.line is not None:
                    replica.hear()
                    if not replica.line.arriving:
                        break

    # --- requests ---

    @precondition(lambda self: len(self.requests) < 3)
    @rule(place=st.sampled_from(PLACES), back=BACK, fresh=st.booleans())
    def begin(self, place: tuple[int, int], back: int | None, fresh: bool) -> None:
        """A request that may stand still on its way; `back` pins it that far behind the newest."""
        self._begin(self._web(place), back, fresh and back is None)

    @precondition(lambda self: 0 < len(self.requests) < 3)
    @rule(which=st.integers(0, 2), back=BACK)
    def follow(self, which: int, back: int | None) -> None:
        """A request of the process where another is under way."""
        self._begin(self.requests[which % len(self.requests)].web, back, False)

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0, 2))
    def go_on(self, which: int) -> None:
        self.requests[which % len(self.requests)].go_on()
        self._check_done()

    @rule(place=st.sampled_from(PLACES), meanwhile=st.lists(WHILE_READING, max_size=2))
    def read(self, place: tuple[int, int], meanwhile: list[str]) -> None:
        """A request to its end; other things happen before and after it reads the database."""
        self._read(self._web(place), self._does(place[0], meanwhile))

    @rule(seconds=st.integers(0, 2))
    def calm(self, seconds: int) -> None:
        """Nothing happens for a while, and then every process is asked."""
        self.undisturbed(seconds)
        for place in PLACES:
            self._read(self._web(place), [])

    def _begin(self, web: Web, back: int | None, fresh: bool) -> None:
        at_least = 0 if back is None else max(1, self.database.generation - back)
        request = StandingRequest(web, self.now, at_least, fresh)
        self.requests.append(request)
        self._check_done()

    def _read(self, web: Web, meanwhile: list[Callable[[], None]]) -> None:
        request = Request(web, self.now, meanwhile, self.requests)
        request.run()
        self._check(request)
        self._check_done()

    def _web(self, place: tuple[int, int]) -> Web:
        return self.replicas[place[0]].webs[place[1]]

    # --- what must hold ---

    @invariant()
    def every_hit_holds(self) -> None:
        """Every process is asked for what it has in cache, pinned to the newest and unpinned."""
        newest = self.database.generation
        for replica in self.replicas:
            for web in replica.webs:
                _here.request = SimpleNamespace(web=web)
                answer = answers.cached(Variant.SOURCE, REALM + PAGE)
                if answer is not None:
                    body = answer.content.body if answer.content.status == 200 else None
                    self._holds(body, answer.high, replica.board.floor, self.now - BOUND)
                    type(self).hits += 1
                pinned = answers.cached(Variant.SOURCE, REALM + PAGE, newest)
                assert pinned is None or pinned.high >= newest, "P2: older than its pin"

    def _check_done(self) -> None:
        done = [each for each in self.requests if each.done]
        self.requests[:] = [each for each in self.requests if not each.done]
        for each in done:
            self._check(each)

    def _check(self, request: Request) -> None:
        answer = request.answer
        assert answer is not None
        assert answer.generation is not None
        assert answer.generation >= request.at_least, "P2: older than its pin"
        oldest = request.begun if request.fresh else request.begun - BOUND
        self._holds(answer.body, answer.generation, request.floor, oldest)

    def _holds(self, body: bytes | None, generation: int, floor: int, oldest: int) -> None:
        """`floor` is the newest generation that the replica was told of before it was asked;
        nothing that was superseded before `oldest` may come."""
        page = self.database.at(generation)
        assert body == page.body, "these bytes are not those of that generation"
        assert page.generation >= self.database.at(floor).generation, (
            "P4: what an invalidation had emptied is back"
        )
        if self.bounded:
            assert page.superseded is None or page.superseded >= oldest, "P3: beyond the bound"


class Deafness(Coherence):
    """Notifications that Postgres would never lose are lost one by one: no bound can be kept."""

    bounded = False


def _pings_after(arriving: list[Announced], which: int) -> bool:
    return any(each.channel == REALM_HEARTBEAT for each in arriving[which + 1 :])


def _a_third() -> int:
    return settings().max_examples // 3


def test_no_read_is_older_than_its_pin_or_the_bound_and_nothing_comes_back() -> None:
    run_state_machine_as_test(Coherence)
    assert Coherence.hits > 100, "a game without hits proves nothing"


def test_with_notifications_lost_no_read_is_older_than_its_pin() -> None:
    # The same game with a fault more and a promise less: some of it is enough in a quick run.
    run_state_machine_as_test(Deafness, settings=settings(max_examples=_a_third()))
    assert Deafness.hits > 100, "a game without hits proves nothing"


def test_a_change_just_before_a_new_connection_listens_is_not_missed() -> None:
    """One game played by hand, as chance takes long to come upon it."""
    game = Coherence()
    try:
        game.connect(0, ["read and write"])
        game.undisturbed(3)
        game.every_hit_holds()
    finally:
        game.teardown()
