"""Attacks on access, each sent as an attacker would send it: accounts named like words of the
protocol, rights of deleted accounts, and answers that reveal something before the permission is
checked."""

import json
import threading
import time
from collections.abc import Iterator
from io import StringIO
from typing import Any

import jwt
import pytest
from django.conf import settings as configured
from django.contrib.auth import get_user_model
from django.core import signing
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client

from definitions.models import CacheGeneration, Definition
from notifications.channels import REALM_REGISTRY
from notifications.models import Replica
from realms.access.auth import OPERATOR, Caller, permissions_of, realm_token, server_token, user_id
from realms.access.usernames import username_of
from realms.content.locks import realm_write_lock
from realms.errors import Forbidden, InvalidURL, OwnHost
from realms.models import AccountName, Realm, RealmPermission
from realms.publishing import outside_references
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import create_realm, publish_realm
from realms.serving import transpiling
from reindex.models import ReindexJob
from reindex.reading.media_types import CARD
from tests.support import make
from tests.support.gates import in_thread
from tests.support.listening.hearing import Ear, ear
from tests.support.web import API, ORIGIN, SOURCE, Web

PRIVATE = f"{ORIGIN}/ada/private/"
FILES = {**make.SITE, "robots.txt": b"secret plan", "inner.md": b"x"}


@pytest.fixture
def private(owner: Any) -> Realm:
    return make.source(PRIVATE, owner, FILES, public=False)


@pytest.fixture
def listening(transactional_db: None) -> Iterator[Ear]:
    with ear() as made:
        yield made


def let(realm: Realm, name: str, *, write: bool = False) -> None:
    RealmPermission.objects.create(realm=realm, account=make.account(name), read=True, write=write)


def token_of(realm: Realm, name: str) -> dict[str, str]:
    """As the server gives it: with the account's key."""
    caller = Caller.of(make.account(name))
    allowed = sorted(permissions_of(realm, caller))
    token = realm_token(name, realm.url, allowed, 60, caller.account_id)
    return {"Authorization": token}


def operator(realm_url: str | None = None) -> dict[str, str]:
    if realm_url is None:
        return {"Authorization": server_token(OPERATOR)}
    return {"Authorization": realm_token(OPERATOR, realm_url, [], 60)}


def as_user(name: str) -> dict[str, str]:
    return {"X-Boxel-Assume-User": user_id(name)}


