"""Tests that a private realm reveals nothing to strangers, and that all other callers may do only
what their permissions allow."""

import threading
from collections.abc import Iterator

import pytest

from notifications.board import now_ns
from notifications.emit import local_board
from notifications.listener import Listener, listen_connection
from realms.access.auth import OPERATOR, realm_token
from realms.models import Realm, RealmPermission
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.web import API, ORIGIN, SOURCE, Web


@pytest.fixture
def listening(web: Web) -> Iterator[Listener]:
    """Runs a listener, as the sidecar process of a replica does. The listener receives
    notifications of changes, and marks cached answers as stale in the board, a file that `web`
    reads."""
    listener = Listener(
        replica="test", board=local_board(), connect=listen_connection, bound_seconds=2
    )
    thread = threading.Thread(target=listener.run, name="listener")
    thread.start()
    wait_until(local_board().live, "the listener makes the board live")
    yield listener
    listener.stop()
    thread.join()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["index.json", "index", "person", "none.md", "", "dot.png"])
def test_a_private_realm_does_not_tell_strangers_which_files_exist(
    web: Web, live: None, private: Realm, method: str, path: str
) -> None:
    """HEAD needs the same permissions as GET, and a refusal has neither a redirect nor an ETag."""
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


def test_the_operator_may_do_everything_whatever_its_token_claims(web: Web, private: Realm) -> None:
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
    assert web.upload(url, b"x", reader).status == 401, "the token lists old permissions"
    assert web.upload(url, b"x", make.realm_login(source, "bob")).status == 204
    row.delete()
    assert web.upload(url, b"y", make.realm_login(source, "bob")).status == 403


def test_anyone_may_write_if_everyone_has_the_permission(web: Web, source: Realm) -> None:
    RealmPermission.objects.filter(realm=source, audience="everyone").update(write=True)
    for headers in ({}, {"Authorization": "rubbish"}):
        assert web.upload(f"{source.url}new.md", b"x", headers).status == 204


def test_signed_in_users_may_read_a_realm_shared_with_them(web: Web, private: Realm) -> None:
    RealmPermission.objects.create(realm=private, audience="signed-in", read=True)
    make.user("bob")
    url = f"{private.url}index.json"
    assert web.get(url, SOURCE).status == 401
    assert web.get(url, SOURCE, **make.realm_login(private, "bob")).status == 200
    assert web.get(url, SOURCE, **make.realm_login(private, "nobody")).status == 403


def test_revoking_everyone_invalidates_cached_answers_at_once(
    web: Web, source: Realm, listening: Listener
) -> None:
    """A cached answer stores whether everyone may read it. So a change of everyone's permission
    must invalidate the answer on every replica."""
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
