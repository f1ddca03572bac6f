"""Definitions: what an invalidation empties stays empty of whatever was begun before it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from definitions.entries import (
    BuildResult,
    CodeRef,
    DefinitionCacheEntryQuery,
    DefinitionNotFound,
    ModuleLocation,
)
from definitions.extensions import MODULE_ENDINGS
from definitions.lookup import DefinitionLookup
from definitions.models import CacheGeneration, Definition
from notifications import election
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    PAYLOAD_BUDGET,
    board_keys,
    definitions_key,
)
from notifications.listener import listen_connection
from realms.publishing.bootstrap import sync_base_realm
from reindex.prerender.module_builder import ModuleBuilder
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.web import Web

REALM = "http://localhost:4201/ada/site/"
POST = f"{REALM}post.tsx"
PERSON = f"{REALM}person.tsx"

pytestmark = pytest.mark.django_db(transaction=True)


class Builds:
    """A builder whose builds can be held, and are counted."""

    def __init__(
        self,
        error: dict[str, Any] | None = None,
        depends: tuple[str, ...] = (),
        realms: tuple[str, ...] = (),
    ) -> None:
        self.count = 0
        self._realms = realms
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self._error, self._depends = error, depends

    def locate(self, module_url: str) -> ModuleLocation | None:
        if "missing" in module_url:
            return None
        return ModuleLocation(module_url, REALM, 1, self._depends, self._realms)

    def build(self, located: ModuleLocation) -> BuildResult:
        self.count += 1
        self.begun.set()
        assert self.go_on.wait(20)
        found = None if self._error else {"Post": {"displayName": f"build {self.count}"}}
        return BuildResult(found, self._error, self._depends)


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], Any]], threading.Thread]]:
    """Runs something in a thread with a database connection of its own."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            finally:
                connection.close()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(20)


def test_a_definition_is_built_once_and_then_found_in_the_table() -> None:
    builds = Builds()
    lookup = DefinitionLookup(builds)
    assert lookup.lookup_definition(CodeRef(POST, "Post")) == {"displayName": "build 1"}
    assert lookup.lookup_definition(CodeRef(POST, "Post")) == {"displayName": "build 1"}
    assert lookup.lookup_cached_definition(CodeRef(POST, "Post")) == {"displayName": "build 1"}
    assert builds.count == 1
    batch = lookup.get_cached_definitions_batch(DefinitionCacheEntryQuery((POST, PERSON)))
    assert batch.keys() == {POST}


def test_a_name_that_no_module_exports_is_not_found() -> None:
    lookup = DefinitionLookup(Builds())
    with pytest.raises(DefinitionNotFound, match=r"post\.tsx exports no card named Nope"):
        lookup.lookup_definition(CodeRef(POST, "Nope"))
    with pytest.raises(DefinitionNotFound):
        lookup.lookup_definition(CodeRef(f"{REALM}missing.tsx", "Post"))


