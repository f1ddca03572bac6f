"""Tests invalidations of definitions, which describe the exports of modules. The result of a build
that began before an invalidation isn't stored, and every replica is notified of the
invalidation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, transaction

from definitions.entries import BuildResult, ModuleLocation
from definitions.extensions import MODULE_ENDINGS
from definitions.lookup import DefinitionLookup
from definitions.models import CacheGeneration, Definition
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    PAYLOAD_BUDGET,
    board_keys,
    definitions_key,
)
from notifications.listener import listen_connection
from tests.support.data.builds import Builds, announced

REALM = "http://localhost:4201/ada/site/"
POST = f"{REALM}post.tsx"
PERSON = f"{REALM}person.tsx"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("what", ["realm", "module", "global"])
def test_the_database_refuses_a_build_begun_before_an_invalidation(
    what: str, in_thread: Any
) -> None:
    builds = Builds()
    builds.go_on.clear()
    early = in_thread(lambda: DefinitionLookup(builds).lookup_module(POST))
    assert builds.begun.wait(20)
    if what == "realm":
        DefinitionLookup().clear_realm_definitions(REALM)
    elif what == "module":
        DefinitionLookup().invalidate(POST)
    else:
        DefinitionLookup().clear_all_definitions()
    builds.go_on.set()
    early.join(20)
    assert not Definition.objects.exists()


def test_a_build_is_stored_despite_an_invalidation_of_another_realm(in_thread: Any) -> None:
    builds = Builds()
    builds.go_on.clear()
    early = in_thread(lambda: DefinitionLookup(builds).lookup_module(POST))
    assert builds.begun.wait(20)
    DefinitionLookup().clear_realm_definitions("http://localhost:4201/bo/site/")
    builds.go_on.set()
    early.join(20)
    assert Definition.objects.get().module_url == POST


def test_a_row_that_was_built_on_older_counters_cannot_be_inserted() -> None:
    """A row holds the values that its counters had before its build. If a counter has changed since
    then, the database doesn't insert the row, even if the INSERT is plain SQL."""
    DefinitionLookup(Builds()).lookup_module(POST)
    CacheGeneration.objects.filter(scope="realm", key=REALM).update(generation=7)
    CacheGeneration.objects.create(scope="module", key=PERSON)
    names = [str(field.column) for field in Definition._meta.fields]
    shared = ", ".join(name for name in names if name not in ("id", "module_url"))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO definitions (module_url, {shared}) SELECT %s, {shared} FROM definitions",
            [PERSON],
        )
        assert cursor.rowcount == 0
    assert not Definition.objects.filter(module_url=PERSON).exists()


def test_invalidating_a_module_drops_its_transitive_dependents() -> None:
    chain = [f"{REALM}{name}.tsx" for name in ("base", "middle", "top")]
    for module, depends in zip(chain, [(), (chain[0],), (chain[1],)], strict=True):
        DefinitionLookup(Builds(depends=depends)).lookup_module(module)
    DefinitionLookup(Builds()).lookup_module(POST)
    dropped = DefinitionLookup().invalidate(f"{REALM}base")
    assert set(chain) <= set(dropped)
    assert list(Definition.objects.values_list("module_url", flat=True)) == [POST]


def test_every_replica_is_notified_of_a_clear() -> None:
    """Clearing a realm, invalidating a module and clearing all definitions send one notification
    each. The notification of a module contains all spellings of the module's URL, which differ in
    their endings."""
    with listen_connection() as peer:
        peer.execute("LISTEN definition_cache_invalidated")
        DefinitionLookup().clear_realm_definitions(REALM)
        DefinitionLookup().invalidate(POST)
        DefinitionLookup().clear_all_definitions()
        told = [note.payload for note in peer.notifies(timeout=10, stop_after=3)]
    assert told[0] == f'{{"k": "realm", "r": "{REALM}"}}'
    assert POST in told[1] and f"{REALM}post.ts" in told[1]
    assert told[2] == '{"k": "global"}'


def test_a_clear_that_is_rolled_back_drops_and_announces_nothing() -> None:
    DefinitionLookup(Builds()).lookup_module(POST)
    with listen_connection() as peer:
        peer.execute("LISTEN definition_cache_invalidated")
        with pytest.raises(RuntimeError), transaction.atomic():
            DefinitionLookup().clear_realm_definitions(REALM)
            raise RuntimeError
        assert Definition.objects.count() == 1
        assert not announced(peer)


LIBRARY = "http://localhost:4201/bo/library/"
LABEL = f"{LIBRARY}label.ts"


@pytest.mark.parametrize(
    "invalidate",
    [
        lambda lookup: lookup.invalidate(LABEL),
        lambda lookup: lookup.invalidate(f"{LIBRARY}label"),
        lambda lookup: lookup.clear_realm_definitions(LIBRARY),
    ],
    ids=["module", "another spelling", "realm"],
)
def test_a_build_whose_import_was_invalidated_meanwhile_is_not_stored(
    invalidate: Callable[[DefinitionLookup], None], in_thread: Any
) -> None:
    builds = Builds(depends=(PERSON, LABEL), realms=(LIBRARY,))
    builds.go_on.clear()
    found: list[Any] = []
    early = in_thread(lambda: found.append(DefinitionLookup(builds).lookup_module(POST)))
    assert builds.begun.wait(20)
    # No row records yet that the post depends on the label, because the build hasn't ended.
    invalidate(DefinitionLookup())
    builds.go_on.set()
    early.join(20)
    assert found[0].definitions == {"Post": {"displayName": "build 1"}}
    assert not Definition.objects.exists()
    DefinitionLookup(builds).lookup_module(POST)
    assert Definition.objects.get().definitions == {"Post": {"displayName": "build 2"}}


