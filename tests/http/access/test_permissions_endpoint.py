"""Tests a realm's endpoint `_permissions`. Only the realm's owners and the operator, who may do
everything, can read, grant and revoke permissions there."""

import json
from typing import Any

from realms.access.auth import OPERATOR, realm_token
from realms.models import Realm, RealmPermission
from tests.support import make
from tests.support.clients.telling import attributes
from tests.support.cluster import Answer
from tests.support.web import API, SOURCE, Web, everything


def patch(web: Web, realm: Realm, changes: Any, name: str = "ada") -> Answer:
    body = {"data": {"type": "permissions", "attributes": {"permissions": changes}}}
    return web.request(
        "PATCH", f"{realm.url}_permissions", accept=API, body=json.dumps(body).encode(),
        headers=make.realm_login(realm, name),
    )  # fmt: skip


def test_an_owner_reads_grants_and_revokes_permissions(web: Web, source: Realm) -> None:
    make.user("bob")
    url = f"{source.url}_permissions"
    before = attributes(web.get(url, API, **make.realm_login(source, "ada")), "permissions")
    owner = {"@ada:localhost": ["read", "write", "realm-owner"]}
    assert before == {"permissions": {"*": ["read"], **owner}}
    changes = {"@bob:localhost": ["write", "read"], "*": None, "users": ["read"]}
    answer = patch(web, source, changes)
    granted = {**owner, "@bob:localhost": ["read", "write"], "users": ["read"]}
    assert attributes(answer, "permissions") == {"permissions": granted}
    assert web.get(f"{source.url}index.json", SOURCE).status == 401
    bob = make.realm_login(source, "bob")
    assert web.upload(f"{source.url}bobs.md", b"x", bob).status == 204
    attributes(patch(web, source, {"@bob:localhost": []}), "permissions")
    assert web.upload(f"{source.url}bobs.md", b"y", bob).status == 401, "bob's token is outdated"
    assert not RealmPermission.objects.filter(account__username="bob").exists()


def test_revoking_everyone_invalidates_this_replicas_cache(
    web: Web, live: None, source: Realm
) -> None:
    url = f"{source.url}index.json"
    web.get(url, SOURCE)
    assert web.get(url, SOURCE).cache == "hit"
    assert patch(web, source, {"*": []}).status == 200
    assert web.get(url, SOURCE).status == 401


def test_only_an_owner_or_the_operator_may_use_permissions(web: Web, source: Realm) -> None:
    make.user("bob")
    RealmPermission.objects.filter(realm=source, audience="everyone").update(read=True, write=True)
    before = everything()
    url = f"{source.url}_permissions"
    assert web.get(url, API).status == 401, "only owners may read the permissions"
    assert web.get(url, API, **make.realm_login(source, "bob")).status == 403
    assert patch(web, source, {"*": ["read"]}, "bob").status == 403
    operator = {"Authorization": realm_token(OPERATOR, source.url, [], 60)}
    assert web.get(url, API, **operator).status == 200
    assert everything() == before
