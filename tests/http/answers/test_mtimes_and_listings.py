"""Tests a realm's endpoint `_mtimes`, which returns the time of each file's last change, and the
listings of folders."""

import time
from typing import Any

import pytest

from realms.models import Realm
from tests.support import make
from tests.support.clients.telling import attributes, told
from tests.support.web import API, ORIGIN, SOURCE, Web

PAGE = "http://ada.localhost:4201/"


def mtimes(web: Web, realm_url: str, **headers: str) -> dict[str, float]:
    answer = web.get(f"{realm_url}_mtimes", API, **headers)
    return dict(attributes(answer, "mtimes")["mtimes"])


def test_an_mtime_changes_only_with_its_file(web: Web, source: Realm, ada: dict[str, str]) -> None:
    make.write_paths(source, {"ä/ö ü?#.md": b"x"})
    before = mtimes(web, source.url)
    assert set(before) == {
        *(source.url + name for name in make.SITE), f"{source.url}%C3%A4/%C3%B6%20%C3%BC%3F%23.md"
    }  # fmt: skip
    assert all(time.time() - 60 < each < time.time() + 60 for each in before.values())
    web.upload(f"{source.url}index.json", make.SITE["index.json"], ada)
    assert mtimes(web, source.url) == before, "a write of the same content is no change"
    web.upload(f"{source.url}index.json", b"{}", ada)
    one = mtimes(web, source.url)
    web.upload(f"{source.url}index.json", b"[]", ada)
    two = mtimes(web, source.url)
    changed = f"{source.url}index.json"
    assert before.pop(changed) < one.pop(changed) < two.pop(changed), "even within one second"
    assert before == one == two


def test_a_published_realm_has_the_mtimes_of_its_published_files(web: Web, source: Realm) -> None:
    before = mtimes(web, source.url)
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}", new__md=b"x")
    shown = mtimes(web, PAGE)
    assert shown == {url.replace(source.url, PAGE): each for url, each in before.items()}


def test_files_made_by_tools_are_not_listed_and_can_be_read(web: Web, source: Realm) -> None:
    hidden = ["node_modules/a/b.js", "deep/.git/config", ".realm.json", ".template-lintrc.js"]
    make.write_paths(source, dict.fromkeys([*hidden, "deep/kept.md", ".gitignored"], b"x"))
    told_of = mtimes(web, source.url)
    assert not {source.url + path for path in hidden} & set(told_of)
    assert {f"{source.url}deep/kept.md", f"{source.url}.gitignored"} <= set(told_of)
    assert web.get(f"{source.url}{hidden[0]}", SOURCE).status == 200
    assert web.get(f"{source.url}node_modules/", API).status == 404


def test_the_mtimes_of_a_deleted_realm_are_a_404(web: Web, source: Realm) -> None:
    from realms.content import listing
    from realms.errors import NotFound

    Realm.objects.filter(pk=source.pk).delete()
    with pytest.raises(NotFound):
        listing.mtimes(source)
    assert web.get(f"{source.url}_mtimes", API).status == 404


def test_a_folder_lists_its_files_and_its_folders(web: Web, source: Realm) -> None:
    make.write_paths(source, {"deep/er/a.md": b"x", "deep/ö.md": b"x", "deeper.md": b"x"})
    root = told(web.get(source.url, API), "directory")
    assert root["id"] == source.url
    assert set(root["relationships"]) == {*make.SITE, "deep/", "deeper.md"}
    assert root["relationships"]["deep/"] == {
        "links": {"related": f"{source.url}deep/"}, "meta": {"kind": "directory"}
    }  # fmt: skip
    meta = root["relationships"]["index.json"]["meta"]
    assert meta["kind"] == "file"
    assert meta["lastModified"] == mtimes(web, source.url)[f"{source.url}index.json"]
    deep = told(web.get(f"{source.url}deep/", API), "directory")
    assert list(deep["relationships"]) == ["er/", "ö.md"]
    related = deep["relationships"]["ö.md"]["links"]["related"]
    assert related == f"{source.url}deep/%C3%B6.md"
    for none in ("dee/", "index.json/", "none/", "deep/er/a.md/"):
        assert web.get(source.url + none, API).status == 404
    assert web.get(f"{source.url}deep", API).status == 404


def test_an_empty_realm_has_an_empty_listing(web: Web, owner: Any) -> None:
    empty = make.source(f"{ORIGIN}/ada/empty/", owner, {})
    assert told(web.get(empty.url, API), "directory")["relationships"] == {}
    assert mtimes(web, empty.url) == {}
