"""Tests that results are cached for short texts from clients, but not for long texts, which could
fill the memory."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from notifications import board
from notifications.short_cached import MAX_LENGTH, short_cached
from realms import addresses
from realms.errors import Malformed
from realms.front import Front
from realms.http import accept, replies, requests
from realms.serving import origins
from realms.web import asgi, transfer
from reindex.reading import dependency_keys, references

SITE = "http://localhost:4201/ada/site/"
LONG = "x" * (MAX_LENGTH + 1)
KEPT: list[tuple[Any, tuple[object, ...]]] = [
    (origins.policy, (LONG, None)),
    (origins.policy, ("localhost:4201", f"http://localhost:4201/{LONG}/")),
    (origins.is_admin_host, (LONG,)),
    (addresses.public_origin, (LONG,)),
    (accept.accepted, (LONG,)),
    (accept.takes_pages, (LONG,)),
    (asgi._variable, (LONG.encode(),)),
    (board._word_of, (LONG,)),
    (references._joined_once, (SITE, f"./{LONG}")),
    (dependency_keys.dependency_key, (SITE, LONG)),
]


def test_the_function_is_called_once_for_a_short_string() -> None:
    asked: list[str] = []
    found: Callable[[str], None] = short_cached(maxsize=10)(asked.append)
    for text in ("short", "short", LONG, LONG):
        found(text)
    assert asked == ["short", LONG, LONG]


@pytest.mark.parametrize(("function", "arguments"), KEPT)
def test_no_cached_function_keeps_a_long_string(
    function: Any, arguments: tuple[object, ...]
) -> None:
    before = function.cache_info().currsize
    function(*arguments)
    assert function.cache_info().currsize == before


def test_values_of_response_headers_are_not_cached() -> None:
    async def taken(_: dict[str, Any]) -> None:
        pass

    outbox = transfer.Outbox(max_bytes=1000, seconds=5)
    asyncio.run(outbox.send(taken, replies.Reply(301, [("Location", "/")], b""), head=False))
    before = replies._name.cache_info().currsize
    for number in range(10):
        reply = replies.Reply(301, [("Location", f"/{number}")], b"")
        asyncio.run(outbox.send(taken, reply, head=False))
    assert replies._name.cache_info().currsize == before


@pytest.mark.parametrize("path", ["/ada/site/", "/_server-session", "/_at/x", "/_admin/", "/x?y"])
@pytest.mark.parametrize("host", ["a" * 261, f"{'a' * 60_000}:80", f"[{'1' * 300}]"])
def test_an_overlong_host_is_refused_before_the_body_is_read(path: str, host: str) -> None:
    asked: list[object] = []

    def behind(environ: dict[str, Any], start_response: object) -> list[bytes]:
        asked.append(environ)
        return []

    server = asgi.RealmServer(Front(behind))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is read")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "raw_path": path.encode(), "query_string": b"",
        "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 1), "scheme": "http",
        "http_version": "1.1", "headers": [(b"host", host.encode())],
    }  # fmt: skip
    asyncio.run(server(scope, receive, send))
    assert (sent[0]["status"], asked) == (400, [])
    assert b"the limit is 260" in sent[1]["body"]
    with pytest.raises(Malformed, match="260"):
        requests.request_url(host, path)


# --- Header sets -------------------------------------------------------------------------------

HOST = (b"host", b"localhost:4201")


def test_only_short_header_sets_without_secrets_are_cached() -> None:
    known = asgi._Asked()
    for header in ((b"cookie", b"a=b"), (b"authorization", b"x"), (b"x-realm-pin", b"x"),
                   (b"user-agent", b"x" * 3000)):  # fmt: skip
        assert known.get([HOST, header])[0] is not None
        assert known._known == {}
    for _ in range(2):
        assert known.get([HOST, (b"if-none-match", b'"x"')])[0] is not None
    assert list(known._known) == [(HOST,)], "conditions differ for each URL, so they are not cached"


def test_the_number_of_cached_header_sets_is_bounded() -> None:
    known = asgi._Asked()
    for number in range(3 * asgi._MAX_KNOWN):
        known.get([HOST, (b"user-agent", b"%d" % number)])
    assert 0 < len(known._known) <= asgi._MAX_KNOWN


def test_the_event_loop_leaves_long_conditions_to_threads() -> None:
    known = asgi._Asked()
    for name in (b"if-match", b"if-none-match", b"range", b"if-range"):
        assert known.get([HOST, (name, b"," * 32_000)]) == (None, None)
        assert known.get([HOST, (name, b"x")])[0] is not None
