"""Tests which changes of files change the definitions that `_definition` returns. A module's
definitions describe the card types that the module exports."""

from typing import Any

from definitions.models import CacheGeneration
from realms.access.auth import Caller
from realms.models import Realm
from realms.publishing.publish import unpublish_realm
from tests.support import make
from tests.support.clients.definitions_told import SITE, ask, error, fields, told
from tests.support.web import ORIGIN, Web

LIBRARY = f"{ORIGIN}/bob/library/"
PAGE = "http://ada.localhost:4201/"


def test_a_drafts_definition_follows_every_change_of_its_imports(
    web: Web, site: Realm, bob: Any
) -> None:
    """The test changes an imported file of another realm, deletes it, writes it again, and changes
    it together with many other files."""
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
    assert fields(web, "whole", "Whole") == {"three"}, "part.tsx comes before part.ts"
    make.remove(library, "part.tsx")
    assert fields(web, "whole", "Whole") == {"two"}
    make.remove(library, "part.ts")
    assert error(ask(web, "whole"), 422)["meta"]["dependencies"][0]["module"] == f"{LIBRARY}part"
    make.write(library, part__ts=part % b"four")
    assert fields(web, "whole", "Whole") == {"four"}, "the error ends when the file exists"
    many = {f"more/{number}.ts": b"export {};" for number in range(40)}
    make.write_paths(library, {**many, "part.ts": part % b"five"})
    assert fields(web, "whole", "Whole") == {"five"}


def test_a_definition_follows_json_data_that_its_module_imports(web: Web, site: Realm) -> None:
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


def test_an_inner_realm_has_its_own_definitions_while_it_exists(
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


def test_a_changed_card_does_not_drop_definitions(web: Web, site: Realm, builds: list[str]) -> None:
    told(ask(web, "thing"))
    make.write(site, index__json=make.card("./post", "Post", title="Other"))
    told(ask(web, "thing"))
    assert builds == [f"{SITE}thing.tsx"]


def test_a_published_realm_has_the_definitions_of_its_published_files(
    web: Web, site: Realm
) -> None:
    make.publish(site, PAGE)
    assert fields(web, "person", "Person", PAGE) == {"name"}
    make.write(site, person__tsx=make.PERSON_MODULE.replace("name:", "called:").encode())
    assert fields(web, "person", "Person") == {"called"}
    assert fields(web, "person", "Person", PAGE) == {"name"}
    make.publish(site, PAGE)
    assert fields(web, "person", "Person", PAGE) == {"called"}
    assert fields(web, f"{SITE}person", "Person", PAGE) == {"called"}, "another realm's module"


def test_a_module_imported_by_a_computed_name_is_a_dependency(
    web: Web, site: Realm, builds: list[str]
) -> None:
    module = """\
import { Card, string } from "@realm/base";
const { names } = await import("./na" + "mes.ts");
export class Odd extends Card {
  static fields = Object.fromEntries(names.map((name) => [name, string()]));
}
"""
    make.write(site, odd__tsx=module.encode(), names__ts=b'export const names = ["one"];')
    for _ in range(3):
        assert fields(web, "odd", "Odd", SITE) == {"one"}
    # The first build finds the import. The definitions of the second build are stored.
    assert len(builds) == 2
    make.write(site, names__ts=b'export const names = ["two"];')
    assert fields(web, "odd", "Odd", SITE) == {"two"}


def test_imports_of_random_names_cause_no_further_builds_and_rows(
    web: Web, site: Realm, builds: list[str]
) -> None:
    module = """\
import { Card } from "@realm/base";
await import("./" + Math.random() + ".ts").catch(() => null);
export class Odd extends Card {}
"""
    make.write(site, odd__tsx=module.encode())
    told(ask(web, "odd"))
    rows = CacheGeneration.objects.count()
    told(ask(web, "odd"))
    assert (len(builds), CacheGeneration.objects.count()) == (2, rows)
