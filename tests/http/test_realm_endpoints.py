"""What realms tell of themselves, who may ask, and parts of files: as clients meet it."""

import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from django.conf import settings as configured

from realms.access.auth import OPERATOR, realm_token, server_token
from realms.models import Realm, RealmPermission
from reindex.models import IndexedCard, IndexHead, ReindexJob
from tests.support import make
from tests.support.cluster import Answer
from tests.support.web import API, ORIGIN, SOURCE, Web, everything

PAGE = "http://ada.localhost:4201/"


def told(answer: Answer, kind: str) -> Any:
    """The data of an answer that is as every answer of an endpoint must be."""
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == API
    assert answer.headers["cache-control"].startswith("no-store")
    assert "x-realm-generation" in answer.headers
    data = json.loads(answer.text)["data"]
    assert data["type"] == kind
    return data


def attributes(answer: Answer, kind: str) -> Any:
    return told(answer, kind)["attributes"]


# --- _mtimes -----------------------------------------------------------------------------------


def mtimes(web: Web, realm_url: str, **headers: str) -> dict[str, float]:
    answer = web.get(f"{realm_url}_mtimes", API, **headers)
    return dict(attributes(answer, "mtimes")["mtimes"])


def test_mtimes_change_with_their_files_and_never_without(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    make.write_paths(source, {"ä/ö ü?#.md": b"x"})
    before = mtimes(web, source.url)
    assert set(before) == {
        *(source.url + name for name in make.SITE), f"{source.url}%C3%A4/%C3%B6%20%C3%BC%3F%23.md"
    }  # fmt: skip
    assert all(time.time() - 60 < each < time.time() + 60 for each in before.values())
    web.upload(f"{source.url}index.json", make.SITE["index.json"], ada)
    assert mtimes(web, source.url) == before, "the same content is no change"
    web.upload(f"{source.url}index.json", b"{}", ada)
    one = mtimes(web, source.url)
    web.upload(f"{source.url}index.json", b"[]", ada)
    two = mtimes(web, source.url)
    changed = f"{source.url}index.json"
    assert before.pop(changed) < one.pop(changed) < two.pop(changed), "within one second too"
    assert before == one == two


def test_the_mtimes_of_a_published_realm_are_those_of_what_it_shows(
    web: Web, source: Realm
) -> None:
    before = mtimes(web, source.url)
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}", new__md=b"x")
    shown = mtimes(web, PAGE)
    assert shown == {url.replace(source.url, PAGE): each for url, each in before.items()}


def test_what_tools_leave_behind_is_told_of_nowhere_and_can_be_read(
    web: Web, source: Realm
) -> None:
    hidden = ["node_modules/a/b.js", "deep/.git/config", ".realm.json", ".template-lintrc.js"]
    make.write_paths(source, dict.fromkeys([*hidden, "deep/kept.md", ".gitignored"], b"x"))
    told_of = mtimes(web, source.url)
    assert not {source.url + path for path in hidden} & set(told_of)
    assert {f"{source.url}deep/kept.md", f"{source.url}.gitignored"} <= set(told_of)
    assert web.get(f"{source.url}{hidden[0]}", SOURCE).status == 200
    assert web.get(f"{source.url}node_modules/", API).status == 404


def test_a_realm_that_is_gone_has_no_mtimes_rather_than_none_of_them(
    web: Web, source: Realm
) -> None:
    from realms.content import listing
    from realms.errors import NotFound

    Realm.objects.filter(pk=source.pk).delete()
    with pytest.raises(NotFound):
        listing.mtimes(source)
    assert web.get(f"{source.url}_mtimes", API).status == 404


# --- Listings ----------------------------------------------------------------------------------


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


# --- _info -------------------------------------------------------------------------------------


def info(web: Web, realm: str, **headers: str) -> Any:
    return attributes(web.get(f"{realm}_info", API, **headers), "realm-info")


