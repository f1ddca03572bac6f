"""Tests definitions that were made from files of private realms. The endpoint `_definition` returns
them only to users who may read all of these realms. A definition describes a card type that a
module exports."""

import logging

import pytest
from django.contrib.auth import get_user_model

from definitions.models import CacheGeneration, Definition
from realms.access.auth import OPERATOR, Caller, reading_as, realm_token, user_id
from realms.models import Realm, RealmPermission
from tests.support import make
from tests.support.clients.definitions_told import (
    PRIVATE,
    SECRET,
    SITE,
    ask,
    error,
    fields,
    let,
    reader,
    row,
    told,
)
from tests.support.web import ORIGIN, Web


def test_a_private_realms_definitions_are_stored_per_reader(
    web: Web, private: Realm, builds: list[str]
) -> None:
    let(private, "ada", "read")
    for name in ("bob", "ada"):
        headers = make.realm_login(private, name)
        for _ in range(2):
            document = told(ask(web, "secret", "Secret", PRIVATE, **headers))
            assert document["data"]["attributes"]["displayName"] == "xyzzy"
            assert document["meta"]["scope"] == "realm-auth"
        kept = row(f"{PRIVATE}secret.tsx", reader(name, private))
        assert kept.scope == "realm-auth"
        assert kept.realm_urls == sorted([PRIVATE, f"{ORIGIN}/base/"])
    assert len(builds) == 2


def test_a_public_modules_definition_is_shared_by_all_callers(
    web: Web, site: Realm, private: Realm, builds: list[str]
) -> None:
    bob, ada = make.realm_login(private, "bob"), make.realm_login(site, "ada")
    assert told(ask(web, "thing", **ada))["meta"]["scope"] == "public"
    told(ask(web, "thing"))
    told(ask(web, f"{SITE}thing", realm=PRIVATE, **bob))
    assert builds == [f"{SITE}thing.tsx"]


def test_a_private_import_is_built_only_for_users_who_may_read_both(
    web: Web, site: Realm, private: Realm
) -> None:
    """The server refuses callers who may not read both realms, before and after it has built the
    definitions for Bob, who may read both."""
    bob, ada = make.realm_login(private, "bob"), make.realm_login(site, "ada")

    def refused(**headers: str) -> None:
        failed = error(ask(web, "mine", "Mine", **headers), 422)
        assert [each["module"] for each in failed["meta"]["dependencies"]] == [f"{PRIVATE}secret"]

    refused()
    assert fields(web, f"{SITE}mine", "Mine", PRIVATE, **bob) == {"word", "more"}
    refused(**ada)
    # Bob's token for Ada's realm gives no access to his own private realm.
    refused(**make.realm_login(site, "bob"))
    refused()
    assert row(f"{SITE}mine.tsx").definitions is None
    mine = row(f"{SITE}mine.tsx", reader("bob", private))
    assert (mine.scope, mine.realm_urls) == (
        "realm-auth", sorted([SITE, PRIVATE, f"{ORIGIN}/base/"])
    )  # fmt: skip
    everyones = Definition.objects.filter(scope="public")
    assert "xyzzy" not in str(list(everyones.values_list("definitions", "error")))

    make.write(private, secret__tsx=SECRET.replace(b"word", b"saying"))
    assert fields(web, f"{SITE}mine", "Mine", PRIVATE, **bob) == {"saying", "more"}


@pytest.mark.parametrize("how", ["by its owner", "in the database alone"])
def test_a_user_who_lost_access_gets_nothing_made_from_the_realm(
    web: Web, site: Realm, private: Realm, how: str
) -> None:
    let(private, "ada", "read")
    ada = make.realm_login(private, "ada")
    assert fields(web, f"{SITE}mine", "Mine", PRIVATE, **ada) == {"word", "more"}
    assert fields(web, "secret", "Secret", PRIVATE, **ada) == {"word"}
    rows = Definition.objects.filter(reader=reader("ada", private))
    if how == "by its owner":
        let(private, "ada")
        assert not rows.exists()
    else:
        RealmPermission.objects.filter(realm=private, account__username="ada").delete()
        assert rows.count() == 2
    assert ask(web, "secret", "Secret", PRIVATE, **ada).status == 401
    ada = make.realm_login(site, "ada")
    assert ask(web, f"{PRIVATE}secret", "Secret", **ada).status == 404
    assert error(ask(web, "mine", "Mine", **ada), 422)


def test_a_realm_is_read_only_on_behalf_of_its_readers(private: Realm) -> None:
    let(private, "ada", "read")
    assert reading_as(Caller("ada"))(PRIVATE)
    let(private, "ada")
    assert reading_as(Caller("ada"))(PRIVATE) is None
    assert reading_as(Caller("nobody"))(PRIVATE) is None
    assert reading_as(Caller("bob"))(f"{PRIVATE}no/") is None


def test_a_public_definition_ends_when_its_realm_becomes_private(
    web: Web, site: Realm, private: Realm
) -> None:
    let(private, "*", "read")
    assert fields(web, "mine", "Mine") == {"word", "more"}
    assert row(f"{SITE}mine.tsx").scope == "public"
    let(private, "*")
    assert not Definition.objects.filter(realm_urls__contains=[PRIVATE]).exists()
    assert error(ask(web, "mine", "Mine"), 422)


def test_a_change_of_permissions_raises_the_counter_of_its_realm(
    private: Realm,
) -> None:
    """If the counter of a realm is raised during a build that reads the realm, the database doesn't
    store the build's definitions. So no build can store definitions with outdated permissions."""
    counter = CacheGeneration.objects.filter(scope="realm", key=PRIVATE)
    before = counter.values_list("generation", flat=True).first() or 0
    let(private, "ada", "read")
    let(private, "users", "read")
    assert counter.get().generation == before + 2


def test_the_operator_sees_all_definitions_unless_it_assumes_a_user(
    web: Web, site: Realm, private: Realm
) -> None:
    operator = {"Authorization": realm_token(OPERATOR, SITE, [], 60)}
    assert fields(web, "mine", "Mine", **operator) == {"word", "more"}
    assert row(f"{SITE}mine.tsx", OPERATOR).scope == "realm-auth"
    as_ada = {**operator, "X-Boxel-Assume-User": user_id("ada")}
    assert error(ask(web, "mine", "Mine", **as_ada), 422)


def test_a_caller_with_an_invalid_token_is_a_stranger(
    web: Web, site: Realm, private: Realm
) -> None:
    let(site, "bob", "read")
    bob = make.realm_login(site, "bob")
    stale = {"Authorization": realm_token("bob", SITE, ["read", "write"], 60)}
    for headers in (stale, make.login("bob"), {"Authorization": "nonsense"}):
        assert error(ask(web, "mine", **headers), 422)
    get_user_model().objects.filter(username="bob").update(is_active=False)
    assert error(ask(web, "mine", **bob), 422)


def test_the_log_line_of_a_build_does_not_name_its_user(
    web: Web, private: Realm, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "definitions.lookup"):
        told(ask(web, "secret", realm=PRIVATE, **make.realm_login(private, "bob")))
    (line,) = [each.getMessage() for each in caplog.records if "building" in each.getMessage()]
    assert line == f"building the definitions of {PRIVATE}secret.tsx, scope realm-auth"
