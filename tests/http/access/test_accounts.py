"""Tests that nobody gets rights through a reserved or an old username. A permission may name an
audience in place of a user: `*` means everyone, and `users` means all signed-in users. So these
names are reserved, and an account with such a name must not get the audience's rights. Nobody gets
the rights of a deleted or deactivated account. A renamed account's old name gives no rights."""

import json
import time
from collections.abc import Iterator
from io import StringIO
from typing import Any

import jwt
import pytest
from django.conf import settings as configured
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client

from definitions.models import CacheGeneration, Definition
from notifications.channels import REALM_REGISTRY
from realms.access.auth import OPERATOR, Caller, realm_token, server_token, user_id
from realms.access.usernames import username_of
from realms.errors import Forbidden
from realms.models import AccountName, Realm, RealmPermission
from realms.publishing.publish import create_realm, publish_realm
from tests.support import make
from tests.support.clients.callers import PRIVATE, let, token_of
from tests.support.listening.hearing import Ear, ear
from tests.support.web import API, ORIGIN, SOURCE, Web


@pytest.fixture
def listening(transactional_db: None) -> Iterator[Ear]:
    with ear() as made:
        yield made


# --- Reserved names ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["users", "*", "everyone", "signed-in"])
def test_a_user_named_like_an_audience_is_not_that_audience(web: Web, name: str) -> None:
    """A database may have accounts with reserved names from old releases, which didn't check
    usernames."""
    realm = make.source(f"{ORIGIN}/x/theirs/", make.old_user(name), make.SITE, public=False)
    make.user("mallory")
    mallory = make.realm_login(realm, "mallory")
    assert web.get(f"{realm.url}index.json", SOURCE).status == 401
    assert web.get(f"{realm.url}index.json", SOURCE, **mallory).status == 403
    assert web.upload(f"{realm.url}x.md", b"x", mallory).status == 403
    assert web.get(f"{realm.url}_permissions", API, **mallory).status == 403
    theirs = token_of(realm, name)
    assert web.get(f"{realm.url}index.json", SOURCE, **theirs).status == 200


@pytest.mark.parametrize("user", [
    "@*:localhost", "@users:localhost", "@@*:localhost", "*:localhost", "@*", "bob", "@bob",
    "@bob:localhost:x", "@bob:localhost ", " *", "@:localhost", "@bob\n:localhost", "everyone",
])  # fmt: skip
def test_permissions_name_an_audience_or_a_user_id_and_nothing_else(
    web: Web, private: Realm, user: str
) -> None:
    make.user("bob")
    body = {"data": {"type": "permissions", "attributes": {"permissions": {user: ["read"]}}}}
    headers = {"Authorization": realm_token("ada", PRIVATE, ["read", "realm-owner", "write"], 60)}
    answer = web.request(
        "PATCH", f"{PRIVATE}_permissions", accept=API, body=json.dumps(body).encode(),
        headers=headers,
    )  # fmt: skip
    assert answer.status == 400, answer.text
    assert web.get(f"{PRIVATE}index.json", SOURCE).status == 401
    assert RealmPermission.objects.filter(realm=private).count() == 1


def test_only_a_well_formed_user_id_has_a_username() -> None:
    assert username_of("@ada:localhost") == "ada"
    assert username_of("@a@b.c:localhost") == "a@b.c"
    for wire in ("ada", "@ada", "ada:localhost", "@ada:example.com", "@ada:localhost\n", "",
                 "@:localhost", "@a:b:localhost", "@\x00:localhost", f"@{'x' * 151}:localhost",
                 "@\ud800:localhost", "@ada:LOCALHOST"):  # fmt: skip
        assert username_of(wire) is None, wire


def test_an_account_named_like_the_operator_is_not_the_operator(web: Web, private: Realm) -> None:
    """The operator, who may do everything, has no account. So a token with an account's ID is never
    the operator's token."""
    account = make.old_user(OPERATOR)
    token = {"Authorization": server_token(OPERATOR, account_id=account.pk)}
    body = {"data": {"type": "realm", "id": PRIVATE}}
    answer = web.request("DELETE", f"{ORIGIN}/_delete-realm", accept=API,
                         body=json.dumps(body).encode(), headers=token)  # fmt: skip
    assert answer.status == 403
    assert web.get(f"{PRIVATE}index.json", SOURCE, **token_of(private, OPERATOR)).status == 403
    site = Client(headers={"host": "localhost:4201"})
    site.force_login(account)
    assert site.get("/_admin/", headers={"host": "localhost:4201"}).status_code == 302


