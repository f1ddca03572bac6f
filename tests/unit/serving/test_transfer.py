"""Tests that a process uses limited memory for request bodies and answers, and a limited number of
threads for each kind of request."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from realms.errors import Busy, TooSlow
from realms.http.packed import Packed
from realms.http.replies import Reply
from realms.serving.pinned_reads import PIN
from realms.web import asgi, lanes, transfer
from realms.web.lanes import Lane, Lanes, lane_of
from realms.web.transfer import PIECE_BYTES, Bodies, Disconnected, Outbox
from reindex.reading import pins

LARGE = 10 * PIECE_BYTES


def _body(*pieces: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Returns an ASGI `receive` function that delivers these pieces of a body and then waits for
    ever."""
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    return receive


def _whole(body: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _received(bodies: Bodies, receive: Any) -> bytes:
    async with bodies.received(receive) as body:
        return body.read()


def test_a_request_whose_body_stops_coming_is_refused() -> None:
    bodies = Bodies(max_bytes=1000, seconds=0.05)
    with pytest.raises(TooSlow, match="Only 4 bytes"):
        asyncio.run(_received(bodies, _body(b"half")))
    assert asyncio.run(_received(bodies, _whole(b"x" * 1000))) == b"x" * 1000, "no body is held"


def test_all_bodies_together_are_held_up_to_a_bound() -> None:
    async def both() -> None:
        bodies = Bodies(max_bytes=1000, seconds=5)
        async with bodies.received(_whole(b"x" * 600)):
            with pytest.raises(Busy):
                await _received(bodies, _whole(b"x" * 600))
            assert await _received(bodies, _whole(b"x" * 400))
        assert await _received(bodies, _whole(b"x" * 600))

    asyncio.run(both())


def test_the_slowest_of_too_many_simultaneous_bodies_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "MAX_BODIES", 2)

    async def three() -> None:
        bodies = Bodies(max_bytes=1000, seconds=5)
        slow = [asyncio.create_task(_received(bodies, _body(b"x"))) for _ in range(2)]
        await asyncio.sleep(0)
        assert await _received(bodies, _whole(b"y")) == b"y"
        with pytest.raises(Busy, match="too many uploads"):
            await slow[0]
        assert not slow[1].done()
        slow[1].cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert await _received(bodies, _whole(b"y" * 1000)) == b"y" * 1000, "no body is held"

    asyncio.run(three())


def test_stalled_bodies_are_dropped_to_make_room_for_a_new_one() -> None:
    async def full() -> None:
        bodies = Bodies(max_bytes=1000, seconds=60)
        slow = []
        for _ in range(3):
            slow.append(asyncio.create_task(_received(bodies, _body(b"x" * 300))))
            await asyncio.sleep(0.01)
        assert await _received(bodies, _whole(b"y" * 500)) == b"y" * 500
        await asyncio.wait(slow[:2], timeout=10)
        assert [each.done() for each in slow] == [True, True, False]
        for each in slow[:2]:
            with pytest.raises(Busy, match="too large"):
                await each
        slow[2].cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert await _received(bodies, _whole(b"y" * 1000)) == b"y" * 1000, "no body is held"

    asyncio.run(full())


def test_no_body_is_dropped_if_the_new_one_would_not_fit_anyway() -> None:
    async def full() -> None:
        bodies = Bodies(max_bytes=1000, seconds=60)
        async with bodies.received(_whole(b"x" * 600)):
            slow = asyncio.create_task(_received(bodies, _body(b"x" * 300)))
            await asyncio.sleep(0.01)
            with pytest.raises(Busy):
                await _received(bodies, _whole(b"y" * 500))
            assert not slow.done()
            slow.cancel()

    asyncio.run(full())


@pytest.mark.parametrize("then", [(), (b"x",), (b"x",) * 20])
def test_a_fast_start_of_a_body_allows_no_later_pause(then: tuple[bytes, ...]) -> None:
    """The client sends at once as many bytes as it would send in a hundred seconds at the minimum
    speed. After that, it sends few bytes or none."""
    bodies = Bodies(max_bytes=10_000_000, seconds=0.2)
    left = [b"x" * 100 * transfer.MIN_BODY_RATE, *then]

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        if len(left) <= len(then):
            await asyncio.sleep(0.05)
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    async def within() -> None:
        with pytest.raises(TooSlow):
            await asyncio.wait_for(_received(bodies, receive), 5)

    asyncio.run(within())


def test_a_client_that_disconnects_during_its_body_ends_the_request() -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(Disconnected):
        asyncio.run(_received(Bodies(max_bytes=10, seconds=5), gone))


