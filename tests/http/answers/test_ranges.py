"""Tests range requests. A range request with If-Range names a version of the file. The request gets
the range only if the file still has this version. Otherwise it gets the whole file."""

import json
from collections.abc import Iterator

import pytest

from realms.models import Realm
from tests.support import make
from tests.support.web import SOURCE, Web


@pytest.fixture
def ten(web: Web, live: None, source: Realm) -> Iterator[str]:
    """Yields the URL of a file with ten bytes."""
    make.write(source, ten__bin=b"0123456789", empty__bin=b"")
    yield f"{source.url}ten.bin"


@pytest.mark.parametrize("accept", [SOURCE, "*/*", "text/html"])
@pytest.mark.parametrize(
    ("asked", "body", "told_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-30", b"0123456789", "bytes 0-9/10"),
        ("bytes=5-99999", b"56789", "bytes 5-9/10"),
        ("Bytes = 1 - 2", b"12", "bytes 1-2/10"),
    ],
)
def test_a_valid_range_gets_a_part_of_the_file(
    web: Web, ten: str, accept: str, asked: str, body: bytes, told_range: str
) -> None:
    for cache in ("miss", "hit"):
        answer = web.get(ten, accept, Range=asked)
        assert (answer.status, answer.body, answer.cache) == (206, body, cache)
        assert answer.headers["content-range"] == told_range
        assert answer.headers["content-length"] == str(len(body))
        assert "etag" in answer.headers


@pytest.mark.parametrize(
    "asked",
    ["bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "0-1", "٣",
     "bytes=+1-2", f"bytes={'9' * 40}-"],
)  # fmt: skip
def test_an_invalid_range_gets_the_whole_file(web: Web, ten: str, asked: str) -> None:
    answer = web.get(ten, SOURCE, Range=asked.encode().decode("latin-1"))
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=999-"])
def test_a_range_beyond_the_end_gets_a_416_with_the_size(web: Web, ten: str, asked: str) -> None:
    answer = web.get(ten, SOURCE, Range=asked)
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */10"
    assert "etag" not in answer.headers
    assert json.loads(answer.text)["errors"][0]["status"] == 416
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=7-", "bytes=0-,-1"])
def test_any_range_of_an_empty_file_gets_the_whole_file(web: Web, ten: str, asked: str) -> None:
    for _ in ("miss", "hit"):
        empty = web.get(ten.replace("ten.bin", "empty.bin"), SOURCE, Range=asked)
        assert (empty.status, empty.body) == (200, b"")
        assert "content-range" not in empty.headers


def test_a_range_is_only_honoured_if_if_range_matches(web: Web, ten: str) -> None:
    headers = web.get(ten, SOURCE).headers
    for known, status in ((headers["etag"], 206), (headers["last-modified"], 206), ('"x"', 200),
                          (f"W/{headers['etag']}", 200)):  # fmt: skip
        answer = web.get(ten, SOURCE, Range="bytes=0-1", **{"If-Range": known})
        assert answer.status == status, known
    known_all = {"Range": "bytes=0-1", "If-None-Match": headers["etag"]}
    assert web.get(ten, SOURCE, **known_all).status == 304


def test_a_range_is_ignored_for_a_head_and_for_a_transpiled_module(web: Web, ten: str) -> None:
    head = web.request("HEAD", ten, accept=SOURCE, headers={"Range": "bytes=0-1"})
    assert (head.status, head.headers["content-length"]) == (200, "10")
    module = web.get(ten.replace("ten.bin", "person.tsx"), Range="bytes=0-1")
    assert module.status == 200
    assert "accept-ranges" not in module.headers