@pytest.mark.parametrize("name", [
    "*", "users", "Users", "ＵＳＥＲＳ", "realm_server", "base", "system", "_admin", "_",
    "robots.txt", "a:b", "a/b", "a b", "x\x01", "everyone",
])  # fmt: skip
def test_every_way_to_make_an_account_refuses_reserved_names(
    transactional_db: None, name: str
) -> None:
    users = get_user_model().objects
    with pytest.raises(ValidationError):
        users.create_user(name, password="x")
    with pytest.raises(ValidationError):
        users.create(username=name)
    ada = make.user("ada")
    ada.username = name
    with pytest.raises(ValidationError):
        ada.save()
    with pytest.raises((CommandError, ValidationError)):
        call_command(
            "createsuperuser", "--no-input", username=name, email="a@b.c", stdout=StringIO()
        )
    assert list(users.values_list("username", flat=True)) == ["ada"]


def test_the_admin_shows_why_a_reserved_name_is_refused(client: Client, owner: Any) -> None:
    root = get_user_model().objects.create_superuser("root", password="x")
    client.force_login(root)
    secret = "correct horse battery"
    form = {"username": "users", "password1": secret, "password2": secret,
            "usable_password": "true"}  # fmt: skip
    answer = client.post("/_admin/auth/user/add/", form, headers={"host": "localhost:4201"})
    assert answer.status_code == 200 and b"is reserved" in answer.content
    assert not get_user_model().objects.filter(username="users").exists()


def test_an_account_that_has_a_reserved_name_can_still_be_saved(transactional_db: None) -> None:
    account = make.old_user("users")
    account.first_name = "U"
    account.save()
    account.refresh_from_db()
    assert account.first_name == "U"


# --- Rights end with the account ---------------------------------------------------------------


def test_a_new_account_with_an_old_name_gets_no_old_rights_or_tokens(
    web: Web, private: Realm
) -> None:
    bob = make.user("bob")
    let(private, "bob", write=True)
    realm_header, key = token_of(private, "bob"), bob.pk
    old_server = {"Authorization": server_token("bob", account_id=key)}
    assert web.get(f"{PRIVATE}index.json", SOURCE, **realm_header).status == 200
    bob.delete()
    assert web.get(f"{PRIVATE}index.json", SOURCE, **realm_header).status == 401
    assert make.user("bob").pk != key
    assert web.get(f"{PRIVATE}index.json", SOURCE, **realm_header).status == 401
    assert web.post(f"{ORIGIN}/_realm-auth", {}, old_server).status == 401
    new = make.realm_login(private, "bob")
    assert web.get(f"{PRIVATE}index.json", SOURCE, **new).status == 403
    # The old token stays invalid even if the new account gets the same rights.
    let(private, "bob", write=True)
    assert web.get(f"{PRIVATE}index.json", SOURCE, **realm_header).status == 401


def by_name(name: str, issued: float | None, **claims: Any) -> dict[str, str]:
    """Returns an Authorization header with a server token, a token for the server's own endpoints.
    The token has only the user's name, like a token that a client makes with REALM_SECRET_SEED. The
    token has an account's ID only if `claims` has one. `issued` is the token's time of issue."""
    dated = {} if issued is None else {"iat": issued}
    claims = {"user": user_id(name), "sessionRoom": "", "exp": time.time() + 600, **dated, **claims}
    return {"Authorization": jwt.encode(claims, configured.REALM_SECRET_SEED, algorithm="HS256")}


def test_a_token_by_name_older_than_the_accounts_name_is_refused(web: Web, owner: Any) -> None:
    url, now = f"{ORIGIN}/_realm-auth", time.time()
    assert web.post(url, {}, by_name("ada", int(now) + 1)).status == 200
    for issued in (now - 3600, None, "yesterday"):
        assert web.post(url, {}, by_name("ada", issued)).status == 401  # type: ignore[arg-type]
    get_user_model().objects.filter(pk=owner.pk).update(date_joined="2020-01-01T00:00Z")
    assert web.post(url, {}, by_name("ada", now - 3600)).status == 401
    for account in ("1", True, 0, -1, 2**70, [owner.pk], 1.5, owner.pk + 1):
        assert web.post(url, {}, by_name("ada", now, account=account)).status == 401
    assert web.post(url, {}, by_name("ada", now - 3600, account=owner.pk)).status == 200


