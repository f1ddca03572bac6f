"""Tests how callers get and use tokens. A realm session is a token for one realm, with the user's
current permissions there. The operator, who may do everything, can also act as another user by the
header `X-Boxel-Assume-User`."""

import json
from typing import Any

import jwt
import pytest
from django.conf import settings as configured

from realms.access.auth import OPERATOR, realm_token, server_token
from realms.models import Realm, RealmPermission
from tests.support import make
from tests.support.cluster import Answer
from tests.support.web import API, ORIGIN, SOURCE, Web, everything

PAGE = "http://ada.localhost:4201/"


def claims(answer: Answer) -> Any:
    assert (answer.status, answer.body) == (201, b"")
    token = answer.headers["authorization"]
    return jwt.decode(token, configured.REALM_SECRET_SEED, algorithms=["HS256"])


@pytest.mark.parametrize("way", ["password", "server token"])
def test_a_realm_session_is_a_token_with_current_permissions(
    web: Web, private: Realm, way: str
) -> None:
    body = {"username": "ada", "password": "ada"} if way == "password" else {}
    headers = {} if way == "password" else make.login("ada")
    answer = web.post(f"{private.url}_session", body, headers)
    held = claims(answer)
    assert (held["user"], held["realm"]) == ("@ada:localhost", private.url)
    assert sorted(held["permissions"]) == ["read", "realm-owner", "write"]
    token = {"Authorization": answer.headers["authorization"]}
    assert web.get(f"{private.url}index.json", SOURCE, **token).status == 200


def test_a_session_needs_a_correct_password_or_a_server_token(web: Web, private: Realm) -> None:
    make.old_user(OPERATOR)
    url = f"{private.url}_session"
    for name, password in (("ada", "wrong"), (OPERATOR, OPERATOR)):
        assert web.post(url, {"username": name, "password": password}).status == 401
        body = {"username": name, "password": password}
        assert web.post(f"{ORIGIN}/_server-session", body).status == 401
    assert web.post(url, {}, make.realm_login(private, "ada")).status == 401
    assert web.request("GET", url, accept=API).headers["allow"] == "POST, OPTIONS"


def test_a_stranger_gets_a_session_without_permissions(web: Web, private: Realm) -> None:
    make.user("bob")
    answer = web.post(f"{private.url}_session", {"username": "bob", "password": "bob"})
    assert claims(answer)["permissions"] == []
    token = {"Authorization": answer.headers["authorization"]}
    assert web.get(f"{private.url}index.json", SOURCE, **token).status == 403


def test_realm_auth_gives_a_token_for_each_readable_realm(
    web: Web, source: Realm, private: Realm
) -> None:
    make.publish(source, PAGE)
    make.user("bob")
    url = f"{ORIGIN}/_realm-auth"
    adas = json.loads(web.post(url, {}, make.login("ada")).text)
    assert set(adas) == {source.url, private.url}
    for realm, token in adas.items():
        headers = {"Authorization": token}
        assert web.get(f"{realm}index.json", SOURCE, **headers).status == 200
        assert web.upload(f"{realm}new.md", b"x", headers).status == 204
    bobs = json.loads(web.post(url, {}, make.login("bob")).text)
    assert set(bobs) == {source.url}
    RealmPermission.objects.create(realm=private, audience="signed-in", read=True)
    bobs = json.loads(web.post(url, {}, make.login("bob")).text)
    assert set(bobs) == {source.url, private.url}
    headers = {"Authorization": bobs[private.url]}
    assert web.get(f"{private.url}index.json", SOURCE, **headers).status == 200
    everyones = json.loads(web.post(url, {}, make.login(OPERATOR)).text)
    assert set(everyones) == {source.url, private.url}
    assert web.post(url, {}, make.login("nobody")).status == 422


def test_a_deactivated_users_token_is_refused(web: Web, source: Realm, owner: Any) -> None:
    realm, server = make.realm_login(source, "ada"), make.login("ada")
    create = {"data": {"type": "realm", "attributes": {"endpoint": "new", "name": "New"}}}
    publish = {"sourceRealmURL": source.url, "publishedRealmURL": PAGE}
    owner.is_active = False
    owner.save()
    before = everything()
    for answer in (
        web.upload(f"{source.url}x.md", b"x", realm),
        web.post(f"{ORIGIN}/_realm-auth", {}, server),
        web.post(f"{ORIGIN}/_create-realm", create, server),
        web.post(f"{source.url}_session", {}, server),
        web.post(f"{ORIGIN}/_publish-realm", publish, server),
    ):
        assert answer.status == 401
    assert everything() == before
    owner.is_active = True
    owner.save()
    assert web.upload(f"{source.url}x.md", b"x", realm).status == 204


def test_a_deleted_users_token_is_refused(web: Web, private: Realm) -> None:
    bob = make.user("bob")
    RealmPermission.objects.create(realm=private, account=make.account("bob"), read=True)
    bobs = make.realm_login(private, "bob")
    assert web.get(f"{private.url}index.json", SOURCE, **bobs).status == 200
    bob.delete()
    assert web.get(f"{private.url}index.json", SOURCE, **bobs).status == 401


def test_the_operator_can_assume_a_user_and_gets_that_users_rights(
    web: Web, private: Realm
) -> None:
    make.user("bob")
    operator = {"Authorization": realm_token(OPERATOR, f"{ORIGIN}/elsewhere/", [], 60)}
    url = f"{private.url}index.json"
    for user, status in (("@ada:localhost", 200), ("ada", 400), ("@bob:localhost", 403),
                         ("@nobody:localhost", 403), ("@realm_server:localhost", 200),
                         ("@ada:example.com", 400), ("", 400), ("@", 400)):  # fmt: skip
        answer = web.get(url, SOURCE, **operator, **{"X-Boxel-Assume-User": user})
        assert answer.status == status, user
    assert web.get(f"{private.url}_permissions", API, **operator,
                   **{"X-Boxel-Assume-User": "@bob:localhost"}).status == 403  # fmt: skip


def test_nobody_but_the_operator_can_assume_a_user(web: Web, private: Realm) -> None:
    make.user("bob")
    headers = {**make.realm_login(private, "bob"), "X-Boxel-Assume-User": "@ada:localhost"}
    assert web.get(f"{private.url}index.json", SOURCE, **headers).status == 403
    server = {"Authorization": server_token("ada"), "X-Boxel-Assume-User": "@ada:localhost"}
    assert web.get(f"{private.url}index.json", SOURCE, **server).status == 401
