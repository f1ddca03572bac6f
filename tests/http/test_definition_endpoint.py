"""`GET <realm>/_definition`: what a module's card types are, told to whoever may know."""

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings

from definitions.models import CacheGeneration, Definition
from realms.access.auth import OPERATOR, Caller, reading_as, realm_token, user_id
from realms.access.permissions import change_permissions
from realms.api import definition_views
from realms.models import Realm, RealmPermission
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import unpublish_realm
from reindex.prerender.module_builder import ModuleBuilder
from reindex.reading.replicas import ReplicaUnavailable
from tests.support import make
from tests.support.cluster import Answer
from tests.support.web import API, ORIGIN, Web

SITE = f"{ORIGIN}/ada/site/"
LIBRARY = f"{ORIGIN}/bob/library/"
PRIVATE = f"{ORIGIN}/bob/private/"
PAGE = "http://ada.localhost:4201/"

THING = b"""\
import { Card, contains, containsMany, computed, linksToMany, number, string } from "@realm/base";
class Size extends Card { static fields = { width: number() }; }
export class Owner extends Card { static fields = { name: string({ label: "Name" }) }; }
export class Thing extends Card {
  static displayName = "A thing";
  static description = "What there is";
  static fields = {
    name: string({ description: "As it is called" }),
    tags: containsMany(string()),
    size: contains(Size),
    owners: linksToMany(() => Owner),
    length: computed((card) => card.name.length),
  };
}
"""
SECRET = b"""\
import { Card, string } from "@realm/base";
export class Secret extends Card {
  static displayName = "xyzzy";
  static fields = { word: string() };
}
"""
ON_SECRET = f"""\
import {{ string }} from "@realm/base";
import {{ Secret }} from "{PRIVATE}secret";
export class Mine extends Secret {{ static fields = {{ more: string() }}; }}
""".encode()


@pytest.fixture
def site(web: Web, owner: Any) -> Realm:
    """Ada's realm, which everyone may read, on a server with the card library."""
    sync_base_realm()
    return make.source(SITE, owner, {**make.SITE, "thing.tsx": THING, "mine.tsx": ON_SECRET})


@pytest.fixture
def bob() -> Any:
    return make.user("bob")


@pytest.fixture
def private(site: Realm, bob: Any) -> Realm:
    """Bob's realm, which nobody else may read."""
    return make.source(PRIVATE, bob, {"secret.tsx": SECRET}, public=False)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that were built, one by one."""
    built: list[str] = []
    build = ModuleBuilder.build

    def counted(builder: ModuleBuilder, located: Any) -> Any:
        built.append(located.module_url)
        return build(builder, located)

    monkeypatch.setattr(ModuleBuilder, "build", counted)
    return built


def ask(
    web: Web, module: str, name: str | None = None, realm: str = SITE, **headers: str
) -> Answer:
    named = f"&name={quote(name)}" if name is not None else ""
    return web.get(f"{realm}_definition?module={quote(module)}{named}", API, **headers)


def told(answer: Answer) -> Any:
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == API
    return json.loads(answer.text)


def error(answer: Answer, status: int) -> Any:
    assert answer.status == status, answer.text
    assert ".py" not in answer.text and "Traceback" not in answer.text
    (first,) = json.loads(answer.text)["errors"]
    assert first["status"] == status
    return first


def row(module: str, reader: str = "") -> Definition:
    return Definition.objects.get(module_url=module, reader=reader)


def reader(name: str, realm: Realm) -> str:
    """Whose rows are those of a user's token for a realm."""
    return f"{make.account(name).pk} in {realm.pk}"


# --- What is told ------------------------------------------------------------------------------