def test_only_a_request_with_a_signed_pin_counts_as_pinned() -> None:
    signed = pins.sign(pins.Pin("http://localhost:4201/ada/site/", 1))
    asked = [("/_at/", signed), ("/_at/", "x"), ("/_at/", ""), ("/ada/site/a.ts", signed)]
    held = [asgi._is_pinned({"PATH_INFO": path, PIN: pin}) for path, pin in asked]
    assert held == [True, False, False, False]


class _Client:
    """A client that stops reading after `takes` pieces of an answer."""

    def __init__(self, takes: int = 1000) -> None:
        self.taken: list[bytes] = []
        self.whole = False
        self.full = asyncio.Event()
        self._left = takes

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            if not self._left:
                self.full.set()
                await asyncio.Event().wait()
            self._left -= 1
            self.taken.append(message["body"])
            self.whole = not message.get("more_body")


async def _sent(outbox: Outbox, body: bytes | Packed, client: _Client) -> None:
    await outbox.send(client, Reply(200, [("content-type", "text/plain")], body), head=False)


def test_an_answer_that_the_client_stops_reading_is_cut_off() -> None:
    async def read_half() -> _Client:
        client = _Client(3)
        await _sent(Outbox(max_bytes=LARGE, seconds=0.05), bytes(LARGE), client)
        return client

    client = asyncio.run(read_half())
    assert (len(client.taken), client.whole) == (3, False)


@pytest.mark.parametrize("body", [b"", b"small", bytes(PIECE_BYTES), bytes(LARGE + 1)])
def test_an_answer_arrives_whole_in_pieces_of_bounded_size(body: bytes) -> None:
    async def read() -> None:
        for form in (body, Packed([body.decode()])):
            client = _Client()
            await _sent(Outbox(max_bytes=10 * LARGE, seconds=5), form, client)
            assert (b"".join(client.taken), client.whole) == (body, True)
            assert max(map(len, client.taken)) <= PIECE_BYTES

    asyncio.run(read())


def test_beyond_the_bound_the_answer_that_waited_longest_is_cut_off() -> None:
    async def three() -> None:
        outbox = Outbox(max_bytes=2 * LARGE, seconds=60)
        clients = [_Client(1) for _ in range(3)]
        tasks = []
        for number, client in enumerate(clients):
            body = bytes([number]) * LARGE
            tasks.append(asyncio.create_task(_sent(outbox, body, client)))
            await client.full.wait()
        await asyncio.wait_for(tasks[0], 10)
        assert [task.done() for task in tasks] == [True, False, False]
        for task in tasks[1:]:
            task.cancel()

    asyncio.run(three())


def test_one_answer_that_is_sent_to_many_clients_counts_once() -> None:
    async def many() -> None:
        outbox = Outbox(max_bytes=2 * LARGE, seconds=60)
        body, clients = bytes(LARGE), [_Client(1) for _ in range(20)]
        tasks = [asyncio.create_task(_sent(outbox, body, client)) for client in clients]
        for client in clients:
            await client.full.wait()
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()

    asyncio.run(many())


def test_a_lane_without_free_threads_does_not_delay_other_lanes() -> None:
    release = threading.Event()

    async def full() -> None:
        threads = Lanes(4)
        stuck = [asyncio.create_task(threads.run(Lane.LARGE, release.wait)) for _ in range(20)]
        try:
            for lane in set(Lane) - {Lane.LARGE}:
                assert await asyncio.wait_for(threads.run(lane, lambda: True), 10)
        finally:
            release.set()
        assert all(await asyncio.gather(*stuck))

    asyncio.run(full())


@pytest.mark.parametrize("lane", [Lane.LOGIN, Lane.ATOMIC])
def test_logins_and_atomic_writes_run_one_at_a_time(lane: Lane) -> None:
    under_way: list[int] = []
    most: list[int] = []

    def work() -> None:
        under_way.append(1)
        most.append(len(under_way))
        # This pause is long enough for a second thread to begin the same work.
        threading.Event().wait(0.05)
        under_way.pop()

    async def many() -> None:
        threads = Lanes(16)
        await asyncio.gather(*(threads.run(lane, work) for _ in range(5)))

    asyncio.run(many())
    assert most == [1] * 5


def test_a_request_that_gets_no_thread_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(lanes, "MAX_WAITING", 1)
    release = threading.Event()

    async def full() -> None:
        threads = Lanes(1)
        stuck = asyncio.create_task(threads.run(Lane.WRITE, release.wait))
        await asyncio.sleep(0)
        results = await asyncio.gather(
            *(threads.run(Lane.WRITE, lambda: True) for _ in range(2)), return_exceptions=True
        )
        release.set()
        await stuck
        assert [type(each) for each in results] == [Busy, Busy]
        assert await threads.run(Lane.WRITE, lambda: True)

    asyncio.run(full())


