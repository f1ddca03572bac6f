"""Tests a realm's endpoint `_info`, which returns the realm's name, who may read the realm, and the
time of its last publication."""

from typing import Any

import pytest

from realms.models import Realm, RealmPermission
from tests.support import make
from tests.support.clients.telling import attributes
from tests.support.web import API, Web, everything

PAGE = "http://ada.localhost:4201/"


def info(web: Web, realm: str, **headers: str) -> Any:
    return attributes(web.get(f"{realm}_info", API, **headers), "realm-info")


def test_info_has_the_realms_name_and_time_of_publication(web: Web, source: Realm) -> None:
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
def test_info_answers_even_if_realm_json_is_invalid(
    web: Web, source: Realm, content: bytes, name: str
) -> None:
    make.write(source, realm__json=content)
    assert info(web, source.url)["name"] == name


def test_visibility_depends_on_who_may_read(web: Web, private: Realm) -> None:
    ada = make.realm_login(private, "ada")
    assert info(web, private.url, **ada)["visibility"] == "private"
    make.user("bob")
    row = RealmPermission.objects.create(realm=private, account=make.account("bob"), read=True)
    assert info(web, private.url, **ada)["visibility"] == "shared"
    row.delete()
    RealmPermission.objects.create(realm=private, audience="signed-in", read=True)
    ada = make.realm_login(private, "ada")
    assert info(web, private.url, **ada)["visibility"] == "shared"


def test_a_query_method_or_its_override_is_a_read(web: Web, source: Realm) -> None:
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
