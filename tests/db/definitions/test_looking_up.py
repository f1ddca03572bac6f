"""Tests that a definition, which describes an export of a module, is built once. Concurrent callers
share the build, and later callers read the stored result."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from definitions.entries import CodeRef, DefinitionCacheEntryQuery, DefinitionNotFound
from definitions.lookup import DefinitionLookup
from definitions.models import Definition
from realms.publishing.bootstrap import sync_base_realm
from reindex.prerender.module_builder import ModuleBuilder
from tests.support import make
from tests.support.data.builds import Builds
from tests.support.web import Web

REALM = "http://localhost:4201/ada/site/"
POST = f"{REALM}post.tsx"
PERSON = f"{REALM}person.tsx"

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_definition_is_built_once_and_then_read_from_the_table() -> None:
    builds = Builds()
    lookup = DefinitionLookup(builds)
    assert lookup.lookup_definition(CodeRef(POST, "Post")) == {"displayName": "build 1"}
    assert lookup.lookup_definition(CodeRef(POST, "Post")) == {"displayName": "build 1"}
    assert lookup.lookup_cached_definition(CodeRef(POST, "Post")) == {"displayName": "build 1"}
    assert builds.count == 1
    batch = lookup.get_cached_definitions_batch(DefinitionCacheEntryQuery((POST, PERSON)))
    assert batch.keys() == {POST}


def test_a_stored_entry_equals_the_entry_of_its_build() -> None:
    other = "http://localhost:4201/bob/other/"
    lookup = DefinitionLookup(Builds(depends=(PERSON,), realms=(other,)))
    built = lookup.lookup_module(POST)
    assert built is not None
    assert (built.dependencies, built.realms) == ((PERSON,), (REALM, other))
    assert lookup.get_cached_definitions(POST) == built


def test_a_name_that_the_module_does_not_export_is_not_found() -> None:
    lookup = DefinitionLookup(Builds())
    with pytest.raises(DefinitionNotFound, match=r"post\.tsx exports no card named Nope"):
        lookup.lookup_definition(CodeRef(POST, "Nope"))
    with pytest.raises(DefinitionNotFound):
        lookup.lookup_definition(CodeRef(f"{REALM}missing.tsx", "Post"))


def test_concurrent_callers_of_two_lookups_share_one_build(in_thread: Any) -> None:
    """The elected caller builds, and all callers get its result."""
    builds = Builds()
    builds.go_on.clear()
    found: list[Any] = []
    # Two lookups share no memory, like two processes. So a row of the database decides which caller
    # builds.
    lookups = [DefinitionLookup(builds), DefinitionLookup(builds)]
    threads = [
        in_thread(lambda lookup=lookup: found.append(lookup.lookup_module(POST)))
        for lookup in lookups * 4
    ]
    assert builds.begun.wait(20)
    builds.go_on.set()
    for thread in threads:
        thread.join(20)
    assert builds.count == 1
    assert {entry.definitions["Post"]["displayName"] for entry in found} == {"build 1"}
    assert len(found) == 8


def test_an_error_is_kept_for_half_a_minute_and_then_built_again() -> None:
    builds = Builds(error={"status": 500, "message": "it threw"})
    lookup = DefinitionLookup(builds)
    with pytest.raises(DefinitionNotFound) as first:
        lookup.lookup_definition(CodeRef(POST, "Post"))
    assert first.value.error == {"status": 500, "message": "it threw"}
    lookup.lookup_module(POST)
    assert builds.count == 1
    row = Definition.objects.get()
    assert row.expires_at is not None
    assert timedelta(seconds=25) < row.expires_at - timezone.now() <= timedelta(seconds=30)
    Definition.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    lookup.lookup_module(POST)
    assert builds.count == 2


LIBRARY = "http://localhost:4201/bo/library/"


def test_a_real_build_has_fields_and_ancestors_of_several_realms(
    web: Web, owner: Any, sent: Any
) -> None:
    sync_base_realm()
    library = make.source(LIBRARY, owner, {"thing.tsx": THING.encode()})
    make.source(PRIVATE, owner, {"thing.tsx": THING.encode()}, public=False)
    site = make.source(REALM, owner, {
        "post.tsx": POST_OF_THINGS.encode(),
        "broken.tsx": b"export class Broken extends {",
        "throws.tsx": b'throw new Error("not today");',
        "label.ts": b'export const label = "one";',
    })  # fmt: skip
    make.publish(site, PUBLISHED)
    module = f"{PUBLISHED}post.tsx"

    lookup = DefinitionLookup(ModuleBuilder())
    post = lookup.lookup_definition(CodeRef(f"{PUBLISHED}post", "Post"))
    assert post["displayName"] == "one"
    assert post["codeRef"] == {"module": module, "name": "Post"}
    assert list(post["fields"]) == ["size", "title"]
    assert [ancestor["name"] for ancestor in post["adoptionChain"]] == ["Thing", "Card"]
    assert post["adoptionChain"][0]["module"] == f"{LIBRARY}thing.tsx"
    row = Definition.objects.get(module_url=module)
    assert {f"{LIBRARY}thing.tsx", f"{PUBLISHED}label.ts"} <= set(row.dependencies)
    assert row.realm_urls == sorted([PUBLISHED, LIBRARY, "http://localhost:4201/base/"])

    for name, says in (("broken", "broken.tsx"), ("throws", "not today")):
        with pytest.raises(DefinitionNotFound) as failure:
            lookup.lookup_definition(CodeRef(f"{PUBLISHED}{name}.tsx", "X"))
        assert failure.value.error is not None
        assert says in failure.value.error["message"]
        assert Definition.objects.get(module_url=f"{PUBLISHED}{name}.tsx").expires_at is not None
    assert lookup.lookup_module(f"{PUBLISHED}nowhere") is None
    assert lookup.lookup_module(f"{PRIVATE}thing.tsx") is None

    make.write(site, label__ts=b'export const label = "two";')
    assert lookup.lookup_definition(CodeRef(module, "Post"))["displayName"] == "one"
    make.publish(site, PUBLISHED)
    assert not Definition.objects.filter(realm_url=PUBLISHED).exists()
    assert lookup.lookup_definition(CodeRef(module, "Post"))["displayName"] == "two"

    make.write(library, thing__tsx=THING.replace("size", "weight").encode())
    lookup.invalidate(f"{LIBRARY}thing")
    assert list(lookup.lookup_definition(CodeRef(module, "Post"))["fields"]) == ["weight", "title"]


PRIVATE = "http://localhost:4201/bo/private/"
PUBLISHED = "http://ada.localhost:4201/"
THING = """\
import { Card, number } from "@realm/base";
export class Thing extends Card { static fields = { size: number() }; }
"""
POST_OF_THINGS = f"""\
import {{ string }} from "@realm/base";
import {{ Thing }} from "{LIBRARY}thing";
import {{ label }} from "./label.ts";
export class Post extends Thing {{
  static displayName = label;
  static fields = {{ title: string() }};
}}
"""
