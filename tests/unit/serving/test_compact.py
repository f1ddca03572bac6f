"""Tests that a cached answer in compact form is unpacked unchanged, and takes hardly more memory
than the size that the cache computes for it."""

import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from notifications.board import Board, now_ns
from realms.content.resolve import Resolved, ResolvedFile
from realms.front import Front
from realms.http.compression import Coding
from realms.http.headers import Headers
from realms.serving import answers, contents
from realms.serving.answers import load
from realms.serving.asked import asked
from realms.serving.compact import Answer
from realms.serving.contents import Content, Variant

SITE = "http://localhost:4201/ada/site/"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DIGEST = "ab" * 32


def file_at(path: str, body: bytes = b"body", moment: datetime = MOMENT) -> ResolvedFile:
    later = moment + timedelta(days=3)
    return ResolvedFile(path, sha256(body).hexdigest(), len(body), moment, later, body)


def module(path: str) -> Content:
    headers = (
        ("content-type", "text/javascript; charset=utf-8"), ("etag", f'"{DIGEST}:module"'),
        ("last-modified", "Mon, 05 Jan 2026 03:04:05 GMT"),
        ("x-boxel-canonical-path", f"{SITE}{path}"),
    )  # fmt: skip
    return Content(200, headers, b"code", contents.without_bytes(file_at(path)))


def other(*headers: tuple[str, str], status: int = 200, generation: int | None = None) -> Content:
    return Content(status, headers, b"body", generation=generation, for_all=True)


CONTENTS = {
    "a file": contents.raw(file_at("a.css"), "asset"),
    "a source": contents.raw(file_at("a/b.ts"), "source"),
    "a file with a name of any letters": contents.raw(file_at("ä \udc80.txt"), "asset"),
    "a file before 1970": contents.raw(file_at("a", moment=MOMENT - timedelta(1e5)), "asset"),
    "a module": module("note.ts"),
    "a module whose name is escaped": module("a note.ts"),
    "a redirect": other(("location", "/ada/site/"), status=302),
    "a page": other(("etag", f'"{DIGEST}:html"'), generation=7),
    "an ETag of other letters": other(("etag", f'"{DIGEST.upper()}:html"')),
    "a weak ETag": other(("etag", f'W/"{DIGEST}"')),
    "a short ETag": other(("etag", '"x"')),
    "dates of another form": other(("last-modified", "Monday"), ("x-created", "")),
    "a long location": other(("location", "/x" * 5000)),
    "no headers": other(),
    "a coded body": Content(200, (), b"body", coded={Coding.GZIP: b"coded", Coding.ZSTD: None}),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("realm", [SITE, None])
def test_an_answer_is_unpacked_as_it_was_packed(name: str, realm: str | None) -> None:
    content = CONTENTS[name]
    high = 7 if content.generation else 12
    headers: Headers = (
        *content.headers, ("x-realm-generation", str(high)), ("surrogate-key", f"realms a-{high}"),
        ("cache-tag", "12"), ("vary", "12"), ("access-control-allow-origin", "*"),
    )  # fmt: skip
    answer = Answer(content, headers, realm, False, high, high)
    assert answer.content == content
    assert answer.content.coded == content.coded
    assert answer.headers == headers
    assert answer.made_from == content.made_from
    assert (answer.status, answer.realm_url, answer.public, answer.low, answer.high) == (
        content.status, realm, False, high, high,
    )  # fmt: skip


def test_answers_for_files_of_one_realm_share_one_frame() -> None:
    frames = set()
    for number in range(50):
        name, moment = f"{number}.css", MOMENT + timedelta(days=number)
        content = contents.raw(file_at(name, b"%d" % number, moment), "asset")
        headers = (*content.headers, ("x-realm-generation", str(number)))
        frames.add(id(Answer(content, headers, SITE, True, number, number).frame))
    assert len(frames) == 1


# --- Memory ------------------------------------------------------------------------------------


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    board = Board(tmp_path / "board")
    board.go_live(now_ns() + 60_000_000_000)
    monkeypatch.setattr(answers, "local_board", lambda: board)
    return board


@pytest.mark.parametrize(
    ("name", "realm", "asks"),
    [
        ("loaded", lambda number: SITE, ()),
        ("asked for", lambda number: SITE, ("",)),
        ("asked for in two codings", lambda number: SITE, ("", "gzip")),
        ("in realms of their own", lambda number: f"{SITE}{number:05}/", ()),
        ("in realms of their own, asked for", lambda number: f"{SITE}{number:05}/", ("",)),
    ],
)
def test_cached_answers_take_no_more_memory_than_is_counted(
    board: Board, monkeypatch: pytest.MonkeyPatch, name: str,
    realm: Callable[[int], str], asks: tuple[str, ...],
) -> None:  # fmt: skip
    """Compares the size that the cache computes for itself with the memory that is freed when the
    cache is dropped. The freed memory may be up to five percent larger."""

    def resolve(url: str, *_: object, **__: object) -> Resolved:
        number = int(url[-9:-4])
        body, moment = b"/* %05d */" % number, MOMENT + timedelta(seconds=number)
        site = realm(number)
        file = file_at(url.removeprefix(site), body, moment)
        return Resolved(uuid4(), site, "published", number, True, file, number, number)

    monkeypatch.setattr(answers, "resolve", resolve)
    answers.caches.cache_clear()
    front = Front(lambda *_: [])

    def get(number: int) -> None:
        url = f"{realm(number)}{number:05}.css"
        load(Variant.MODULE, url)
        for coding in asks:
            environ = {"HTTP_HOST": "localhost:4201", "HTTP_ACCEPT_ENCODING": coding}
            wanted = asked(environ)
            assert wanted is not None
            assert front.reply("GET", url.removeprefix("http://localhost:4201"), wanted)

    try:
        get(99_999)
        tracemalloc.start()
        for number in range(4_000):
            get(number)
        held, _ = tracemalloc.get_traced_memory()
        said = answers.caches()[Variant.MODULE].size
        answers.caches.cache_clear()
        held -= tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        answers.caches.cache_clear()
    assert held < 1.05 * said
    if not asks and name == "loaded":
        assert held / 4_000 - len(b"/* 00000 */") < 600
