"""Tests the exact bodies, headers and statuses of the server's endpoints."""

import json
import re
import time
from typing import Any

import jwt
import pytest
from django.conf import settings

from realms.access.auth import OPERATOR, realm_token, server_token
from realms.models import Publication, Realm, RealmPermission
from reindex.models import IndexHead, ReindexJob
from tests.support import make
from tests.support.cluster import Answer
from tests.support.rendering import WORK
from tests.support.web import API, ORIGIN, SOURCE, Web, everything

PAGE = "http://ada.localhost:4201/"


def document(answer: Answer) -> Any:
    """Returns the `data` of a JSON:API answer."""
    assert answer.headers["content-type"] == API
    return json.loads(answer.text)["data"]


def errors(answer: Answer) -> list[str]:
    """Returns the error messages in the answer of a server endpoint."""
    told = json.loads(answer.text)["errors"]
    assert all(isinstance(each, str) for each in told)
    return list(told)


def publish(web: Web, source: str, published: str, name: str = "ada") -> Answer:
    body = {"sourceRealmURL": source, "publishedRealmURL": published}
    return web.post(f"{ORIGIN}/_publish-realm", body, make.login(name))


def unpublish(web: Web, published: str, name: str = "ada") -> Answer:
    body = {"publishedRealmURL": published}
    return web.post(f"{ORIGIN}/_unpublish-realm", body, make.login(name))


def delete(web: Web, url: str, name: str = "ada") -> Answer:
    body = json.dumps({"data": {"type": "realm", "id": url}}).encode()
    return web.request("DELETE", f"{ORIGIN}/_delete-realm", body=body, headers=make.login(name))


# --- _server-session ---------------------------------------------------------------------------


@pytest.mark.parametrize(("lifetime", "days"), [(None, 1), ("standard", 1), ("extended", 7)])
def test_a_session_token_lasts_a_day_or_on_request_a_week(
    web: Web, owner: Any, lifetime: str | None, days: int
) -> None:
    body = {"username": "ada", "password": "ada"} | ({"lifetime": lifetime} if lifetime else {})
    answer = web.post(f"{ORIGIN}/_server-session", body)
    assert (answer.status, answer.body) == (201, b"")
    token = answer.headers["authorization"]
    claims = jwt.decode(token, settings.REALM_SECRET_SEED, algorithms=["HS256"])
    assert claims["user"] == "@ada:localhost"
    assert claims["exp"] - claims["iat"] == days * 24 * 3600
    assert claims["exp"] - time.time() == pytest.approx(days * 24 * 3600, abs=60)
    realm = {"data": {"type": "realm", "attributes": {"endpoint": "new", "name": "New"}}}
    assert web.post(f"{ORIGIN}/_create-realm", realm, {"Authorization": token}).status == 202


def test_a_deactivated_user_gets_no_session(web: Web, owner: Any) -> None:
    owner.is_active = False
    owner.save()
    answer = web.post(f"{ORIGIN}/_server-session", {"username": "ada", "password": "ada"})
    assert answer.status == 401
    assert "authorization" not in answer.headers


# --- _create-realm -----------------------------------------------------------------------------


def test_a_new_realm_has_its_two_cards_and_belongs_to_its_maker(web: Web, owner: Any) -> None:
    """The new realm's row has the right kind and owner, and the owner has all permissions."""
    attributes = {"endpoint": "new", "name": "Ädas „neues“ Reich", "iconURL": "/i.svg", "mood": 3}
    body = {"data": {"type": "realm", "attributes": attributes}}
    answer = web.post(f"{ORIGIN}/_create-realm", body, make.login("ada"))
    assert answer.status == 202
    url = f"{ORIGIN}/ada/new/"
    expected = {**attributes, "publishable": True, "status": "pending"}
    assert document(answer) == {"type": "realm", "id": url, "attributes": expected}

    realm = Realm.objects.get(url=url)
    assert (realm.kind, realm.owner, realm.publishable) == ("source", owner, True)
    rows = RealmPermission.objects.filter(realm=realm)
    assert list(rows.values_list("account__username", "read", "write", "realm_owner")) == [
        ("ada", True, True, True)
    ]
    ada = make.realm_login(realm, "ada")
    config = json.loads(web.get(f"{url}realm.json", SOURCE, **ada).text)
    assert config["data"]["attributes"] == {"name": attributes["name"], "iconURL": "/i.svg"}
    assert web.get(f"{url}index.json", SOURCE, **ada).status == 200
    assert web.get(f"{url}index.json", SOURCE).status == 401


def test_a_second_realm_at_a_url_is_refused_with_the_expected_message(
    web: Web, source: Realm
) -> None:
    """Creating a realm at a used URL changes nothing."""
    before = everything()
    body = {"data": {"type": "realm", "attributes": {"endpoint": "site", "name": "Again"}}}
    answer = web.post(f"{ORIGIN}/_create-realm", body, make.login("ada"))
    assert answer.status == 400
    assert re.search(r"'(.+)' already exists", errors(answer)[0]).group(1) == source.url  # type: ignore[union-attr]
    assert everything() == before


