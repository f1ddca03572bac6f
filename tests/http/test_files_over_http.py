"""Files of realms over HTTP: reading, writing, caching, and who may."""

import gzip
import json
import mimetypes
import threading
import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from notifications.board import Board, now_ns
from notifications.emit import local_board
from notifications.listener import Listener, listen_connection
from realms.access.auth import OPERATOR, realm_token
from realms.models import FileVersion, Realm, RealmPermission
from reindex.reading.pins import PIN_HEADER, Pin, sign
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.web import API, ORIGIN, SOURCE, Web, everything

PAGE = "http://ada.localhost:4201/"
CARD = "application/vnd.card+json"


@pytest.fixture
def ada(source: Realm) -> dict[str, str]:
    """The header of ada's token for her realm."""
    return make.realm_login(source, "ada")


@pytest.fixture
def private(owner: Any) -> Realm:
    """A realm that only ada may read."""
    return make.source(f"{ORIGIN}/ada/private/", owner, make.SITE, public=False)


@pytest.fixture
def listening(web: Web) -> Iterator[Listener]:
    """A real listener on the board of `web`, as the sidecar runs it."""
    listener = Listener(
        replica="test", board=local_board(), connect=listen_connection, bound_seconds=2
    )
    thread = threading.Thread(target=listener.run, name="listener")
    thread.start()
    wait_until(local_board().live, "the listener live")
    yield listener
    listener.stop()
    thread.join()


# --- Reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("a.tsx", "text/typescript"),
        ("a.ts", "text/typescript"),
        ("a.jsx", "text/jsx"),
        ("a.js", "text/javascript"),
        ("a.gts", "text/typescript+glimmer"),
        ("a.gjs", "text/javascript+glimmer"),
        ("a.json", "application/json"),
        ("a.md", "text/markdown"),
        ("a.css", "text/css"),
        ("a.html", "text/html"),
        ("a.svg", "image/svg+xml"),
        ("A.PNG", "image/png"),
        ("a.webp", "image/webp"),
        ("a.xyzzy", "application/octet-stream"),
        ("README", "application/octet-stream"),
    ],
)
def test_a_source_is_answered_as_it_was_stored_under_a_truthful_type(
    web: Web, owner: Any, path: str, content_type: str
) -> None:
    data = b"export const a = 1;\xff\x00"
    realm = make.source(f"{ORIGIN}/ada/site/", owner, {path: data})
    answer = web.get(realm.url + path, SOURCE)
    assert (answer.status, answer.body) == (200, data)
    told = answer.headers
    assert told["content-type"] == content_type
    assert told["content-length"] == str(len(data))
    version = FileVersion.objects.get(realm=realm)
    assert told["etag"] == f'"{version.blob_id}:source"'
    assert told["x-realm-generation"] == "2"
    assert told["x-boxel-realm-url"] == realm.url
    assert told["x-boxel-realm-public-readable"] == "true"
    assert told["vary"] == "Accept"
    assert "last-modified" in told
    assert "x-created" in told
    image = content_type.startswith("image/")
    age = "max-age=60, must-revalidate" if image else "max-age=0"
    assert told["cache-control"] == f"public, {age}"


TYPES: dict[str, tuple[bytes, str]] = {
    "a.tsx": (b"let a;", "text/typescript; charset=utf-8"),
    "a.css": ("/* ä */".encode(), "text/css; charset=utf-8"),
    "a.html": (b"", "text/html; charset=utf-8"),
    "a.csv": (b"a,b", "text/csv; charset=utf-8"),
    "a.md": ("ä".encode("latin-1"), "text/markdown"),
    "a.txt": ("ä".encode("utf-16"), "text/plain"),
    "a.svg": (b"<svg/>", "image/svg+xml"),
    "a.xml": (b"<a/>", "application/xml"),
    "a.webmanifest": (b"{}", "application/manifest+json"),
    "a.wasm": (b"\0asm", "application/wasm"),
    "a.woff2": (b"wOF2", "font/woff2"),
    "a.mjs": (b"let a;", "text/javascript; charset=utf-8"),
    "a.m4a": (b"", "audio/mp4"),
    "a.pdf": (b"%PDF", "application/pdf"),
    "a.zip": (b"PK", "application/zip"),
    "a.css.gz": (b"\x1f\x8b", "application/gzip"),
    "a.tar.gz": (b"\x1f\x8b", "application/gzip"),
    "a.TGZ": (b"\x1f\x8b", "application/gzip"),
    "a.html.br": (b"x", "application/octet-stream"),
    "a.svg.gz": (b"\x1f\x8b", "application/gzip"),
    "a.svgz": (b"\x1f\x8b", "application/gzip"),
    "a.js.zst": (b"x", "application/zstd"),
    ".html": (b"x", "application/octet-stream"),
}


