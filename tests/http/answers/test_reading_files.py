"""Reads files as source (as stored), as module (as JavaScript) and as asset (for example as image),
with and without the extension in the URL, and checks the content types."""

import gzip
import json
import mimetypes
from typing import Any
from urllib.parse import quote

import pytest

from realms.models import FileVersion, Realm
from tests.support import make
from tests.support.web import API, ORIGIN, SOURCE, Web

PAGE = "http://ada.localhost:4201/"


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
def test_a_source_is_served_as_stored_with_its_content_type(
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
    age = "max-age=60, must-revalidate, s-maxage=0" if image else "max-age=0"
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


def test_content_types_do_not_depend_on_the_machine(
    web: Web, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_: ("x/by-machine", None))
    files = {path: data for path, (data, _) in TYPES.items()}
    realm = make.source(f"{ORIGIN}/ada/site/", owner, files)
    answers = {path: web.get(realm.url + path, SOURCE) for path in TYPES}
    told = {path: (each.body, each.headers["content-type"]) for path, each in answers.items()}
    assert told == TYPES
    assert not any("content-encoding" in each.headers for each in answers.values())


def test_a_gzipped_svg_is_served_with_a_content_encoding(web: Web, live: None, owner: Any) -> None:
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


def test_author_html_is_sandboxed_at_the_public_origin(web: Web, source: Realm) -> None:
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
def test_a_module_is_served_as_javascript_under_each_of_its_names(
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


def test_an_asset_is_served_as_stored_for_every_accept_header(web: Web, source: Realm) -> None:
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


def test_a_module_that_is_not_utf_8_is_a_406(web: Web, source: Realm) -> None:
    make.write(source, binary__ts=b"\xff\xfe")
    answer = web.get(f"{source.url}binary.ts")
    assert answer.status == 406
    assert "not valid UTF-8" in answer.text


def test_a_missing_file_is_a_404_in_json(web: Web, source: Realm) -> None:
    for accept in ("*/*", SOURCE):
        answer = web.get(f"{source.url}none.ts", accept)
        assert answer.status == 404
        (error,) = json.loads(answer.text)["errors"]
        assert (error["status"], error["title"]) == (404, "Not Found")
        assert f"{source.url}none.ts" in error["message"]


def test_a_large_file_and_an_empty_file_are_read_back_whole(
    web: Web, live: None, source: Realm, ada: dict[str, str]
) -> None:
    for name, data in {"large.bin": bytes(range(256)) * 2000, "empty.md": b""}.items():
        assert web.upload(source.url + name, data, ada).status == 204
        assert [web.get(source.url + name, SOURCE).body for _ in range(2)] == [data, data]
        assert web.get(source.url + name, SOURCE).cache == "hit"


def test_a_head_has_the_headers_of_a_get_and_no_body(web: Web, source: Realm) -> None:
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