def test_an_unknown_user_cannot_create_a_realm(web: Web, owner: Any) -> None:
    body = {"data": {"type": "realm", "attributes": {"endpoint": "new", "name": "New"}}}
    assert web.post(f"{ORIGIN}/_create-realm", body, make.login("eve")).status == 403
    assert not Realm.objects.filter(url__contains="/eve/").exists()


# --- _publish-realm ----------------------------------------------------------------------------


def test_a_publish_answers_with_the_url_the_time_and_the_readiness_url(
    web: Web, source: Realm, sent: list[tuple[str, int]]
) -> None:
    answer = publish(web, source.url, PAGE)
    realm = Realm.objects.get(url=PAGE)
    assert answer.status == 202
    assert realm.last_published_at is not None
    assert document(answer) == {
        "type": "published_realm",
        "id": str(realm.pk),
        "attributes": {
            "sourceRealmURL": source.url,
            "publishedRealmURL": PAGE,
            "lastPublishedAt": str(int(realm.last_published_at.timestamp() * 1000)),
            "status": "pending",
            "generation": realm.generation,
        },
    }
    told = answer.headers
    assert told["location"] == f"{PAGE}_readiness-check?awaitPrerenderHtml=true"
    assert told["retry-after"] == "1"
    assert told["x-boxel-realm-url"] == PAGE
    assert told["x-boxel-realm-public-readable"] == "true"
    assert told["x-realm-generation"] == str(realm.generation)
    assert (realm.kind, realm.source, realm.publishable) == ("published", source, False)
    ReindexJob.objects.get(realm_url=PAGE)
    assert sent == [WORK]


@pytest.mark.parametrize(
    "spelling",
    [
        "http://ada.localhost:4201",
        "HTTP://Ada.LOCALHOST:4201/",
        "https://ada.localhost:4201/",
        "http://ada.localhost:4201/?now=1",
        "http://ada.localhost:4201/#top",
    ],
)
def test_a_published_url_has_one_spelling(web: Web, source: Realm, spelling: str) -> None:
    """In a published URL, the server ignores the scheme, the case of the host, a missing final
    slash, the query and the fragment."""
    first = document(publish(web, source.url, PAGE))
    again = document(publish(web, source.url.removesuffix("/"), spelling))
    assert again["attributes"]["publishedRealmURL"] == PAGE
    assert again["id"] == first["id"]


@pytest.mark.parametrize("port", ["", ":80"])
def test_a_default_port_is_no_part_of_a_published_url(web: Web, source: Realm, port: str) -> None:
    answer = publish(web, source.url, f"http://ada.localhost{port}/")
    assert document(answer)["attributes"]["publishedRealmURL"] == "http://ada.localhost/"


def test_a_user_may_publish_below_their_own_name(web: Web, source: Realm) -> None:
    url = f"{ORIGIN}/ada/shown/"
    assert publish(web, source.url, url).status == 202
    assert web.get(f"{url}ada.json").status == 200


@pytest.mark.parametrize("kind", ["server", "realm"])
def test_the_operator_may_publish_for_others(web: Web, source: Realm, kind: str) -> None:
    """A client that knows the secret seed can sign the operator's tokens, for a realm or for the
    server."""
    of_realm = realm_token(OPERATOR, source.url, [], 60)
    body = {"sourceRealmURL": source.url, "publishedRealmURL": PAGE}
    headers = {"Authorization": of_realm if kind == "realm" else server_token(OPERATOR)}
    assert web.post(f"{ORIGIN}/_publish-realm", body, headers).status == 202
    realm = Realm.objects.get(url=PAGE)
    assert realm.owner == source.owner
    assert Publication.objects.get(realm=realm).by == OPERATOR
    assert unpublish(web, PAGE).status == 200


def test_a_bearer_prefix_is_accepted(web: Web, source: Realm) -> None:
    body = {"sourceRealmURL": source.url, "publishedRealmURL": PAGE}
    headers = {"Authorization": f"bearer {server_token('ada')}"}
    assert web.post(f"{ORIGIN}/_publish-realm", body, headers).status == 202


def test_a_body_is_read_with_any_content_type(web: Web, source: Realm) -> None:
    body = {"sourceRealmURL": source.url, "publishedRealmURL": PAGE}
    headers = {**make.login("ada"), "Content-Type": "text/plain"}
    assert web.post(f"{ORIGIN}/_publish-realm", body, headers).status == 202


# --- _unpublish-realm --------------------------------------------------------------------------


