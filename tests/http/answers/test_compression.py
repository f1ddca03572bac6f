"""Tests that text is sent in the content coding that the client prefers."""

import random
import threading
import zlib
from typing import Any

import brotli
import pytest
import zstandard

from realms.api import routes
from realms.http.compression import Coding, accepts, compressed, preferred
from realms.serving import answers
from realms.serving.asked import asked
from realms.serving.contents import Variant
from reindex.reading.media_types import SOURCE
from tests.support import make
from tests.support.gates import PATIENCE, in_thread
from tests.support.web import ORIGIN, Web, vouch

REALM = f"{ORIGIN}/ada/site/"
TEXT = b"A text that repeats itself. " * 200
DECODERS = {
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompress(data),
    "gzip": lambda data: zlib.decompress(data, wbits=31),
}


@pytest.fixture
def realm(web: Web, owner: Any) -> Any:
    files = {"a.txt": TEXT, "b.tsx": b"export const b = 1;\n" * 50, "p.png": b"\x89PNG" + TEXT}
    realm = make.source(REALM, owner, files)
    vouch()
    return realm


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", None), ("identity", None), ("br;q=0", None), ("*;q=0", None), (";, /", None),
        ("gzip;q=0.2, identity;q=0.5", None), ("compress", None), ("x" * 100_000, None),
        ("gzip", Coding.GZIP), ("x-gzip", Coding.GZIP), ("GZip", Coding.GZIP),
        ("gzip, deflate, br, zstd", Coding.BROTLI), ("gzip, zstd", Coding.ZSTD),
        ("br;q=0.5, gzip", Coding.GZIP), ("*", Coding.BROTLI), ("br;q=0, *", Coding.ZSTD),
        ("gzip;q=0.5", Coding.GZIP), ("identity, gzip", Coding.GZIP),
        ("gzip;a*=foo''%41", None), ("br;a*=idna''%ff, gzip", Coding.GZIP),
        (" " * 245 + "gzip, br;q=0", Coding.GZIP),
    ],
)  # fmt: skip
def test_the_preferred_coding_is_chosen(header: str, coding: Coding | None) -> None:
    assert preferred(header) is coding


@pytest.mark.parametrize("name", ["Accept", "Accept-Encoding"])
def test_an_invalid_element_of_a_header_is_ignored(web: Web, realm: Any, name: str) -> None:
    for value in ("gzip;a*=foo''%41", "text/x;a*=idna''%ff, */*"):
        assert web.request("GET", f"{REALM}a.txt", headers={name: value}).status == 200


def test_the_event_loop_leaves_long_conditions_to_django() -> None:
    environ = {"HTTP_HOST": "localhost:4201"}
    assert asked(environ) is not None
    for name in ("IF_MATCH", "IF_NONE_MATCH", "RANGE"):
        assert asked({**environ, f"HTTP_{name}": "," * 32_000}) is None


def test_a_coding_with_quality_zero_is_not_accepted() -> None:
    assert [accepts(each, Coding.GZIP) for each in ("gzip", "*", "gzip;q=0", "br", "")] == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("coding", DECODERS)
@pytest.mark.parametrize("name", ["a.txt", "b"])
def test_a_coded_answer_decodes_to_the_text(web: Web, realm: Any, name: str, coding: str) -> None:
    plain = web.get(REALM + name)
    coded = [web.get(REALM + name, **{"Accept-Encoding": coding}) for _ in range(2)]
    for each in coded:
        assert each.headers["content-encoding"] == coding
        assert DECODERS[coding](each.body) == plain.body
        assert int(each.headers["content-length"]) == len(each.body) < len(plain.body)
        assert each.headers["vary"] == plain.headers["vary"] == "Accept, Accept-Encoding"
    assert [each.headers["x-boxel-cache"] for each in coded] == ["hit", "hit"]
    for _ in range(2):
        after = web.get(REALM + name)
        assert (after.body, "content-encoding" in after.headers) == (plain.body, False)


def test_a_body_that_would_not_get_shorter_is_sent_uncoded(
    web: Web, realm: Any, owner: Any
) -> None:
    noise = random.Random(1).randbytes(4000)
    make.write_paths(realm, {"tiny.txt": b"short", "noise.txt": noise})
    for name in ("p.png", "tiny.txt"):
        told = web.get(REALM + name, **{"Accept-Encoding": "br"})
        assert ("content-encoding" in told.headers, told.headers["vary"]) == (False, "Accept")
    for coding in DECODERS:
        for _ in range(2):
            told = web.get(f"{REALM}noise.txt", **{"Accept-Encoding": coding})
            assert ("content-encoding" in told.headers, told.body) == (False, noise)