def test_a_realm_tells_its_name_and_when_it_was_published(web: Web, source: Realm) -> None:
    assert info(web, source.url) == {
        "name": "Unnamed Workspace",
        "backgroundURL": None,
        "iconURL": None,
        "showAsCatalog": None,
        "visibility": "public",
        "realmUserId": "@ada:localhost",
        "publishable": True,
        "lastPublishedAt": None,
        "includePrerenderedDefaultRealmIndex": None,
    }
    make.write(
        source, realm__json=make.card("@realm/base", "RealmConfig", name="Näme", iconURL="/i")
    )
    make.publish(source, PAGE)
    published = Realm.objects.get(url=PAGE).last_published_at
    assert published is not None
    moment = str(int(published.timestamp() * 1000))
    now = info(web, source.url)
    assert (now["name"], now["iconURL"], now["lastPublishedAt"]) == ("Näme", "/i", {PAGE: moment})
    shown = info(web, PAGE)
    assert (shown["name"], shown["lastPublishedAt"], shown["publishable"]) == (
        "Näme", moment, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (make.card("x", "C", cardInfo={"name": "Inner"}), "Inner"),
        (make.card("x", "C", cardInfo={"name": "Inner"}, name="Outer"), "Outer"),
        (b"[]", "Unnamed Workspace"),
        (b"{", "Unnamed Workspace"),
        (b"\xff", "Unnamed Workspace"),
        (b"", "Unnamed Workspace"),
        (b"[" * 100_000, "Unnamed Workspace"),
        (b'{"data": {"attributes": []}}', "Unnamed Workspace"),
    ],
)
def test_a_realm_whose_description_is_odd_still_answers(
    web: Web, source: Realm, content: bytes, name: str
) -> None:
    make.write(source, realm__json=content)
    assert info(web, source.url)["name"] == name


def test_visibility_is_who_may_read(web: Web, private: Realm) -> None:
    ada = make.realm_login(private, "ada")
    assert info(web, private.url, **ada)["visibility"] == "private"
    make.user("bob")
    row = RealmPermission.objects.create(realm=private, account=make.account("bob"), read=True)
    assert info(web, private.url, **ada)["visibility"] == "shared"
    row.delete()
    RealmPermission.objects.create(realm=private, audience="signed-in", read=True)
    ada = make.realm_login(private, "ada")
    assert info(web, private.url, **ada)["visibility"] == "shared"


def test_a_query_is_a_read_by_its_own_name_and_by_the_override(web: Web, source: Realm) -> None:
    for method, headers in (
        ("QUERY", {}),
        ("POST", {"X-HTTP-Method-Override": "QUERY"}),
        ("POST", {"X-HTTP-Method-Override": "query", "Content-Type": "application/json"}),
    ):
        answer = web.request(method, f"{source.url}_info", accept=API, body=b"{}", headers=headers)
        assert attributes(answer, "realm-info")["visibility"] == "public"
    override = {"X-HTTP-Method-Override": "QUERY", **make.realm_login(source, "ada")}
    before = everything()
    assert web.upload(f"{source.url}new.md", b"x", override).status == 405
    assert web.request("GET", f"{source.url}ada.json", headers=override).status == 200
    assert everything() == before


# --- _publishability ---------------------------------------------------------------------------


def report(web: Web, realm: Realm) -> Any:
    answer = web.get(f"{realm.url}_publishability", API, **make.realm_login(realm, "ada"))
    return attributes(answer, "realm-publishability")


def test_a_realm_that_leans_on_nothing_private_is_publishable(web: Web, source: Realm) -> None:
    make.write(source, broken__tsx=b"import {", odd__json=b"[1]", empty__ts=b"")
    assert report(web, source) == {
        "publishable": True, "realmURL": source.url, "violations": []
    }  # fmt: skip
    Realm.objects.filter(pk=source.pk).update(publishable=False)
    assert report(web, source)["publishable"] is False