def test_a_definition_tells_all_that_a_form_or_a_reader_needs(web: Web, site: Realm) -> None:
    document = told(ask(web, "thing", "Thing"))
    data = document["data"]
    assert (data["type"], data["id"]) == ("definition", f"{SITE}thing.tsx/Thing")
    attributes = data["attributes"]
    assert attributes["codeRef"] == {"module": f"{SITE}thing.tsx", "name": "Thing"}
    assert attributes["displayName"] == "A thing"
    assert attributes["description"] == "What there is"
    assert attributes["adoptionChain"] == [{"module": "@realm/base", "name": "Card"}]
    fields = attributes["fields"]
    assert fields["name"] == {
        "kind": "contains", "type": "string", "computed": False, "label": None,
        "description": "As it is called",
    }  # fmt: skip
    assert fields["tags"]["kind"] == "containsMany"
    assert fields["size"]["kind"] == "contains"
    assert fields["owners"]["kind"] == "linksToMany"
    assert fields["owners"]["type"] == {"module": f"{SITE}thing.tsx", "name": "Owner"}
    assert fields["length"]["computed"]

    kept, meta = row(f"{SITE}thing.tsx"), document["meta"]
    assert meta["module"] == f"{SITE}thing.tsx"
    assert meta["scope"] == kept.scope == "public"
    assert meta["buildMs"] == kept.build_ms > 0
    assert meta["builtAt"] == kept.built_at.isoformat()
    assert meta["dependencies"] == kept.dependencies
    assert f"{ORIGIN}/base/mod.ts" in meta["dependencies"]
    assert meta["realms"] == [SITE, f"{ORIGIN}/base/"]


def test_without_a_name_all_that_a_module_exports_is_told(web: Web, site: Realm) -> None:
    make.write(site, label__ts=b'export const label = "no card";')
    assert {each["id"] for each in told(ask(web, "thing"))["data"]} == {
        f"{SITE}thing.tsx/Thing", f"{SITE}thing.tsx/Owner"
    }  # fmt: skip
    assert told(ask(web, "label"))["data"] == []


@pytest.mark.parametrize(
    "spelling",
    [
        "person", "person.tsx", "./person", "/ada/site/person.tsx", f"{SITE}person",
        f"{SITE}person.tsx", "deep/../person", f"{SITE}person?x#y",
    ],
)  # fmt: skip
def test_a_module_is_named_as_cards_name_it(web: Web, site: Realm, spelling: str) -> None:
    """A path from the realm, from the server, or a URL, with its extension or without."""
    assert told(ask(web, spelling, "Person"))["data"]["id"] == f"{SITE}person.tsx/Person"


def test_the_card_library_is_a_module_as_well(web: Web, site: Realm) -> None:
    data = told(ask(web, "@realm/base", "Card"))["data"]
    assert data["attributes"]["codeRef"] == {"module": "@realm/base", "name": "Card"}


def test_a_name_beyond_ascii_is_one_module_however_it_is_spelt(
    web: Web, site: Realm, builds: list[str]
) -> None:
    make.write_paths(site, {"ä b.tsx": make.PERSON_MODULE.encode()})
    url = f"{SITE}%C3%A4%20b.tsx"
    for spelling in ("ä b", "%C3%A4%20b.tsx", url):
        assert told(ask(web, spelling, "Person"))["data"]["id"] == f"{url}/Person"
    assert builds == [url]
    make.write_paths(site, {"ä b.tsx": THING})
    assert told(ask(web, "ä b", "Thing"))["data"]["id"] == f"{url}/Thing"


def test_what_has_been_built_is_answered_from_the_table(
    web: Web, site: Realm, builds: list[str]
) -> None:
    first, second = (told(ask(web, "thing")) for _ in range(2))
    assert first == second
    assert builds == [f"{SITE}thing.tsx"]


def test_the_endpoint_is_as_the_others_are(web: Web, site: Realm, private: Realm) -> None:
    url = f"{SITE}_definition?module=thing"
    answer, head = web.get(url, API), web.request("HEAD", url, accept=API)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.body))
    assert answer.headers["x-realm-generation"] == str(site.generation)
    assert answer.headers["x-boxel-realm-url"] == SITE
    assert answer.headers["x-boxel-realm-public-readable"] == "true"
    assert answer.headers["cache-control"].startswith("no-store")
    assert answer.headers["access-control-allow-origin"] == "*"
    refused = web.request("POST", url, accept=API, body=b"{}")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    preflight = web.request("OPTIONS", url)
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, "*")
    for method in ("GET", "HEAD"):
        closed = f"{PRIVATE}_definition?module=secret"
        assert web.request(method, closed, accept=API).status == 401
    assert not Definition.objects.filter(realm_url=PRIVATE).exists()