def test_each_coding_has_an_etag_of_its_own(web: Web, realm: Any) -> None:
    tags = {
        coding: web.get(f"{REALM}a.txt", **{"Accept-Encoding": coding}).headers["etag"]
        for coding in ("identity", *DECODERS)
    }
    assert len(set(tags.values())) == 4
    for coding, tag in tags.items():
        for other in tags:
            status = web.get(
                f"{REALM}a.txt", **{"Accept-Encoding": other, "If-None-Match": tag}
            ).status
            assert status == (304 if coding == other else 200), (coding, other)


def test_a_range_is_a_part_of_the_uncoded_text(web: Web, realm: Any) -> None:
    coded = web.get(f"{REALM}a.txt", **{"Accept-Encoding": "br"})
    asked = {"Accept-Encoding": "br", "Range": "bytes=2-5"}
    part = web.get(f"{REALM}a.txt", **asked)
    assert (part.status, part.body) == (206, TEXT[2:6])
    assert "content-encoding" not in part.headers
    assert "accept-ranges" not in coded.headers
    # A range is a part of the uncoded text. The ETag in If-Range is the coded text's ETag, so the
    # client gets the whole text from the beginning.
    whole = web.get(f"{REALM}a.txt", **asked, **{"If-Range": coded.headers["etag"]})
    assert (whole.status, whole.body) == (200, TEXT)


def test_a_write_may_name_the_etag_of_a_coded_read(web: Web, realm: Any, owner: Any) -> None:
    tag = web.get(f"{REALM}a.txt", SOURCE, **{"Accept-Encoding": "gzip"}).headers["etag"]
    login = make.realm_login(realm, "ada")
    for status in (204, 412):
        sent = web.upload(f"{REALM}a.txt", b"another text", {**login, "If-Match": tag})
        assert sent.status == status, "the second upload's If-Match is outdated"


def test_a_coded_body_is_made_once_and_counts_in_the_cache(
    web: Web, realm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Coding] = []

    def counted(data: bytes, coding: Coding) -> bytes:
        made.append(coding)
        return compressed(data, coding)

    monkeypatch.setattr(answers, "compressed", counted)
    cache = answers.caches()[Variant.MODULE]
    web.get(f"{REALM}a.txt")
    held = web.get(f"{REALM}a.txt").body
    sizes = [cache.size]
    for _ in range(3):
        # The first request of the loop adds the coded body to the cached answer. The second request
        # adds a complete response, which later requests get.
        held = web.get(f"{REALM}a.txt", **{"Accept-Encoding": "zstd"}).body
        sizes.append(cache.size)
    assert made == [Coding.ZSTD]
    assert sizes[1] - sizes[0] >= len(held)
    assert sizes[2] > sizes[1]
    assert sizes[3] == sizes[2]


def test_two_concurrent_requests_for_a_coding_compress_once(
    web: Web, realm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Coding] = []
    both_came = threading.Barrier(2, timeout=PATIENCE)

    def counted(data: bytes, coding: Coding) -> bytes:
        made.append(coding)
        return compressed(data, coding)

    def met(header: str) -> Coding | None:
        both_came.wait()
        return preferred(header)

    web.get(f"{REALM}a.txt")
    monkeypatch.setattr(answers, "compressed", counted)
    monkeypatch.setattr(routes, "preferred", met)
    asked = {"Accept-Encoding": "zstd"}
    both = [in_thread(web.get, f"{REALM}a.txt", **asked) for _ in range(2)]
    assert {each.result(PATIENCE).headers["content-encoding"] for each in both} == {"zstd"}
    assert made == [Coding.ZSTD]


def test_a_written_file_is_compressed_anew(web: Web, realm: Any) -> None:
    asked = {"Accept-Encoding": "br"}
    before = web.get(f"{REALM}a.txt", **asked)
    make.write_paths(realm, {"a.txt": TEXT.upper()})
    after = web.get(f"{REALM}a.txt", **asked)
    assert brotli.decompress(after.body) == TEXT.upper()
    assert after.headers["etag"] != before.headers["etag"]


def test_head_has_the_headers_of_the_coded_get(web: Web, realm: Any) -> None:
    asked = {"Accept-Encoding": "br"}
    web.get(f"{REALM}a.txt", **asked)
    # HEAD is the first cache hit, so it makes the complete response that the GET below gets too.
    head = web.request("HEAD", f"{REALM}a.txt", headers=asked)
    get = web.get(f"{REALM}a.txt", **asked)
    assert (head.body, brotli.decompress(get.body)) == (b"", TEXT)
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
