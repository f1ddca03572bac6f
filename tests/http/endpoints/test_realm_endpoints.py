"""Tests the permissions, methods and URLs of every endpoint of a realm."""

from typing import Any

import pytest

from realms.models import Realm
from tests.support import make
from tests.support.clients.telling import told
from tests.support.web import API, ORIGIN, SOURCE, Web

PAGE = "http://ada.localhost:4201/"

READ = ("_info", "_mtimes", "_publishability", "")


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_private_realm_answers_its_readers_only(
    web: Web, private: Realm, path: str, method: str
) -> None:
    url = private.url + path
    ada = make.realm_login(private, "ada")
    make.user("bob")
    assert web.request(method, url, accept=API).status == 401
    bob = make.realm_login(private, "bob")
    assert web.request(method, url, accept=API, headers=bob).status == 403
    answer = web.request(method, url, accept=API, headers=ada)
    assert answer.status == 200
    assert "x-boxel-realm-public-readable" not in answer.headers
    assert bool(answer.body) == (method == "GET")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("_info", "GET, QUERY, HEAD, OPTIONS"),
        ("_mtimes", "GET, HEAD, OPTIONS"),
        ("_publishability", "GET, HEAD, OPTIONS"),
        ("_definition", "GET, HEAD, OPTIONS"),
        ("_permissions", "GET, PATCH, HEAD, OPTIONS"),
        ("_session", "POST, OPTIONS"),
        ("_atomic", "POST, OPTIONS"),
        ("_readiness-check", "GET, HEAD, OPTIONS"),
        ("index.json", "GET, HEAD, POST, DELETE, OPTIONS"),
    ],
)
def test_a_405_lists_the_allowed_methods(web: Web, source: Realm, path: str, allow: str) -> None:
    answer = web.request("PUT", source.url + path, accept=API, body=b"{}")
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert web.get(f"{ORIGIN}/_publish-realm").headers["allow"] == "POST, OPTIONS"


def test_the_endpoints_answer_at_the_root_of_a_published_host(web: Web, source: Realm) -> None:
    make.publish(source, PAGE)
    for path, kind in (("_info", "realm-info"), ("_mtimes", "mtimes"),
                       ("_publishability", "realm-publishability"), ("", "directory")):  # fmt: skip
        assert told(web.get(PAGE + path, API), kind)["id"] == PAGE


def test_a_file_may_have_the_name_of_an_endpoint(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    for name in ("_info", "deep/_mtimes", "_atomic"):
        assert web.upload(source.url + name, b"text", ada).status == 204
        assert web.get(source.url + name, SOURCE).text == "text"
        assert web.request("DELETE", source.url + name, accept=SOURCE, headers=ada).status == 204


def test_an_inner_realm_url_without_its_slash_redirects(
    web: Web, live: None, source: Realm, owner: Any
) -> None:
    url = f"{source.url}inner"
    for accept in (SOURCE, "*/*", API):
        for _ in range(2):
            assert web.get(url, accept).status == 404
    inner = make.source(f"{url}/", owner, {"a.md": b"x"}, public=False)
    for accept in (SOURCE, "*/*", API, "text/html"):
        for _ in range(2):
            answer = web.get(f"{url}?a=b", accept)
            assert (answer.status, answer.headers["location"]) == (302, f"{inner.url}?a=b")
    make.write_paths(source, {"inner": b"a file"})
    assert web.get(url, SOURCE).body == b"a file", "the inner realm hides a file"


def test_a_no_cache_read_drops_the_cached_answer(web: Web, live: None, source: Realm) -> None:
    url = f"{source.url}index.json"
    seen = [web.get(each, SOURCE).cache for each in (url, url, f"{url}?noCache", url, url)]
    assert seen == ["miss", "hit", "miss", "miss", "hit"]


def test_a_content_type_without_a_body_does_not_change_a_read(
    web: Web, live: None, source: Realm
) -> None:
    url = f"{source.url}_info"
    for content_type in (SOURCE, "application/octet-stream"):
        assert web.get(url, **{"Content-Type": content_type}).status == 200
        assert web.get(url).status == 200