# --- What is asked wrongly ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "parameter", "why"),
    [
        ("", "module", "0 times"),
        ("module=", "module", "characters"),
        ("module=a&module=b", "module", "2 times"),
        ("module=" + "a" * 2049, "module", "2048 characters"),
        ("module=a%00", "module", "control character"),
        ("module=a%2500", "module", "control character"),
        ("module=a%0Ab", "module", "control character"),
        ("module=@lodash", "module", "is not a module"),
        ("module=http://[/x", "module", "is not a module"),
        ("module=thing&name=", "name", "characters"),
        ("module=thing&name=A&name=B", "name", "2 times"),
        ("module=thing&name=a%07", "name", "control character"),
        ("module=thing&name=" + "a" * 201, "name", "200 characters"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(
    web: Web, site: Realm, query: str, parameter: str, why: str
) -> None:
    told_of = error(web.get(f"{SITE}_definition?{query}", API), 400)
    assert told_of["source"] == {"parameter": parameter}
    assert why in told_of["message"]


@pytest.mark.parametrize(
    "module",
    ["nowhere", "dot.png", "index.json", "index", "", "..", "/nobody/x", "http://else.example/x"],
)
def test_what_is_no_module_is_not_found(web: Web, site: Realm, module: str) -> None:
    missing = error(ask(web, module or "."), 404)
    assert "was not found" in missing["message"]
    assert not Definition.objects.exists()


def test_a_name_that_is_not_exported_is_not_found_among_those_that_are(
    web: Web, site: Realm
) -> None:
    missing = error(ask(web, "thing", "Thong"), 404)
    assert missing["meta"] == {"exports": ["Owner", "Thing"]}
    assert missing["message"].endswith("exports no card named Thong; it exports Owner, Thing")


def test_a_private_realms_module_is_no_more_than_one_that_there_isnt(
    web: Web, site: Realm, private: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a stranger nor for someone who is signed in elsewhere; and also while there is
    no place for another build."""
    for headers in ({}, make.realm_login(site, "ada")):
        for places in (2, 0):
            monkeypatch.setattr(definition_views, "_places", threading.Semaphore(places))
            there = ask(web, f"{PRIVATE}secret", **headers)
            nowhere = ask(web, f"{PRIVATE}nowhere", **headers)
            assert there.status == nowhere.status == 404
            assert there.text.replace("secret", "nowhere") == nowhere.text
            assert set(there.headers) == set(nowhere.headers)
    assert not Definition.objects.exists()


# --- Modules that can't be built ---------------------------------------------------------------

BROKEN: dict[str, tuple[bytes, int, str, list[str]]] = {
    "syntax": (b"export class Broken extends {", 406, "SyntaxError", []),
    "throws": (b'throw new Error("not today", { cause: new Error("too late") });', 422,
               "not today", []),
    "on-syntax": (b'import "./syntax.tsx";', 406, "syntax.tsx", ["syntax.tsx"]),
    "on-throws": (b'import "./throws";', 422, "not today", ["throws.tsx"]),
    "on-on-throws": (b'import "./on-throws";', 422, "not today", ["throws.tsx", "on-throws.tsx"]),
    "on-nothing": (b'import "./nothing.ts";', 422, "nothing.ts", ["nothing.ts"]),
    "on-package": (b'import "lodash";', 422, "lodash", []),
    "on-no-export": (b'import { nope } from "./thing.tsx"; nope;', 422, "nope", []),
    "hangs": (b"while (true);", 422, "took longer than 1000 ms", []),
    "on-hangs": (b'import "./hangs.tsx";', 422, "hangs.tsx took longer", []),
}  # fmt: skip


def test_a_failing_module_names_the_reason_and_the_import_to_blame(
    web: Web, site: Realm, builds: list[str]
) -> None:
    make.write_paths(site, {f"{name}.tsx": code for name, (code, *_) in BROKEN.items()})
    with override_settings(REALM_RENDER_SECONDS=1):
        for name, (_, status, says, blamed) in BROKEN.items():
            for _ in range(2):
                failed = error(ask(web, name, "Any"), status)
                assert says in failed["message"], name
                to_blame = [each["module"] for each in failed["meta"]["dependencies"]]
                assert to_blame == [SITE + each for each in blamed], name
    assert len(builds) == len(BROKEN), "an error is kept for a while"
    throws = error(ask(web, "on-on-throws"), 422)["meta"]
    assert throws["dependencies"][0]["causes"] == ["too late"]
    syntax = error(ask(web, "on-syntax"), 406)["meta"]
    assert "Unexpected token" in syntax["dependencies"][0]["message"]
    assert Definition.objects.filter(expires_at=None, realm_url=SITE).count() == 0


def test_a_replica_that_can_not_be_read_is_no_fault_of_the_module(
    web: Web, site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no replica answers, nothing is kept."""
    told(ask(web, "thing"))

    def away(builder: ModuleBuilder, module_url: str) -> None:
        raise ReplicaUnavailable("there is none")

    monkeypatch.setattr(ModuleBuilder, "locate", away)
    busy = ask(web, "person")
    assert "can't be read at present" in error(busy, 503)["message"]
    assert busy.headers["retry-after"] == "1"
    assert Definition.objects.count() == 1


def test_when_enough_requests_wait_for_builds_the_next_gets_503(
    web: Web, site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is there is answered all the same."""
    told(ask(web, "person"))
    monkeypatch.setattr(definition_views, "_places", threading.BoundedSemaphore(1))
    with definition_views._waiting("another"):
        busy = ask(web, "thing")
        assert error(busy, 503)["message"] == (
            f"the definitions of {SITE}thing.tsx are not made yet; try again"
        )
        assert busy.headers["retry-after"] == "1"
        told(ask(web, "person"))
    told(ask(web, "thing"))


def test_those_who_are_sent_away_come_again_one_after_another() -> None:
    """However many they are, in the end they come within half a minute."""
    turns = definition_views.Turns()
    now = 1000 * definition_views.NANOSECONDS
    told = [turns.take(now) for _ in range(1000)]
    assert told == sorted(told)
    assert {told.count(second) for second in range(1, 30)} == {turns.PER_SECOND}
    assert told[-1] == turns.LAST_SECONDS
    assert turns.take(now + 60 * definition_views.NANOSECONDS) == 1


# --- What changes ------------------------------------------------------------------------------


def fields(web: Web, module: str, name: str, realm: str = SITE, **headers: str) -> set[str]:
    return set(told(ask(web, module, name, realm, **headers))["data"]["attributes"]["fields"])


def test_a_draft_is_told_as_it_is_stored_now(web: Web, site: Realm, bob: Any) -> None:
    """Whatever was written: the module, what it imports from another realm, what was missing, or
    very many files."""
    part = b'import { string } from "@realm/base"; export const parts = { %b: string() };'
    library = make.source(LIBRARY, bob, {"part.ts": part % b"one"})
    make.write(
        site,
        whole__tsx=f"""\
import {{ Card }} from "@realm/base";
import {{ parts }} from "{LIBRARY}part";
export class Whole extends Card {{ static fields = parts; }}
""".encode(),
    )
    assert fields(web, "whole", "Whole") == {"one"}
    make.write(library, part__ts=part % b"two")
    assert fields(web, "whole", "Whole") == {"two"}
    make.write(library, part__tsx=part % b"three")
    assert fields(web, "whole", "Whole") == {"three"}, "the first spelling that there is"
    make.remove(library, "part.tsx")
    assert fields(web, "whole", "Whole") == {"two"}
    make.remove(library, "part.ts")
    assert error(ask(web, "whole"), 422)["meta"]["dependencies"][0]["module"] == f"{LIBRARY}part"
    make.write(library, part__ts=part % b"four")
    assert fields(web, "whole", "Whole") == {"four"}, "an error is gone with its reason"
    many = {f"more/{number}.ts": b"export {};" for number in range(40)}
    make.write_paths(library, {**many, "part.ts": part % b"five"})
    assert fields(web, "whole", "Whole") == {"five"}


def test_data_that_a_module_imports_is_a_part_of_what_it_defines(web: Web, site: Realm) -> None:
    module = b"""\
import { Card, string } from "@realm/base";
import data from "./d%61ta.json" with { type: "json" };
export class Named extends Card { static fields = { [data.name]: string() }; }
"""
    make.write(site, named__tsx=module, data__json=b'{"name": "one"}')
    assert fields(web, "named", "Named") == {"one"}
    make.write(site, data__json=b'{"name": "two"}')
    assert fields(web, "named", "Named") == {"two"}
    make.remove(site, "data.json")
    assert error(ask(web, "named"), 422)["title"] == "Module not found"
    make.write(site, data__json=b'{"name": "three"}')
    assert fields(web, "named", "Named") == {"three"}


def test_an_inner_realm_has_definitions_of_its_own_while_it_exists(
    web: Web, site: Realm, owner: Any
) -> None:
    def person(field: str) -> bytes:
        return make.PERSON_MODULE.replace("name:", f"{field}:").encode()

    make.write_paths(site, {"docs/person.tsx": person("outer")})
    make.publish(site, PAGE)
    assert fields(web, f"{PAGE}docs/person", "Person", PAGE) == {"outer"}
    inner = make.source("http://localhost:4201/ada/docs/", owner, {"person.tsx": person("inner")})
    make.publish(inner, f"{PAGE}docs/")
    assert fields(web, "person", "Person", f"{PAGE}docs/") == {"inner"}
    assert fields(web, f"{PAGE}docs/person", "Person", PAGE) == {"inner"}
    unpublish_realm(f"{PAGE}docs/", Caller("ada"))
    assert fields(web, f"{PAGE}docs/person", "Person", PAGE) == {"outer"}


def test_what_is_not_code_leaves_definitions_as_they_are(
    web: Web, site: Realm, builds: list[str]
) -> None:
    told(ask(web, "thing"))
    make.write(site, index__json=make.card("./post", "Post", title="Other"))
    told(ask(web, "thing"))
    assert builds == [f"{SITE}thing.tsx"]


def test_a_published_realm_tells_what_it_shows(web: Web, site: Realm) -> None:
    make.publish(site, PAGE)
    assert fields(web, "person", "Person", PAGE) == {"name"}
    make.write(site, person__tsx=make.PERSON_MODULE.replace("name:", "called:").encode())
    assert fields(web, "person", "Person") == {"called"}
    assert fields(web, "person", "Person", PAGE) == {"name"}
    make.publish(site, PAGE)
    assert fields(web, "person", "Person", PAGE) == {"called"}
    assert fields(web, f"{SITE}person", "Person", PAGE) == {"called"}, "another realm's module"


# --- Whose they are ----------------------------------------------------------------------------


def let(realm: Realm, name: str, *actions: str) -> None:
    wire = name if name in ("*", "users") else user_id(name)
    change_permissions(realm, {wire: list(actions)})


def test_a_private_realms_definitions_are_kept_for_each_reader_alone(
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


def test_a_public_module_is_everyones_whoever_asks_first(
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
    """And is refused to everyone else, before and after."""
    bob, ada = make.realm_login(private, "bob"), make.realm_login(site, "ada")

    def refused(**headers: str) -> None:
        failed = error(ask(web, "mine", "Mine", **headers), 422)
        assert [each["module"] for each in failed["meta"]["dependencies"]] == [f"{PRIVATE}secret"]

    refused()
    assert fields(web, f"{SITE}mine", "Mine", PRIVATE, **bob) == {"word", "more"}
    refused(**ada)
    # Bob's token for the one realm is not one for the other.
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


def test_a_realm_is_read_on_behalf_of_its_readers_only(private: Realm) -> None:
    let(private, "ada", "read")
    assert reading_as(Caller("ada"))(PRIVATE)
    let(private, "ada")
    assert reading_as(Caller("ada"))(PRIVATE) is None
    assert reading_as(Caller("nobody"))(PRIVATE) is None
    assert reading_as(Caller("bob"))(f"{PRIVATE}no/") is None


def test_what_was_everyones_is_not_when_its_realm_is_not(
    web: Web, site: Realm, private: Realm
) -> None:
    let(private, "*", "read")
    assert fields(web, "mine", "Mine") == {"word", "more"}
    assert row(f"{SITE}mine.tsx").scope == "public"
    let(private, "*")
    assert not Definition.objects.filter(realm_urls__contains=[PRIVATE]).exists()
    assert error(ask(web, "mine", "Mine"), 422)


def test_a_change_of_permissions_refuses_the_builds_under_way(
    private: Realm,
) -> None:
    """Its counter is part of the same transaction."""
    counter = CacheGeneration.objects.filter(scope="realm", key=PRIVATE)
    before = counter.values_list("generation", flat=True).first() or 0
    let(private, "ada", "read")
    let(private, "users", "read")
    assert counter.get().generation == before + 2


def test_the_operator_is_told_all_and_as_a_user_what_that_user_is(
    web: Web, site: Realm, private: Realm
) -> None:
    operator = {"Authorization": realm_token(OPERATOR, SITE, [], 60)}
    assert fields(web, "mine", "Mine", **operator) == {"word", "more"}
    assert row(f"{SITE}mine.tsx", OPERATOR).scope == "realm-auth"
    as_ada = {**operator, "X-Boxel-Assume-User": user_id("ada")}
    assert error(ask(web, "mine", "Mine", **as_ada), 422)


def test_a_token_that_is_no_good_makes_a_stranger_of_its_bearer(
    web: Web, site: Realm, private: Realm
) -> None:
    let(site, "bob", "read")
    bob = make.realm_login(site, "bob")
    stale = {"Authorization": realm_token("bob", SITE, ["read", "write"], 60)}
    for headers in (stale, make.login("bob"), {"Authorization": "nonsense"}):
        assert error(ask(web, "mine", **headers), 422)
    get_user_model().objects.filter(username="bob").update(is_active=False)
    assert error(ask(web, "mine", **bob), 422)


def test_a_build_for_a_user_is_told_of_in_the_log_without_their_name(
    web: Web, private: Realm, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "definitions.lookup"):
        told(ask(web, "secret", realm=PRIVATE, **make.realm_login(private, "bob")))
    (line,) = [each.getMessage() for each in caplog.records if "building" in each.getMessage()]
    assert line == f"building the definitions of {PRIVATE}secret.tsx, scope realm-auth"


@pytest.fixture(autouse=True)
def no_shared_lookups() -> Iterator[None]:
    """Each test has a board of its own moment; a process's lookups live longer."""
    definition_views._lookup.cache_clear()
    yield


def test_a_module_imported_by_a_computed_name_is_a_dependency(web: Web, site: Realm) -> None:
    module = """\
import { Card, string } from "@realm/base";
const { names } = await import("./na" + "mes.ts");
export class Odd extends Card {
  static fields = Object.fromEntries(names.map((name) => [name, string()]));
}
"""
    make.write(site, odd__tsx=module.encode(), names__ts=b'export const names = ["one"];')
    assert fields(web, "odd", "Odd", SITE) == {"one"}
    make.write(site, names__ts=b'export const names = ["two"];')
    assert fields(web, "odd", "Odd", SITE) == {"two"}