def test_what_leans_on_a_private_realm_is_named_with_what_it_leans_on(
    web: Web, source: Realm, private: Realm
) -> None:
    public = make.source(f"{ORIGIN}/ada/public/", source.owner, make.SITE)
    make.write_paths(
        source,
        {
            "a b.json": make.card(f"{private.url}post", "Post"),
            "link.json": make.card("./post", "Post", links={"author": "/ada/private/ada"}),
            "mod.tsx": f'import {{ Post }} from "{private.url}post.tsx";'.encode(),
            "fine.tsx": f'import {{ Post }} from "{public.url}post.tsx";'.encode(),
        },
    )
    found = report(web, source)
    assert found["publishable"] is False
    assert found["warningTypes"] == ["has-private-dependencies"]
    kind = "private-dependency"
    expected = [("a%20b.json", "post"), ("link.json", "ada"), ("mod.tsx", "post.tsx")]
    assert found["violations"] == [
        {
            "kind": kind,
            "resource": source.url + path,
            "externalDependencies": [{"dependency": private.url + target, "realmURL": private.url}],
        }
        for path, target in expected
    ]


def test_a_private_realm_leans_on_itself_only_where_it_names_itself(
    web: Web, private: Realm
) -> None:
    assert report(web, private)["violations"] == []
    make.write(private, self__json=make.card(f"{private.url}post", "Post"))
    (violation,) = report(web, private)["violations"]
    assert violation["resource"] == f"{private.url}self.json"


def test_a_failed_card_is_named_until_something_changes(web: Web, source: Realm) -> None:
    make.publish(source, PAGE)
    job = ReindexJob.objects.get(realm_url=PAGE)
    row = {"job": job, "realm_url": PAGE}
    IndexedCard.objects.create(**row, path="ada", error={"message": "no"})
    IndexedCard.objects.create(**row, path="index", html={"isolated": "fine"})
    assert report(web, source)["violations"] == [], "nothing is known before the swap"
    IndexHead.objects.create(
        realm_url=PAGE, job=job, generation=job.generation, swapped_at=job.created_at
    )
    IndexedCard.objects.update(current=True)
    found = report(web, source)
    assert found["violations"] == [
        {"kind": "error-document", "resource": f"{source.url}ada.json", "message": "no"}
    ]
    assert found["warningTypes"] == ["has-error-card-documents"]
    make.write(source, ada__json=make.card("./person", "Person", name="Bo"))
    assert report(web, source)["violations"] == [], "it may have been mended"


# --- _permissions ------------------------------------------------------------------------------


def patch(web: Web, realm: Realm, changes: Any, name: str = "ada") -> Answer:
    body = {"data": {"type": "permissions", "attributes": {"permissions": changes}}}
    return web.request(
        "PATCH", f"{realm.url}_permissions", accept=API, body=json.dumps(body).encode(),
        headers=make.realm_login(realm, name),
    )  # fmt: skip


def test_an_owner_reads_grants_and_takes_away(web: Web, source: Realm) -> None:
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
    assert web.upload(f"{source.url}bobs.md", b"y", bob).status == 401, "they have changed"
    assert not RealmPermission.objects.filter(account__username="bob").exists()


def test_revoking_everyone_empties_this_replicas_cache(web: Web, live: None, source: Realm) -> None:
    url = f"{source.url}index.json"
    web.get(url, SOURCE)
    assert web.get(url, SOURCE).cache == "hit"
    assert patch(web, source, {"*": []}).status == 200
    assert web.get(url, SOURCE).status == 401


def test_permissions_are_the_owners_business(web: Web, source: Realm) -> None:
    make.user("bob")
    RealmPermission.objects.filter(realm=source, audience="everyone").update(read=True, write=True)
    before = everything()
    url = f"{source.url}_permissions"
    assert web.get(url, API).status == 401, "whatever everyone may do"
    assert web.get(url, API, **make.realm_login(source, "bob")).status == 403
    assert patch(web, source, {"*": ["read"]}, "bob").status == 403
    operator = {"Authorization": realm_token(OPERATOR, source.url, [], 60)}
    assert web.get(url, API, **operator).status == 200
    assert everything() == before