def test_a_content_type_is_of_the_stored_bytes_on_every_machine(
    web: Web, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_: ("x/by-machine", None))
    files = {path: data for path, (data, _) in TYPES.items()}
    realm = make.source(f"{ORIGIN}/ada/site/", owner, files)
    answers = {path: web.get(realm.url + path, SOURCE) for path in TYPES}
    told = {path: (each.body, each.headers["content-type"]) for path, each in answers.items()}
    assert told == TYPES
    assert not any("content-encoding" in each.headers for each in answers.values())


def test_a_picture_that_is_stored_gzipped_is_shown_as_a_picture(
    web: Web, live: None, owner: Any
) -> None:
    packed = gzip.compress(b"<svg/>")
    realm = make.source(f"{ORIGIN}/ada/site/", owner, {"a.svgz": packed, "plain.svgz": b"<svg/>"})
    for cache in ("miss", "hit"):
        answer = web.get(f"{realm.url}a.svgz", "image/*")
        assert (answer.cache, answer.body) == (cache, packed)
        assert answer.headers["content-type"] == "image/svg+xml"
        assert answer.headers["content-encoding"] == "gzip"
        plain = web.get(f"{realm.url}plain.svgz", "image/*")
        assert plain.headers["content-type"] == "image/svg+xml"
        assert "content-encoding" not in plain.headers


def test_what_authors_wrote_never_runs_at_the_origin_of_the_admin(web: Web, source: Realm) -> None:
    make.write(source, page__html=b"<script>alert(1)</script>")
    make.publish(source, PAGE)
    for accept in ("text/html", "*/*", SOURCE):
        answer = web.get(f"{source.url}page.html", accept)
        assert answer.headers["content-security-policy"].startswith("sandbox")
        assert "allow-scripts" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        elsewhere = web.get(f"{PAGE}page.html", accept)
        assert "content-security-policy" not in elsewhere.headers
        assert elsewhere.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["ä/ö ü.md", "日本語.md", "100%.md", "a%20b.md", "a&b=c;d.md", "\U0001f4a1.md"]
)
def test_a_file_of_any_name_is_written_read_and_deleted(
    web: Web, live: None, source: Realm, ada: dict[str, str], path: str
) -> None:
    url = source.url + quote(path)
    assert web.upload(url, b"text", ada).status == 204
    assert FileVersion.objects.filter(path=path).exists()
    assert [web.get(url, SOURCE).body for _ in range(2)] == [b"text", b"text"]
    assert web.get(url, SOURCE).cache == "hit"
    assert web.request("DELETE", url, accept=SOURCE, headers=ada).status == 204
    assert web.get(url, SOURCE).status == 404


def test_an_extensionless_source_redirects_to_the_first_existing_file(web: Web, owner: Any) -> None:
    names = [f"deep/it em{extension}" for extension in (".tsx", ".ts", ".jsx", ".js", ".json")]
    realm = make.source(f"{ORIGIN}/ada/site/", owner, dict.fromkeys(names, b"export {};"))
    for name in names:
        for method in ("GET", "HEAD"):
            answer = web.request(method, f"{realm.url}deep/it%20em", accept=SOURCE)
            assert answer.status == 302
            assert answer.headers["location"] == f"/ada/site/{quote(name)}"
        make.remove(realm, name)
    assert web.get(f"{realm.url}deep/it%20em", SOURCE).status == 404
    make.write_paths(realm, {"hello.test.tsx": b"", "a.js.ts": b"", "plain": b"x", "plain.ts": b""})
    assert web.get(f"{realm.url}hello.test", SOURCE).headers["location"].endswith("/hello.test.tsx")
    assert web.get(f"{realm.url}a.js", SOURCE).status == 404
    assert web.get(f"{realm.url}plain", SOURCE).body == b"x"


