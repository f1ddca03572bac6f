"""Tests which realm answers a request. Of all realm URLs with which the requested URL begins, the
longest decides. A replica's own address stands for the public origin."""

from typing import Any

from notifications.emit import local_board
from realms.models import Realm
from tests.support import make
from tests.support.web import SOURCE, Web


def test_a_realm_url_without_its_slash_redirects_to_the_realm(
    web: Web, source: Realm, private: Realm
) -> None:
    for realm in (source, private):
        for method in ("GET", "HEAD"):
            answer = web.request(method, realm.url.removesuffix("/"))
            assert (answer.status, answer.headers["location"]) == (302, realm.url)
        answer = web.get(f"{realm.url.removesuffix('/')}?a=b&c=%20", SOURCE)
        assert (answer.status, answer.headers["location"]) == (302, f"{realm.url}?a=b&c=%20")


def test_the_longest_realm_url_wins_and_a_new_realm_hides_cached_answers(
    web: Web, live: None, source: Realm, owner: Any
) -> None:
    """The inner realm answers, even if the outer realm's answers were cached before the inner realm
    was created."""
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
