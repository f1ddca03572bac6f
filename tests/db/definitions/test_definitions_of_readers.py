"""Tests that a definition, which describes an export of a module, is returned only to users who may
read all content that it was made from."""

from dataclasses import replace

import pytest
from django.db import IntegrityError

from definitions.entries import BuildResult, DefinitionCacheEntryQuery, ModuleLocation
from definitions.lookup import DefinitionLookup
from definitions.models import Definition
from tests.support.data.builds import Builds

REALM = "http://localhost:4201/ada/site/"
POST = f"{REALM}post.tsx"

pytestmark = pytest.mark.django_db(transaction=True)

LIBRARY = "http://localhost:4201/bo/library/"


class Private(Builds):
    """A fake builder that reports every module as made from private content."""

    def locate(self, module_url: str) -> ModuleLocation | None:
        located = super().locate(module_url)
        return replace(located, private=True) if located else None


def test_a_definition_built_for_a_user_is_returned_to_that_user_only() -> None:
    ada, bob = (DefinitionLookup(Private(), name) for name in ("ada", "bob"))
    ada.lookup_module(POST)
    assert ada.get_cached_definitions(POST) is None, "everyone gets ada's definition"
    for name, found in (("ada", {POST}), ("bob", set()), ("", set())):
        query = DefinitionCacheEntryQuery((POST,), Definition.Scope.REALM_AUTH, name)
        assert set(DefinitionLookup().get_cached_definitions_batch(query)) == found
    entry = bob.lookup_module(POST)
    assert entry is not None
    assert entry.scope == "realm-auth"
    rows = Definition.objects.values_list("scope", "reader").order_by("reader")
    assert list(rows) == [("realm-auth", "ada"), ("realm-auth", "bob")]
    DefinitionLookup().invalidate(POST)
    assert not Definition.objects.exists()


def test_a_build_that_read_private_content_is_not_stored_as_public() -> None:
    """The realm becomes private after the lookup has located the module and before the build."""

    class TurnedPrivate(Builds):
        def build(self, located: ModuleLocation) -> BuildResult:
            return replace(super().build(located), private=True)

    entry = DefinitionLookup(TurnedPrivate(), "ada").lookup_module(POST)
    assert entry is not None
    assert entry.definitions
    assert not Definition.objects.exists()


def test_a_row_from_a_realm_that_its_reader_may_no_longer_read_is_rebuilt() -> None:
    lookup = DefinitionLookup(Builds(realms=(LIBRARY,)))
    lookup.lookup_module(POST)
    builds = Builds()
    entry = DefinitionLookup(builds).lookup_module(POST)
    assert entry is not None
    assert entry.realms == (REALM,)
    assert builds.count == 1
    assert Definition.objects.get().realm_urls == [REALM]


@pytest.mark.parametrize(("scope", "reader"), [("public", "ada"), ("realm-auth", "")])
def test_the_database_refuses_a_definition_whose_scope_and_reader_disagree(
    scope: str, reader: str
) -> None:
    DefinitionLookup(Builds()).lookup_module(POST)
    with pytest.raises(IntegrityError, match="definition_is_everyones_or_somebodys"):
        Definition.objects.update(scope=scope, reader=reader)