@pytest.mark.parametrize(
    "accept", ["*/*", "text/javascript", "image/*,*/*;q=0.8", "application/json"]
)
@pytest.mark.parametrize("path", ["person.tsx", "person"])
def test_a_module_is_answered_as_javascript_at_once_by_any_of_its_names(
    web: Web, source: Realm, path: str, accept: str
) -> None:
    answer = web.get(source.url + path, accept)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["x-boxel-canonical-path"] == f"{source.url}person.tsx"
    assert answer.headers["cache-control"] == "public, max-age=0"
    assert answer.headers["etag"].endswith(':module"')
    assert "class Person extends Card" in answer.text
    assert "fields = {" in answer.text


def test_an_asset_is_answered_raw_whatever_is_accepted(web: Web, source: Realm) -> None:
    for accept in ("*/*", "image/png", "text/html,*/*", "application/json", SOURCE):
        answer = web.get(f"{source.url}dot.png", accept)
        assert (answer.status, answer.body) == (200, make.SITE["dot.png"])
        assert answer.headers["content-type"] == "image/png"
    assert web.get(f"{source.url}index.json", "application/json").body == make.SITE["index.json"]


def test_a_module_with_a_syntax_error_says_where_it_is(web: Web, live: None, source: Realm) -> None:
    make.write(source, broken__tsx=b"export const a = 1;\nexport const b = <;\n")
    for cache in ("miss", "hit"):
        answer = web.get(f"{source.url}broken")
        assert (answer.status, answer.cache) == (406, cache)
        assert answer.headers["content-type"] == API
        (error,) = json.loads(answer.text)["errors"]
        assert error["status"] == 406
        assert error["id"] == f"{source.url}broken.tsx"
        assert "broken.tsx:2:" in error["message"]
        assert "/tmp" not in error["message"]
    assert web.get(f"{source.url}broken.tsx", SOURCE).status == 200
    make.write(source, broken__tsx=b"export const b = 2;\n")
    assert web.get(f"{source.url}broken").status == 200


def test_a_module_that_is_not_text_says_so(web: Web, source: Realm) -> None:
    make.write(source, binary__ts=b"\xff\xfe")
    answer = web.get(f"{source.url}binary.ts")
    assert answer.status == 406
    assert "not valid UTF-8" in answer.text


def test_a_missing_file_is_told_as_json(web: Web, source: Realm) -> None:
    for accept in ("*/*", SOURCE):
        answer = web.get(f"{source.url}none.ts", accept)
        assert answer.status == 404
        (error,) = json.loads(answer.text)["errors"]
        assert (error["status"], error["title"]) == (404, "Not Found")
        assert f"{source.url}none.ts" in error["message"]


def test_a_large_file_and_an_empty_one_come_back_whole(
    web: Web, live: None, source: Realm, ada: dict[str, str]
) -> None:
    for name, data in {"large.bin": bytes(range(256)) * 2000, "empty.md": b""}.items():
        assert web.upload(source.url + name, data, ada).status == 204
        assert [web.get(source.url + name, SOURCE).body for _ in range(2)] == [data, data]
        assert web.get(source.url + name, SOURCE).cache == "hit"


def test_a_head_tells_what_a_get_would_without_the_body(web: Web, source: Realm) -> None:
    for accept in (SOURCE, "*/*"):
        for path in ("person", "index.json", "dot.png", "none"):
            get = web.request("GET", source.url + path, accept=accept)
            head = web.request("HEAD", source.url + path, accept=accept)
            assert head.status == get.status
            assert head.body == b""
            different = {"date"}
            assert {k: v for k, v in head.headers.items() if k not in different} == {
                k: v for k, v in get.headers.items() if k not in different
            }


# --- Conditional requests ----------------------------------------------------------------------


@pytest.mark.parametrize("accept", [SOURCE, "*/*"])
@pytest.mark.parametrize("path", ["person.tsx", "index.json", "dot.png"])
def test_a_client_that_has_the_content_is_told_so(
    web: Web, live: None, source: Realm, path: str, accept: str
) -> None:
    etag = web.get(source.url + path, accept).headers["etag"]
    for _ in ("from the cache", "and past it"):
        for known in (etag, f"W/{etag}", "*", f'"x", {etag}', f'"a,b" , W/{etag}, "c"'):
            answer = web.get(source.url + path, accept, **{"If-None-Match": known})
            assert (answer.status, answer.body) == (304, b""), known
            assert answer.headers["etag"] == etag
            assert "cache-control" in answer.headers
            assert "last-modified" in answer.headers
        for unknown in (
            '"x"',
            etag.strip('"'),
            etag.replace(":", ";"),
            etag.upper(),
            "rubbish",
            '"',
        ):
            answer = web.get(source.url + path, accept, **{"If-None-Match": unknown})
            assert answer.status == 200, unknown
        local_board().bump_epoch()