# --- Names that are words ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["users", "*", "everyone", "signed-in"])
def test_a_user_named_like_an_audience_shares_nothing_with_it(web: Web, name: str) -> None:
    """There may be one from before names were checked."""
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
def test_only_the_two_words_mean_an_audience_and_only_user_ids_a_user(
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


def test_a_user_id_is_read_in_one_way() -> None:
    assert username_of("@ada:localhost") == "ada"
    assert username_of("@a@b.c:localhost") == "a@b.c"
    for wire in ("ada", "@ada", "ada:localhost", "@ada:example.com", "@ada:localhost\n", "",
                 "@:localhost", "@a:b:localhost", "@\x00:localhost", f"@{'x' * 151}:localhost",
                 "@\ud800:localhost", "@ada:LOCALHOST"):  # fmt: skip
        assert username_of(wire) is None, wire


def test_an_account_named_like_the_operator_is_an_account(web: Web, private: Realm) -> None:
    """The operator has no account, and so no token that names one."""
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
def test_reserved_names_are_refused_however_an_account_is_made(
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


def test_the_admin_refuses_a_reserved_name_with_words(client: Client, owner: Any) -> None:
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


def test_rights_and_tokens_do_not_pass_to_a_new_account_of_the_old_name(
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
    # Given the same rights again, the old token is no better.
    let(private, "bob", write=True)
    assert web.get(f"{PRIVATE}index.json", SOURCE, **realm_header).status == 401


def by_name(name: str, issued: float | None, **claims: Any) -> dict[str, str]:
    """A server token as a client mints it that has the seed."""
    dated = {} if issued is None else {"iat": issued}
    claims = {"user": user_id(name), "sessionRoom": "", "exp": time.time() + 600, **dated, **claims}
    return {"Authorization": jwt.encode(claims, configured.REALM_SECRET_SEED, algorithm="HS256")}


def test_a_token_by_name_is_no_older_than_the_accounts_name(web: Web, owner: Any) -> None:
    url, now = f"{ORIGIN}/_realm-auth", time.time()
    assert web.post(url, {}, by_name("ada", int(now) + 1)).status == 200
    for issued in (now - 3600, None, "yesterday"):
        assert web.post(url, {}, by_name("ada", issued)).status == 401  # type: ignore[arg-type]
    get_user_model().objects.filter(pk=owner.pk).update(date_joined="2020-01-01T00:00Z")
    assert web.post(url, {}, by_name("ada", now - 3600)).status == 401
    for account in ("1", True, 0, -1, 2**70, [owner.pk], 1.5, owner.pk + 1):
        assert web.post(url, {}, by_name("ada", now, account=account)).status == 401
    assert web.post(url, {}, by_name("ada", now - 3600, account=owner.pk)).status == 200


def test_rights_follow_a_rename_and_the_old_name_is_worth_nothing(
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
    # Nor does the name give a place among the realms that stand below it.
    for act in (
        lambda: create_realm(Caller("ada"), "new", {"name": "New"}),
        lambda: publish_realm(
            make.source(f"{ORIGIN}/eve/x/", make.account("ada"), {}).url, f"{ORIGIN}/ada/x/",
            Caller("ada"),
        ),
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            act()


def test_a_reader_who_is_deactivated_leaves_no_definitions(web: Web, private: Realm) -> None:
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


def test_the_rows_that_go_with_an_account_are_announced(private: Realm, listening: Ear) -> None:
    bob = make.user("bob")
    let(private, "bob")
    listening.heard()
    bob.delete()
    assert (REALM_REGISTRY, f"upsert:{PRIVATE}") in listening.heard()
    assert RealmPermission.objects.filter(realm=private).count() == 1


def test_the_migration_keeps_the_rows_of_accounts_and_of_words(transactional_db: None) -> None:
    """A database from before, in which somebody had made the user `users`."""
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


# --- Who asks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_an_operator_who_assumes_a_user_handles_cards_as_that_user(
    web: Web, private: Realm, method: str
) -> None:
    make.user("mallory")
    headers = {**operator(PRIVATE), **as_user("mallory"), "Content-Type": CARD}
    url = PRIVATE if method == "POST" else f"{PRIVATE}ada"
    body = b'{"data": {"type": "card", "meta": {"adoptsFrom": {"module": "./x", "name": "X"}}}}'
    answer = web.request(method, url, accept=CARD, body=body, headers=headers)
    assert answer.status == 403
    assert Realm.objects.get(pk=private.pk).generation == private.generation


def test_an_operator_who_assumes_a_user_acts_as_that_user_at_the_server(
    web: Web, private: Realm
) -> None:
    make.user("mallory")
    headers = {**operator(), **as_user("mallory")}
    body = json.dumps({"data": {"type": "realm", "id": PRIVATE}}).encode()
    asked = ("DELETE", f"{ORIGIN}/_delete-realm")
    assert web.request(*asked, accept=API, body=body, headers=headers).status == 403
    publish = {"sourceRealmURL": PRIVATE, "publishedRealmURL": "http://ada.localhost:4201/"}
    assert web.post(f"{ORIGIN}/_publish-realm", publish, headers).status == 403
    assert web.get(f"{ORIGIN}/_metrics", **headers).status == 403
    session = web.post(f"{PRIVATE}_session", {}, headers)
    token = {"Authorization": session.headers["authorization"]}
    assert web.get(f"{PRIVATE}index.json", SOURCE, **token).status == 403
    draft = {**operator(PRIVATE), **as_user("mallory")}
    assert web.get(PRIVATE, "text/html", **draft).status == 403


def test_a_token_opens_definitions_of_its_own_realm_alone(web: Web, owner: Any) -> None:
    """Also those of a module of its own realm that is made from another's."""
    sync_base_realm()
    module = b'import { Card, string } from "@realm/base";\n' \
        b"export class Secret extends Card { static fields = { word: string() }; }\n"  # fmt: skip
    other = make.source(f"{ORIGIN}/ada/other/", owner, {"secret.ts": module}, public=False)
    mine = f'export {{ Secret }} from "{other.url}secret";\n'.encode()
    realm = make.source(f"{ORIGIN}/ada/mine/", owner, {"mine.ts": mine, **make.SITE}, public=False)
    headers = token_of(realm, "ada")
    asked = f"{realm.url}_definition?module={other.url}secret"
    assert web.get(asked, API, **headers).status == 404
    mine_asked = web.get(f"{realm.url}_definition?module=mine", API, **headers)
    assert mine_asked.status == 422 and "word" not in mine_asked.text
    own = token_of(other, "ada")
    assert web.get(f"{other.url}_definition?module=secret", API, **own).status == 200
    assert web.get(asked, API, **headers).status == 404
    assumed = {**operator(realm.url), **as_user("ada")}
    assert web.get(asked, API, **assumed).status == 404


# --- What a stranger learns and causes ---------------------------------------------------------


@pytest.mark.parametrize(("there", "not_there", "accept"), [
    ("robots.txt", "sitemap.xml", "*/*"), ("robots.txt", "post/robots.txt", "*/*"),
    ("inner", "none", "*/*"), ("inner.md", "none.md", SOURCE), ("inner.md", "none.md", API),
    ("index", "none", CARD), ("index.json", "none.json", CARD), ("post", "none", "*/*"),
    ("ada", "none", SOURCE), ("ada", "none", "text/html"), ("folder/", "none/", API),
    ("", "none/", "text/html"),
])  # fmt: skip
def test_a_stranger_is_not_told_which_files_a_private_realm_has(
    web: Web, private: Realm, there: str, not_there: str, accept: str
) -> None:
    """Nor by HEAD, nor by a header, nor by words."""
    make.write_paths(private, {"folder/a.md": b"a", "inner": b"x"})
    make.user("mallory")
    for headers in ({}, make.realm_login(private, "mallory")):
        for method in ("GET", "HEAD"):
            answers = [
                web.request(method, f"{PRIVATE}{path}", accept=accept, headers=headers)
                for path in (there, not_there)
            ]
            told = [
                (a.status, a.text, {k: v for k, v in a.headers.items() if k != "date"})
                for a in answers
            ]
            assert told[0] == told[1]
            assert told[0][0] == (403 if headers else 401)
            assert "x-realm-generation" not in answers[0].headers


def test_a_realm_within_a_private_one_is_found_whatever_file_stands_there(
    web: Web, private: Realm, owner: Any
) -> None:
    for name in ("inner", "none"):
        make.source(f"{PRIVATE}{name}/", owner, {})
    make.write_paths(private, {"inner": b"x"})
    for accept in ("*/*", SOURCE, API, "text/html"):
        for name in ("inner", "none"):
            answer = web.get(f"{PRIVATE}{name}", accept)
            assert (answer.status, answer.headers["location"]) == (302, f"{PRIVATE}{name}/")
        mine = web.get(f"{PRIVATE}inner", SOURCE, **token_of(private, "ada"))
        assert (mine.status, mine.text) == (200, "x")


def test_a_strangers_request_transpiles_nothing(
    web: Web, private: Realm, monkeypatch: pytest.MonkeyPatch, nothing_transpiled: None
) -> None:
    run: list[str] = []

    def counted(_: bytes, path: str) -> str:
        run.append(path)
        return ""

    monkeypatch.setattr(transpiling, "_run_deno", counted)
    make.user("mallory")
    for headers in ({}, make.realm_login(private, "mallory"), operator(f"{ORIGIN}/x/") |
                    as_user("mallory")):  # fmt: skip
        for path in ("post.tsx", "post", "post.tsx?noCache", "person"):
            for method in ("GET", "HEAD"):
                answer = web.request(method, f"{PRIVATE}{path}", headers=headers)
                assert answer.status in (401, 403)
    assert run == []
    assert web.get(f"{PRIVATE}post", **token_of(private, "ada")).status == 200
    assert run == ["post.tsx"]


def test_a_search_by_who_may_not_write_takes_no_lock_and_makes_no_job(
    web: Web, source: Realm
) -> None:
    """It is answered while a writer holds the realm's lock."""
    make.user("bob")
    held, done = threading.Event(), threading.Event()

    def write() -> None:
        with realm_write_lock(source.url):
            held.set()
            assert done.wait(20)

    writing = in_thread(write)
    assert held.wait(20)
    began = time.monotonic()
    for headers in ({}, make.realm_login(source, "bob"), {"Authorization": "nonsense"}):
        assert web.get(f"{source.url}_search", **headers).status == 503
        asked = {**headers, "X-HTTP-Method-Override": "QUERY"}
        assert web.post(f"{source.url}_search", {}, asked).status == 503
    assert time.monotonic() - began < 20
    done.set()
    writing.result(20)
    assert not ReindexJob.objects.filter(realm_url=source.url).exists()
    assert web.get(f"{source.url}_search", **make.realm_login(source, "ada")).status == 503
    assert ReindexJob.objects.filter(realm_url=source.url).count() == 1


def test_publishability_reads_a_realm_once_and_then_only_changes(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside_references.forget()
    read: list[str] = []
    found = outside_references._references

    def counted(path: str, data: bytes) -> outside_references.OutsideReferences:
        read.append(path)
        return found(path, data)

    monkeypatch.setattr(outside_references, "_references", counted)
    url = f"{source.url}_publishability"
    first = web.get(url, API)
    assert len(read) == 4 and first.status == 200
    for _ in range(5):
        assert web.get(url, API).text == first.text
    assert len(read) == 4
    make.source(PRIVATE, source.owner, {"lib.ts": b""}, public=False)
    make.write(source, person__tsx=f'import "{PRIVATE}lib.ts";'.encode())
    assert "private-dependency" in web.get(url, API).text
    assert len(read) == 5
    make.remove(source, "person.tsx")
    assert "private-dependency" not in web.get(url, API).text
    assert len(read) == 5


def test_a_realm_that_waits_to_be_looked_through_is_told_to_come_again(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside_references.forget()
    monkeypatch.setattr(outside_references, "WAIT_SECONDS", 0.01)
    with outside_references._reading:
        answer = web.get(f"{source.url}_publishability", API)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


# --- Hosts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [
    "http://localhost:9999/ada/x/", "http://localhost/ada/x/", "https://localhost:4202/",
    "http://LOCALHOST:8000/ada/", "http://127.0.0.1:9/ada/x/", "http://node.localhost:81/x/",
    "https://localhost:443/ada/x/",
])  # fmt: skip
def test_nothing_is_published_at_the_servers_own_hosts_with_another_port(
    source: Realm, settings: Any, url: str
) -> None:
    """Cookies are kept by host name, whatever the port."""
    settings.REALM_PUBLISH_DOMAINS = ["localhost", "127.0.0.1"]
    settings.REALM_REPLICA_ADDRESS = "http://127.0.0.1:4201"
    Replica.objects.create(name="other", address="http://node.localhost:4201", state="live",
                           sidecar_pid=1, reported_at="2026-01-01T00:00Z")  # fmt: skip
    for caller in (Caller("ada"), Caller(OPERATOR, operator=True)):
        with pytest.raises(OwnHost):
            publish_realm(source.url, url, caller)


@pytest.mark.parametrize("url", [
    "http://page.localhost:9999/", "http://page.localhost/x/", "https://page.localhost/",
    "http://PAGE.localhost:4201/x/", "http://page.localhost:04201/x/", "https://page.localhost:4201/y/",
])  # fmt: skip
def test_a_host_is_its_first_publishers_whatever_the_port(source: Realm, url: str) -> None:
    make.publish(source, "http://page.localhost:4201/")
    bobs = make.source(f"{ORIGIN}/bob/site/", make.user("bob"), {"bob.md": b"bob"})
    with pytest.raises(Forbidden):
        publish_realm(bobs.url, url, Caller("bob"))
    with pytest.raises(InvalidURL):
        publish_realm(bobs.url, "http://page.localhost.:4201/", Caller("bob"))


def test_an_operators_realm_below_a_name_takes_nothing_from_its_user(
    source: Realm,
) -> None:
    """Only who comes to a name after others had it is kept from it."""
    bob = make.user("bob")
    make.source(f"{ORIGIN}/bob/adas/", source.owner, {})
    assert create_realm(Caller.of(bob), "new", {"name": "New"}).owner == bob


def test_the_public_hosts_own_files_are_nobodys_name(source: Realm) -> None:
    """An account of such a name, from before, would have the robots.txt of the whole host."""
    mallory = make.old_user("robots.txt")
    realm = make.source(f"{ORIGIN}/mallory/x/", mallory, {})
    with pytest.raises(Forbidden):
        publish_realm(realm.url, f"{ORIGIN}/robots.txt/", Caller.of(mallory))


# --- Keys --------------------------------------------------------------------------------------


def test_sessions_are_signed_by_another_key_than_tokens() -> None:
    assert configured.SECRET_KEY != configured.REALM_SECRET_SEED
    assert configured.REALM_SECRET_SEED not in configured.SECRET_KEY
    forged = signing.dumps({"user": 1}, key=configured.REALM_SECRET_SEED, salt="x")
    with pytest.raises(signing.BadSignature):
        signing.loads(forged, salt="x")
