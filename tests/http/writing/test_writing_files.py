"""Tests requests that write or delete files: which endpoint handles them, and what they change."""

import pytest

from realms.models import FileVersion, Realm
from tests.support import make
from tests.support.web import SOURCE, Web, everything


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


def test_a_json_file_that_is_not_a_card_is_stored_unchecked(
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


def test_a_change_keeps_the_files_time_of_creation(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    made = FileVersion.objects.get(realm=source, path="index.json").created_at
    assert web.upload(f"{source.url}index.json", b"{}", ada).status == 204
    now = FileVersion.objects.get(realm=source, path="index.json", until_generation=None)
    assert now.created_at == made
    assert now.modified_at > made


def test_a_delete_removes_the_file_that_a_get_would_find(
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


def test_the_same_bytes_under_another_name_have_that_canonical_path(
    web: Web, live: None, source: Realm
) -> None:
    code = b"export const a = 1;"
    make.write(source, mod__tsx=code)
    assert web.get(f"{source.url}mod").headers["x-boxel-canonical-path"].endswith("/mod.tsx")
    make.remove(source, "mod.tsx")
    make.write(source, mod__ts=code)
    assert web.get(f"{source.url}mod").headers["x-boxel-canonical-path"].endswith("/mod.ts")
