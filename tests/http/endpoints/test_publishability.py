"""Tests the report of `_publishability`. It lists the private realms on which a realm depends, and
the realm's cards that can't be rendered."""

from typing import Any

from realms.models import Realm
from reindex.models import IndexedCard, IndexHead, ReindexJob
from tests.support import make
from tests.support.clients.telling import attributes
from tests.support.web import API, ORIGIN, Web

PAGE = "http://ada.localhost:4201/"


def report(web: Web, realm: Realm) -> Any:
    answer = web.get(f"{realm.url}_publishability", API, **make.realm_login(realm, "ada"))
    return attributes(answer, "realm-publishability")


def test_a_realm_without_private_dependencies_is_publishable(web: Web, source: Realm) -> None:
    make.write(source, broken__tsx=b"import {", odd__json=b"[1]", empty__ts=b"")
    assert report(web, source) == {
        "publishable": True, "realmURL": source.url, "violations": []
    }  # fmt: skip
    Realm.objects.filter(pk=source.pk).update(publishable=False)
    assert report(web, source)["publishable"] is False


def test_each_file_with_a_private_dependency_is_named(
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


def test_a_private_realm_depends_on_itself_only_by_an_absolute_url(
    web: Web, private: Realm
) -> None:
    assert report(web, private)["violations"] == []
    make.write(private, self__json=make.card(f"{private.url}post", "Post"))
    (violation,) = report(web, private)["violations"]
    assert violation["resource"] == f"{private.url}self.json"


def test_a_failed_card_is_reported_until_its_source_changes(web: Web, source: Realm) -> None:
    make.publish(source, PAGE)
    job = ReindexJob.objects.get(realm_url=PAGE)
    row = {"job": job, "realm_url": PAGE}
    IndexedCard.objects.create(**row, path="ada", error={"message": "no"})
    IndexedCard.objects.create(**row, path="index", html={"isolated": "fine"})
    assert report(web, source)["violations"] == [], "the index with the error isn't shown yet"
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
    assert report(web, source)["violations"] == [], "the change may have repaired the card"