def test_rights_follow_a_renamed_account_and_its_old_name_has_none(
    web: Web, private: Realm, owner: Any
) -> None:
    mine = token_of(private, "ada")
    old = by_name("ada", time.time() - 5)
    make.user("eve")
    get_user_model().objects.filter(username="ada").update(username="lovelace")
    get_user_model().objects.filter(username="eve").update(username="ada")
    assert web.get(f"{PRIVATE}_permissions", API, **mine).status == 200
    assert user_id("lovelace") in web.get(f"{PRIVATE}_permissions", API, **mine).text
    assert web.post(f"{ORIGIN}/_realm-auth", {}, old).status == 401
    eve = make.realm_login(private, "ada")
    assert web.get(f"{PRIVATE}index.json", SOURCE, **eve).status == 403
    # The account with the new name `ada` may not create realms below http://localhost:4201/ada/
    # either, because the renamed account still has a realm there.
    for act in (
        lambda: create_realm(Caller("ada"), "new", {"name": "New"}),
        lambda: publish_realm(
            make.source(f"{ORIGIN}/eve/x/", make.account("ada"), {}).url, f"{ORIGIN}/ada/x/",
            Caller("ada"),
        ),
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            act()


def test_the_definitions_of_a_deactivated_reader_are_dropped(web: Web, private: Realm) -> None:
    bob = make.user("bob")
    let(private, "bob")
    rows = Definition.objects.filter(scope="realm-auth")
    for scope, key in (("global", ""), ("realm", f"{ORIGIN}/x/"), ("module", f"{ORIGIN}/x/m.ts")):
        CacheGeneration.objects.create(scope=scope, key=key)
    for reader in (f"{bob.pk} in {private.pk}", f"{bob.pk}0 in {private.pk}"):
        Definition.objects.create(
            module_url=f"{ORIGIN}/x/m.ts", realm_url=f"{ORIGIN}/x/", scope="realm-auth",
            reader=reader, global_generation=0, realm_generation=0, module_generation=0,
            built_at="2026-01-01T00:00Z", build_ms=1, realm_urls=[f"{ORIGIN}/x/"],
        )  # fmt: skip
    headers = token_of(private, "bob")
    bob.is_active = False
    bob.save()
    assert [row.reader for row in rows] == [f"{bob.pk}0 in {private.pk}"]
    assert web.get(f"{PRIVATE}index.json", SOURCE, **headers).status == 401


def test_deleting_an_account_announces_its_lost_permissions(private: Realm, listening: Ear) -> None:
    bob = make.user("bob")
    let(private, "bob")
    listening.heard()
    bob.delete()
    assert (REALM_REGISTRY, f"upsert:{PRIVATE}") in listening.heard()
    assert RealmPermission.objects.filter(realm=private).count() == 1


def test_the_migration_keeps_permissions_of_accounts_and_audiences(transactional_db: None) -> None:
    """Migrates an older release's database. In that release, a permission for `users` means
    the user with this name if the permission makes an owner. Otherwise it means all signed-in
    users."""
    now = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "old_{now}"')
        cursor.execute(f'CREATE DATABASE "old_{now}"')
    connection.close()
    connection.settings_dict["NAME"] = f"old_{now}"
    try:
        _migrate_rows_of_before()
    finally:
        connection.close()
        connection.settings_dict["NAME"] = now
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE "old_{now}" WITH (FORCE)')


def _migrate_rows_of_before() -> None:
    executor = MigrationExecutor(connection)
    executor.migrate([("realms", "0004_history_from")])
    apps = executor.loader.project_state([("realms", "0004_history_from")]).apps
    row = apps.get_model("realms", "RealmPermission").objects
    user, realm = apps.get_model("auth", "User").objects, apps.get_model("realms", "Realm").objects
    ada, users = (user.create(username=name) for name in ("ada", "users"))
    one, two = (
        realm.create(url=f"{ORIGIN}/{name}/", kind="source", owner=ada) for name in ("one", "two")
    )
    for where, name, owner in (
        (one, "ada", True), (one, "*", False), (one, "users", False), (one, "ghost", True),
        (two, "users", True), (two, "*", True),
    ):  # fmt: skip
        row.create(realm=where, username=name, read=True, write=owner, realm_owner=owner)
    executor = MigrationExecutor(connection)
    executor.migrate([node for node in executor.loader.graph.leaf_nodes() if node[0] == "realms"])
    rows = RealmPermission.objects.select_related("realm").order_by("pk")
    told = [(r.realm.url[-4:-1], r.account_id, r.audience, r.write, r.realm_owner) for r in rows]
    assert told == [
        ("one", ada.pk, None, True, True), ("one", None, "everyone", False, False),
        ("one", None, "signed-in", False, False), ("two", users.pk, None, True, True),
        ("two", None, "everyone", True, False),
    ]  # fmt: skip
    assert AccountName.objects.get(account=ada.pk).since == ada.date_joined
    assert AccountName.objects.count() == 2
