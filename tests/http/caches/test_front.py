"""Tests which cached answers the front (a WSGI layer before Django) may serve, and for how long."""

import zlib
from collections.abc import Callable
from typing import Any

import pytest

from realms.access.auth import Caller
from realms.access.permissions import change_permissions
from realms.models import Realm
from realms.publishing.publish import delete_realm, rollback_realm, unpublish_realm
from tests.support import make
from tests.support.web import ORIGIN, Web, vouch

SITE = "http://ada.localhost:4201/"
ADA = Caller("ada")
TEXT = b"A text that repeats itself. " * 200


@pytest.fixture
def source(web: Web, owner: Any) -> Realm:
    realm = make.source(f"{ORIGIN}/ada/site/", owner, {"a.txt": TEXT})
    vouch()
    return realm


#: The changes that must end a cached reply, by name. Before each change, the site is published with
#: the text "older" and then with the text "newer", each repeated 100 times. A value contains a
#: function that makes the change, and the text or the status that a request gets after the change.
CHANGES: dict[str, tuple[Callable[[Realm], object], bytes | int]] = {
    "a write to the source": (lambda it: make.write_paths(it, {"a.txt": TEXT}), b"newer"),
    "a publish": (
        lambda it: (make.write_paths(it, {"a.txt": TEXT}), make.publish(it, SITE)), TEXT,
    ),
    "a rollback": (lambda it: rollback_realm(SITE, ADA), b"older"),
    "an unpublish": (lambda it: unpublish_realm(SITE, ADA), 404),
    "its deletion": (lambda it: delete_realm(it.url, ADA), 404),
    "another source": (
        lambda it: make.publish(
            make.source(f"{ORIGIN}/ada/other/", it.owner, {"a.txt": b"other" * 100}), SITE
        ),
        b"other" * 100,
    ),
    "permissions taken back": (
        lambda it: change_permissions(Realm.objects.get(url=SITE), {"*": []}), 401,
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_cached_reply_ends_when_its_answer_changes(web: Web, source: Realm, change: str) -> None:
    for text in (b"older" * 100, b"newer" * 100):
        make.write_paths(source, {"a.txt": text})
        make.publish(source, SITE)
    asked = {"Accept-Encoding": "gzip"}
    kept = [web.get(f"{SITE}a.txt", **asked) for _ in range(3)]
    assert [each.headers["x-boxel-cache"] for each in kept] == ["miss", "hit", "hit"]
    act, wanted = CHANGES[change]
    act(source)
    for _ in range(2):
        after = web.get(f"{SITE}a.txt", **asked)
        if isinstance(wanted, int):
            assert after.status == wanted
        else:
            text = zlib.decompress(after.body, wbits=31)
            assert text == (wanted if len(wanted) > 10 else wanted * 100)


def test_a_private_file_in_the_cache_is_only_for_its_readers(web: Web, owner: Any) -> None:
    realm = make.source(f"{ORIGIN}/ada/private/", owner, {"a.txt": TEXT}, public=False)
    vouch()
    url, login = f"{realm.url}a.txt", make.realm_login(realm, "ada")
    answers = [web.get(url, **login) for _ in range(3)]
    assert [each.headers["x-boxel-cache"] for each in answers] == ["miss", "hit", "hit"]
    assert {each.body for each in answers} == {TEXT}
    for headers in ({}, {"Accept-Encoding": "br"}, {"If-None-Match": answers[0].headers["etag"]},
                    {"Range": "bytes=0-3"}, make.login("bob")):  # fmt: skip
        for method in ("GET", "HEAD"):
            told = web.request(method, url, headers=headers)
            assert told.status == 401
            assert TEXT[:4] not in told.body


# --- Dependencies of an answer -----------------------------------------------------------------


def test_an_answer_is_kept_when_unrelated_files_change(web: Web, source: Realm) -> None:
    make.write_paths(source, {"note.ts": b"export const a = 1"})
    for name in ("a.txt", "note"):
        assert web.get(source.url + name).headers["x-boxel-cache"] == "miss"
    make.write_paths(source, {"a.txt.ts": b"export const b = 1", "note.js": b"export const c = 1"})
    for name in ("a.txt", "note"):
        assert web.get(source.url + name).headers["x-boxel-cache"] == "hit"


@pytest.mark.parametrize("name", ["note.tsx", "note"])
def test_a_new_file_that_is_found_first_replaces_an_answer(
    web: Web, source: Realm, name: str
) -> None:
    make.write_paths(source, {"note.ts": b"export const a = 1"})
    for _ in range(2):
        assert b"a = 1" in web.get(f"{source.url}note").body
    make.write_paths(source, {name: b"export const b = 2"})
    assert b"b = 2" in web.get(f"{source.url}note").body


def test_a_cached_file_in_a_folder_ends_when_its_realm_becomes_private(
    web: Web, source: Realm
) -> None:
    make.write_paths(source, {"folder/sub/a.txt": TEXT})
    url = f"{source.url}folder/sub/a.txt"
    for _ in range(2):
        assert web.get(url).body == TEXT
    change_permissions(source, {"*": []})
    assert web.get(url).status == 401


@pytest.mark.parametrize("path", ["a.txt", "folder/a.txt"])
def test_a_new_inner_realm_replaces_answers_of_its_folder(
    web: Web, source: Realm, path: str
) -> None:
    make.write_paths(source, {"folder/a.txt": TEXT, "a.txt": TEXT})
    for _ in range(2):
        assert web.get(f"{source.url}{path}").body == TEXT
    make.source(f"{source.url}folder/", source.owner, {"b.txt": TEXT})
    status = web.get(f"{source.url}{path}").status
    assert status == (200 if path == "a.txt" else 404)