def test_a_client_that_leaves_while_waiting_for_a_thread_is_dropped() -> None:
    release, called = threading.Event(), threading.Event()

    async def full() -> None:
        threads, left = Lanes(1), asyncio.Event()
        stuck = asyncio.create_task(threads.run(Lane.WRITE, release.wait))
        await asyncio.sleep(0)
        going = [
            asyncio.create_task(threads.run(Lane.WRITE, called.set, left.wait)) for _ in range(100)
        ]
        staying = asyncio.create_task(threads.run(Lane.WRITE, lambda: "mine"))
        await asyncio.sleep(0.01)
        left.set()
        results = await asyncio.wait_for(asyncio.gather(*going, return_exceptions=True), 5)
        assert {type(each) for each in results} == {Disconnected}
        assert threads._lanes[Lane.WRITE]._waiting == 1
        release.set()
        assert await staying == "mine"
        assert await stuck
        assert not called.is_set()
        assert await threads.run(Lane.WRITE, lambda: True), "the lane's thread is free again"

    asyncio.run(full())


def test_no_thread_is_lost_if_a_waiter_is_cancelled_as_its_turn_comes() -> None:
    async def at_once() -> None:
        threads = Lanes(1)
        free = threads._lanes[Lane.WRITE]._free
        await free.acquire()
        going = asyncio.create_task(threads.run(Lane.WRITE, lambda: True, asyncio.Event().wait))
        await asyncio.sleep(0.01)
        free.release()
        # The task `going` has got the free thread, but has not run yet.
        await asyncio.sleep(0)
        assert free.locked() and not going.done()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert not free.locked()

    asyncio.run(at_once())


@pytest.mark.parametrize("first", ["leaves", "gets a thread"])
def test_no_thread_is_lost_if_a_client_leaves_as_its_turn_comes(first: str) -> None:
    async def at_once() -> None:
        release, threads, left = threading.Event(), Lanes(1), asyncio.Event()
        lane = threads._lanes[Lane.WRITE]
        stuck = asyncio.create_task(threads.run(Lane.WRITE, release.wait))
        await asyncio.sleep(0)
        going = asyncio.create_task(threads.run(Lane.WRITE, lambda: True, left.wait))
        await asyncio.sleep(0.01)
        if first == "leaves":
            left.set()
        release.set()
        while not lane._free._value and not stuck.done():
            await asyncio.sleep(0)
        left.set()
        await asyncio.gather(going, stuck, return_exceptions=True)
        assert await asyncio.wait_for(threads.run(Lane.WRITE, lambda: True), 5)

    for _ in range(50):
        asyncio.run(at_once())


@pytest.mark.parametrize(
    ("method", "path", "accept", "lane"),
    [
        ("GET", "/ada/site/", "text/html", Lane.READ),
        ("GET", "/ada/site/a.ts", "*/*", Lane.READ),
        ("HEAD", "/ada/site/a.ts", "application/vnd.card+source", Lane.READ),
        ("GET", "/_metrics", "*/*", Lane.READ),
        ("GET", "/ada/site/", "application/vnd.api+json", Lane.LARGE),
        ("HEAD", "/ada/site/_mtimes", "application/vnd.api+json", Lane.LARGE),
        ("POST", "/ada/site/_search", "application/vnd.card+json", Lane.LARGE),
        ("QUERY", "/ada/site/_search", "application/vnd.card+json", Lane.LARGE),
        ("GET", "/ada/site/_definition", "*/*", Lane.DEFINITION),
        ("GET", "/sitemap.xml", "*/*", Lane.LARGE),
        ("GET", "/ada/site/my_search", "*/*", Lane.READ),
        ("POST", "/ada/site/_atomic", "application/vnd.api+json", Lane.ATOMIC),
        ("POST", "/ada/site/a.ts", "application/vnd.card+source", Lane.WRITE),
        ("POST", "/_publish-realm", "application/vnd.api+json", Lane.PUBLISH),
        ("POST", "/_unpublish-realm", "application/vnd.api+json", Lane.PUBLISH),
        ("DELETE", "/_delete-realm", "application/vnd.api+json", Lane.PUBLISH),
        ("POST", "/_server-session", "*/*", Lane.LOGIN),
        ("POST", "/ada/site/_session", "application/json", Lane.LOGIN),
        ("POST", "/_admin/login/", "text/html", Lane.LOGIN),
        ("GET", "/_admin/login/", "text/html", Lane.READ),
        ("POST", "/_admin/realms/realm/", "text/html", Lane.WRITE),
        ("GET", "/_at/ada/site/a.ts", "*/*", Lane.PINNED),
        ("POST", "/_at/", "*/*", Lane.PINNED),
    ],
)
def test_a_request_gets_the_lane_of_its_method_and_path(
    method: str, path: str, accept: str, lane: Lane
) -> None:
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_ACCEPT": accept, "QUERY_STRING": "",
    }  # fmt: skip
    assert lane_of(environ) is lane
