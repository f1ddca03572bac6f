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
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

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
from notifications.channels import (
    REALM_HEARTBEAT,
)
from realms.api import routes
from realms.content.resolve import Resolved
from realms.serving import answers
from realms.serving.contents import Variant
from tests.models.coherence_world import (
    BOUND,
    PAGE,
    PLACES,
    REALM,
    SECOND,
    Announced,
    Database,
    FakeLine,
    Landing,
    Replica,
    Request,
    StandingRequest,
    Web,
    current,
)

CHANGES = ("write", "write", "publish", "delete", "another file")
DISTURBANCES = ("twice", "later", "never")
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
        caches = patch.object(answers, "caches", lambda: current.request.web.caches)
        self.end.enter_context(caches)
        for at in range(2):
            self.connect(at, [])
        self.undisturbed(1)

    def _resolve(self, *args: Any, **kwargs: Any) -> Resolved:
        current.request.pause()
        found = self.database.resolve(*args, **kwargs)
        current.request.pause()
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
                current.request = SimpleNamespace(web=web)
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