def test_no_content_is_known_where_there_is_none(web: Web, source: Realm) -> None:
    assert web.get(f"{source.url}none.md", SOURCE, **{"If-None-Match": "*"}).status == 404


def test_two_writes_in_one_second_have_different_etags(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    """An ETag is of the content, so no clock is too coarse for it."""
    url = f"{source.url}quick.md"
    etags = set()
    for text in (b"one", b"two", b"three"):
        web.upload(url, text, ada)
        etags.add(web.get(url, SOURCE).headers["etag"])
    assert len(etags) == 3


# --- Writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (SOURCE, "text/plain;charset=UTF-8"),
        (SOURCE, SOURCE),
        ("*/*", SOURCE),
        ("*/*", "application/octet-stream"),
        ("*/*", "Application/Octet-Stream; charset=binary"),
        ("text/plain", "application/octet-stream"),
    ],
)
def test_an_upload_is_routed_by_accept_or_by_content_type(
    web: Web, source: Realm, ada: dict[str, str], accept: str, content_type: str
) -> None:
    headers = {**ada, "Content-Type": content_type}
    data = bytes(range(256))
    answer = web.upload(f"{source.url}new/file.bin", data, headers, accept)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["x-realm-generation"] == "3"
    assert answer.headers["x-boxel-realm-url"] == source.url
    got = web.get(f"{source.url}new/file.bin", SOURCE)
    assert got.body == data
    assert got.headers["last-modified"] == answer.headers["last-modified"]
    assert got.headers["x-created"] == answer.headers["x-created"]