# --- Sessions ----------------------------------------------------------------------------------


def claims(answer: Answer) -> Any:
    assert (answer.status, answer.body) == (201, b"")
    token = answer.headers["authorization"]
    return jwt.decode(token, configured.REALM_SECRET_SEED, algorithms=["HS256"])


@pytest.mark.parametrize("way", ["password", "server token"])
def test_a_realms_session_is_a_token_with_the_permissions_of_now(
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


def test_a_session_needs_a_right_password_or_a_server_token(web: Web, private: Realm) -> None:
    make.old_user(OPERATOR)
    url = f"{private.url}_session"
    for name, password in (("ada", "wrong"), (OPERATOR, OPERATOR)):
        assert web.post(url, {"username": name, "password": password}).status == 401
        body = {"username": name, "password": password}
        assert web.post(f"{ORIGIN}/_server-session", body).status == 401
    assert web.post(url, {}, make.realm_login(private, "ada")).status == 401
    assert web.request("GET", url, accept=API).headers["allow"] == "POST, OPTIONS"


def test_a_stranger_gets_a_session_that_opens_nothing(web: Web, private: Realm) -> None:
    make.user("bob")
    answer = web.post(f"{private.url}_session", {"username": "bob", "password": "bob"})
    assert claims(answer)["permissions"] == []
    token = {"Authorization": answer.headers["authorization"]}
    assert web.get(f"{private.url}index.json", SOURCE, **token).status == 403


def test_realm_auth_gives_a_token_for_each_realm_that_may_be_read(
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


def test_a_token_stops_working_with_its_users_account(web: Web, source: Realm, owner: Any) -> None:
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


def test_rights_left_behind_by_a_user_who_is_gone_are_nobodys(web: Web, private: Realm) -> None:
    bob = make.user("bob")
    RealmPermission.objects.create(realm=private, account=make.account("bob"), read=True)
    bobs = make.realm_login(private, "bob")
    assert web.get(f"{private.url}index.json", SOURCE, **bobs).status == 200
    bob.delete()
    assert web.get(f"{private.url}index.json", SOURCE, **bobs).status == 401


# --- X-Boxel-Assume-User -----------------------------------------------------------------------


def test_the_operator_can_be_held_to_the_rights_of_a_user(web: Web, private: Realm) -> None:
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


def test_nobody_else_can_be_somebody_else(web: Web, private: Realm) -> None:
    make.user("bob")
    headers = {**make.realm_login(private, "bob"), "X-Boxel-Assume-User": "@ada:localhost"}
    assert web.get(f"{private.url}index.json", SOURCE, **headers).status == 403
    server = {"Authorization": server_token("ada"), "X-Boxel-Assume-User": "@ada:localhost"}
    assert web.get(f"{private.url}index.json", SOURCE, **server).status == 401


# --- Who may, how, and what else ---------------------------------------------------------------

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
def test_a_method_that_is_not_possible_is_told_which_are(
    web: Web, source: Realm, path: str, allow: str
) -> None:
    answer = web.request("PUT", source.url + path, accept=API, body=b"{}")
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert web.get(f"{ORIGIN}/_publish-realm").headers["allow"] == "POST, OPTIONS"


def test_the_endpoints_answer_at_the_root_of_a_published_host(web: Web, source: Realm) -> None:
    make.publish(source, PAGE)
    for path, kind in (("_info", "realm-info"), ("_mtimes", "mtimes"),
                       ("_publishability", "realm-publishability"), ("", "directory")):  # fmt: skip
        assert told(web.get(PAGE + path, API), kind)["id"] == PAGE


def test_a_file_may_bear_an_endpoints_name(web: Web, source: Realm, ada: dict[str, str]) -> None:
    for name in ("_info", "deep/_mtimes", "_atomic"):
        assert web.upload(source.url + name, b"text", ada).status == 204
        assert web.get(source.url + name, SOURCE).text == "text"
        assert web.request("DELETE", source.url + name, accept=SOURCE, headers=ada).status == 204


# --- Ranges ------------------------------------------------------------------------------------


@pytest.fixture
def ten(web: Web, live: None, source: Realm) -> Iterator[str]:
    """The URL of a file of ten bytes, answered from the database and from the cache."""
    make.write(source, ten__bin=b"0123456789", empty__bin=b"")
    yield f"{source.url}ten.bin"


@pytest.mark.parametrize("accept", [SOURCE, "*/*", "text/html"])
@pytest.mark.parametrize(
    ("asked", "body", "told_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-30", b"0123456789", "bytes 0-9/10"),
        ("bytes=5-99999", b"56789", "bytes 5-9/10"),
        ("Bytes = 1 - 2", b"12", "bytes 1-2/10"),
    ],
)
def test_a_part_of_a_file(
    web: Web, ten: str, accept: str, asked: str, body: bytes, told_range: str
) -> None:
    for cache in ("miss", "hit"):
        answer = web.get(ten, accept, Range=asked)
        assert (answer.status, answer.body, answer.cache) == (206, body, cache)
        assert answer.headers["content-range"] == told_range
        assert answer.headers["content-length"] == str(len(body))
        assert "etag" in answer.headers


@pytest.mark.parametrize(
    "asked",
    ["bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "0-1", "٣",
     "bytes=+1-2", f"bytes={'9' * 40}-"],
)  # fmt: skip
def test_what_is_no_range_is_answered_with_the_whole(web: Web, ten: str, asked: str) -> None:
    answer = web.get(ten, SOURCE, Range=asked.encode().decode("latin-1"))
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=999-"])
def test_a_range_behind_the_end_is_told_the_size(web: Web, ten: str, asked: str) -> None:
    answer = web.get(ten, SOURCE, Range=asked)
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */10"
    assert "etag" not in answer.headers
    assert json.loads(answer.text)["errors"][0]["status"] == 416
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=7-", "bytes=0-,-1"])
def test_any_range_of_an_empty_file_is_all_of_it(web: Web, ten: str, asked: str) -> None:
    for _ in ("miss", "hit"):
        empty = web.get(ten.replace("ten.bin", "empty.bin"), SOURCE, Range=asked)
        assert (empty.status, empty.body) == (200, b"")
        assert "content-range" not in empty.headers


def test_a_part_is_only_sent_of_the_content_that_the_client_has(web: Web, ten: str) -> None:
    headers = web.get(ten, SOURCE).headers
    for known, status in ((headers["etag"], 206), (headers["last-modified"], 206), ('"x"', 200),
                          (f"W/{headers['etag']}", 200)):  # fmt: skip
        answer = web.get(ten, SOURCE, Range="bytes=0-1", **{"If-Range": known})
        assert answer.status == status, known
    known_all = {"Range": "bytes=0-1", "If-None-Match": headers["etag"]}
    assert web.get(ten, SOURCE, **known_all).status == 304


def test_ranges_mean_nothing_to_a_head_and_to_what_is_made_from_a_file(web: Web, ten: str) -> None:
    head = web.request("HEAD", ten, accept=SOURCE, headers={"Range": "bytes=0-1"})
    assert (head.status, head.headers["content-length"]) == (200, "10")
    module = web.get(ten.replace("ten.bin", "person.tsx"), Range="bytes=0-1")
    assert module.status == 200
    assert "accept-ranges" not in module.headers


# --- Where a realm is --------------------------------------------------------------------------


def test_a_realm_within_a_realm_is_found_without_its_slash(
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
    assert web.get(url, SOURCE).body == b"a file", "what is there is not hidden"


def test_no_cache_leaves_nothing_cached_behind(web: Web, live: None, source: Realm) -> None:
    url = f"{source.url}index.json"
    seen = [web.get(each, SOURCE).cache for each in (url, url, f"{url}?noCache", url, url)]
    assert seen == ["miss", "hit", "miss", "miss", "hit"]
