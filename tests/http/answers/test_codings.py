"""Tests request bodies with a content coding, for example gzip."""

import gzip
import json
import time
import zlib
from typing import Any

import pytest

from realms.errors import Malformed, TooLarge
from realms.http.codings import decoded
from tests.support.web import API, ORIGIN, SOURCE, Web, everything

SITE = f"{ORIGIN}/ada/site/"
CARD = "application/vnd.card+json"
TEXT = b"a lighthouse\n" * 1000


def raw(data: bytes) -> bytes:
    """Returns the data as a raw deflate stream, without zlib's header and checksum."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


GOOD: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("X-GZip", gzip.compress(TEXT)),
    "two members": ("gzip", gzip.compress(TEXT[:5]) + gzip.compress(TEXT[5:])),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "raw deflate": ("deflate", raw(TEXT)),
    "both": ("deflate, gzip", gzip.compress(zlib.compress(TEXT))),
    "none": ("identity", TEXT),
    "empty": ("", TEXT),
}
BAD: dict[str, tuple[str, bytes, int]] = {
    "not gzip": ("gzip", TEXT, 400),
    "nothing": ("gzip", b"", 400),
    "cut short": ("gzip", gzip.compress(TEXT)[:-9], 400),
    "a wrong checksum": ("gzip", gzip.compress(TEXT)[:-8] + bytes(8), 400),
    "a tail": ("gzip", gzip.compress(TEXT) + b"tail", 400),
    "a tail after deflate": ("deflate", zlib.compress(TEXT) + b"tail", 400),
    "not deflate": ("deflate", b"\xff" * 9, 400),
    "br": ("br", TEXT, 415),
    "zstd": ("zstd", TEXT, 415),
    "br within gzip": ("br, gzip", gzip.compress(TEXT), 415),
    "many": ("gzip, gzip, gzip", TEXT, 415),
    "a bomb": ("gzip", gzip.compress(bytes(8_000_000)), 413),
    "a bomb in a bomb": ("gzip, gzip", gzip.compress(gzip.compress(bytes(8_000_000))), 413),
    "a deflate bomb": ("deflate", zlib.compress(bytes(8_000_000)), 413),
}


def test_an_upload_is_stored_without_its_content_coding(web: Web, ada: dict[str, str]) -> None:
    for name, (coding, body) in GOOD.items():
        answer = web.upload(
            f"{SITE}{name.replace(' ', '-')}.md", body, {**ada, "Content-Encoding": coding}
        )
        assert answer.status == 204, name
        assert web.get(f"{SITE}{name.replace(' ', '-')}.md", SOURCE).body == TEXT, name


def test_a_wrong_or_unknown_coding_is_refused_and_nothing_is_stored(
    web: Web, ada: dict[str, str]
) -> None:
    before = everything()
    for name, (coding, body, status) in BAD.items():
        answer = web.upload(f"{SITE}a.md", body, {**ada, "Content-Encoding": coding})
        assert answer.status == status, name
        (error,) = json.loads(answer.body)["errors"]
        told = {400: "a.md", 413: "more than 5242880 bytes", 415: repr(coding)}
        assert told[status] in error["message"], name
        taken = "gzip, deflate, identity" if status == 415 else None
        assert answer.headers.get("accept-encoding") == taken, name
    assert everything() == before


@pytest.mark.parametrize(
    ("method", "path", "accept", "body", "status"),
    [
        ("PATCH", "ada", CARD, {"data": {"type": "card", "attributes": {"name": "Z"}}}, 200),
        ("POST", "_atomic", API, {"atomic:operations": []}, 201),
        ("QUERY", "_search", CARD, {}, 503),
    ],
)
def test_every_request_body_may_have_a_content_coding(
    web: Web, ada: dict[str, str], method: str, path: str, accept: str, body: Any, status: int
) -> None:
    data = gzip.compress(json.dumps(body).encode())
    headers = {**ada, "Content-Type": accept}
    for coding, expected in (("gzip", status), ("br", 415), ("deflate", 400)):
        answer = web.request(
            method, SITE + path, accept=accept, body=data,
            headers={**headers, "Content-Encoding": coding},
        )  # fmt: skip
        assert answer.status == expected, (coding, answer.body)


def test_a_compression_bomb_is_refused_at_the_limit() -> None:
    """The decoder stops at the limit, however large the unpacked body would be."""
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(50_000_000)
    bomb = packer.compress(zeros) + packer.flush()
    started = time.process_time()
    with pytest.raises(TooLarge):
        decoded(bomb * 50, "gzip", 1_000_000, "a file")
    assert time.process_time() - started < 1


def test_many_empty_gzip_members_are_decoded_in_linear_time() -> None:
    """The decoder must not copy the rest of the body for each gzip member."""
    member = gzip.compress(b"")
    started = time.process_time()
    assert decoded(member * 20_000, "gzip", 10, "a file") == b""
    assert time.process_time() - started < 10
    with pytest.raises(Malformed):
        decoded(member * 3 + b"x", "gzip", 10, "a file")