def test_an_unpublish_answers_with_the_removed_realm(web: Web, source: Realm) -> None:
    """Right after the unpublish, every URL of the realm is a 404."""
    published = document(publish(web, source.url, PAGE))
    answer = unpublish(web, PAGE.removesuffix("/"))
    assert answer.status == 200
    attributes = published["attributes"]
    assert document(answer) == {
        "type": "unpublished_realm",
        "id": published["id"],
        "attributes": {
            key: attributes[key]
            for key in ("sourceRealmURL", "publishedRealmURL", "lastPublishedAt")
        },
    }
    assert web.get(f"{PAGE}ada.json").status == 404
    assert web.get(PAGE, "text/html").status == 404
    assert web.get(f"{PAGE}_readiness-check", API).status == 404
    assert not IndexHead.objects.filter(realm_url=PAGE).exists()

    again = unpublish(web, PAGE)
    assert again.status == 422
    assert re.search("not found", errors(again)[0], re.IGNORECASE)


# --- _delete-realm -----------------------------------------------------------------------------


def test_a_delete_removes_the_source_and_its_published_realms(web: Web, source: Realm) -> None:
    publish(web, source.url, PAGE)
    answer = delete(web, f"{source.url.removesuffix('/')}?x=1#y")
    assert (answer.status, answer.body) == (204, b"")
    assert web.get(f"{PAGE}ada.json").status == 404
    assert web.get(f"{source.url}ada.json").status == 404
    again = delete(web, source.url)
    assert again.status == 404
    assert source.url in errors(again)[0]


def test_only_the_owner_may_delete_a_source_realm(web: Web, source: Realm) -> None:
    publish(web, source.url, PAGE)
    bob = make.user("bob")
    co_owned = make.source(f"{ORIGIN}/bob/site/", bob, make.SITE)
    RealmPermission.objects.create(realm=co_owned, account=make.account("ada"), realm_owner=True)
    before = everything()
    assert delete(web, PAGE).status == 422
    assert delete(web, co_owned.url).status == 403
    assert delete(web, source.url, "bob").status == 403
    assert everything() == before


# --- Readiness ---------------------------------------------------------------------------------


def test_a_published_realm_is_ready_when_its_current_pages_are_shown(
    web: Web, source: Realm
) -> None:
    generation = document(publish(web, source.url, PAGE))["attributes"]["generation"]
    check = f"{PAGE}_readiness-check"
    waiting = web.get(check, API)
    assert (waiting.status, waiting.headers["x-boxel-not-ready"]) == (503, "index")

    waiting = web.get(f"{check}?awaitPrerenderHtml=true", API)
    assert waiting.status == 503
    assert waiting.headers["x-boxel-not-ready"] == "index"
    assert waiting.headers["retry-after"] == "1"
    assert json.loads(waiting.text)["errors"][0]["status"] == 503

    job = ReindexJob.objects.get(realm_url=PAGE)
    ReindexJob.objects.filter(pk=job.pk).update(status=ReindexJob.Status.RENDERING)
    waiting = web.get(f"{check}?awaitPrerenderHtml=true", API)
    assert (waiting.status, waiting.headers["x-boxel-not-ready"]) == (503, "prerender-html")

    ReindexJob.objects.filter(pk=job.pk).update(status=ReindexJob.Status.DONE)
    IndexHead.objects.create(
        realm_url=PAGE, job=job, generation=generation, swapped_at=job.created_at
    )
    ready = web.get(f"{check}?awaitPrerenderHtml=true", API)
    assert (ready.status, ready.body) == (200, b"")
    assert ready.headers["x-realm-generation"] == str(generation)

    publish(web, source.url, PAGE)
    assert web.get(f"{check}?awaitPrerenderHtml=true", API).status == 503


def test_readiness_is_public_and_ignores_tokens(web: Web, source: Realm) -> None:
    RealmPermission.objects.filter(realm=source, audience="everyone").delete()
    publish(web, source.url, PAGE)
    ReindexJob.objects.update(status=ReindexJob.Status.DONE)
    nonsense = realm_token(OPERATOR, f"{PAGE}_readiness-check/", [], 60)
    for token in (nonsense, "rubbish", "Bearer "):
        for url in (PAGE, source.url):
            assert web.get(f"{url}_readiness-check", API, Authorization=token).status == 200


# --- Browsers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/_publish-realm", "/_delete-realm", "/ada/site/index.json"])
def test_a_preflight_answer_may_be_cached_for_a_day(web: Web, source: Realm, path: str) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = web.request("OPTIONS", ORIGIN + path, headers=headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "*"
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "86400"


def test_cors_headers_are_on_answers_and_errors(web: Web, source: Realm) -> None:
    for answer in (
        publish(web, source.url, PAGE),
        publish(web, source.url, "nowhere"),
        web.post(f"{ORIGIN}/_publish-realm", {}),
        web.get(f"{ORIGIN}/_nothing"),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-expose-headers"] == "*"
        assert answer.headers["cache-control"] == "no-store"
