"""Tests the content of `_definition` answers, for every spelling of a module's URL. A definition
describes a card type that the module exports."""

import pytest

from definitions.models import Definition
from realms.models import Realm
from tests.support import make
from tests.support.clients.definitions_told import PRIVATE, SITE, THING, ask, row, told
from tests.support.web import API, ORIGIN, Web


def test_a_definition_has_the_fields_ancestors_and_build_data(web: Web, site: Realm) -> None:
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


def test_without_a_name_all_exported_cards_are_returned(web: Web, site: Realm) -> None:
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
def test_a_module_may_be_named_in_every_spelling_that_cards_use(
    web: Web, site: Realm, spelling: str
) -> None:
    """A module's name is a URL, or a path relative to the realm or the server. The extension may be
    omitted."""
    assert told(ask(web, spelling, "Person"))["data"]["id"] == f"{SITE}person.tsx/Person"


def test_the_card_library_has_a_definition_too(web: Web, site: Realm) -> None:
    data = told(ask(web, "@realm/base", "Card"))["data"]
    assert data["attributes"]["codeRef"] == {"module": "@realm/base", "name": "Card"}


def test_all_spellings_of_a_non_ascii_name_are_one_module(
    web: Web, site: Realm, builds: list[str]
) -> None:
    make.write_paths(site, {"ä b.tsx": make.PERSON_MODULE.encode()})
    url = f"{SITE}%C3%A4%20b.tsx"
    for spelling in ("ä b", "%C3%A4%20b.tsx", url):
        assert told(ask(web, spelling, "Person"))["data"]["id"] == f"{url}/Person"
    assert builds == [url]
    make.write_paths(site, {"ä b.tsx": THING})
    assert told(ask(web, "ä b", "Thing"))["data"]["id"] == f"{url}/Thing"


def test_a_stored_definition_is_returned_without_a_build(
    web: Web, site: Realm, builds: list[str]
) -> None:
    first, second = (told(ask(web, "thing")) for _ in range(2))
    assert first == second
    assert builds == [f"{SITE}thing.tsx"]


def test_the_endpoint_has_the_usual_headers_methods_and_permissions(
    web: Web, site: Realm, private: Realm
) -> None:
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