def test_a_json_file_that_is_no_card_is_stored_whatever_is_in_it(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    for data in (
        b"[" * 100_000,
        b"9" * 100_000,
        b'{"data": "\\ud800"}',
        b"\xff",
        b"{",
        b'{"data": []}',
    ):
        assert web.upload(f"{source.url}odd.json", data, ada).status == 204
        assert web.get(f"{source.url}odd.json", SOURCE).body == data


def test_writing_the_same_content_changes_nothing(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    before = everything()
    for name in ("index.json", "dot.png"):
        first = web.get(source.url + name, SOURCE)
        answer = web.upload(source.url + name, make.SITE[name], ada)
        assert answer.status == 204
        assert answer.headers["last-modified"] == first.headers["last-modified"]
        assert answer.headers["x-realm-generation"] == "2"
    assert everything() == before


def test_a_change_keeps_when_the_file_was_made(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    made = FileVersion.objects.get(realm=source, path="index.json").created_at
    assert web.upload(f"{source.url}index.json", b"{}", ada).status == 204
    now = FileVersion.objects.get(realm=source, path="index.json", until_generation=None)
    assert now.created_at == made
    assert now.modified_at > made


def test_a_delete_means_the_file_that_a_get_would_find(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    answer = web.request("DELETE", f"{source.url}person", accept=SOURCE, headers=ada)
    assert (answer.status, answer.headers["x-realm-generation"]) == (204, "3")
    assert web.get(f"{source.url}person.tsx", SOURCE).status == 404
    assert web.request("DELETE", f"{source.url}person", accept=SOURCE, headers=ada).status == 404
    for path in ("", "index.json/", "post/"):
        answer = web.request("DELETE", source.url + path, accept=SOURCE, headers=ada)
        assert answer.status in (400, 404)
    assert web.get(f"{source.url}index.json", SOURCE).status == 200


def test_the_same_bytes_under_another_name_are_answered_under_that_name(
    web: Web, live: None, source: Realm
) -> None:
    code = b"export const a = 1;"
    make.write(source, mod__tsx=code)
    assert web.get(f"{source.url}mod").headers["x-boxel-canonical-path"].endswith("/mod.tsx")
    make.remove(source, "mod.tsx")
    make.write(source, mod__ts=code)
    assert web.get(f"{source.url}mod").headers["x-boxel-canonical-path"].endswith("/mod.ts")


# --- Who may -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["index.json", "index", "person", "none.md", "", "dot.png"])
def test_a_private_realm_tells_a_stranger_nothing_not_even_what_exists(
    web: Web, live: None, private: Realm, method: str, path: str
) -> None:
    """HEAD needs the same permissions as GET, and neither redirects nor tells an ETag first."""
    ada = make.realm_login(private, "ada")
    for accept in (SOURCE, "*/*", "text/html", API, "application/json"):
        web.request(method, private.url + path, accept=accept, headers=ada)
        for known in (None, "*"):
            answer = web.request(
                method, private.url + path, accept=accept, headers={"If-None-Match": known}
            )
            assert answer.status == 401
            assert answer.headers["x-boxel-realm-url"] == private.url
            assert not {"etag", "location", "last-modified", "x-realm-generation"} & set(
                answer.headers
            )


def test_a_token_opens_a_private_realm_and_no_shared_cache_may_keep_it(
    web: Web, live: None, private: Realm
) -> None:
    token = make.realm_login(private, "ada")["Authorization"]
    for header in (token, f"Bearer {token}", f"bearer  {token}"):
        answer = web.get(f"{private.url}index.json", SOURCE, Authorization=header)
        assert (answer.status, answer.body) == (200, make.SITE["index.json"])
        assert answer.headers["cache-control"].startswith("private")
        assert "x-boxel-realm-public-readable" not in answer.headers
    assert answer.cache == "hit"


def test_the_operator_may_do_everything_whatever_the_token_claims(web: Web, private: Realm) -> None:
    operator = {"Authorization": realm_token(OPERATOR, f"{ORIGIN}/elsewhere/", [], 60)}
    assert web.get(f"{private.url}index.json", SOURCE, **operator).status == 200
    assert web.upload(f"{private.url}new.md", b"x", operator).status == 204


def test_a_reader_may_not_write_and_a_writer_may(web: Web, source: Realm) -> None:
    make.user("bob")
    reader = make.realm_login(source, "bob")
    url = f"{source.url}new.md"
    assert web.upload(url, b"x", reader).status == 403
    assert (
        web.request("DELETE", f"{source.url}ada.json", accept=SOURCE, headers=reader).status == 403
    )
    row = RealmPermission.objects.create(
        realm=source, account=make.account("bob"), read=True, write=True
    )
    assert web.upload(url, b"x", reader).status == 401, "its permissions are out of date"
    assert web.upload(url, b"x", make.realm_login(source, "bob")).status == 204
    row.delete()
    assert web.upload(url, b"y", make.realm_login(source, "bob")).status == 403


def test_everyone_may_write_where_everyone_was_given_that(web: Web, source: Realm) -> None:
    RealmPermission.objects.filter(realm=source, audience="everyone").update(write=True)
    for headers in ({}, {"Authorization": "rubbish"}):
        assert web.upload(f"{source.url}new.md", b"x", headers).status == 204


def test_those_who_are_signed_in_may_read_what_is_shared_with_them(
    web: Web, private: Realm
) -> None:
    RealmPermission.objects.create(realm=private, audience="signed-in", read=True)
    make.user("bob")
    url = f"{private.url}index.json"
    assert web.get(url, SOURCE).status == 401
    assert web.get(url, SOURCE, **make.realm_login(private, "bob")).status == 200
    assert web.get(url, SOURCE, **make.realm_login(private, "nobody")).status == 403


def test_revoking_everyone_takes_effect_at_once_on_what_is_cached(
    web: Web, source: Realm, listening: Listener
) -> None:
    """Who may read is part of the cached answer, and moves with it on every replica."""
    url = f"{source.url}person"
    web.get(url)
    assert web.get(url).cache == "hit"
    RealmPermission.objects.filter(realm=source, audience="everyone").delete()
    assert listening.wait_for_watermark(now_ns(), 10)
    assert web.get(url).status == 401
    assert (
        web.get(url, **make.realm_login(source, "ada"))
        .headers["cache-control"]
        .startswith("private")
    )
    RealmPermission.objects.create(realm=source, audience="everyone", read=True)
    assert listening.wait_for_watermark(now_ns(), 10)
    assert web.get(url).status == 200


# --- Caching -----------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [SOURCE, "*/*"])
@pytest.mark.parametrize("path", ["person", "index.json", "dot.png", "none.md"])
def test_a_second_read_is_a_hit_until_the_file_changes(
    web: Web, live: None, source: Realm, ada: dict[str, str], path: str, accept: str
) -> None:
    """What is loaded is answered again without a load, until its own path changes."""
    caches = [web.get(source.url + path, accept).cache for _ in range(3)]
    assert caches == ["miss", "hit", "hit"]
    web.upload(f"{source.url}other.md", b"x", ada)
    assert web.get(source.url + path, accept).cache == "hit"
    name = "person.tsx" if path == "person" else path
    web.upload(source.url + name, b"export const changed = 1;", ada)
    answer = web.get(source.url + path, accept)
    assert answer.cache == "miss"
    assert "changed" in web.get(source.url + name, accept).text
    assert web.get(source.url + path, accept).cache == "hit"


def test_without_a_sidecar_every_read_is_a_miss(web: Web, source: Realm) -> None:
    """A replica by itself, with nobody who coordinates it, serves all the same."""
    assert [web.get(f"{source.url}person").cache for _ in range(3)] == ["miss"] * 3


def test_no_cache_reads_the_registry_whatever_is_cached(
    web: Web, live: None, source: Realm
) -> None:
    """It asks the database itself, whatever this replica has heard."""
    url = f"{source.url}index.json"
    web.get(url, SOURCE)
    assert web.get(f"{url}?noCache", SOURCE).cache == "miss"
    assert web.get(f"{url}?noCache=false", SOURCE).cache == "miss"
    web.get(url, SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        # Changed by somebody of whom this replica hears nothing.
        patch.setattr(Board, "bump", lambda board, keys: None)
        make.write(source, index__json=b'{"new": 1}')
    assert web.get(url, SOURCE).body == make.SITE["index.json"]
    assert web.get(f"{url}?noCache", SOURCE).body == b'{"new": 1}'


def test_an_answer_has_its_generation_and_at_least_the_requested_one(
    web: Web, live: None, source: Realm
) -> None:
    url = f"{source.url}index.json"
    assert web.get(url, SOURCE).headers["x-realm-generation"] == "2"
    make.write(source, other__md=b"x")
    assert web.get(url, SOURCE).headers["x-realm-generation"] == "2", "a hit holds since 2"
    pinned = web.get(url, SOURCE, **{"X-Realm-Min-Generation": "3"})
    assert (pinned.status, pinned.headers["x-realm-generation"]) == (200, "3")
    assert web.get(url, SOURCE, **{"X-Realm-Min-Generation": "3"}).cache == "hit"
    beyond = web.get(url, SOURCE, **{"X-Realm-Min-Generation": "4"})
    assert beyond.status == 409
    assert "generation 4 has not been committed" in beyond.text


def test_a_page_beyond_what_is_rendered_is_not_ready(web: Web, source: Realm) -> None:
    done = make.publish(source, PAGE)
    answer = web.get(PAGE, "text/html", **{"X-Realm-Min-Generation": str(done.generation)})
    assert answer.status == 503
    assert answer.headers["x-boxel-not-ready"] == "prerender-html"


# --- Which realm -------------------------------------------------------------------------------


def test_a_realm_without_its_slash_leads_to_the_realm(
    web: Web, source: Realm, private: Realm
) -> None:
    for realm in (source, private):
        for method in ("GET", "HEAD"):
            answer = web.request(method, realm.url.removesuffix("/"))
            assert (answer.status, answer.headers["location"]) == (302, realm.url)
        answer = web.get(f"{realm.url.removesuffix('/')}?a=b&c=%20", SOURCE)
        assert (answer.status, answer.headers["location"]) == (302, f"{realm.url}?a=b&c=%20")


def test_the_longest_realm_wins_and_a_new_one_shadows_cached_answers(
    web: Web, live: None, source: Realm, owner: Any
) -> None:
    """Which realm a URL lies in never depends on the order in which realms were made."""
    make.write_paths(source, {"inner/a.md": b"outer", "inner/b.md": b"outer"})
    urls = [f"{source.url}inner/{name}" for name in ("a.md", "b.md")]
    for url in urls:
        web.get(url)
        assert (web.get(url).cache, web.get(url).body) == ("hit", b"outer")
    inner = make.source(f"{source.url}inner/", owner, {"a.md": b"inner"})
    assert web.get(urls[0]).body == b"inner"
    assert web.get(urls[1]).status == 404
    assert web.get(urls[0]).headers["x-boxel-realm-url"] == inner.url
    assert web.upload(urls[1], b"new", make.realm_login(source, "ada")).status == 401
    assert web.upload(urls[1], b"new", make.realm_login(inner, "ada")).status == 204
    assert web.get(urls[1]).body == b"new"
    inner.delete()
    local_board().bump_epoch()
    assert [web.get(url).body for url in urls] == [b"outer", b"outer"]


def test_a_replicas_address_answers_for_every_realm_of_the_public_origin(
    web: Web, source: Realm
) -> None:
    for host in (f"127.0.0.1:{web.port}", f"localhost:{web.port}", "LOCALHOST:4201"):
        answer = web.request("GET", f"{source.url}ada.json", headers={"Host": host})
        assert answer.status == 200
        assert answer.headers["x-boxel-realm-url"] == source.url


# --- Composition -------------------------------------------------------------------------------

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("written", "asked"), [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)], ids=["NFD", "NFC"]
)
@pytest.mark.parametrize(
    "pattern",
    [
        "{}.json",
        "{}/dot.png",
        "a/{}.ts",
        "\u1e9b\u0323{}",
        "\u1112\u1161\u11ab{}",
        "\u212b\u212a{}",
        "\u0958{}",
    ],
)
def test_a_path_is_one_file_however_its_characters_are_composed(
    web: Web, source: Realm, ada: dict[str, str], pattern: str, written: str, asked: str
) -> None:
    there, here = (source.url + quote(pattern.format(each)) for each in (written, asked))
    kept = unicodedata.normalize("NFC", pattern.format(written))
    assert web.upload(there, b"1", ada).status == 204
    assert web.upload(here, b"2", ada).status == 204
    stored = FileVersion.objects.filter(realm=source, until_generation=None)
    assert set(stored.values_list("path", flat=True)) - set(make.SITE) == {kept}
    for _ in range(2):
        assert [web.get(url, SOURCE).body for url in (there, here)] == [b"2", b"2"]
    assert web.request("HEAD", here).status == 200
    listed = json.loads(web.get(f"{source.url}_mtimes", API).text)["data"]["attributes"]["mtimes"]
    assert source.url + quote(kept) in listed
    assert web.request("DELETE", here, accept=SOURCE, headers=ada).status == 204
    assert web.get(there, SOURCE).status == 404


def test_a_card_is_made_changed_and_deleted_under_any_composition(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    there, here = (f"{source.url}Post/{quote(each)}" for each in (COMPOSED, DECOMPOSED))
    sent = {"type": "card", "lid": DECOMPOSED, "attributes": {"title": "One"},
            "meta": {"adoptsFrom": {"module": "./post", "name": "Post"}}}  # fmt: skip

    def ask(method: str, url: str, data: Any = None) -> int:
        body = None if data is None else json.dumps({"data": data}).encode()
        headers = {**ada, "Content-Type": CARD}
        return web.request(method, url, accept=CARD, body=body, headers=headers).status

    assert ask("POST", source.url, sent) == 201
    assert ask("POST", source.url, {**sent, "lid": COMPOSED}) == 409
    assert ask("GET", there) == ask("GET", here) == 200
    assert ask("PATCH", here, {"type": "card", "attributes": {"title": "Two"}}) == 200
    assert ask("DELETE", here) == 204
    assert ask("GET", there) == 404


def test_a_pinned_read_finds_a_file_under_any_composition(web: Web, source: Realm) -> None:
    generation = make.write_paths(source, {f"{COMPOSED}.json": b"1"})
    pin = {PIN_HEADER: sign(Pin(source.url, generation))}
    for name in (COMPOSED, DECOMPOSED):
        for _ in range(2):
            answer = web.get(f"{ORIGIN}/_at/{quote(name)}.json", **pin)
            assert (answer.status, answer.body) == (200, b"1")
    paths = [f"{COMPOSED}.json", f"{DECOMPOSED}.json", "missing"]
    told = web.post(f"{ORIGIN}/_at/", {"paths": paths}, pin)
    lines = [json.loads(line) for line in told.text.splitlines()]
    assert [(each["path"], each["content"]) for each in lines] == list(
        zip(paths, ["1", "1", None], strict=True)
    )