@pytest.mark.parametrize(
    ("imports", "worth_repeating", "builds", "stored"),
    [
        ([(LABEL,)], True, 2, True),
        ([(LABEL,), (f"{LABEL}2",)], True, 2, False),
        ([(LABEL,)], False, 1, False),
    ],
    ids=["the same import at each build", "another import at each build", "a missing import"],
)
def test_a_build_that_found_new_imports_is_repeated_once(
    imports: list[tuple[str, ...]], worth_repeating: bool, builds: int, stored: bool
) -> None:
    class Grown(Builds):
        def build(self, located: ModuleLocation) -> BuildResult:
            built = super().build(located)
            dependencies = imports[min(self.count, len(imports)) - 1]
            return replace(built, dependencies=dependencies, worth_repeating=worth_repeating)

    builder = Grown()
    entry = DefinitionLookup(builder).lookup_module(POST)
    assert entry is not None
    assert (entry.dependencies, builder.count) == (imports[-1], builds)
    assert Definition.objects.exists() is stored


def test_clearing_a_realm_drops_definitions_of_others_that_read_it() -> None:
    for module, realms in ((POST, (LIBRARY,)), (PERSON, ("http://localhost:4201/base/",))):
        DefinitionLookup(Builds(realms=realms)).lookup_module(module)
    DefinitionLookup().clear_realm_definitions(LIBRARY)
    assert list(Definition.objects.values_list("module_url", flat=True)) == [PERSON]
    DefinitionLookup().clear_realm_definitions(REALM)
    assert not Definition.objects.exists()


def test_a_build_does_not_wait_for_a_clear_that_has_not_committed(in_thread: Any) -> None:
    builds = Builds(depends=(LABEL,), realms=(LIBRARY,))
    builds.go_on.clear()
    found: list[Any] = []
    early = in_thread(lambda: found.append(DefinitionLookup(builds).lookup_module(POST)))
    assert builds.begun.wait(20)
    with pytest.raises(RuntimeError), transaction.atomic():
        DefinitionLookup().clear_realm_definitions(LIBRARY)
        builds.go_on.set()
        early.join(20)
        assert not early.is_alive()
        assert found
        raise RuntimeError
    assert not Definition.objects.exists()


@pytest.mark.parametrize("spelling", ["post", "post.tsx", "post.ts", "post.jsx", "post.js"])
def test_any_spelling_of_a_module_invalidates_it(spelling: str) -> None:
    """Whichever spelling of the module's URL is given, all spellings are invalidated."""
    for module in (POST, PERSON):
        DefinitionLookup(Builds()).lookup_module(module)
    dropped = DefinitionLookup().invalidate(REALM + spelling)
    assert set(dropped) == {REALM + name for name in POST_SPELLINGS}
    assert Definition.objects.get().module_url == PERSON


POST_SPELLINGS = ("post", "post.tsx", "post.ts", "post.jsx", "post.js")


def test_dependents_of_a_module_are_announced_within_the_payload_budget() -> None:
    """Each module that depends on the invalidated module, directly or not and in any realm, is
    announced once. No notification is too long for Postgres."""
    far = "http://localhost:4201/bo/far/"
    first = [f"{REALM}{'x' * 80}-{number}.tsx" for number in range(150)]
    second = [f"{far}{'y' * 80}-{number}.tsx" for number in range(150)]
    DefinitionLookup(Builds()).lookup_module(LABEL)
    one = Definition.objects.get()
    CacheGeneration.objects.bulk_create(
        CacheGeneration(scope="module", key=url) for url in first + second
    )
    chain = [*((url, LABEL) for url in first), *zip(second, first, strict=True)]
    Definition.objects.bulk_create(
        Definition(
            module_url=url,
            realm_url=one.realm_url,
            dependencies=[made_from],
            definitions={},
            global_generation=one.global_generation,
            realm_generation=one.realm_generation,
            module_generation=0,
            built_at=one.built_at,
            build_ms=1,
        )
        for url, made_from in chain
    )
    assert Definition.objects.count() == 301
    with listen_connection() as peer:
        peer.execute("LISTEN definition_cache_invalidated")
        dropped = DefinitionLookup().invalidate(f"{LIBRARY}label")
        payloads = announced(peer)
    assert len(payloads) > 3
    assert max(len(payload.encode()) for payload in payloads) <= PAYLOAD_BUDGET
    told = [
        key
        for payload in payloads
        for key in board_keys(DEFINITION_CACHE_INVALIDATED, payload) or ()
    ]
    assert sorted(told) == sorted(definitions_key("module", url) for url in dropped)
    assert set(dropped) == {*first, *second, *(LIBRARY + f"label{e}" for e in MODULE_ENDINGS)}
    assert not Definition.objects.exists()