@pytest.mark.parametrize("what", ["realm", "module", "global"])
def test_a_build_begun_before_an_invalidation_is_refused_by_the_database(
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


def test_another_realms_invalidation_lets_a_build_be_stored(in_thread: Any) -> None:
    builds = Builds()
    builds.go_on.clear()
    early = in_thread(lambda: DefinitionLookup(builds).lookup_module(POST))
    assert builds.begun.wait(20)
    DefinitionLookup().clear_realm_definitions("http://localhost:4201/bo/site/")
    builds.go_on.set()
    early.join(20)
    assert Definition.objects.get().module_url == POST


def test_nobody_can_insert_a_row_that_was_built_on_older_counters() -> None:
    """The database itself turns late rows away, whoever brings them."""
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


def test_callers_of_two_lookups_at_once_share_one_build(in_thread: Any) -> None:
    """One is elected and builds; the work of the others never runs, and all get its result."""
    builds = Builds()
    builds.go_on.clear()
    found: list[Any] = []
    # Two lookups know nothing of each other, as in two processes: the database elects.
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


def test_invalidating_a_module_drops_its_transitive_dependents() -> None:
    chain = [f"{REALM}{name}.tsx" for name in ("base", "middle", "top")]
    for module, depends in zip(chain, [(), (chain[0],), (chain[1],)], strict=True):
        DefinitionLookup(Builds(depends=depends)).lookup_module(module)
    DefinitionLookup(Builds()).lookup_module(POST)
    dropped = DefinitionLookup().invalidate(f"{REALM}base")
    assert set(chain) <= set(dropped)
    assert list(Definition.objects.values_list("module_url", flat=True)) == [POST]


def test_what_is_cleared_is_told_to_every_replica() -> None:
    """A module with all its spellings, a realm, or everything: one announcement each."""
    with listen_connection() as peer:
        peer.execute("LISTEN definition_cache_invalidated")
        DefinitionLookup().clear_realm_definitions(REALM)
        DefinitionLookup().invalidate(POST)
        DefinitionLookup().clear_all_definitions()
        told = [note.payload for note in peer.notifies(timeout=10, stop_after=3)]
    assert told[0] == f'{{"k": "realm", "r": "{REALM}"}}'
    assert POST in told[1] and f"{REALM}post.ts" in told[1]
    assert told[2] == '{"k": "global"}'


def test_a_clear_that_is_rolled_back_empties_nothing_and_tells_nobody() -> None:
    DefinitionLookup(Builds()).lookup_module(POST)
    with listen_connection() as peer:
        peer.execute("LISTEN definition_cache_invalidated")
        with pytest.raises(RuntimeError), transaction.atomic():
            DefinitionLookup().clear_realm_definitions(REALM)
            raise RuntimeError
        assert Definition.objects.count() == 1
        assert not _anything(peer)


def _anything(peer: "psycopg.Connection[Any]") -> list[Any]:
    """What has been delivered up to a notification that is sent now."""
    with connection.cursor() as cursor:
        cursor.execute("NOTIFY definition_cache_invalidated, 'the end'")
    told = []
    for note in peer.notifies(timeout=10):
        if note.payload == "the end":
            break
        told.append(note.payload)
    return told


# --- What a module is made from ----------------------------------------------------------------

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
def test_a_build_that_read_what_was_invalidated_meanwhile_is_not_stored(
    invalidate: Callable[[DefinitionLookup], None], in_thread: Any
) -> None:
    builds = Builds(depends=(PERSON, LABEL), realms=(LIBRARY,))
    builds.go_on.clear()
    found: list[Any] = []
    early = in_thread(lambda: found.append(DefinitionLookup(builds).lookup_module(POST)))
    assert builds.begun.wait(20)
    # No row says yet that the post was made from the label.
    invalidate(DefinitionLookup())
    builds.go_on.set()
    early.join(20)
    assert found[0].definitions == {"Post": {"displayName": "build 1"}}
    assert not Definition.objects.exists()
    DefinitionLookup(builds).lookup_module(POST)
    assert Definition.objects.get().definitions == {"Post": {"displayName": "build 2"}}


def test_a_build_that_found_further_imports_answers_and_is_not_stored() -> None:
    class Grown(Builds):
        def build(self, located: ModuleLocation) -> BuildResult:
            return replace(super().build(located), dependencies=(LABEL,))

    entry = DefinitionLookup(Grown()).lookup_module(POST)
    assert entry is not None
    assert entry.dependencies == (LABEL,)
    assert not Definition.objects.exists()


def test_clearing_a_realm_drops_what_other_realms_have_built_from_it() -> None:
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
def test_a_module_is_invalidated_under_any_of_its_names(spelling: str) -> None:
    """Its spellings with and without an extension go together."""
    for module in (POST, PERSON):
        DefinitionLookup(Builds()).lookup_module(module)
    dropped = DefinitionLookup().invalidate(REALM + spelling)
    assert set(dropped) == {REALM + name for name in POST_SPELLINGS}
    assert Definition.objects.get().module_url == PERSON


POST_SPELLINGS = ("post", "post.tsx", "post.ts", "post.jsx", "post.js")


# --- Builds under way --------------------------------------------------------------------------


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads that have waited for one that builds."""
    seen: set[int] = set()
    wait = election.wait

    def noted() -> None:
        seen.add(threading.get_ident())
        wait()

    monkeypatch.setattr(election, "wait", noted)
    return seen


INVALIDATIONS: dict[str, Callable[[], object]] = {
    "the module": lambda: DefinitionLookup().invalidate(POST),
    "what it imports": lambda: DefinitionLookup().invalidate(LABEL),
    "its realm": lambda: DefinitionLookup().clear_realm_definitions(REALM),
    "a realm it imports from": lambda: DefinitionLookup().clear_realm_definitions(LIBRARY),
    "everything": lambda: DefinitionLookup().clear_all_definitions(),
}


@pytest.mark.parametrize("what", INVALIDATIONS)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_caller_after_an_invalidation_gets_no_load_begun_before_it(
    what: str, processes: int, in_thread: Any, waiting: set[int]
) -> None:
    """In the same process and in another; who came before it keeps what they had asked for."""
    builds = Builds(depends=(LABEL,), realms=(LIBRARY,))
    builds.go_on.clear()
    # Two lookups know nothing of each other, as in two processes.
    first = DefinitionLookup(builds)
    second = first if processes == 1 else DefinitionLookup(builds)
    early: list[Any] = []
    late: list[Any] = []
    in_thread(lambda: early.append(first.lookup_module(POST)))
    assert builds.begun.wait(20)
    INVALIDATIONS[what]()
    thread = in_thread(lambda: late.append(second.lookup_module(POST)))
    wait_until(lambda: waiting, "the late one waiting for an election of its own")
    builds.go_on.set()
    thread.join(20)
    assert late[0].definitions == {"Post": {"displayName": "build 2"}}
    wait_until(lambda: early, "the early one's answer")
    assert early[0].definitions == {"Post": {"displayName": "build 1"}}
    assert Definition.objects.get().definitions == late[0].definitions
    assert builds.count == 2


def test_waiters_share_one_build_of_a_module_with_new_imports(
    in_thread: Any, waiting: set[int]
) -> None:
    """What they had found before they waited is not all that it is made from by now."""

    class Growing(Builds):
        grown = False

        def locate(self, module_url: str) -> ModuleLocation | None:
            located = super().locate(module_url)
            assert located is not None
            return replace(located, dependencies=(LABEL,) if self.grown else ())

        def build(self, located: ModuleLocation) -> BuildResult:
            return replace(super().build(located), dependencies=located.dependencies)

    builds = Growing()
    builds.go_on.clear()
    found: list[Any] = []

    def look() -> None:
        found.append(DefinitionLookup(builds).lookup_module(POST))

    threads = [in_thread(look)]
    assert builds.begun.wait(20)
    threads += [in_thread(look) for _ in range(6)]
    wait_until(lambda: len(waiting) == 6, "six waiting")
    builds.grown = True
    DefinitionLookup().invalidate(POST)
    builds.go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(found) == 7
    assert builds.count == 2
    assert Definition.objects.get().dependencies == [LABEL]


def test_a_module_that_never_stands_still_is_answered_all_the_same() -> None:
    class Restless(Builds):
        def locate(self, module_url: str) -> ModuleLocation | None:
            located = super().locate(module_url)
            assert located is not None
            self.looks = getattr(self, "looks", 0) + 1
            return replace(located, dependencies=(f"{REALM}{self.looks}.ts",))

    builds = Restless()
    entry = DefinitionLookup(builds).lookup_module(POST)
    assert entry is not None
    assert entry.definitions == {"Post": {"displayName": "build 1"}}
    assert not Definition.objects.exists()


# --- Whose a row is ----------------------------------------------------------------------------


class Private(Builds):
    """Builds of a module that is made from what only some may read."""

    def locate(self, module_url: str) -> ModuleLocation | None:
        located = super().locate(module_url)
        return replace(located, private=True) if located else None


def test_what_is_built_for_a_user_answers_that_user_alone() -> None:
    ada, bob = (DefinitionLookup(Private(), name) for name in ("ada", "bob"))
    ada.lookup_module(POST)
    assert ada.get_cached_definitions(POST) is None, "it is not everyone's"
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


def test_a_build_that_read_more_than_everyone_may_is_never_everyones() -> None:
    """A realm that ceases to be public between the look at it and the build."""

    class TurnedPrivate(Builds):
        def build(self, located: ModuleLocation) -> BuildResult:
            return replace(super().build(located), private=True)

    entry = DefinitionLookup(TurnedPrivate(), "ada").lookup_module(POST)
    assert entry is not None
    assert entry.definitions
    assert not Definition.objects.exists()


def test_a_row_from_a_realm_that_its_reader_lost_is_built_again() -> None:
    lookup = DefinitionLookup(Builds(realms=(LIBRARY,)))
    lookup.lookup_module(POST)
    builds = Builds()
    entry = DefinitionLookup(builds).lookup_module(POST)
    assert entry is not None
    assert entry.realms == (REALM,)
    assert builds.count == 1
    assert Definition.objects.get().realm_urls == [REALM]


@pytest.mark.parametrize(("scope", "reader"), [("public", "ada"), ("realm-auth", "")])
def test_the_database_refuses_a_permission_without_account_or_audience(
    scope: str, reader: str
) -> None:
    DefinitionLookup(Builds()).lookup_module(POST)
    with pytest.raises(IntegrityError, match="definition_is_everyones_or_somebodys"):
        Definition.objects.update(scope=scope, reader=reader)


# --- Telling of many ---------------------------------------------------------------------------


def test_dependents_of_a_module_are_announced_within_the_payload_budget() -> None:
    """Directly or not, in whatever realm: each URL once, and Postgres refuses none of it."""
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
        payloads = _anything(peer)
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


# --- Real builds -------------------------------------------------------------------------------


def test_a_real_build_tells_fields_and_ancestors_across_modules_and_realms(
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
