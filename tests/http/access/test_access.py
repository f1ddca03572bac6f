"""Tests that the server refuses an attacker's requests. The attacker assumes other identities, uses
tokens of other realms, asks for secrets of private realms, and publishes at hosts of others."""

import json
import threading
import time
from typing import Any

import pytest
from django.conf import settings as configured
from django.core import signing

from notifications.board import Board
from notifications.models import Replica
from realms.access.auth import OPERATOR, Caller
from realms.access.permissions import change_permissions
from realms.content.locks import realm_write_lock
from realms.errors import Forbidden, InvalidURL, OwnHost
from realms.models import Realm
from realms.publishing import outside_references
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import create_realm, publish_realm
from realms.serving import answers, transpiling
from reindex.models import ReindexJob
from reindex.reading.media_types import CARD
from tests.support import make
from tests.support.clients.callers import PRIVATE, as_user, operator, token_of
from tests.support.gates import in_thread
from tests.support.web import API, ORIGIN, SOURCE, Web, vouch

FILES = {**make.SITE, "robots.txt": b"secret plan", "inner.md": b"x"}


@pytest.fixture
def private(owner: Any) -> Realm:
    return make.source(PRIVATE, owner, FILES, public=False)


# --- Callers -----------------------------------------------------------------------------------


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


def test_a_token_opens_only_definitions_of_its_own_realm(web: Web, owner: Any) -> None:
    """A module of the token's realm may import from another private realm. The token gives no
    access to the definitions of such a module either. A definition describes what a module
    exports."""
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
    """The answers for an existing and a missing file have the same status, text and headers except
    Date."""
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


def test_an_inner_realm_is_found_even_if_a_private_file_has_its_name(
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


def test_a_search_by_a_reader_takes_no_lock_and_makes_no_job(web: Web, source: Realm) -> None:
    """A reader's search gets a 503, because the realm has no index yet. The search doesn't wait for
    the writer that holds the realm's lock. A later search by the owner, who may write to the realm,
    makes a job."""
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


def test_publishability_reads_a_realm_once_and_then_only_changed_files(
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


def test_publishability_answers_503_while_another_check_runs(
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
def test_nothing_is_published_at_the_servers_own_hosts_on_any_port(
    source: Realm, settings: Any, url: str
) -> None:
    """Browsers send cookies to all ports of a host, so a published realm must not share the
    server's host name."""
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
def test_a_host_belongs_to_its_first_publisher_on_every_port(source: Realm, url: str) -> None:
    make.publish(source, "http://page.localhost:4201/")
    bobs = make.source(f"{ORIGIN}/bob/site/", make.user("bob"), {"bob.md": b"bob"})
    with pytest.raises(Forbidden):
        publish_realm(bobs.url, url, Caller("bob"))
    with pytest.raises(InvalidURL):
        publish_realm(bobs.url, "http://page.localhost.:4201/", Caller("bob"))


def test_a_user_may_create_realms_beside_an_operators_realm(
    source: Realm,
) -> None:
    """Another user's realm at a URL below bob's name is newer than bob's account. So it doesn't
    prevent bob from creating realms below his name."""
    bob = make.user("bob")
    make.source(f"{ORIGIN}/bob/adas/", source.owner, {})
    assert create_realm(Caller.of(bob), "new", {"name": "New"}).owner == bob


def test_nobody_can_publish_at_the_robots_txt_of_the_public_host(source: Realm) -> None:
    """Usernames were not always checked, so an old user may have the name `robots.txt`. This user
    must not replace the robots.txt of the whole host."""
    mallory = make.old_user("robots.txt")
    realm = make.source(f"{ORIGIN}/mallory/x/", mallory, {})
    with pytest.raises(Forbidden):
        publish_realm(realm.url, f"{ORIGIN}/robots.txt/", Caller.of(mallory))


# --- Keys --------------------------------------------------------------------------------------


def test_sessions_and_tokens_are_signed_with_different_keys() -> None:
    assert configured.SECRET_KEY != configured.REALM_SECRET_SEED
    assert configured.REALM_SECRET_SEED not in configured.SECRET_KEY
    forged = signing.dumps({"user": 1}, key=configured.REALM_SECRET_SEED, salt="x")
    with pytest.raises(signing.BadSignature):
        signing.loads(forged, salt="x")


@pytest.mark.parametrize(
    ("asked", "accept"),
    [("index.json", SOURCE), ("index.json?noCache", SOURCE), ("person", "*/*"), ("none", "*/*")],
)
def test_a_realm_that_becomes_private_after_the_first_check_is_checked_again(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch, asked: str, accept: str
) -> None:
    """The server's first check admits the request, because the realm is public. Before the server
    reads the file from the database, the owner makes the realm private and writes a secret."""

    def load(*args: Any, **named: Any) -> Any:
        monkeypatch.undo()
        change_permissions(source, {"*": []})
        files = {"person.tsx": b"export const secret = 1;", "none.ts": b"export const secret = 1;"}
        make.write_paths(source, {"index.json": b'{"secret": 1}', **files})
        return answers.load(*args, **named)

    monkeypatch.setattr("realms.serving.answers.load", load)
    answer = web.get(source.url + asked, accept)
    assert (answer.status, b"secret" in answer.body) == (401, False)


def test_a_realm_that_becomes_public_is_served_before_the_replica_is_told(
    web: Web, private: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica still has the answer that it cached while the realm was private. Because the
    realm is public now, everyone gets this answer."""
    vouch()
    headers = make.realm_login(private, "ada")
    assert web.get(f"{PRIVATE}inner.md", SOURCE, **headers).cache == "miss"
    assert web.get(f"{PRIVATE}inner.md", SOURCE).status == 401
    monkeypatch.setattr(Board, "bump", lambda board, keys: None)
    change_permissions(private, {"*": ["read"]})
    answer = web.get(f"{PRIVATE}inner.md", SOURCE)
    assert (answer.status, answer.body, answer.cache) == (200, b"x", "hit")


def test_a_url_that_comes_into_a_public_realm_shows_nothing_of_the_private_realm(
    web: Web, private: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The private realm's file is cached. Then a public realm is created inside the private realm,
    and the file's URL now belongs to the public realm. The replica isn't notified, so it still has
    the cached answer. It must not send this answer to readers of the public realm."""
    vouch()
    make.write_paths(private, {"inner/a.md": b"secret"})
    headers = make.realm_login(private, "ada")
    assert web.get(f"{PRIVATE}inner/a.md", SOURCE, **headers).body == b"secret"
    monkeypatch.setattr(Board, "bump", lambda board, keys: None)
    Realm.objects.create(url=f"{PRIVATE}inner/", kind="source", owner=private.owner)
    inner = Realm.objects.get(url=f"{PRIVATE}inner/")
    change_permissions(inner, {"*": ["read"]})
    answer = web.get(f"{PRIVATE}inner/a.md", SOURCE)
    assert (answer.status, b"secret" in answer.body) == (401, False)
